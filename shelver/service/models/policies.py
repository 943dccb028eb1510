"""Policies: those that come with the model, and before them those that the service keeps in its database."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body
from fastapi import Path as InPath
from pydantic import ValidationError
from sqlalchemy import select

from shelver.decide import Policy
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.audit import audit
from shelver.service.db import SessionDep, after_commit
from shelver.service.models.champion import Loaded
from shelver.service.models.payloads import PoliciesOut, PolicyOut
from shelver.service.models.preview import previewed
from shelver.service.models.preview_payloads import PreviewIn, PreviewOut
from shelver.service.problems import not_found, responses
from shelver.service.state import ServiceDep
from shelver.service.tables.models import StoredPolicy

router = APIRouter(prefix="/v1/policies", tags=["policies"])
READERS: Final = [allowed("seller", "reviewer", "admin", "service")]
Admin = Annotated[Identity, allowed("admin")]
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, InPath(pattern=NAME, examples=["default"])]


@router.get("", dependencies=READERS, summary="List the policies")
def list_policies(service: ServiceDep, session: SessionDep) -> PoliciesOut:
    """The policies that a prediction may name."""
    loaded = service.models.current()
    stored = {row.name: row for row in session.scalars(select(StoredPolicy))}
    names = sorted({*loaded.policies, *stored})
    found = [shown for name in names if (shown := _shown(name, loaded, stored.get(name))) is not None]
    return PoliciesOut(policies=found, model_version=loaded.model_version)


@router.post(
    "/preview",
    dependencies=[allowed("reviewer", "admin")],
    summary="Try a policy",
    responses=responses("invalid_input", "not_found"),
)
def preview_policy(body: PreviewIn, service: ServiceDep, session: SessionDep) -> PreviewOut:
    """What a policy would do, before it is saved; nothing changes.

    With `precision`, the loosest threshold that keeps it, tested on labelled products as `shelver policy fit`
    does, or, where these are too few, the one that just reaches it on them; and whether it can be promised, or why
    not. With it: coverage and precision now and then, the curve, and the recent predictions that would be decided
    otherwise.
    """
    return previewed(session, service.models.current(), service.previews, body)


@router.get("/{name}", dependencies=READERS, summary="Read a policy", responses=responses("not_found"))
def read_policy(name: Name, service: ServiceDep, session: SessionDep) -> PolicyOut:
    """One policy."""
    shown = _shown(name, service.models.current(), session.get(StoredPolicy, name))
    if shown is None:
        raise not_found(f"policy {name}", allowed="those that /v1/policies lists", remedy="Check the name.")
    return shown


@router.put("/{name}", summary="Write a policy", responses=responses("invalid_input"))
def write_policy(
    name: Name,
    body: Annotated[Policy, Body(examples=[{"decoder": "climb", "thresholds": [0.8]}])],
    service: ServiceDep,
    identity: Admin,
    session: SessionDep,
) -> PolicyOut:
    """Keep a policy that fits the current model. It stands before the model's own of the same name, decides when
    this call returns, and on other servers a second later."""
    loaded = service.models.current()
    loaded.check(body)
    content = body.model_dump_json(exclude_defaults=True)
    row = session.get(StoredPolicy, name)
    before = row.body if row is not None else None
    if row is None:
        row = StoredPolicy(name=name)
        session.add(row)
    row.body = content
    row.changed_by = identity.user_id
    session.flush()
    audit(session, identity, "policy.write", name, {"before": before, "after": content})
    after_commit(session, service.models.policies_changed)
    shown = _shown(name, loaded, row)
    assert shown is not None
    return shown


@router.delete("/{name}", status_code=204, summary="Delete a policy", responses=responses("not_found"))
def delete_policy(name: Name, service: ServiceDep, identity: Admin, session: SessionDep) -> None:
    """Forget a policy of the service; one of the same name that came with the model decides again."""
    row = session.get(StoredPolicy, name)
    if row is None:
        raise not_found(
            f"policy {name} of the service",
            allowed='those that /v1/policies lists with `kept_by` "service"',
            remedy="Check the name. A policy of the model goes with the model.",
        )
    audit(session, identity, "policy.delete", name, {"before": row.body})
    session.delete(row)
    after_commit(session, service.models.policies_changed)


def _shown(name: str, loaded: Loaded, row: StoredPolicy | None) -> PolicyOut | None:
    """A policy as the database has it, which may be a second ahead of what decides here."""
    try:
        policy = Policy.model_validate_json(row.body) if row is not None else loaded.policies.get(name)
    except ValidationError:  # of another version of shelver; `champion` has said so in the log
        return None
    if policy is None:
        return None
    return PolicyOut(
        name=name,
        policy=policy,
        kept_by="service" if row is not None else "model",
        promised_for=policy.promise.model_version if policy.promise is not None else None,
        changed_at=row.changed_at if row is not None else None,
        changed_by=row.changed_by if row is not None else None,
    )
