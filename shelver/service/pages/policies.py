"""The policies: what each decides, and what another target precision would change, before it is saved."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from shelver.decide import Policy
from shelver.errors import ConfigError
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.models.payloads import PolicyOut
from shelver.service.models.policies import NAME, Name, delete_policy, list_policies, read_policy, write_policy
from shelver.service.models.preview import previewed
from shelver.service.models.preview_payloads import MAX_DAYS, PolicySource, PreviewIn, PreviewOut
from shelver.service.models.replay import DECODERS
from shelver.service.pages.locales import mark
from shelver.service.pages.render import page, redirect
from shelver.service.problems import ServiceError
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import AuditEntry, User

PAGE: Final = 10
TARGETS: Final = (50.0, 99.5)
"""Per cent, from the left end of the slider to its right."""
MAX_CHARS: Final = 1_000_000
_DECODER: Final[Mapping[str, str]] = {
    "best_leaf": mark("the most probable category"),
    "greedy": mark("down the tree, as far as it is sure"),
    "climb": mark("from the most probable category up to the first sure one"),
    "cost": mark("the category of the least expected cost"),
    "top_n": mark("nothing; it only suggests"),
}
_UNSURE: Final[Mapping[str, str]] = {
    "stop": mark("no answer, or one higher up"),
    "suggest": mark("suggestions"),
    "review": mark("a person decides"),
    "abstain": mark("no answer"),
}
_CHANGE: Final[Mapping[str, str]] = {
    "newly_decided": mark("decided from then on"),
    "no_longer_decided": mark("no longer decided"),
    "deeper": mark("decided deeper"),
    "higher": mark("decided higher up"),
}
Admin = Annotated[Identity, allowed("admin")]
Text = Annotated[str, Form(max_length=MAX_CHARS)]
Target = Annotated[float | None, Query(ge=1, le=99.9)]
router = APIRouter()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The curve as it is drawn in a square of 100 by 100; the script `policies.js` draws it the same way.

    Attributes:
        line, band: points of the curve, and of its interval.
        least: the precision at the bottom.
        now, then: where both policies stand, as x and y; None where that is not known.
        target: y of the target.
    """

    line: str
    band: str
    least: float
    now: tuple[float, float] | None
    then: tuple[float, float] | None
    target: float | None


@router.get("/policies", include_in_schema=False, dependencies=[allowed("admin")])
def show_policies(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    name: Annotated[str | None, Query(max_length=255)] = None,
    like: Annotated[str, Query(max_length=64)] = "default",
) -> Response:
    """All policies; with a name, on to the editor of a new one that begins as another."""
    if name is not None and re.fullmatch(NAME, name):
        return redirect(f"/policies/{name}", like=like)
    found = list_policies(service, session)
    wrong = mark("Letters, digits, and . _ - after the first one; at most 64.") if name is not None else ""
    return page(
        request,
        "policies.html",
        status=422 if wrong else 200,
        wrong=wrong,
        name=name or "",
        policies=found.policies,
        answers_now=found.model_version,
        names=[(one.name, one.name) for one in found.policies],
        **_words(),
    )


@router.get("/policies/{name}", include_in_schema=False, dependencies=[allowed("admin")])
def show_policy(
    name: Name,
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    target: Target = None,
    source: PolicySource | None = None,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS)] = 30,
    skip: Annotated[int, Query(ge=0, le=100_000)] = 0,
    like: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """One policy, and what a target precision in place of its thresholds would change."""
    kept = _kept(name, service, session, like)
    asked = PreviewIn(
        name=name,
        policy=kept.policy,
        precision=None if target is None else target / 100,
        source=source,
        days=days,
        limit=PAGE,
        skip=skip,
    )
    return _editor(request, service, session, name, kept, asked, like=like)


@router.post("/policies/{name}/try", include_in_schema=False, dependencies=[allowed("admin")])
def try_policy(
    name: Name, request: Request, service: ServiceDep, session: SessionDep, policy: Text = "", like: Text = ""
) -> Response:
    """The same page for a policy that was written by hand; nothing is saved."""
    kept = _kept(name, service, session, like or None)
    read, wrong = _read(policy, service)
    asked = PreviewIn(name=name, policy=read or kept.policy, limit=PAGE)
    status = 422 if wrong else 200
    return _editor(
        request, service, session, name, kept, asked, like=like or None, text=policy, wrong=wrong, status=status
    )


@router.post("/policies/{name}/save", include_in_schema=False)
def save_policy(
    name: Name,
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Admin,
    policy: Text = "",
    before: Text = "",
    like: Text = "",
    sure: Annotated[bool, Form()] = False,
) -> Response:
    """Keep a policy that was looked at; not if somebody else has changed it since."""
    kept = _kept(name, service, session, like or None)
    read, wrong = _read(policy, service)
    problem = None
    if read is not None and before != _edition(kept):
        problem = mark(
            "Somebody else has changed this policy since you loaded the page. Look at it again, then save."
        )
    elif read is not None and not sure:
        problem = mark("Tick the box beside the button: the policy decides for everybody at once.")
    if read is None or problem is not None:
        asked = PreviewIn(name=name, policy=read or kept.policy, limit=PAGE)
        return _editor(
            *(request, service, session, name, kept, asked),
            like=like or None,
            text=policy,
            wrong=wrong,
            problem=problem,
            status=409 if problem and sure else 422,
        )
    if not _is_carried(name, read, kept, service, session):
        read = read.model_copy(update={"promise": None})
    write_policy(name, read, service, identity, session)
    return redirect(f"/policies/{name}", done="policy-saved")


def _is_carried(name: str, read: Policy, kept: PolicyOut, service: Service, session: Session) -> bool:
    """Whether what a policy promises is what was found for it, and not what somebody typed or left standing."""
    if read.promise is None or read == kept.policy:
        return True
    asked = PreviewIn(name=name, precision=read.promise.precision, limit=1)
    try:
        found = previewed(session, service.models.current(), service.previews, asked)
    except ServiceError:  # a new name, or a decoder that has no preview
        return False
    return found.promised and found.policy == read


@router.post("/policies/{name}/reset", include_in_schema=False)
def reset_policy(name: Name, service: ServiceDep, session: SessionDep, identity: Admin) -> Response:
    """Forget the service's own policy; the model's of the same name decides again, if it has one."""
    delete_policy(name, service, identity, session)
    if name in service.models.current().own:
        return redirect(f"/policies/{name}", done="policy-reset")
    return redirect("/policies", done="policy-deleted")


def _kept(name: str, service: Service, session: Session, like: str | None) -> PolicyOut:
    """The policy of a name; a new one begins as another."""
    try:
        return read_policy(name, service, session)
    except ServiceError:
        if like is None:
            raise
        copied = read_policy(like, service, session).policy.model_copy(update={"promise": None})
        return PolicyOut(
            name=name, policy=copied, kept_by="service", promised_for=None, changed_at=None, changed_by=None
        )


def _edition(kept: PolicyOut) -> str:
    """Tells one state of a policy from the next."""
    return f"{kept.kept_by}:{kept.changed_at.isoformat() if kept.changed_at else ''}"


def _read(text: str, service: Service) -> tuple[Policy | None, list[str]]:
    """The policy that a text says, and what is wrong with it."""
    try:
        policy = Policy.model_validate_json(text)
        service.models.current().check(policy)
    except ValidationError as error:
        lines = []
        for one in error.errors()[:20]:
            field = ".".join(map(str, one["loc"]))
            said = str(one["msg"])
            if one["type"] == "extra_forbidden":
                said = f"unknown; the fields are {', '.join(Policy.model_fields)}"
            lines.append(f"{field}: {said}" if field else said)
        return None, lines
    except ConfigError as error:
        return None, [str(error)]
    return policy, []


def _editor(
    request: Request,
    service: Service,
    session: Session,
    name: str,
    kept: PolicyOut,
    asked: PreviewIn,
    *,
    like: str | None,
    text: str | None = None,
    wrong: list[str] | None = None,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    loaded = service.models.current()
    policy = asked.policy or kept.policy
    preview: PreviewOut | None = None
    if policy.decoder in DECODERS:
        preview = previewed(session, loaded, service.previews, asked)
        policy = preview.policy
    shown = json.dumps(policy.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False)
    target = None if asked.precision is None else round(asked.precision * 100, 2)
    return page(
        request,
        "policy.html",
        status=status,
        name=name,
        kept=kept,
        is_new=kept.changed_at is None and name not in loaded.own,
        has_own=name in loaded.own,
        like=like,
        policy=policy,
        text=shown if text is None else text,
        to_save=shown,
        changed=policy != kept.policy or like is not None,
        edition=_edition(kept),
        preview=preview,
        drawn=_drawn(preview) if preview is not None else None,
        target=target,
        at=target if target is not None else _standing(policy),
        targets=TARGETS,
        asked=asked,
        page_size=PAGE,
        wrong=wrong or [],
        problem=problem,
        model_version=loaded.model_version,
        history=_history(session, name),
        **_words(),
    )


def _standing(policy: Policy) -> float:
    """Where the slider begins: at what is promised now, or at the usual target."""
    return round(policy.promise.precision * 100, 2) if policy.promise is not None else 95.0


def _drawn(preview: PreviewOut) -> Drawn | None:
    points = preview.curve
    if not points:
        return None
    least = max(0.0, min(0.9, int(min(one.precision for one in points) * 10) / 10))
    drawn = [(100 * one.coverage, one.precision, one.low, one.high) for one in points]

    def y(precision: float) -> float:
        return round(100 * (1 - max(precision - least, 0) / (1 - least)), 2)

    def place(outlook: Any) -> tuple[float, float] | None:
        if outlook is None or outlook.precision is None:
            return None
        return round(100 * outlook.coverage, 2), y(outlook.precision.value)

    upper = [f"{x:.2f},{y(high)}" for x, _, _, high in drawn]
    lower = [f"{x:.2f},{y(low)}" for x, _, low, _ in reversed(drawn)]
    return Drawn(
        line=" ".join(f"{x:.2f},{y(precision)}" for x, precision, _, _ in drawn),
        band=" ".join(upper + lower),
        least=least,
        now=place(preview.now),
        then=place(preview.then),
        target=None if preview.target is None else y(preview.target),
    )


def _history(session: Session, name: str) -> list[dict[str, Any]]:
    """Who changed a policy, newest first, from the audit."""
    wanted = (
        select(AuditEntry, User.name)
        .join(User, User.id == AuditEntry.user_id, isouter=True)
        .where(AuditEntry.action.in_(("policy.write", "policy.delete")), AuditEntry.subject == name)
        .order_by(AuditEntry.at.desc(), AuditEntry.id.desc())
        .limit(20)
    )
    found = []
    for line, who in session.execute(wanted):
        detail = json.loads(line.detail)
        before, after = detail.get("before"), detail.get("after")
        found.append(
            {
                "at": line.at,
                "who": who,
                "action": line.action,
                "before": _thresholds(before),
                "after": _thresholds(after),
                "body": after or before,
            }
        )
    return found


def _thresholds(body: str | None) -> list[float] | None:
    try:
        return None if body is None else list(Policy.model_validate_json(body).thresholds)
    except ValidationError:  # of another version of shelver
        return None


def _words() -> dict[str, Any]:
    return {"decoders": _DECODER, "unsure_words": _UNSURE, "changes": _CHANGE}
