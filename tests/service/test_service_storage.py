"""Pictures and models in object storage: moto's server stands in for S3."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from moto.server import ThreadedMotoServer
from service_rig import service_behind, signed_in

from shelver.errors import ConfigError, ImageError, ModelError, StorageError
from shelver.library import Aliases, ModelStore
from shelver.objects import Objects
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.registry import MANIFEST, read_manifest
from shelver.service.products.picture_store import PictureStore
from shelver.service.storage import open_pictures, open_store
from shelver.settings import ServiceSettings

Draw = Callable[[tuple[int, int, int], int], bytes]
KEY = "a key that nobody may read"
BUCKET = "shelver-tests"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server with one bucket."""
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    content = (
        b'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>"
    )
    made = urllib.request.Request(f"{address}/{BUCKET}", content, method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(made):
        pass
    yield address
    running.stop()


@pytest.fixture
def address(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty place in the bucket; the environment leads to it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}-{time.time_ns()}"


@pytest.fixture
def objects(address: str) -> Objects:
    return Objects(address)


def test_objects_are_written_read_listed_and_removed(objects: Objects, tmp_path: Path) -> None:
    assert objects.get("a/b") is None
    assert objects.about("a/b") is None
    objects.put("a/b", b"one")
    objects.put("a/c", b"two")
    found = objects.get("a/b")
    assert found is not None
    assert found[0] == b"one"
    about = objects.about("a/b")
    assert about is not None
    assert (about.n_bytes, about.tag) == (3, found[1])
    assert abs(about.changed_at.timestamp() - time.time()) < 60
    assert sorted(objects.names("a/")) == ["a/b", "a/c"]
    objects.fetch("a/c", tmp_path / "c", limit=3)
    assert (tmp_path / "c").read_bytes() == b"two"
    with pytest.raises(StorageError, match="at most 2"):
        objects.fetch("a/c", tmp_path / "d", limit=2)
    with pytest.raises(FileNotFoundError):
        objects.fetch("a/x", tmp_path / "x", limit=3)
    objects.remove("a/b")
    objects.remove("a/b")
    assert objects.get("a/b") is None


def test_large_objects_come_in_pieces(objects: Objects, tmp_path: Path) -> None:
    content = bytes(range(256)) * 140_000  # 36 MB
    (tmp_path / "large").write_bytes(content)
    objects.put("large", tmp_path / "large")
    objects.fetch("large", tmp_path / "again", limit=len(content))
    assert (tmp_path / "again").read_bytes() == content


def test_of_many_who_replace_the_same_object_one_does(objects: Objects) -> None:
    won: list[int] = []

    def write(i: int) -> None:
        if objects.replace("one", str(i).encode(), None):
            won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = objects.get("one")
    assert found is not None
    assert [found[0]] == [str(i).encode() for i in won]
    assert objects.replace("one", b"next", found[1])
    assert not objects.replace("one", b"too late", found[1])
    assert not objects.replace("nowhere", b"x", found[1])


@pytest.mark.parametrize(
    "wrong",
    ["bucket", "s3://", "https://bucket/x", "file:///etc", "s3://key:secret@bucket", "s3://b/x?k=v", "memory:///"],
)
def test_an_address_that_is_none_is_refused_without_showing_it(wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Objects(wrong)
    assert "secret" not in str(refused.value)


def test_a_storage_that_is_not_there_or_refuses_is_an_error_of_its_own(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bucket that does not exist: reading finds nothing, writing fails.
    with pytest.raises((StorageError, FileNotFoundError)):
        Objects("s3://no-such-bucket/x").put("a", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError) as down:
        Objects(address).get("a")
    assert KEY not in f"{down.value} {down.value.detail} {down.value!r}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageError) as keyless:
        Objects(address).get("a")
    assert "Missing" in keyless.value.detail


def test_pictures_in_storage_are_as_in_a_folder(objects: Objects, draw: Draw) -> None:
    store = PictureStore(objects, grace_s=0)
    data = draw((200, 20, 20), 1)
    first, second = store.put(data), store.put(data)
    assert first == second
    assert store.get(first.hash) == data
    assert list(store.hashes()) == [first.hash]
    for name in ("../aliases.json", "", "A" * 64, f"{'0' * 63}\n"):
        assert store.get(name) is None
    with pytest.raises(ImageError):
        store.put(b"<svg/>")
    objects.put(f"pictures/{'0' * 64}", b"not what its name says")
    assert store.get("0" * 64) is None
    assert PictureStore(objects, grace_s=60).remove([first.hash]) == 0, "it was put a moment ago"
    assert store.remove([first.hash, "1" * 64]) == 1
    assert store.get(first.hash) is None


@pytest.fixture(scope="module")
def other_model(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a card and a report."""
    folder = tmp_path_factory.mktemp("other") / "with-card"
    shutil.copytree(text_model, folder, ignore=shutil.ignore_patterns("run"))
    (folder / "README.md").write_text("# Card")
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text('{"f1": 0.9}')
    return folder


def test_a_model_of_one_server_answers_on_another(objects: Objects, other_model: Path, tmp_path: Path) -> None:
    here, there = (ModelStore(tmp_path / name, objects) for name in ("here", "there"))
    assert there.models() == ()
    assert there.stamp() is None
    noted = here.register(other_model, by="ann")
    assert there.models() == (noted,)
    assert not list((tmp_path / "there" / "models").iterdir()), "nothing is fetched before it is needed"
    promoted = here.promote(noted.model_version, by="ann")
    assert there.aliases() == promoted
    assert there.stamp() == here.stamp() is not None
    folder, manifest = there.verified(noted.model_version)
    assert manifest == read_manifest(other_model)
    product = [Product("p", title="bar stool for the counter")]
    assert Classifier.open(folder)(product)[0] == Classifier.open(other_model)(product)[0]
    assert json.loads((folder / "report" / "report.json").read_text()) == {"f1": 0.9}
    assert there.find(noted.model_version) == noted
    assert there.register(other_model, by="bob") == noted, "it is there already"
    assert there.find("0123456789ab") is None
    for name in ("incoming", "fetching"):
        assert not list((tmp_path / "there" / name).iterdir())


@pytest.fixture
def registered(objects: Objects, text_model: Path, tmp_path: Path) -> tuple[ModelStore, str, str]:
    """A store that registered a model, its version, and the name of its objects."""
    store = ModelStore(tmp_path / "first", objects)
    noted = store.register(text_model, by="ann", trial=False)
    return store, noted.model_version, f"models/{noted.address}"


def test_what_was_damaged_here_is_fetched_again(registered: tuple[ModelStore, str, str]) -> None:
    store, version, _ = registered
    (store.folder_of(version) / "labels.json").write_text("{}")
    folder, _ = store.verified(version)
    assert (folder / "labels.json").read_text() != "{}"
    shutil.rmtree(folder)
    assert store.verified(version)[0] == folder


def test_what_was_changed_in_the_storage_is_refused_and_nothing_of_it_kept(
    registered: tuple[ModelStore, str, str], objects: Objects, tmp_path: Path
) -> None:
    _, version, below = registered

    def spoilt(name: str, content: bytes) -> None:
        before = objects.get(f"{below}/{name}")
        objects.put(f"{below}/{name}", content)
        other = ModelStore(tmp_path / "other", objects)
        with pytest.raises(ModelError):
            other.verified(version)
        with pytest.raises(ModelError):
            other.promote(version, by="eve")
        assert not list((tmp_path / "other" / "models").iterdir())
        assert not list((tmp_path / "other" / "fetching").iterdir())
        if before is None:
            objects.remove(f"{below}/{name}")
        else:
            objects.put(f"{below}/{name}", before[0])

    manifest = objects.get(f"{below}/{MANIFEST}")
    assert manifest is not None
    spoilt("labels.json", b"{}")
    spoilt("emb2prob.onnx", b"\x80\x04K\x01.")
    spoilt(MANIFEST, b"{}")
    spoilt(MANIFEST, manifest[0] + b"\n")
    spoilt("weights.pkl", b"\x80\x04K\x01.")
    spoilt("sub/model.onnx", b"x")
    spoilt("report/deep/x", b"x")
    objects.remove(f"{below}/labels.json")
    with pytest.raises(ModelError):
        ModelStore(tmp_path / "other", objects).verified(version)
    assert ModelStore(tmp_path / "other", objects).aliases() == Aliases()


def test_a_model_that_was_not_written_whole_is_not_there(
    registered: tuple[ModelStore, str, str], objects: Objects, text_model: Path, tmp_path: Path
) -> None:
    _, version, below = registered
    objects.remove(f"{below}/registered.json")
    other = ModelStore(tmp_path / "other", objects)
    assert (other.models(), other.find(version)) == ((), None)
    with pytest.raises(ModelError, match="not registered"):
        other.promote(version, by="ann")
    assert other.register(text_model, by="bob", trial=False).registered_by == "bob"
    assert ModelStore(tmp_path / "third", objects).verified(version)


def test_servers_that_promote_at_once_do_not_overwrite_each_other(
    registered: tuple[ModelStore, str, str], objects: Objects, image_model: Path, tmp_path: Path
) -> None:
    store, version, _ = registered
    other = store.register(image_model, by="ann", trial=False).model_version
    servers = [ModelStore(tmp_path / "first", objects), ModelStore(tmp_path / "second", objects)]
    for server in servers:
        server.verified(version)
        server.verified(other)
    first = store.promote(version, by="ann")
    failed: list[BaseException] = []

    def swap(server: ModelStore) -> None:
        try:
            for turn in range(6):
                server.promote((version, other)[turn % 2], by="x", verify=False)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=swap, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    last = store.aliases()
    assert {last.champion, last.previous} == {version, other}
    assert last.revision <= first.revision + 12
    back = servers[0].roll_back(by="bob")
    assert (back.champion, back.previous, back.revision) == (last.previous, last.champion, last.revision + 1)


class Lossy(Objects):
    """A storage whose first answer to a replacement is lost on the way, or that somebody else is faster than."""

    def __init__(self, address: str, *, faster: Callable[[], object] | None = None) -> None:
        super().__init__(address)
        self._faster = faster
        self.n_lost = 0

    def replace(self, name: str, content: bytes, tag: str | None) -> bool:
        if name == "aliases.json" and not self.n_lost:
            self.n_lost += 1
            if self._faster is not None:
                self._faster()
                return super().replace(name, content, tag)
            assert super().replace(name, content, tag)
            return False
        return super().replace(name, content, tag)


def test_a_change_whose_answer_was_lost_is_not_made_twice(
    registered: tuple[ModelStore, str, str], address: str, image_model: Path, tmp_path: Path
) -> None:
    store, version, _ = registered
    other = store.register(image_model, by="ann", trial=False).model_version
    store.promote(version, by="ann")
    before = store.promote(other, by="ann")
    lossy = Lossy(address)
    back = ModelStore(tmp_path / "first", lossy).roll_back(by="ann")
    assert lossy.n_lost == 1
    assert (back.champion, back.revision) == (version, before.revision + 1)
    assert store.aliases() == back
    # Somebody promotes between the look and the change: what is rolled back is what answers then.
    faster = Lossy(address, faster=lambda: store.promote(other, by="bob"))
    again = ModelStore(tmp_path / "first", faster).roll_back(by="ann")
    assert (again.champion, again.previous, again.revision) == (version, other, back.revision + 2)


def test_a_storage_that_is_down_changes_nothing_and_the_stamp_stays(
    registered: tuple[ModelStore, str, str], address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, version, _ = registered
    store.promote(version, by="ann")
    stamp = store.stamp()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    down = ModelStore(tmp_path / "first", Objects(address))
    for call in (down.aliases, down.models, lambda: down.promote(version, by="x"), lambda: down.roll_back(by="x")):
        with pytest.raises(StorageError):
            call()
    assert down.stamp() is None
    assert store.stamp() == stamp


def test_the_service_keeps_pictures_and_models_in_the_storage(
    make_app: Callable[..., TestClient], address: str, objects: Objects, draw: Draw, tmp_path: Path, logs: Any
) -> None:
    client = make_app(storage=address)
    seller = signed_in(client, "seller")
    data = draw((20, 200, 20), 3)
    picture = {"base64": base64.b64encode(data).decode()}
    made = seller.post("/v1/products", json={"title": "folding deck chair", "pictures": [picture]})
    assert made.status_code == 201, made.text
    (hash_,) = made.json()["pictures"]
    assert seller.get(f"/v1/pictures/{hash_}").content == data
    assert list(objects.names("pictures/")) == [f"pictures/{hash_}"]
    assert not (tmp_path / "data" / "pictures").exists()
    models = seller.get("/v1/models").json()["models"]
    assert [one["aliases"] for one in models] == [["champion"]]
    assert [name.split("/")[-1] for name in objects.names("models/")].count("registered.json") == 1
    assert objects.get("aliases.json") is not None
    # The storage goes away: what is there in memory goes on, the rest says why not.
    service_behind(client).pictures._place._objects = Objects("s3://no-such-bucket/x")  # type: ignore[union-attr]
    assert seller.post("/v1/predict", json={"title": "bar stool"}).status_code == 200
    assert KEY not in logs.getvalue()


def test_without_a_storage_everything_lies_in_the_data_folder(
    service_settings: Callable[..., ServiceSettings], tmp_path: Path, draw: Draw
) -> None:
    settings = service_settings()
    stored = open_pictures(settings).put(draw((1, 2, 3), 1))
    assert (settings.data / "pictures" / stored.hash[:2] / stored.hash).is_file()
    assert open_store(settings).folder == settings.data / "models"
