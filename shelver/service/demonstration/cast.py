"""Who is in the demo's shop: five sellers, reviewers, an administrator, a machine with a key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shelver.datasets.generated_words import SELLERS
from shelver.service.accounts.identity import Identity, Role, identity_of
from shelver.service.accounts.keys import create_key
from shelver.service.accounts.passwords import Passwords
from shelver.service.accounts.payloads import NewKey
from shelver.service.accounts.routes import add_user
from shelver.service.db import Database
from shelver.service.tables.accounts import AuditEntry, User
from shelver.service.tables.accounts import SignIn as SignInRow
from shelver.service.tables.declarative import now
from shelver.settings import ServiceSettings

DOMAIN: Final = "demo.example"
SIGN_INS: Final[dict[Role, tuple[str, str]]] = {
    "seller": ("nora", "Nora"),
    "reviewer": ("remy", "Rémy"),
    "admin": ("ada", "Ada"),
}
"""Who may sign in: one person a role. The others are there and have no password."""
_SELLERS: Final = {
    "megadeals": "Max, Megadeals",
    "maison-claire": "Claire, Maison Claire",
    "brocante-lune": "Lou, Brocante Lune",
    "old-import": "Olga, Old Import",
}
_FIRST: Final = SELLERS[0].name
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_LEFT: Final = timedelta(days=20, hours=16)


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody, as the ones who act.

    Attributes:
        sellers: by the name that the generator gives them.
        reviewers: the first one may sign in.
        admin: may sign in.
        machine: asks by night.
    """

    sellers: dict[str, Identity]
    reviewers: tuple[Identity, ...]
    admin: Identity
    machine: Identity


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a newcomer types to sign in."""

    role: Role
    email: str
    password: str


def engage(session: Session, began: datetime) -> Cast:
    """Make all accounts, some days before the first visit. Nobody can sign in before `hand_out`."""
    hired = began - timedelta(days=3) + timedelta(hours=8.7)
    admin = _person(session, "admin", *SIGN_INS["admin"], hired, None)
    by = identity_of(admin, "password")

    def hire(role: Role, mail: str, name: str, days: float = 0.0) -> Identity:
        return identity_of(
            _person(session, role, mail, name, hired + timedelta(days=days, minutes=11), by), "password"
        )

    sellers = {_FIRST: hire("seller", *SIGN_INS["seller"], 0.02)}
    for number, (name, person) in enumerate(_SELLERS.items()):
        sellers[name] = hire("seller", name, person, 0.13 + number)
    reviewers = hire("reviewer", *SIGN_INS["reviewer"], 0.05), hire("reviewer", "rosa", "Rosa", 2.09)
    left = session.get(User, hire("reviewer", "ivo", "Ivo (has left)", 0.07).user_id)
    assert left is not None
    left.disabled_at = began + _LEFT
    key = create_key(NewKey(name="Warehouse feed", days=365), by, session)
    old = create_key(NewKey(name="Trial of the till", days=30), by, session)
    for made, days in ((key, 1.21), (old, 0.18)):
        _date(session, made.user_id, hired + timedelta(days=days))
        _date(session, made.id, hired + timedelta(days=days))
    machine = session.get(User, key.user_id)
    assert machine is not None
    return Cast(sellers, reviewers, by, identity_of(machine, "key"))


def hand_out(database: Database, settings: ServiceSettings, *, anew: bool) -> list[SignIn]:
    """Give everybody who may sign in a random password, where he has none yet; with `anew` in any case.

    Returns:
        The new ones. They are stored as hashes only, so this is the one time that they can be told.
    """
    passwords = Passwords(
        characters=settings.password_characters, kib=settings.password_kib, passes=settings.password_passes
    )
    made = []
    try:
        with database.writing() as session:
            for role, (mail, _) in SIGN_INS.items():
                email = f"{mail}@{DOMAIN}"
                user = session.scalar(select(User).where(User.email == email))
                if user is None or not (anew or user.password_hash is None):
                    continue  # he has deleted his account, or has a password
                said = SignIn(role, email, _password())
                user.password_hash = passwords.hash(said.password)
                user.version += 1  # what was signed in with the old one ends
                begun = update(SignInRow).where(SignInRow.user_id == user.id, SignInRow.revoked_at.is_(None))
                session.execute(begun.values(revoked_at=now()))
                made.append(said)
    finally:
        passwords.close()
    return made


def _person(session: Session, role: Role, mail: str, name: str, at: datetime, by: Identity | None) -> User:
    user = add_user(session, f"{mail}@{DOMAIN}", name, role, password_hash=None, by=by)
    user.created_at = at
    _date(session, user.id, at)
    return user


def _date(session: Session, subject: str, at: datetime) -> None:
    """Let the audit say that what it has of a subject happened then."""
    session.flush()
    session.execute(update(AuditEntry).where(AuditEntry.subject == subject).values(at=at))
    session.execute(update(User).where(User.id == subject).values(created_at=at))


def _password() -> str:
    """59 bits, easy to type."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))
