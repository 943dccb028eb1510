"""The store of models: what is let in, what is refused, and which model answers."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from shelver import registry
from shelver.errors import ModelError, StorageError
from shelver.folders import sha256_of
from shelver.library import ModelStore, try_in_child
from shelver.pipeline import Classifier
from shelver.product import Product

N_MUTATED: Final = 200


@pytest.fixture(scope="session")
def core(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core of the tiny text model alone."""
    folder = tmp_path_factory.mktemp("core") / "model"
    folder.mkdir()
    manifest = registry.read_manifest(text_model)
    for name in (registry.MANIFEST, *manifest.files):
        shutil.copy(text_model / name, folder / name)
    return folder


@pytest.fixture
def copied(core: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the core, free to be spoilt."""

    def copy(name: str = "copy") -> Path:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(core, folder)
        return folder

    return copy


@pytest.fixture(scope="session")
def filled(core: Path, text_model: Path, image_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the text model as its champion, and the picture model."""
    store = ModelStore(tmp_path_factory.mktemp("filled") / "store")
    store.promote(store.register(text_model, by="first").model_version, by="first")
    store.register(image_model, by="second")
    return store.folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> ModelStore:
    """A copy of the filled store."""
    return ModelStore(Path(shutil.copytree(filled, tmp_path / "store")))


@pytest.fixture
def versions(core: Path, image_model: Path) -> tuple[str, str]:
    """Of the text model and the picture model."""
    return registry.read_manifest(core).model_version, registry.read_manifest(image_model).model_version


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a manifest."""
    path = folder / registry.MANIFEST
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def reseal(folder: Path, name: str, content: bytes) -> None:
    """Put another file into the core, and its hash into the manifest: as one does who means harm."""
    (folder / name).write_bytes(content)
    change(folder, lambda manifest: manifest["files"].update({name: sha256_of(folder / name)}))


def state(store: ModelStore) -> tuple[object, ...]:
    files = sorted(path.relative_to(store.folder) for path in store.folder.rglob("*"))
    return store.aliases(), store.stamp(), files


def refused(store: ModelStore, folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        store.register(folder, by="someone")
    return str(caught.value)


def test_a_registered_model_says_where_it_comes_from_and_answers_as_before(
    store: ModelStore, text_model: Path, versions: tuple[str, str]
) -> None:
    found = store.find(versions[0])
    assert found is not None
    assert (found.model_version, found.registered_by, found.base) == (versions[0], "first", None)
    assert found.source == text_model.name
    assert found.sha256 == sha256_of(text_model / registry.MANIFEST)
    assert {one.model_version for one in store.models()} == set(versions)
    folder, manifest = store.verified(versions[0])
    assert folder.name == f"{versions[0]}-{found.sha256}"
    assert not (folder / "run").exists()
    product = [Product("p", title="bar stool for the counter")]
    assert Classifier.open(folder)(product)[0] == Classifier.open(text_model)(product)[0]
    assert manifest == registry.read_manifest(text_model)


def test_policies_card_and_report_come_along(store: ModelStore, copied: Callable[[str], Path]) -> None:
    shutil.rmtree(next((store.folder / "models").glob(f"{registry.read_manifest(copied('c')).model_version}-*")))
    folder = copied("whole")
    (folder / "policies.json").write_text('{"default": {"decoder": "greedy"}}')
    (folder / "README.md").write_text("# Card")
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text("{}")
    kept = store.folder_of(store.register(folder, by="someone").model_version)
    for name in ("policies.json", "README.md", "report/report.json"):
        assert (kept / name).read_bytes() == (folder / name).read_bytes()


def test_registering_again_changes_nothing_and_mends_a_damaged_copy(
    store: ModelStore, core: Path, versions: tuple[str, str]
) -> None:
    before, noted = state(store), store.find(versions[0])
    assert store.register(core, by="another") == noted
    assert state(store) == before
    (store.folder_of(versions[0]) / registry.LABELS).write_text("{}")
    with pytest.raises(ModelError, match="not the file that was exported"):
        store.verified(versions[0])
    assert store.register(core, by="another").registered_by == "another"
    store.verified(versions[0])
    assert store.aliases().champion == versions[0]


def test_a_version_that_was_not_asked_for_is_refused(store: ModelStore, core: Path) -> None:
    with pytest.raises(ModelError, match="not '0123456789ab'"):
        store.register(core, by="someone", expected="0123456789ab")


def spoil(folder: Path, seed: int) -> str:
    """One of many small harms that the manifest gives away; says which."""
    rng = random.Random(seed)
    manifest = json.loads((folder / registry.MANIFEST).read_text())
    name = rng.choice(sorted(manifest["files"]))
    path = folder / name
    content = bytearray(path.read_bytes())
    kind = seed % 10
    if kind == 0:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[rng.randrange(len(content)) :]
    elif kind == 2:
        content += rng.randbytes(rng.randint(1, 999))
    elif kind == 3:
        at = rng.randrange(len(content))
        content[at : at + 1 + rng.randrange(64)] = b""
    elif kind == 4:
        path.unlink()
        return f"{name} is gone"
    elif kind == 5:
        path.unlink()
        outside = folder.parent / f"outside-{seed}"
        outside.write_bytes(content)
        path.symlink_to(outside if seed % 20 == 5 else Path("..") / outside.name)
        return f"{name} is a link"
    elif kind == 6:
        sealed = (folder / registry.MANIFEST).read_bytes()
        (folder / registry.MANIFEST).write_bytes(sealed[: rng.randrange(len(sealed) - 2)])
        return "the manifest is cut"
    elif kind == 7:
        field = rng.choice(sorted(set(manifest) - {"base", "image"}))
        change(folder, lambda content: content.update({field: rng.choice([7, []])}))
        return f"the manifest's {field} is something else"
    elif kind == 8:
        strange = rng.choice(
            ["../escape", "/etc/passwd", "a/b", "", ".", "..", "x\0y", "run", "a" * 300, "manifest.json"]
        )
        change(folder, lambda content: content["files"].update({strange: "0" * 64}))
        return f"the manifest lists {strange!r}"
    else:
        files = manifest["files"]
        a, b = rng.sample(sorted(files), 2)
        change(folder, lambda content: content["files"].update({a: files[b], b: files[a]}))
        return f"{a} and {b} have changed places"
    path.write_bytes(content)
    return f"{name} was changed"


def refuse_mutated(store: ModelStore, copied: Callable[[str], Path], seeds: range) -> None:
    before = state(store)
    for seed in seeds:
        folder = copied("mutated")
        what = spoil(folder, seed)
        try:
            assert "Allowed:" in refused(store, folder), what
        except pytest.fail.Exception:
            pytest.fail(f"seed {seed}: let in although {what}")
    assert state(store) == before


def test_mutated_folders_are_refused_and_the_champion_stays(
    store: ModelStore, copied: Callable[[str], Path]
) -> None:
    refuse_mutated(store, copied, range(N_MUTATED))


@pytest.mark.drill
def test_a_thousand_mutated_folders_are_refused(store: ModelStore, copied: Callable[[str], Path]) -> None:
    refuse_mutated(store, copied, range(10_000, 11_000))
    assert store.verified(store.aliases().champion or "")


def pickled() -> bytes:
    return pickle.dumps({"weights": np.zeros(9)})


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def arrays() -> bytes:
    """An array of objects, which NumPy would unpickle."""
    file = io.BytesIO()
    np.save(file, np.array([{"weights": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


FILES: Final[dict[str, bytes]] = {
    **{f"a pickle of protocol {n}": pickle.dumps({"weights": np.zeros(9)}, protocol=n) for n in range(6)},
    "a pickle that is cut": pickled()[:20],
    "a pickle with something before it": b"#!python\n" + pickled(),
    "a compressed pickle": gzip.compress(pickled()),
    "weights of torch": zipped(("archive/data.pkl", pickled()), ("archive/version", b"3")),
    "weights of an old torch": pickle.dumps(0x1950A86A20F9469CFC6C) + pickled(),
    "arrays with objects": zipped(("weights.npy", arrays())),
    "an array of objects": arrays(),
    "an archive that is cut": b"PK\x03\x04",
    "an archive that leaves its folder": zipped(("../../escape", b"x")),
    "an archive that grows": zipped(("zeros", bytes(1 << 22))),
    "a model folder in an archive": zipped((registry.MANIFEST, b"{}"), ("emb2prob.onnx", b"x")),
    "a tar": tarred("model.pkl", pickled()),
    "a tar that leaves its folder": tarred("../escape", b"x"),
    "safetensors": (2).to_bytes(8, "little") + b"{}",
    "keras": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "tensorflow lite": bytes(4) + b"TFL3" + bytes(64),
    "gguf": b"GGUF" + bytes(64),
    "onnx": b"\x08\x08\x12\x07pytorch" + bytes(64),
    "a database": b"SQLite format 3\0" + bytes(84),
    "text": b"model",
    "a program": b"import os\nos.system('id')\n",
    "zeros": bytes(1 << 20),
}
"""What somebody may hand in as a model, and also in place of a manifest."""
IN_A_FOLDER: Final = (
    "a pickle of protocol 4",
    "a compressed pickle",
    "weights of torch",
    "arrays with objects",
    "a model folder in an archive",
    "zeros",
)
FOREIGN: Final = (
    "nothing",
    "a named pipe",
    "a link to nowhere",
    "an empty folder",
    "a folder of somebody else",
    "weights of somebody else",
    "a folder that holds a model folder",
    "a manifest that is a named pipe",
    "a manifest that is a folder",
    "a manifest that is a link",
    "a manifest of nesting",
)


def make_foreign(path: Path, kind: str) -> None:
    """What somebody may hand in who has no model folder."""
    sealed = path / registry.MANIFEST
    if kind in FILES:
        path.write_bytes(FILES[kind])
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a link to nowhere":
        path.symlink_to("/nowhere")
    elif kind != "nothing":
        path.mkdir()
        if kind == "a folder of somebody else":
            (path / "config.json").write_text("{}")
        elif kind == "weights of somebody else":
            (path / "config.json").write_text('{"architectures": ["Bert"]}')
            (path / "pytorch_model.bin").write_bytes(FILES["weights of torch"])
        elif kind == "a folder that holds a model folder":
            (path / "model").mkdir()
            (path / "model" / registry.MANIFEST).write_text("{}")
        elif kind == "a manifest that is a named pipe":
            os.mkfifo(sealed)
        elif kind == "a manifest that is a folder":
            sealed.mkdir()
        elif kind == "a manifest that is a link":
            sealed.symlink_to("/etc/passwd")
        elif kind == "a manifest of nesting":
            sealed.write_text("[" * 100_000)
        elif kind.startswith("a manifest: "):
            sealed.write_bytes(FILES[kind.removeprefix("a manifest: ")])


def test_pickled_and_foreign_files_are_refused_with_a_reason(store: ModelStore, tmp_path: Path) -> None:
    before = state(store)
    kinds = [*FILES, *FOREIGN, *(f"a manifest: {kind}" for kind in IN_A_FOLDER)]
    assert len(kinds) >= 40
    for i, kind in enumerate(kinds):
        foreign = tmp_path / f"foreign-{i}"
        make_foreign(foreign, kind)
        assert str(foreign) in refused(store, foreign), kind
        for pipe in (foreign, foreign / registry.MANIFEST):
            if pipe.is_fifo():  # whoever reads what tests leave behind would wait for ever
                pipe.unlink()
    assert state(store) == before
    assert not (tmp_path / "escape").exists()


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", ".hidden", "sub"])
def test_what_no_model_folder_has_is_not_let_in_beside_a_core(
    name: str, store: ModelStore, copied: Callable[[str], Path]
) -> None:
    folder = copied("beside")
    (folder / name).write_bytes(pickled())
    assert f"holds {name!r}" in refused(store, folder)


@pytest.mark.parametrize("name", ["policies.json", "README.md", "report"])
def test_links_beside_a_core_are_refused(name: str, store: ModelStore, copied: Callable[[str], Path]) -> None:
    folder = copied("beside")
    (folder / name).symlink_to("/etc")
    assert name in refused(store, folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (registry.EMB2PROB, pickled()),
        (registry.NGRAMS, pickled()),
        ("emb2prob.onnx", None),
        ("policies.json", b'{"default": {"strict": {"no such node": 0.5}}}'),
    ],
)
def test_a_sealed_fraud_is_refused_by_the_child_that_opens_it(
    name: str, content: bytes | None, store: ModelStore, copied: Callable[[str], Path], core: Path
) -> None:
    folder, before = copied("fraud"), state(store)
    if name == "policies.json":
        (folder / name).write_bytes(content or b"")
        # The core is known already: a store without it has to look.
        store = ModelStore(folder.parent / "empty")
        before = state(store)
    else:
        reseal(folder, name, content if content is not None else (core / "text2emb.onnx").read_bytes())
    assert "the model was refused" in refused(store, folder)
    assert state(store) == before


def test_a_child_that_takes_too_long_or_dies_is_a_refusal(core: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"did not answer within 0\.05 s"):
        try_in_child(core, limit_s=0.05)
    with pytest.raises(ModelError, match=r"refused: .*no-such-folder"):
        try_in_child(tmp_path / "no-such-folder")


def test_promote_and_roll_back_move_the_aliases(store: ModelStore, versions: tuple[str, str]) -> None:
    text, image = versions
    assert store.challenge(image, by="ann").challenger == image
    stamp = store.stamp()
    promoted = store.promote(image, by="ann")
    assert (promoted.champion, promoted.previous, promoted.challenger) == (image, text, None)
    assert promoted.changed_by == "ann"
    assert store.stamp() != stamp
    assert store.promote(image, by="bob") == promoted == store.aliases()
    back = store.roll_back(by="bob")
    assert (back.champion, back.previous, back.revision) == (text, image, promoted.revision + 1)
    assert back.of(text) == ("champion",)
    with pytest.raises(ModelError, match="not registered"):
        store.promote("../../etc", by="bob")
    assert ModelStore(store.folder).aliases() == back


def test_what_was_damaged_on_the_disk_is_not_promoted(store: ModelStore, versions: tuple[str, str]) -> None:
    _, image = versions
    before = store.aliases()
    sealed = store.folder_of(image) / registry.MANIFEST
    change(sealed.parent, lambda manifest: manifest.update(shelver_version="another"))
    with pytest.raises(ModelError, match="not the file that was registered"):
        store.promote(image, by="ann")
    assert store.aliases() == before
    with pytest.raises(ModelError, match="no model answered before"):
        store.roll_back(by="ann")


def test_many_at_once_leave_whole_aliases(store: ModelStore, versions: tuple[str, str]) -> None:
    stop, wrong = threading.Event(), list[object]()

    def read() -> None:
        while not stop.is_set():
            found = store.aliases()
            if found.champion not in versions or found.previous not in (None, *versions):
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [
        threading.Thread(
            target=lambda version=version: [ModelStore(store.folder).promote(version, by="x") for _ in range(15)]
        )
        for version in versions
    ]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong
    last = store.aliases()
    assert {last.champion, last.previous} == set(versions)


def test_aliases_that_cannot_be_read_are_an_error(store: ModelStore) -> None:
    (store.folder / "aliases.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read") as refused:
        store.aliases()
    assert str(store.folder) not in str(refused.value)
    assert str(store.folder) in refused.value.detail


def test_one_model_that_is_damaged_hides_no_other(store: ModelStore, versions: tuple[str, str]) -> None:
    (store.folder_of(versions[1]) / "registered.json").write_text("{")
    assert [one.model_version for one in store.models()] == [versions[0]]
    with pytest.raises(ModelError, match="cannot be read"):
        store.find(versions[1])


def test_a_roll_back_to_another_model_than_was_looked_at_is_refused(
    store: ModelStore, versions: tuple[str, str]
) -> None:
    text, image = versions
    before = store.promote(image, by="ann")
    with pytest.raises(ModelError, match=f"no longer {image}"):
        store.roll_back(by="bob", expected=image)
    assert store.aliases() == before
    assert store.roll_back(by="bob", expected=text).champion == text
