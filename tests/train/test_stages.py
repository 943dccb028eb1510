"""What is chosen where the config leaves it open, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.errors import ConfigError
from shelver.train import stages
from shelver.train.config import TrainConfig
from shelver.train.stages import settle


def of_size(catalog: Catalog, n_train: int, n_validation: int = 0) -> Catalog:
    """The same catalog, saying that it has so many products."""
    by_split = {"train": n_train, "validation": n_validation, "test": 5}
    info = catalog.info.model_copy(update={"by_split": by_split})
    other = Catalog.open(catalog.folder)
    object.__setattr__(other, "info", info)
    assert other.info.by_split == by_split
    return other


@pytest.fixture(scope="module")
def texts_only(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("texts")
    feed = folder / "feed.csv"
    feed.write_text("product_id,title,category,split\n1,lamp,Lamps,train\n2,chair,Chairs,train\n")
    ingest(feed, folder / "catalog")
    return Catalog.open(folder / "catalog")


def test_what_is_left_open_follows_the_catalog_and_is_said(tiny_catalog: Catalog) -> None:
    settled = settle(tiny_catalog, TrainConfig())
    n = sum(tiny_catalog.info.by_split[split] for split in ("train", "validation"))
    assert settled.text_parts == ("use", "ngram")
    assert settled.image_parts == ("lite0",)
    assert settled.image is not None
    assert (settled.image.width_px, settled.image.height_px) == (96, 128)  # the pictures are 30x40
    assert (settled.folds, settled.plan.text_width, settled.plan.hidden) == (stages.FOLDS, 64, 64)
    assert settled.plan.linear
    said = " | ".join(settled.choices)
    for words in (f"ngram+use, as there are {n} products", "lite0", "96x128", "5-fold", "linear part"):
        assert words in said


@pytest.mark.parametrize(
    ("n", "text", "folds", "refit", "linear", "width"),
    [
        (100, ("use", "ngram"), 5, True, True, 64),
        (3_000, ("use", "ngram"), 5, True, True, 64),
        (3_001, ("use", "ngram"), 0, True, True, 256),
        (60_000, ("use", "ngram"), 0, True, True, 256),
        (60_001, ("ngram",), 0, False, True, 128),
        (100_001, ("ngram",), 0, False, False, 128),
        (5_000_000, ("ngram",), 0, False, False, 128),
    ],
)
def test_the_size_decides(
    texts_only: Catalog, n: int, text: tuple[str, ...], folds: int, refit: bool, linear: bool, width: int
) -> None:
    settled = settle(of_size(texts_only, n - 1, 1), TrainConfig())
    assert (settled.text_parts, settled.folds, settled.refit) == (text, folds, refit)
    assert (settled.plan.linear, settled.plan.text_width) == (linear, width)
    assert settled.image_parts == ()
    assert settled.image is None
    assert any("pictures: none" in choice for choice in settled.choices)
    assert any(f"{n:,} products to learn from" in choice for choice in settled.choices)


def test_a_small_catalog_with_a_validation_split_that_says_enough_is_not_folded(texts_only: Catalog) -> None:
    assert settle(of_size(texts_only, 2_000, stages.ENOUGH_HELD), TrainConfig()).folds == 0
    assert settle(of_size(texts_only, 2_000, stages.ENOUGH_HELD - 1), TrainConfig()).folds == stages.FOLDS


def test_what_the_config_says_wins_over_the_size(texts_only: Catalog) -> None:
    config = TrainConfig(
        text_encoder="ngram",
        head="levels",
        fusion="late",
        linear=False,
        text_width=24,
        hidden=32,
        folds=0,
        refit=False,
    )
    settled = settle(of_size(texts_only, 100), config)
    plan = settled.plan
    assert (settled.text_parts, settled.folds, settled.refit) == (("ngram",), 0, False)
    assert (plan.head, plan.fusion, plan.linear, plan.text_width, plan.hidden) == ("levels", "late", False, 24, 32)
    assert settle(of_size(texts_only, 5_000_000), TrainConfig(linear=True, folds=3)).folds == 3


def test_without_ngrams_there_is_no_linear_part(texts_only: Catalog) -> None:
    plan = settle(texts_only, TrainConfig(text_encoder="use", linear=True)).plan
    assert plan.ngrams is None
    assert not plan.linear


def test_the_ngrams_part_stands_last_however_it_is_named(texts_only: Catalog) -> None:
    for encoder in ("ngram+use", "use+ngram"):
        assert settle(texts_only, TrainConfig(text_encoder=encoder)).text_parts == ("use", "ngram")
    several = settle(texts_only, TrainConfig(text_encoder="ngram+hf:a/b+use"))
    assert several.text_parts == ("hf:a/b", "use", "ngram")


@pytest.mark.parametrize(
    "encoder",
    [
        "auto",
        "none",
        "lite0",
        "lite0@tuned",
        "lite0+lite0@crop+colour",
        "lite0+lite0@box+colour",
        "lite0@box@tuned",
        "hf:a/b@crop",
        "timm:x+colour",
    ],
)
def test_encoders_that_look_at_pictures_are_named_with_a_plus_and_an_at(encoder: str) -> None:
    assert TrainConfig(image_encoder=encoder).image_encoder == encoder


@pytest.mark.parametrize(
    "config",
    [
        {"text_encoder": "bert"},
        {"text_encoder": "ngram+ngram"},
        {"text_encoder": "ngram+"},
        {"text_encoder": ""},
        {"text_encoder": "hf:"},
        {"text_encoder": "ngram+auto"},
        {"image_encoder": "resnet"},
        {"image_encoder": "lite0@zoom"},
        {"image_encoder": "lite0+lite0"},
        {"image_encoder": "timm:"},
        {"folds": 1},
        {"folds": 21},
        {"epochs": 0},
        {"label_smoothing": 1.0},
        {"level_weights": ()},
        {"precision": "int4"},
        {"head": "flat"},
        {"dropuot": 0.1},
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(config)


def test_what_the_catalog_lacks_cannot_be_asked_for(tiny_catalog: Catalog, texts_only: Catalog) -> None:
    with pytest.raises(
        ConfigError, match=r"--image-encoder lite0, but the training products of .* have no pictures"
    ):
        settle(texts_only, TrainConfig(image_encoder="lite0"))
    with pytest.raises(ConfigError, match="nothing to learn from"):
        settle(tiny_catalog, TrainConfig(image_encoder="none", text_encoder="none"))
    with pytest.raises(ConfigError, match="nothing to learn from"):
        settle(texts_only, TrainConfig(text_encoder="none"))


def test_a_catalog_without_texts_is_learned_from_its_pictures(tmp_path: Path, tiny_catalog: Catalog) -> None:
    pictures = Catalog.open(tiny_catalog.folder)
    object.__setattr__(pictures, "info", tiny_catalog.info.model_copy(update={"n_with_text": 0}))
    settled = settle(pictures, TrainConfig())
    assert settled.text_parts == ()
    assert settled.image_parts == ("lite0",)
    assert settled.plan.ngrams is None
    with pytest.raises(ConfigError, match="--text-encoder ngram, but"):
        settle(pictures, TrainConfig(text_encoder="ngram"))


def test_something_must_read_the_ngrams(texts_only: Catalog) -> None:
    assert not settle(texts_only, TrainConfig(text_encoder="ngram", network=False)).plan.network
    with pytest.raises(ConfigError, match="network"):
        settle(texts_only, TrainConfig(text_encoder="ngram", network=False, linear=False))


def test_a_large_catalog_is_gone_through_less_often(texts_only: Catalog) -> None:
    few, many = (settle(of_size(texts_only, n), TrainConfig()).epochs for n in (10_000, 1_000_000))
    assert many < few
    assert settle(of_size(texts_only, 10_000), TrainConfig(epochs=3)).epochs == 3
