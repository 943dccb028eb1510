"""What is learned from: examples, bags of chosen rows, picture sizes, reading a catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shelver.catalog.store import Catalog
from shelver.errors import ConfigError
from shelver.ngrams import NgramSpec, Vocabulary
from shelver.pipeline import Embedding
from shelver.product import TextSpec
from shelver.train.config import load_config
from shelver.train.data import Examples, Features, choose_image_spec, read_examples

UNKNOWN = np.full(10, np.nan, np.float32)


def vocabulary(texts: list[str]) -> Vocabulary:
    return Vocabulary.fit(texts, NgramSpec(), min_count=1, max_features=10_000)


def test_taking_rows_gives_their_bags_in_the_order_asked_for() -> None:
    texts = ["oak chair", "", "lamp", "a pine table", "lamp lamp"]
    weighed = vocabulary(texts).weigh(texts)
    rows = np.array([3, 1, 0, 3, 4])
    taken = weighed.rows(rows)
    assert len(taken) == 5
    for i, row in enumerate(rows):
        there = slice(weighed.offsets[row], weighed.offsets[row + 1])
        here = slice(taken.offsets[i], taken.offsets[i + 1])
        assert taken.ids[here].tolist() == weighed.ids[there].tolist()
        assert taken.weights[here].tolist() == weighed.weights[there].tolist()
    assert len(weighed.rows(np.zeros(0, np.intp))) == 0


def test_features_are_usable_where_the_model_finds_something_it_reads() -> None:
    image = Embedding(np.ones((4, 2), np.float32), np.array([True, False, False, True]))
    examples = Examples(["oak", None, "pine", None], image, np.zeros(4, np.int32), UNKNOWN[:4])
    known = vocabulary(["oak", "pine"])
    assert Features.of(examples, known).usable().tolist() == [0, 2, 3]
    assert Features.of(examples, None).usable().tolist() == [0, 3]
    text_only = Examples(examples.texts, None, examples.node, examples.value)
    assert Features.of(text_only, known).usable().tolist() == [0, 2]
    frozen = Examples(examples.texts, None, examples.node, examples.value, np.ones((4, 3), np.float16))
    assert Features.of(frozen, None).usable().tolist() == [0, 2]
    assert Features.of(text_only, None).usable().tolist() == []


def test_an_empty_vocabulary_is_still_one() -> None:
    examples = Examples(["🎉", None], None, np.zeros(2, np.int32), UNKNOWN[:2])
    features = Features.of(examples, vocabulary(["🎉"]))
    assert features.ngrams is not None
    assert features.ngrams.offsets.tolist() == [0, 0, 0]
    assert features.usable().tolist() == [0]


def test_two_sets_of_examples_add_up() -> None:
    def some(n: int, value: float) -> Examples:
        image = Embedding(np.full((n, 2), value, np.float32), np.ones(n, np.bool_))
        frozen = np.full((n, 3), value, np.float16)
        node, worth = np.full(n, int(value), np.int32), np.full(n, value, np.float32)
        return Examples([f"t{value}"] * n, image, node, worth, frozen)

    total = some(2, 1) + some(3, 2)
    assert len(total) == 5
    assert total.node.tolist() == [1, 1, 2, 2, 2]
    assert total.texts == ["t1"] * 2 + ["t2"] * 3
    assert total.image is not None
    assert total.image.values[:, 0].tolist() == [1, 1, 2, 2, 2]
    assert total.value.tolist() == [1, 1, 2, 2, 2]
    assert total.frozen is not None
    assert total.frozen[:, 0].tolist() == [1, 1, 2, 2, 2]
    bare = [Examples([text], None, np.zeros(1, np.int32), UNKNOWN[:1]) for text in ("a", "b")]
    assert (bare[0] + bare[1]).image is None
    assert (bare[0] + bare[1]).frozen is None


def test_some_rows_of_examples_are_those_rows_of_everything_in_that_order() -> None:
    image = Embedding(np.arange(8, dtype=np.float32).reshape(4, 2), np.array([True, False, True, True]))
    frozen = np.arange(4, dtype=np.float16)[:, None]
    whole = Examples(["a", "b", None, "d"], image, np.arange(4, dtype=np.int32), UNKNOWN[:4], frozen)
    some = whole.rows(np.array([2, 0, 2]))
    assert some.texts == [None, "a", None]
    assert some.node.tolist() == [2, 0, 2]
    assert some.image is not None
    assert some.image.values.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert some.frozen is not None
    assert some.frozen[:, 0].tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        ((60, 80), (96, 128)),
        ((80, 60), (128, 96)),
        ((90, 90), (128, 128)),
        ((110, 110), (160, 160)),
        ((100, 120), (160, 160)),
        ((192, 256), (160, 224)),
        ((1000, 1000), (224, 224)),
        ((5000, 100), (224, 160)),
        ((1, 1), (128, 128)),
    ],
)
def test_the_encoders_size_follows_the_catalogs_pictures(size: tuple[int, int], chosen: tuple[int, int]) -> None:
    spec = choose_image_spec([size] * 3 + [(1, 1)])
    assert (spec.width_px, spec.height_px) == chosen


def test_examples_are_the_labelled_products_of_a_split(tiny_catalog: Catalog) -> None:
    def read(split: str) -> Examples:
        return read_examples(
            tiny_catalog,
            split,  # type: ignore[arg-type]
            text=TextSpec(),
            embedder=None,
            n_expected=1,
            say=lambda line: None,
        )

    examples = read("train")
    products = [p for batch in tiny_catalog.products("train") for p in batch]
    assert len(examples) == len(products) == tiny_catalog.info.by_split["train"]
    assert [tiny_catalog.taxonomy.ids[k] for k in examples.node] == [p.node_id for p in products]
    assert [t is None for t in examples.texts] == [p.title is None for p in products]
    assert examples.image is None


def test_a_config_file_is_a_python_file_that_ends_with_config(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from shelver.train.config import TrainConfig\nconfig = TrainConfig(epochs=3)\n")
    assert load_config(file).epochs == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("config = 5", "config = 5"),
        ("", "config = None"),
        ("from shelver.train.config import TrainConfig\nconfig = TrainConfig(epoch=3)", "epoch is not right"),
        ("(", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_config_file_that_gives_no_config_is_an_error_that_says_why(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said):
        load_config(file)


def test_a_config_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.py"):
        load_config(tmp_path / "nowhere.py")
