"""Mail for people who forgot their password, through a hook: a program of the shop that sends it.

`POST /v1/forgot` only puts the address into a queue. One thread looks whether there is such an account, makes the
token and hands it to the hook; so the answer and its time are the same for everybody. No token is written down.
"""

from __future__ import annotations

import heapq
import hmac
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Final, Self

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import exists, select
from sqlalchemy.exc import SQLAlchemyError

from shelver.errors import ConfigError
from shelver.service.accounts import one_time
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.accounts.outward import NoAnswerError, call, checked_address
from shelver.service.accounts.payloads import Forgotten
from shelver.service.db import Database
from shelver.service.limits import address_of
from shelver.service.problems import ServiceError, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import OneTimeToken, User
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.openid import OpenIdLink
from shelver.settings import ServiceSettings

SIGNATURE: Final = "X-Shelver-Signature"
LIVES_S: Final = 3600
"""Of a token that is mailed, at most."""
PAUSE_S: Final = 300
"""A person gets no second mail within this time, whoever asks for it."""
RETRY_S: Final = (2.0, 10.0, 60.0, 300.0)
"""The pauses between attempts; after the last one a mail is given up."""
MAX_WAITING: Final = 1000
_STOP_S: Final = 5.0
log = structlog.get_logger("shelver.service")
router = APIRouter(tags=["accounts"])


@dataclass(frozen=True, slots=True, order=True)
class _Mail:
    """What is to be done when: a lookup of `email`, or, where there is a body, the delivery of it."""

    due: float
    n_tried: int
    id: str
    email: str = field(repr=False)
    user_id: str | None = None
    body: bytes | None = field(default=None, repr=False)


class MailHook:
    """Hands mails to the hook, in a thread of its own. `with` starts and stops it.

    Args:
        database: where accounts and tokens are.
        address: of the hook.
        secret: signs what is sent.
        lives_s: lifetime of a token.
        retry_s: pauses between the attempts.
    """

    def __init__(
        self,
        database: Database,
        address: str,
        secret: str,
        *,
        lives_s: int,
        metrics: CollectorRegistry,
        retry_s: Sequence[float] = RETRY_S,
    ) -> None:
        self._database = database
        self._address = address
        self._secret = secret.encode()
        self._lives_s = min(lives_s, LIVES_S)
        self._retry_s = retry_s
        self._count = Counter("shelver_mails", "Mails, by what became of them.", ("outcome",), registry=metrics)
        self._changed = threading.Condition()
        self._waiting: list[_Mail] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shelver-mail", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_STOP_S)

    def ask(self, email: str) -> None:
        """Let whoever has this address get a token, if anybody has.

        Raises:
            ServiceError: too many others wait.
        """
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                raise ServiceError(
                    "busy",
                    "more mails than can be sent",
                    allowed=f"{MAX_WAITING} that wait",
                    remedy="Try again later.",
                    retry_after_s=60,
                )
            heapq.heappush(self._waiting, _Mail(time.monotonic(), 0, new_id(), email))
            self._changed.notify_all()

    def _run(self) -> None:
        while (mail := self._next()) is not None:
            try:
                self._attend(mail)
            except Exception as error:  # the thread must live; an error's text may hold the address
                log.error("mail given up", error=type(error).__name__)
                self._count.labels("failed").inc()

    def _next(self) -> _Mail | None:
        """The next that is due; when the service stops, those that were never tried, and then None."""
        with self._changed:
            while True:
                if self._stopping:
                    self._waiting = [mail for mail in self._waiting if not mail.n_tried]
                    heapq.heapify(self._waiting)
                    return heapq.heappop(self._waiting) if self._waiting else None
                left_s = self._waiting[0].due - time.monotonic() if self._waiting else None
                if left_s is not None and left_s <= 0:
                    return heapq.heappop(self._waiting)
                self._changed.wait(left_s)

    def _attend(self, mail: _Mail) -> None:
        try:
            ready = mail if mail.body is not None else self._made(mail)
        except SQLAlchemyError as error:
            self._again(mail, type(error).__name__)
            return
        if ready is None:
            self._count.labels("skipped").inc()
            return
        assert ready.body is not None
        at = str(int(time.time()))
        signed = hmac.digest(self._secret, f"{at}.".encode() + ready.body, "sha256").hex()
        headers = {"Content-Type": "application/json", SIGNATURE: f"t={at},v1={signed}"}
        try:
            status = call(self._address, body=ready.body, headers=headers, timeout_s=10).status
        except NoAnswerError as error:
            self._again(ready, str(error))
            return
        if 200 <= status < 300:
            self._count.labels("sent").inc()
        elif status in (408, 425, 429) or status >= 500:
            self._again(ready, str(status))
        else:
            log.error("the mail hook refused a mail", status=status, user_id=ready.user_id)
            self._count.labels("failed").inc()

    def _again(self, mail: _Mail, why: str) -> None:
        if mail.n_tried >= len(self._retry_s):
            log.error("mail given up", why=why, user_id=mail.user_id)
            self._count.labels("failed").inc()
            return
        log.warning("mail not delivered yet", why=why, user_id=mail.user_id)
        due = time.monotonic() + self._retry_s[mail.n_tried]
        later = _Mail(due, mail.n_tried + 1, mail.id, mail.email, mail.user_id, mail.body)
        with self._changed:
            heapq.heappush(self._waiting, later)

    def _made(self, mail: _Mail) -> _Mail | None:
        """The mail with its token, committed; None where nobody gets one."""
        with self._database.writing() as session:
            # Whom the issuer signs in must not come in past it.
            linked = exists().where(OpenIdLink.user_id == User.id)
            user = session.scalar(
                select(User).where(User.email == mail.email, User.disabled_at.is_(None), ~linked)
            )
            if user is None or user.deleted_at is not None:
                return None
            recent = OneTimeToken.created_at > now() - timedelta(seconds=PAUSE_S)
            of_user = OneTimeToken.user_id == user.id, OneTimeToken.kind == "mailed"
            if session.scalar(select(OneTimeToken.id).where(*of_user, recent).limit(1)) is not None:
                return None
            token = one_time.make_token(session, "mailed", user_id=user.id, lives_s=self._lives_s)
            said = {
                "id": mail.id,
                "kind": "password",
                "email": user.email,
                "name": user.name,
                "token": token,
                "expires_at": (now() + timedelta(seconds=self._lives_s)).isoformat(),
            }
            body = json.dumps(said, ensure_ascii=False).encode()
            return _Mail(mail.due, mail.n_tried, mail.id, mail.email, user.id, body)


def mail_hook_of(settings: ServiceSettings, database: Database, metrics: CollectorRegistry) -> MailHook | None:
    """The hook of an installation, not started yet; None where it has none.

    Raises:
        ConfigError: its address or its secret is missing, or cannot be used.
    """
    if settings.mail_hook is None and settings.mail_secret is None:
        return None
    if settings.mail_hook is None or settings.mail_secret is None:
        raise ConfigError(
            f"a mail hook without {'mail_hook' if settings.mail_hook is None else 'mail_secret'}",
            allowed="mail_hook and mail_secret together",
            remedy="Set what is missing, or none of them.",
        )
    address = checked_address("mail_hook", settings.mail_hook)
    secret = settings.mail_secret.get_secret_value()
    return MailHook(database, address, secret, lives_s=settings.one_time_s, metrics=metrics)


@router.post(
    "/v1/forgot",
    status_code=202,
    response_class=Response,
    summary="Ask for a mail to set a password",
    responses=responses("busy", "not_found", "too_many_requests"),
)
async def forgot_password(
    body: Forgotten, request: Request, service: ServiceDep, _anybody: Annotated[Identity, allowed("public")]
) -> Response:
    """Let a mail be sent with a token for /v1/reset, if there is an account with this address.

    The answer is the same, and comes as fast, where there is none.
    """
    ask_for_mail(request, service, body.email)
    return Response(status_code=202)


def ask_for_mail(request: Request, service: Service, email: str) -> None:
    """Let a mail be sent, if there is an account with this address.

    Raises:
        ServiceError: there is no hook, or too many ask.
    """
    if service.mail is None:
        raise ServiceError(
            "not_found",
            "no mail hook",
            allowed="a service that was set up with one",
            remedy="Ask an administrator for a token that sets the password.",
        )
    service.limits.take(f"sign-in:{address_of(request)}", service.settings.sign_ins_per_minute)
    service.mail.ask(email)
