"""One of everything that a path can name, made as callers make it: what a seller owns, and what everybody shares.

A route with a new `{id}` needs an entry here: in OWN where it belongs to somebody, else in SHARED. The key is the
last part of the path before it, and its name, as in `products/{product_id}`.
"""

from __future__ import annotations

import base64
import io
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi.testclient import TestClient
from PIL import Image
from service_rig import service_behind

from shelver.service.jobs.events import happened
from shelver.service.jobs.keeping import FILES, job_folder
from shelver.service.tables.declarative import now
from shelver.service.tables.work import JobRow

_JOB_FILE: Final = "rejected.jsonl"
Things = dict[str, str]


def _product(owner: TestClient, found: Things) -> str:
    body = {"title": "Folding deck chair", "pictures": [{"base64": picture_base64()}]}
    return str(_made(owner.post("/v1/products", json=body))["id"])


def _prediction(owner: TestClient, found: Things) -> str:
    return str(_made(owner.post("/v1/predict", json={"title": "Folding deck chair"}))["prediction_id"])


def _picture(owner: TestClient, found: Things) -> str:
    product = owner.get(f"/v1/products/{thing('products/{product_id}', owner, found)}")
    return str(_made(product)["pictures"][0])


def _upload(owner: TestClient, found: Things) -> str:
    feed = {"file": ("feed.csv", b"product_id,title\n1,chair\n", "text/csv")}
    return str(_made(owner.post("/v1/uploads", files=feed))["id"])


def _job(owner: TestClient, found: Things) -> str:
    """A job that has ended and left a file."""
    body = {"kind": "import_products", "upload_id": thing("uploads/{upload_id}", owner, found)}
    job_id = str(_made(owner.post("/v1/jobs", json=body))["id"])
    service = service_behind(owner)
    with service.database.writing() as session:
        job = session.get(JobRow, job_id)
        assert job is not None
        job.state, job.ended_at, job.result = "done", now(), {"files": [_JOB_FILE]}
        happened(session, job, "done")
    folder = job_folder(service.settings.data, job_id) / FILES
    folder.mkdir(parents=True)
    (folder / _JOB_FILE).write_text("{}\n", encoding="utf-8")
    return job_id


def _user(admin: TestClient) -> str:
    """One who calls nothing himself: he is disabled and signed out."""
    body = {"email": f"{uuid.uuid4().hex}@example.org", "name": "Rob", "role": "reviewer"}
    return str(_made(admin.post("/v1/users", json=body))["user_id"])


OWN: Final[Mapping[str, Callable[[TestClient, Things], str]]] = {
    "products/{product_id}": _product,
    "predictions/{prediction_id}": _prediction,
    "pictures/{hash}": _picture,
    "uploads/{upload_id}": _upload,
    "jobs/{job_id}": _job,
    "log/{prediction_id}": lambda owner, found: thing("predictions/{prediction_id}", owner, found),
    "listings/{product_id}": lambda owner, found: thing("products/{product_id}", owner, found),
}
"""Makes one that belongs to the caller; what it needs comes from, and goes to, what was made before."""
SHARED: Final[Mapping[str, Callable[[TestClient], str]]] = {
    "users/{user_id}": _user,
    "keys/{key_id}": lambda admin: str(_made(admin.post("/v1/keys", json={"name": "nightly sync"}))["id"]),
    "models/{version}": lambda admin: str(_made(admin.get("/v1/models"))["models"][0]["model_version"]),
    "nodes/{node_id}": lambda admin: str(_made(admin.get("/v1/taxonomy"))["roots"][0]["node_id"]),
    "policies/{name}": lambda admin: str(_made(admin.get("/v1/policies"))["policies"][0]["name"]),
    "files/{name}": lambda admin: _JOB_FILE,
    "static/{name}": lambda admin: "shelver.css",
}
"""Finds one that belongs to nobody, as an administrator."""


def named_in(path: str) -> Iterator[str]:
    """The keys of what a path names: `/v1/jobs/{job_id}/files/{name}` → `jobs/{job_id}`, `files/{name}`."""
    yield from re.findall(r"[^/{}]+/\{\w+\}", path)


def thing(key: str, owner: TestClient, found: Things) -> str:
    """One of the owner's own; made if there is none yet."""
    if key not in found:
        found[key] = OWN[key](owner, found)
    return found[key]


def shared_things(admin: TestClient) -> Things:
    """One of everything that belongs to nobody."""
    return {key: find(admin) for key, find in SHARED.items()}


def filled(path: str, things: Mapping[str, str]) -> str:
    """The path with the ids of these things in place of their names."""
    for key in named_in(path):
        path = path.replace(key, f"{key.split('/')[0]}/{things[key]}")
    return path


def picture_bytes(colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A small PNG."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def picture_base64() -> str:
    """The same as text."""
    return base64.b64encode(picture_bytes()).decode()


def _made(answer: Any) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()
