"""Operations on what the service keeps: products, the log, feedback, jobs, one's own account."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from shelver.client.call import (
    Call,
    Stated,
    checked,
    get,
    given,
    if_match,
    new_key,
    nothing,
    part,
    post,
    reads,
    said,
)
from shelver.service.accounts.payloads import Account, Export
from shelver.service.jobs.payloads import JobIn, JobPage, JobRead, UploadRead
from shelver.service.products.payloads import ExampleOut, ProductBody, ProductPage, ProductRead
from shelver.service.records.payloads import (
    Action,
    By,
    FeedbackPage,
    FeedbackRead,
    PredictionPage,
    QualityOut,
    WholePrediction,
)


def create_product(body: ProductBody | Stated, *, idempotency_key: str | None = None) -> Call[ProductRead]:
    """Add a product of one's own."""
    return post("/v1/products", ProductRead, _product(body), key=idempotency_key or new_key())


def list_products(
    *,
    q: str | None = None,
    seller_product_id: str | None = None,
    node_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Call[ProductPage]:
    """Products, newest first; `q` are words of the title or brand, `seller_product_id` is the seller's own id."""
    params = {"q": q, "seller_product_id": seller_product_id, "node_id": node_id}
    return get("/v1/products", ProductPage, **params, limit=limit, after=after)


def read_product(product_id: str) -> Call[ProductRead]:
    """A product."""
    return get(f"/v1/products/{part(product_id)}", ProductRead)


def read_example() -> Call[ExampleOut]:
    """A product to try, of the installation's example catalog."""
    return get("/v1/examples/random", ExampleOut)


def replace_product(
    product_id: str, body: ProductBody | Stated, *, version: int | None = None
) -> Call[ProductRead]:
    """Replace all that is said of a product; with `version`, only if that is its latest.

    With `version`, a `NoAnswerError` leaves open whether it was done: read the product.
    """
    return Call(
        "PUT",
        f"/v1/products/{part(product_id)}",
        reads(ProductRead),
        body={"json": _product(body)},
        headers=if_match(version),
        repeatable=version is None,
    )


def delete_product(product_id: str, *, version: int | None = None) -> Call[None]:
    """Delete a product; with `version`, only if that is its latest. A `NoAnswerError` leaves it open."""
    return Call("DELETE", f"/v1/products/{part(product_id)}", nothing, headers=if_match(version))


def give_feedback(
    prediction_id: str, action: Action, *, node_id: str | None = None, note: str | None = None
) -> Call[FeedbackRead]:
    """Accept, correct (to `node_id`) or reject a prediction."""
    body = {"action": action} | given(node_id=node_id, note=note)
    return post(f"/v1/predictions/{part(prediction_id)}/feedback", FeedbackRead, body)


def list_feedback(
    *,
    action: Action | None = None,
    audit: bool | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Call[FeedbackPage]:
    """Judgements, newest first."""
    return get("/v1/feedback", FeedbackPage, action=action, audit=audit, limit=limit, after=after)


def list_predictions(
    *, outcome: str | None = None, policy: str | None = None, limit: int = 50, after: str | None = None
) -> Call[PredictionPage]:
    """The log, newest first."""
    return get("/v1/predictions", PredictionPage, outcome=outcome, policy=policy, limit=limit, after=after)


def read_prediction(prediction_id: str) -> Call[WholePrediction]:
    """A prediction with the answer that was given."""
    return get(f"/v1/predictions/{part(prediction_id)}", WholePrediction)


def export_predictions(
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    outcome: str | None = None,
    policy: str | None = None,
    model_version: str | None = None,
    node_id: str | None = None,
    product_id: str | None = None,
    user_id: str | None = None,
) -> Call[bytes]:
    """The log as a CSV file, all of it in memory: name a time where it is long."""
    params = {"from": start and start.isoformat(), "to": end and end.isoformat(), "outcome": outcome}
    params |= {"policy": policy, "model_version": model_version, "node_id": node_id, "product_id": product_id}
    return _file("/v1/predictions/export", **params, user_id=user_id)


def read_quality(
    *, start: datetime | None = None, end: datetime | None = None, by: By | None = None
) -> Call[QualityOut]:
    """Accuracy, F1, acceptance and adoption of recent predictions, with intervals."""
    params = {"from": start and start.isoformat(), "to": end and end.isoformat(), "by": by}
    return get("/v1/metrics", QualityOut, **params)


def upload_feed(path: str | Path, *, name: str | None = None) -> Call[UploadRead]:
    """Upload a feed that a job will read; the same bytes are kept once."""
    file = Path(path)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
    params = {"name": name or file.name}
    body = {"file": file}
    return Call("POST", "/v1/uploads", reads(UploadRead), params, body, headers, repeatable=True)


def start_job(body: JobIn | Stated, *, idempotency_key: str | None = None) -> Call[JobRead]:
    """Put a job into the queue."""
    return post("/v1/jobs", JobRead, said(checked(body, JobIn, "body")), key=idempotency_key or new_key())


def read_job(job_id: str) -> Call[JobRead]:
    """A job: how far it came, and what came of it."""
    return get(f"/v1/jobs/{part(job_id)}", JobRead)


def list_jobs(
    *, kind: str | None = None, state: str | None = None, limit: int = 50, after: str | None = None
) -> Call[JobPage]:
    """Jobs, newest first."""
    return get("/v1/jobs", JobPage, kind=kind, state=state, limit=limit, after=after)


def cancel_job(job_id: str) -> Call[JobRead]:
    """Stop a job."""
    return Call("POST", f"/v1/jobs/{part(job_id)}/cancel", reads(JobRead), repeatable=True)


def read_job_file(job_id: str, name: str) -> Call[bytes]:
    """A file that a job has written."""
    return _file(f"/v1/jobs/{part(job_id)}/files/{part(name)}")


def register(*, email: str, name: str, password: str) -> Call[Account]:
    """A new account of one's own, where people may register; `sign_in` comes after it."""
    body = {"json": {"email": email, "name": name, "password": password}}
    return Call("POST", "/v1/register", reads(Account), body=body, signed=False)


def read_me() -> Call[Account]:
    """One's own account."""
    return get("/v1/me", Account)


def export_me() -> Call[Export]:
    """Everything that is stored about one's own account."""
    return get("/v1/me/export", Export)


def _product(body: ProductBody | Stated) -> dict[str, Any]:
    return said(checked(body, ProductBody, "body"))


def _file(path: str, **params: Any) -> Call[bytes]:
    return Call("GET", path, lambda response: response.content, params=given(**params), repeatable=True)
