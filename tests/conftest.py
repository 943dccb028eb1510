"""A tiny catalog with texts and pictures, and the tiny models that learned from it; made once a session, when
the first test asks."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

# Before anything imports torch: more threads only get into each other's way in tiny models.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from shelver.attributes import EMPTY, Vocabulary
from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.images import ImageSpec
from shelver.ngrams import NgramSpec
from shelver.taxonomy import Taxonomy

# What tests of the service share. It needs the `service` extra, and stands apart for that.
pytest_plugins = ["database_rig", "service_rig", "browser_rig"]

if TYPE_CHECKING:
    from shelver.train.config import TrainConfig
    from shelver.train.data import Examples
    from shelver.train.phases import Fitted, Trainer

KINDS = {
    "Home > Chairs > Bar": ("bar stool for the counter", (200, 20, 20)),
    "Home > Chairs > Deck": ("folding deck chair", (20, 200, 20)),
    "Home > Lamps": ("reading lamp with shade", (20, 20, 200)),
    "Toys > Cars": ("racing car, small", (200, 200, 20)),
    "Toys": ("mixed toys", (120, 120, 120)),  # products may stop at this inner node
}
SMALL: dict[str, object] = {
    "text_width": 16,
    "hidden": 16,
    "epochs": 8,
    "batch_size": 8,
    "lr": 1e-2,
    "linear": True,
    "folds": 0,
    "refit": False,
}
"""A config that learns the tiny catalog in a second, on train alone."""
PARTS = ("train", "train", "train", "validation", "test")


def drawn(colour: tuple[int, int, int], seed: int, kind: str = "PNG") -> bytes:
    """A noisy picture of one colour, encoded."""
    noise = np.random.default_rng(seed).integers(0, 55, (40, 30, 3))
    file = io.BytesIO()
    Image.fromarray((noise + np.array(colour)).astype(np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def draw() -> Callable[[tuple[int, int, int], int], bytes]:
    return drawn


@pytest.fixture(scope="session")
def tiny_feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 products: a third of them without a picture, some without a text, one picture damaged."""
    rows = []
    for i in range(150):
        category, (words, colour) = list(KINDS.items())[i % 5]
        picture = drawn(colour, i) if i % 3 else None
        rows.append(
            {
                "product_id": f"p{i}",
                "title": f"{words} no. {i * 7919 % 1000}" if i % 7 or picture is None else None,
                "image": b"\x89PNG\r\n\x1a\nbroken" if i == 149 else picture,
                "category": category,
                "split": PARTS[i // 5 % 5],
                "source": "web" if i % 2 else "app",
            }
        )
    path = tmp_path_factory.mktemp("feed") / "feed.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="session")
def tiny_catalog(tiny_feed: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("catalog") / "tiny"
    ingest(tiny_feed, folder)
    return Catalog.open(folder)


@pytest.fixture(scope="session")
def embeddings_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trained(
    tiny_catalog: Catalog, embeddings_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Model folders by (text encoder, image encoder); each is trained once."""
    made: dict[tuple[str, str], Path] = {}

    def of(text: str, image: str) -> Path:
        from shelver.train.config import TrainConfig
        from shelver.train.run import train

        if (text, image) not in made:
            config = TrainConfig.model_validate(
                {
                    "text_encoder": text,
                    "image_encoder": image,
                    "image": ImageSpec(height_px=32, width_px=32),
                    **SMALL,
                }
            )
            folder = tmp_path_factory.mktemp("models") / f"{text}-{image}"
            train(tiny_catalog, folder, config, cache=embeddings_cache, say=lambda line: None)
            made[text, image] = folder
        return made[text, image]

    return of


@pytest.fixture(scope="session")
def both_model(trained: Callable[[str, str], Path]) -> Path:
    return trained("ngram", "lite0")


@pytest.fixture(scope="session")
def text_model(trained: Callable[[str, str], Path]) -> Path:
    return trained("ngram", "none")


@pytest.fixture(scope="session")
def image_model(trained: Callable[[str, str], Path]) -> Path:
    return trained("none", "colour")


@pytest.fixture(scope="session")
def seven() -> Taxonomy:
    """Home > {Chairs > {Bar, Deck}, Lamps}, Toys > Cars."""
    names = ["Home", "Toys", "Chairs", "Lamps", "Cars", "Bar", "Deck"]
    return Taxonomy.from_parents(names, names, [None, None, 0, 0, 1, 2, 2])


@pytest.fixture
def empty_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder without `shelver.toml`, and no `SHELVER_` variable."""
    for name in list(os.environ):
        if name.startswith("SHELVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Bench:
    """A small problem for the Trainer, without a catalog: the seven-node tree, words and 8-wide pictures.

    With `frozen` the texts have vectors of an encoder too, four wide, that tell most kinds apart. The vocabulary's
    attributes are labelled: what takes one value is told by text and picture, what takes several by the text.
    """

    tree: Taxonomy
    config: TrainConfig
    image: bool = True
    text: bool = True
    frozen: bool = False
    vocabulary: Vocabulary = EMPTY

    def examples(self, n: int, seed: int) -> Examples:
        """Labelled products; the labels of the category are the same with and without attributes."""
        from dataclasses import replace

        from shelver.pipeline import Embedding

        plain = self._plain(n, seed)
        rng = np.random.default_rng((seed, 1))
        texts, said = list(plain.texts), [dict[str, tuple[str, ...]]() for _ in range(n)]
        image = plain.image
        for attribute in self.vocabulary.attributes:
            names = np.array([value.name for value in attribute.values])
            has = rng.random((n, len(names))) < 0.3
            if not attribute.multi:
                has = np.eye(len(names), dtype=bool)[rng.integers(len(names), size=n)]
                if image is not None:
                    shown = image.values.copy()
                    shown[:, : len(names)] += (3 * has * image.present[:, None]).astype(np.float16)
                    image = Embedding(shown, image.present)
            for row in range(n):
                said[row][attribute.name] = tuple(names[has[row]].tolist())
                text = texts[row]
                if text is not None:
                    texts[row] = " ".join([text, *names[has[row]].tolist()])
        # A product that has none of several values is labelled too, but an empty tuple says nothing.
        return replace(plain, texts=texts, image=image, said=said).labelled(self.vocabulary.attributes)

    def _plain(self, n: int, seed: int) -> Examples:
        from shelver.pipeline import Embedding
        from shelver.train.data import Examples

        rng = np.random.default_rng(seed)
        node = rng.choice(np.array([1, 3, 4, 5, 6], np.int32), n)  # Toys itself among them: a stop
        texts: list[str | None] = [
            None if rng.random() < 0.2 else f"{self.tree.names[k]} kind{rng.integers(40)} sort{rng.integers(9)}"
            for k in node
        ]
        image = frozen = None
        if self.image:
            present = rng.random(n) < 0.7
            values = rng.normal(size=(n, 8)) + np.eye(8)[node] * 2
            image = Embedding((values * present[:, None]).astype(np.float16), present)
        if self.frozen:
            has = np.array([text is not None for text in texts], np.bool_)
            frozen = ((rng.normal(size=(n, 4)) + 3 * np.eye(8)[node, 3:7]) * has[:, None]).astype(np.float16)
        value = np.full(n, np.nan, np.float32)
        return Examples(texts if self.text else [None] * n, image, node, value, frozen)

    def trainer(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> Trainer:
        import torch

        from shelver.train.build import Plan
        from shelver.train.checkpoint import Checkpoints, Stopwatch
        from shelver.train.phases import Trainer

        config = self.config
        assert config.text_width is not None
        assert config.hidden is not None
        assert config.epochs is not None
        plan = Plan(
            head="tree" if config.head == "auto" else config.head,
            fusion=config.fusion,
            ngrams=NgramSpec() if self.text else None,
            linear=bool(config.linear) and self.text,
            network=config.network,
            text_width=config.text_width,
            hidden=config.hidden,
            dropout=config.dropout,
            image_dropout=config.image_dropout,
            min_count=config.min_count,
            max_features=config.max_features,
            seed=config.seed,
        )
        return Trainer(
            config,
            plan,
            self.tree,
            self.vocabulary,
            config.folds or 0,
            bool(config.refit),
            config.epochs,
            Checkpoints(folder / "checkpoint"),
            Stopwatch(0.0),
            folder,
            torch.device("cpu"),
            say,
        )

    def learn(self, folder: Path, *, n: int = 90, n_held: int = 40) -> Fitted:
        """Train, or go on where the folder's checkpoint stands."""
        from shelver.train.checkpoint import Progress

        trainer = self.trainer(folder)
        progress = trainer.checkpoints.progress() or Progress()
        return trainer.learn(self.examples(n, 1), self.examples(n_held, 2), progress)


@pytest.fixture(scope="session")
def bench(seven: Taxonomy) -> Callable[..., Bench]:
    """Makes a Bench; keywords go to its config, except `image`, `text`, `frozen` and `vocabulary`."""

    def make(
        *,
        image: bool = True,
        text: bool = True,
        frozen: bool = False,
        vocabulary: Vocabulary = EMPTY,
        **config: object,
    ) -> Bench:
        from shelver.train.config import TrainConfig

        small = {"text_width": 16, "hidden": 16, "epochs": 4, "batch_size": 16, "lr": 1e-2, **config}
        return Bench(seven, TrainConfig.model_validate(small), image, text, frozen, vocabulary)

    return make


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.out)
        return result


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    empty_settings: Path,
    embeddings_cache: Path,
) -> Callable[..., Ended]:
    """Runs a command line in this process, exactly as the installed program would."""
    from shelver.cli import main

    monkeypatch.setenv("SHELVER_CACHE", str(embeddings_cache))

    def call(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["shelver", *map(str, args)])
        capfd.readouterr()
        status: int | str | None = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        captured = capfd.readouterr()
        return Ended(int(status or 0), captured.out, captured.err)

    return call
