"""Several catalogs learned from at once, and attributes added to a model that is trained already."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, ModelError
from shelver.images import ImageSpec
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.train.add import add_attributes
from shelver.train.config import TrainConfig
from shelver.train.run import train
from shelver.train.sets import Sets

TONES = ("dark", "bright")
SIZES = ("small", "medium", "large")
CONFIG = TrainConfig(
    text_encoder="ngram",
    image_encoder="colour",
    image=ImageSpec(height_px=32, width_px=32),
    text_width=16,
    hidden=16,
    epochs=40,
    batch_size=8,
    folds=0,
)


def quiet(line: str) -> None:
    pass


class Made(NamedTuple):
    tones: Catalog
    sizes: Catalog
    model: Path


@pytest.fixture(scope="module")
def made(tiny_feed: Path, embeddings_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two catalogs of half the products each, the one with the category and the tone, the other with the size, and
    a model of the first one."""
    folder = tmp_path_factory.mktemp("two")
    rows, rng = pq.read_table(tiny_feed).to_pylist(), np.random.default_rng(0)
    for number, row in enumerate(rows):
        tone, size = TONES[rng.integers(2)], SIZES[rng.integers(3)]
        row |= {"tone": tone, "size": size, "product_id": f"{number}"}
        row["title"] = f"{row['title'] or 'thing'} {tone} {size}"
    halves = {"tone": rows[::2], "size": [{**row, "category": None} for row in rows[1::2]]}
    opened: dict[str, Catalog] = {}
    for name, half in halves.items():
        feed = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(half), feed)
        # What has no category is told the tree.
        tree = opened["tone"].taxonomy if opened else None
        ingest(feed, folder / name, mapping=Mapping(attributes={name: name}), taxonomy=tree)
        opened[name] = Catalog.open(folder / name)
    train(opened["tone"], folder / "model", CONFIG, cache=embeddings_cache, threads=1, say=quiet)
    return Made(opened["tone"], opened["size"], folder / "model")


def products(n: int) -> list[Product]:
    words = ["wooden chair", "toy car", "garden lamp"]
    return [Product(f"n{i}", title=f"{words[i % 3]} {TONES[i % 2]} {SIZES[i // 2 % 3]}") for i in range(n)]


def test_an_attribute_is_answered_with_its_confidence_and_source(made: Made) -> None:
    classifier = Classifier.open(made.model, threads=1)
    answers = classifier(products(24))
    said = [answer.attributes["tone"] for answer in answers]
    assert np.mean([one.value == TONES[i % 2] for i, one in enumerate(said)]) > 0.9
    assert {one.source for one in said} == {"text"}
    assert all(0.5 <= one.confidence <= 1 for one in said)
    probs = classifier.emb2prob(*_embedded(classifier, products(24)))
    np.testing.assert_allclose(probs.attributes["tone"].sum(axis=1), 1, atol=1e-5)


def _embedded(classifier: Classifier, asked: list[Product]):  # type: ignore[no-untyped-def]
    embedded = classifier.embed(asked)
    return embedded.text, embedded.image


def test_an_added_attribute_leaves_what_was_learned_as_it_was_to_the_bit(
    made: Made, embeddings_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "more"
    before = {file.name: file.read_bytes() for file in made.model.iterdir() if file.is_file()}
    trained = add_attributes(
        made.sizes, out, CONFIG, base=made.model, names=["size"], cache=embeddings_cache, threads=1, say=quiet
    )
    assert trained.validation["size_accuracy"] > 0.6
    assert {file.name: file.read_bytes() for file in made.model.iterdir() if file.is_file()} == before
    old, new = Classifier.open(made.model, threads=1), Classifier.open(out, threads=1)
    assert new.manifest.base == old.model_version
    assert new.model_version == trained.model_version != old.model_version
    asked = [*products(24), *[p for batch in made.tones.products("test") for p in batch]]
    probs, again = (of.emb2prob(*_embedded(of, asked)) for of in (old, new))
    np.testing.assert_array_equal(probs.nodes, again.nodes)
    np.testing.assert_array_equal(probs.attributes["tone"], again.attributes["tone"])
    sizes = [answer.attributes["size"].value for answer in new(products(24))]
    assert np.mean([size == SIZES[i // 2 % 3] for i, size in enumerate(sizes)]) > 0.8
    assert registry.read_values(out).keys() == {"tone", "size"}
    assert registry.read_labels(out) == registry.read_labels(made.model)
    with pytest.raises(ModelError, match="already holds a model"):
        add_attributes(made.sizes, out, CONFIG, base=made.model, names=["size"], cache=embeddings_cache, say=quiet)


def test_two_catalogs_teach_one_model_what_each_labels(made: Made, embeddings_cache: Path, tmp_path: Path) -> None:
    together = Sets([made.tones, made.sizes])
    assert {a.name for a in together.vocabulary.attributes} == {"tone", "size"}
    assert together.info.by_split["train"] == sum(c.info.by_split["train"] for c in together.catalogs)
    train([made.tones, made.sizes], tmp_path / "m", CONFIG, cache=embeddings_cache, threads=1, say=quiet)
    classifier = Classifier.open(tmp_path / "m", threads=1)
    assert classifier.taxonomy.version == made.tones.taxonomy.version
    answers = classifier(products(24))
    tones = np.mean([answer.attributes["tone"].value == TONES[i % 2] for i, answer in enumerate(answers)])
    sizes = np.mean([answer.attributes["size"].value == SIZES[i // 2 % 3] for i, answer in enumerate(answers)])
    assert tones > 0.9
    assert sizes > 0.8
    # Only the first catalog's products stand in categories.
    assert sum(registry.read_labels(tmp_path / "m").values()) <= made.tones.info.n_labelled


def test_what_cannot_be_added_is_refused_by_name(made: Made, embeddings_cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    with pytest.raises(ConfigError, match="knows it"):
        add_attributes(made.tones, out, CONFIG, base=made.model, names=["tone"], cache=embeddings_cache, say=quiet)
    with pytest.raises(ConfigError, match="'size' cannot be learned"):
        add_attributes(made.tones, out, CONFIG, base=made.model, names=["size"], cache=embeddings_cache, say=quiet)
    assert not (out / registry.MANIFEST).exists()
    with pytest.raises(CatalogError, match="no labelled product"):
        train(made.sizes, tmp_path / "none", CONFIG, cache=embeddings_cache, say=quiet)
