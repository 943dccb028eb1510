"""The recipe whole: repeatable, resumable after kill -9, and never half a model folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, ModelError
from shelver.images import ImageSpec
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.registry import MANIFEST, read_labels, read_manifest
from shelver.train import seal as sealing
from shelver.train.config import TrainConfig, load_config
from shelver.train.run import train

SMALL = TrainConfig(
    text_encoder="ngram",
    image_encoder="none",
    text_width=16,
    hidden=16,
    epochs=4,
    batch_size=8,
    lr=1e-2,
    linear=True,
    folds=0,
    refit=False,
)
PROGRAM = "import sys; from shelver.cli import main; sys.argv = ['shelver', *sys.argv[1:]]; main()"
CONFIG = """
from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
config = TrainConfig(text_encoder="ngram", image_encoder="colour", image=ImageSpec(height_px=32, width_px=32),
                     text_width=16, hidden=16, epochs=12, batch_size=8, lr=1e-2, linear=True, folds=0)
"""


def quiet(line: str) -> None:
    pass


def core(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def kill_in_training(arguments: list[str], out: Path, step: int) -> None:
    """Start a training in a process of its own and kill it -9 when a checkpoint has come to a step."""
    state = out / "run" / "checkpoint" / "state.json"
    environment = {**os.environ, "SHELVER_CACHE": str(out.parent / "cache")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if process.poll() is not None:
                pytest.fail("the training was over before it could be killed")
            if state.is_file() and json.loads(state.read_text())["progress"]["step"] >= step:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (out / MANIFEST).exists()


@pytest.fixture(scope="module")
def plain(tiny_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `SMALL`, trained without any trouble."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    train(tiny_catalog, folder, SMALL, cache=folder.parent, say=quiet)
    return folder


def test_a_training_killed_and_resumed_gives_the_same_files_to_the_bit(
    tiny_catalog: Catalog, tmp_path: Path
) -> None:
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    arguments = ["train", str(tiny_catalog.folder), "--config", str(config), "--refit", "--out"]
    chosen = load_config(config).model_copy(update={"refit": True})
    train(tiny_catalog, unbroken, chosen, cache=tmp_path, say=quiet)
    kill_in_training([*arguments, str(broken)], broken, step=20)
    kill_in_training([*arguments, str(broken), "--resume"], broken, step=100)
    with pytest.raises(ModelError, match="--resume"):
        Classifier.open(broken)
    # What a process killed while it exported would leave must not become part of the model.
    (broken / "run" / "staged").mkdir(exist_ok=True)
    (broken / "run" / "staged" / "text2emb.onnx.partial").write_bytes(b"half")
    (broken / "run" / "staged" / ".image2emb.onnx-x1").write_bytes(b"half")
    (broken / "run" / "staged-1").mkdir()
    (broken / "taxonomy.json").write_bytes(b"moved by a killed process")
    train(tiny_catalog, broken, chosen, cache=tmp_path, resume=True, say=quiet)
    assert core(broken) == core(unbroken)
    assert not list((broken / "run").glob("staged*"))
    figures = [
        [(row["phase"], row["step"], row.get("validation_loss")) for row in map(json.loads, text.splitlines())]
        for text in ((folder / "run" / "metrics.jsonl").read_text() for folder in (unbroken, broken))
    ]
    assert figures[0] == figures[1]


def test_the_same_call_gives_the_same_model(plain: Path, tiny_catalog: Catalog, tmp_path: Path) -> None:
    again = train(tiny_catalog, tmp_path / "again", SMALL, cache=tmp_path, say=quiet)
    assert core(tmp_path / "again") == core(plain)
    assert again.model_version == read_manifest(plain).model_version


def test_a_finished_training_that_is_resumed_is_done_already(text_model: Path, tiny_catalog: Catalog) -> None:
    before = core(text_model)
    config = TrainConfig.model_validate(read_manifest(text_model).config)
    again = train(tiny_catalog, text_model, config, cache=text_model.parent, resume=True, say=quiet)
    assert again.was_done
    assert again.model_version == read_manifest(text_model).model_version
    assert core(text_model) == before


class CutError(Exception):
    pass


def test_an_export_that_fails_leaves_no_model_and_can_be_taken_up(
    plain: Path, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> float:
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "export_head", fails)
        with pytest.raises(CutError):
            train(tiny_catalog, tmp_path / "m", SMALL, cache=tmp_path, say=quiet)
    assert not (tmp_path / "m" / MANIFEST).exists()
    with pytest.raises(ModelError, match="unfinished training"):
        train(tiny_catalog, tmp_path / "m", SMALL, cache=tmp_path, say=quiet)
    other = SMALL.model_copy(update={"seed": 1, "hidden": 8})
    with pytest.raises(ConfigError, match=r"other settings \(hidden = 8, was 16; seed = 1, was 0\)"):
        train(tiny_catalog, tmp_path / "m", other, cache=tmp_path, resume=True, say=quiet)
    resumed = train(tiny_catalog, tmp_path / "m", SMALL, cache=tmp_path, resume=True, say=quiet)
    assert not resumed.was_done
    assert core(tmp_path / "m") == core(plain)


def test_a_run_is_not_resumed_on_another_catalog(plain: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title,category,split\n1,lamp,Lamps,train\n2,chair,Chairs,train\n")
    ingest(feed, tmp_path / "catalog")
    with pytest.raises(ConfigError, match="on another catalog"):
        train(Catalog.open(tmp_path / "catalog"), plain, SMALL, cache=tmp_path, resume=True, say=quiet)


def test_a_time_limit_is_kept_and_the_model_is_whole(tiny_catalog: Catalog, tmp_path: Path) -> None:
    limited = SMALL.model_copy(update={"epochs": 100_000, "patience": 0, "time_limit_s": 4.0})
    started = time.monotonic()
    trained = train(tiny_catalog, tmp_path / "m", limited, cache=tmp_path, say=quiet)
    # Without the limit this would take hours; a busy machine may be slow to export.
    assert time.monotonic() - started < 60
    assert Classifier.open(tmp_path / "m", threads=1).model_version == trained.model_version


@pytest.mark.parametrize("rows", [["1,lamp,,train"], ["1,lamp,Lamps,test"]], ids=["no label", "no train split"])
def test_a_catalog_without_anything_to_learn_is_refused(tmp_path: Path, rows: list[str]) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title,category,split\n" + "\n".join(rows) + "\n2,x,Lamps,test\n")
    ingest(feed, tmp_path / "catalog")
    with pytest.raises(CatalogError, match="no labelled product in its train split"):
        train(Catalog.open(tmp_path / "catalog"), tmp_path / "m", SMALL, cache=tmp_path, say=quiet)


def test_one_category_and_one_product_are_enough(tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title,category,split\n1,🎉,Lamps,train\n")
    ingest(feed, tmp_path / "catalog")
    train(Catalog.open(tmp_path / "catalog"), tmp_path / "m", SMALL, cache=tmp_path, say=quiet)
    said = Classifier.open(tmp_path / "m", threads=1)([Product("a", title="anything"), Product("b", title="🎉")])
    assert [answer.path for answer in said] == ["Lamps", "Lamps"]
    assert [answer.confidence for answer in said] == [1.0, 1.0]


def test_few_products_are_cross_validated_and_learned_from_all(tiny_catalog: Catalog, tmp_path: Path) -> None:
    said: list[str] = []
    config = SMALL.model_copy(update={"folds": None, "refit": None})
    trained = train(tiny_catalog, tmp_path / "m", config, cache=tmp_path, say=said.append)
    assert any("chosen by 5-fold cross-validation" in choice for choice in trained.choices)
    assert sum(line.startswith("cross-validation: fold") for line in said) == 5
    assert 0.5 < trained.validation["accuracy"] <= 1
    n = sum(tiny_catalog.info.by_split[split] for split in ("train", "validation"))
    assert sum(read_labels(tmp_path / "m").values()) == n


PICTURES: dict[str, object] = {"image": ImageSpec(height_px=32, width_px=32)}


@pytest.mark.parametrize(
    "changes",
    [
        {
            "head": "levels",
            "image_encoder": "colour",
            "label_smoothing": 0.1,
            "level_weights": (1.0, 0.5),
            **PICTURES,
        },
        {
            "image_encoder": "colour+colour@crop",
            "fusion": "joint",
            "balance": 0.5,
            "value_weight": 0.5,
            **PICTURES,
        },
        {"image_encoder": "lite0@crop+colour", "precision": "int8", "fusion": "late", **PICTURES},
        {"image_encoder": "colour", "network": False, **PICTURES},
    ],
    ids=["levels", "colour and crop, weighed", "int8", "linear alone"],
)
def test_a_training_of_other_parts_answers_coherently_whatever_is_absent(
    tiny_catalog: Catalog, embeddings_cache: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = TrainConfig.model_validate({**SMALL.model_dump(), "epochs": 8, **changes})
    train(tiny_catalog, tmp_path / "m", config, cache=embeddings_cache, threads=1, say=quiet)
    model = Classifier.open(tmp_path / "m", threads=1)
    manifest = model.manifest
    assert manifest.head.kind == ("levels" if "head" in changes else "tree")
    assert manifest.image is not None
    encoders = [f"{part.encoder}@{part.view}" for part in manifest.image.parts]
    assert len(encoders) == len(str(changes["image_encoder"]).split("+"))
    assert {part.precision for part in manifest.image.parts if part.file} <= {config.precision}
    assert set(manifest.files) == set(manifest.core_files())
    products = [p for batch in tiny_catalog.products() for p in batch]
    embedded = model.embed(products)
    assert embedded.text is not None
    assert embedded.image is not None
    for text, image in (
        (embedded.text, embedded.image),
        (embedded.text, None),
        (None, embedded.image),
        (None, None),
    ):
        probs = model.emb2prob(text, image)
        answered = probs.modality > 0
        assert np.isfinite(probs.nodes).all()
        first = probs.nodes[answered][:, model.taxonomy.level == 1]
        np.testing.assert_allclose(first.sum(axis=1), 1, atol=1e-5)
        here = model.emb2prob.groups.here(probs.nodes)
        for k in np.flatnonzero(~model.taxonomy.is_leaf).tolist():
            below = probs.nodes[:, model.taxonomy.children(k)].sum(axis=1)
            np.testing.assert_allclose(below + here[:, k], probs.nodes[:, k], atol=1e-5)
    right = [answer.node_id == p.node_id for answer, p in zip(model(products), products, strict=True)]
    assert np.mean(right) > 0.8


def test_a_text_is_answered_as_by_a_model_that_never_saw_a_picture(
    both_model: Path, text_model: Path, tiny_catalog: Catalog
) -> None:
    texts = [Product(p.product_id, title=p.title) for batch in tiny_catalog.products() for p in batch if p.title]
    of_both = Classifier.open(both_model, threads=1)(texts)
    of_text = Classifier.open(text_model, threads=1)(texts)
    same = [a.node_id == b.node_id for a, b in zip(of_both, of_text, strict=True)]
    assert np.mean(same) > 0.97


def test_a_folder_that_holds_something_else_is_never_written_over(tiny_catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "shirt.jpg").write_bytes(b"mine")
    for out in (tmp_path / "photos", tiny_catalog.folder):
        before = core(out)
        with pytest.raises(ModelError, match="holds other files"):
            train(tiny_catalog, out, SMALL, cache=tmp_path, say=quiet)
        assert core(out) == before
        assert not (out / "run").exists()


def test_every_file_of_a_model_can_be_read_by_whoever_may_read_the_folder(plain: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in plain.iterdir() if path.is_file()}
    assert set(modes.values()) == {modes["manifest.json"]}
