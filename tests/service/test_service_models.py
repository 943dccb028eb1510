"""Models over HTTP: who may, what is refused, and that every answer is that of the model it names."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient

from shelver.decide import Policy
from shelver.library import ModelStore
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.registry import read_manifest
from shelver.service.models.champion import Models
from shelver.service.problems import ServiceError
from shelver.service.state import Service
from shelver.service.tables.accounts import AuditEntry
from shelver.service.tables.models import StoredPolicy

As = Callable[..., TestClient]
FOLLOWED_S: Final = 10.0


@pytest.fixture
def both(service: Service, text_model: Path, image_model: Path) -> tuple[str, str]:
    """The versions of the champion, a text model, and of a picture model that is registered beside it."""
    other = service.models.store.register(image_model, by="a test", trial=False)
    return read_manifest(text_model).model_version, other.model_version


def imported(service: Service, model: Path, name: str) -> Path:
    """A copy of a model in the import folder."""
    return Path(shutil.copytree(model, service.models.imports / name))


def test_everybody_with_an_account_may_read_models_and_only_administrators_change_them(
    as_role: As, client: TestClient, both: tuple[str, str]
) -> None:
    champion, other = both
    for role in ("seller", "reviewer", "service", "admin"):
        reader = as_role(role)
        found = reader.get("/v1/models").json()
        assert {one["model_version"]: one["aliases"] for one in found["models"]} == {
            champion: ["champion"],
            other: [],
        }
        assert reader.get(f"/v1/models/{other}").json()["source"] == "none-colour"
    for role in ("seller", "reviewer", "service"):
        reader = as_role(role)
        assert reader.post("/v1/models", json={"path": "x"}).status_code == 403
        assert reader.post(f"/v1/models/{other}/promote").status_code == 403
        assert reader.post("/v1/models/rollback").status_code == 403
    assert client.get("/v1/models").status_code == 401
    assert as_role("admin").get(f"/v1/models/{champion}").json()["aliases"] == ["champion"]


def test_a_model_is_registered_promoted_and_rolled_back_and_all_of_it_is_audited(
    as_role: As, service: Service, image_model: Path, text_model: Path
) -> None:
    admin = as_role("admin")
    folder = imported(service, image_model, "pictures")
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text('{"f1": 0.9}')
    before, new = (read_manifest(model).model_version for model in (text_model, image_model))
    registered = admin.post("/v1/models", json={"path": "pictures", "model_version": new, "challenger": True})
    assert registered.status_code == 201, registered.text
    assert registered.json()["aliases"] == ["challenger"]
    assert registered.json()["registered_by"] == admin.headers["X-User"]
    assert admin.get(f"/v1/models/{new}/report").json() == {"f1": 0.9}
    assert admin.get(f"/v1/models/{before}/report").status_code == 404

    promoted = admin.post(f"/v1/models/{new}/promote").json()
    assert (promoted["champion"], promoted["previous"], promoted["challenger"]) == (new, before, None)
    assert service.models.current().model_version == new
    back = admin.post("/v1/models/rollback").json()
    assert (back["champion"], back["previous"], back["misfits"]) == (before, new, {})
    assert service.models.current().model_version == before
    assert service.models.fresh()
    with service.database.reading() as session:
        noted = [
            (row.action, row.subject, row.user_id) for row in session.query(AuditEntry).order_by(AuditEntry.at)
        ]
    who = admin.headers["X-User"]
    assert [line for line in noted if line[0].startswith("model.")] == [
        ("model.register", new, who),
        ("model.promote", new, who),
        ("model.rollback", before, who),
    ]


def test_what_is_no_folder_in_the_import_folder_is_not_even_looked_at(
    as_role: As, service: Service, text_model: Path, tmp_path: Path
) -> None:
    admin = as_role("admin")
    (service.models.imports / "out").symlink_to(text_model)
    (service.models.imports / "file").write_text("x")
    said = set()
    for path in ("..", ".", "../models", str(text_model), "/etc", "out", "file", "nowhere", "x\0y", "a/../../.."):
        answer = admin.post("/v1/models", json={"path": path})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), path
        said.add(answer.json()["detail"].replace(repr(path), "PATH"))
    assert len(said) == 1


def test_a_refused_model_leaves_the_champion_alone(as_role: As, service: Service, image_model: Path) -> None:
    admin, before = as_role("admin"), service.models.store.aliases()
    folder = imported(service, image_model, "spoilt")
    (folder / "emb2prob.onnx").write_bytes(b"\x80\x04K\x01.")
    answer = admin.post("/v1/models", json={"path": "spoilt"})
    assert (answer.status_code, answer.json()["code"]) == (422, "model_refused")
    assert "emb2prob.onnx is not the file that was exported" in answer.json()["detail"]
    for path in ("/v1/models/0123456789ab", "/v1/models/..%2F..%2Fetc", "/v1/models/0123456789ab/report"):
        assert admin.get(path).status_code == 404
    assert admin.post("/v1/models/0123456789ab/promote").status_code == 404
    assert admin.post("/v1/models/rollback").json()["code"] == "no_previous_model"
    assert service.models.store.aliases() == before
    assert len(service.models.store.models()) == 1


def test_a_model_that_was_damaged_on_the_disk_is_not_promoted(
    as_role: As, service: Service, both: tuple[str, str]
) -> None:
    champion, other = both
    (service.models.store.folder_of(other) / "labels.json").write_text("{}")
    answer = as_role("admin").post(f"/v1/models/{other}/promote")
    assert (answer.status_code, answer.json()["code"]) == (422, "model_refused")
    assert service.models.current().model_version == champion


def test_a_model_that_a_policy_of_the_service_does_not_fit_is_not_promoted(
    as_role: As, service: Service, both: tuple[str, str]
) -> None:
    champion, other = both
    admin = as_role("admin")
    assert admin.post(f"/v1/models/{other}/promote").status_code == 200
    with service.database.writing() as session:
        session.add(StoredPolicy(name="wary", body=Policy(strict={"no such": 0.5}).model_dump_json()))
    service.models.read_policies()
    answer = admin.post(f"/v1/models/{champion}/promote")
    assert (answer.status_code, answer.json()["code"]) == (409, "policies_unfit")
    assert "wary" in answer.json()["detail"]
    assert service.models.current().model_version == other
    assert list(admin.post("/v1/models/rollback").json()["misfits"]) == ["wary"]
    assert service.models.current().model_version == champion


def test_every_answer_under_swaps_is_that_of_the_version_it_names(
    as_role: As, service: Service, both: tuple[str, str], draw: Callable[..., bytes]
) -> None:
    admin = as_role("admin")
    product = [Product("p", title="bar stool for the counter", images=(draw((20, 20, 200), 1),))]
    right = {
        version: Classifier.open(service.models.store.folder_of(version), threads=1)(product)[0]
        for version in both
    }
    assert right[both[0]] != right[both[1]]
    stop, wrong, seen = threading.Event(), list[object](), dict.fromkeys(both, 0)

    def read() -> None:
        try:
            while not stop.is_set():
                loaded = service.models.current()
                answer = loaded.classifier(product, policy=loaded.policy())[0]
                if answer != right[loaded.model_version]:
                    wrong.append((loaded.model_version, answer))
                seen[loaded.model_version] += 1
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(8):
        path = "rollback" if turn % 4 == 3 else f"{both[(turn + 1) % 2]}/promote"
        answer = admin.post(f"/v1/models/{path}")
        assert answer.status_code == 200, answer.text
        assert service.models.current().model_version == answer.json()["champion"]
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert all(seen.values())


def test_another_server_on_the_same_store_follows(as_role: As, service: Service, both: tuple[str, str]) -> None:
    champion, other = both
    follower = Models(ModelStore(service.models.store.folder), service.database, service.models.imports, threads=1)
    with pytest.raises(ServiceError, match="no model answers"):
        follower.current()
    follower.start(None)
    try:
        assert follower.current().model_version == champion
        admin = as_role("admin")
        admin.post(f"/v1/models/{other}/promote")
        wait_for(lambda: follower.current().model_version == other)
        assert admin.put("/v1/policies/eager", json={"decoder": "greedy"}).status_code == 200
        wait_for(lambda: "eager" in follower.current().policies)

        # A champion that cannot be opened: the one before it goes on, and it shows.
        labels = service.models.store.folder_of(champion) / "labels.json"
        kept = labels.read_bytes()
        labels.write_text("{}")
        service.models.store.promote(champion, by="another", verify=False)
        wait_for(lambda: not follower.fresh())
        assert follower.current().model_version == other
        labels.write_bytes(kept)
        service.models.store.promote(other, by="another")
        wait_for(follower.fresh)
    finally:
        follower.close()


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + FOLLOWED_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_restart_keeps_the_champion_whatever_model_is_given(
    make_app: Callable[..., TestClient],
    text_model: Path,
    image_model: Path,
    service: Service,
    both: tuple[str, str],
) -> None:
    service.models.promote(service.models.prepare(both[1]), by="a test")
    again: Any = make_app(model=text_model)
    assert again.app.state.service.models.current().model_version == both[1]
