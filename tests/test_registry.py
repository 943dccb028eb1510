"""The model folder: sealed by its manifest, refused when anything of its core changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shelver import registry
from shelver.calibrate import Calibration
from shelver.errors import ModelError
from shelver.folders import sha256_of
from shelver.ngrams import NgramSpec
from shelver.product import TextSpec
from shelver.registry import HeadStage, Manifest, TextPart, TextStage, read_manifest, write_core

TEXT2EMB = registry.part_file("text2emb", 0)
FILES = {
    registry.TAXONOMY: b"{}",
    registry.LABELS: b"{}",
    registry.NGRAMS: b"n",
    TEXT2EMB: b"t",
    registry.EMB2PROB: b"e",
}


def staged_core(folder: Path, **changes: object) -> Manifest:
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    fields: dict[str, object] = {
        "shelver_version": "0",
        "git_commit": None,
        "config": {"seed": 0},
        "text": TextStage(
            spec=TextSpec(),
            parts=(TextPart(encoder="ngram", source=None, file=TEXT2EMB, width=8, ngrams=NgramSpec()),),
        ),
        "image": None,
        "head": HeadStage(kind="tree", stops=("a",)),
        "taxonomy_version": "0" * 16,
        "calibration": Calibration.even({"ngram": "text"}, 2),
        "parity": {},
        "files": {name: sha256_of(folder / name) for name in FILES},
    }
    return Manifest.model_validate(fields | changes)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_core(tmp_path / "staged", folder, staged_core(tmp_path / "staged"))
    return folder


def test_a_sealed_folder_reads_as_it_was_written(model: Path, tmp_path: Path) -> None:
    assert read_manifest(model) == staged_core(tmp_path / "again")
    assert sorted(path.name for path in model.iterdir()) == sorted([*FILES, registry.MANIFEST])
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.name in FILES} == FILES


def test_what_stands_beside_the_core_is_free_to_change(model: Path) -> None:
    (model / "README.md").write_text("hello")
    (model / "run").mkdir()
    read_manifest(model)


@pytest.mark.parametrize("name", FILES)
def test_a_core_file_that_changed_by_a_byte_is_named(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[0] ^= 1
    (model / name).write_bytes(bytes(content))
    with pytest.raises(ModelError, match=f"{name} is not the file that was exported"):
        read_manifest(model)
    read_manifest(model, verify=False)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_a_core_file_that_is_missing_is_named(model: Path, name: str, verify: bool) -> None:
    (model / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        read_manifest(model, verify=verify)


def test_another_format_version_is_refused(model: Path) -> None:
    path = model / registry.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(ModelError, match=r"format_version.*Allowed: a manifest of format version 1"):
        read_manifest(model)


def test_a_model_made_with_another_hash_of_ngrams_or_another_normaliser_is_refused(model: Path) -> None:
    path = model / registry.MANIFEST
    original = json.loads(path.read_text())
    for stage in ("spec", "parts.0.ngrams"):
        changed = json.loads(path.read_text())
        of = changed["text"]["spec"] if stage == "spec" else changed["text"]["parts"][0]["ngrams"]
        of["version"] = 2
        path.write_text(json.dumps(changed))
        with pytest.raises(ModelError, match=f"text.{stage}.version"):
            read_manifest(model)
        path.write_text(json.dumps(original))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format_version": 1}'])
def test_a_damaged_manifest_is_refused_and_never_half_read(model: Path, content: bytes) -> None:
    (model / registry.MANIFEST).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        read_manifest(model)


def test_a_manifest_must_list_every_file_that_the_model_runs_from(model: Path) -> None:
    path = model / registry.MANIFEST
    for name in FILES:
        manifest = json.loads(path.read_text())
        original = path.read_text()
        del manifest["files"][name]
        path.write_text(json.dumps(manifest))
        with pytest.raises(ModelError, match=name):
            read_manifest(model)
        path.write_text(original)


def test_no_model_is_told_apart_from_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Check the path"):
        read_manifest(tmp_path)
    with pytest.raises(ModelError, match="Check the path"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    with pytest.raises(ModelError, match=r"unfinished training run.*--resume"):
        read_manifest(tmp_path)


def test_a_core_is_never_written_over_another(model: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    manifest = staged_core(tmp_path / "other")
    with pytest.raises(ModelError, match="already holds a model"):
        write_core(tmp_path / "other", model, manifest)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_core_that_was_cut_off_while_it_was_moved_is_no_model_and_can_be_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    manifest = staged_core(tmp_path / "first")
    (tmp_path / "first" / TEXT2EMB).unlink()
    with pytest.raises(FileNotFoundError):
        write_core(tmp_path / "first", folder, manifest)
    (folder / f"{registry.MANIFEST}.partial").write_text("{")
    with pytest.raises(ModelError):
        read_manifest(folder)
    write_core(tmp_path / "second", folder, staged_core(tmp_path / "second"))
    assert read_manifest(folder) == manifest


def test_the_version_names_what_decides_the_answers_and_nothing_else(tmp_path: Path) -> None:
    base = staged_core(tmp_path / "a")
    assert len(base.model_version) == 12
    same = base.model_copy(update={"git_commit": "f" * 40, "parity": {"x": 1.0}, "shelver_version": "9"})
    assert same.model_version == base.model_version
    for changes in (
        {"calibration": Calibration.even({"ngram": "text"}, 3)},
        {"head": HeadStage(kind="tree", stops=())},
        {"files": {**base.files, registry.EMB2PROB: "0" * 64}},
    ):
        assert base.model_copy(update=changes).model_version != base.model_version


def test_labels_keep_their_counts_and_their_bytes(tmp_path: Path) -> None:
    registry.write_labels(tmp_path / registry.LABELS, {"b": 2, "a": 1, "é": 3})
    first = (tmp_path / registry.LABELS).read_bytes()
    assert registry.read_labels(tmp_path) == {"a": 1, "b": 2, "é": 3}
    registry.write_labels(tmp_path / registry.LABELS, {"é": 3, "a": 1, "b": 2})
    assert (tmp_path / registry.LABELS).read_bytes() == first
