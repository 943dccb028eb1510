"""Where each role goes: the rooms of the web application, in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shelver.service.accounts.identity import Role
from shelver.service.pages.locales import mark


@dataclass(frozen=True)
class Room:
    """A page that the navigation leads to.

    Attributes:
        path: its address.
        name: in English.
        group: under which heading.
        roles: who sees it there.
    """

    path: str
    name: str
    group: str
    roles: tuple[Role, ...]


_SELL: Final = mark("Sell")
_CHECK: Final = mark("Check")
_RUN: Final = mark("Run")
ROOMS: Final = (
    Room("/sell", mark("New listing"), _SELL, ("seller", "admin")),
    Room("/listings", mark("Listings"), _SELL, ("seller", "reviewer", "admin")),
    Room("/feeds", mark("Feeds"), _SELL, ("seller", "admin")),
    Room("/log", mark("My log"), _SELL, ("seller", "reviewer", "admin")),
    Room("/review", mark("Review"), _CHECK, ("reviewer", "admin")),
    Room("/dashboard", mark("Dashboard"), _CHECK, ("reviewer", "admin")),
    Room("/taxonomy", mark("Categories"), _CHECK, ("reviewer", "admin")),
    Room("/models", mark("Models"), _RUN, ("admin",)),
    Room("/policies", mark("Policies"), _RUN, ("admin",)),
    Room("/jobs", mark("Jobs"), _RUN, ("admin",)),
    Room("/users", mark("Users"), _RUN, ("admin",)),
    Room("/keys", mark("Keys"), _RUN, ("admin",)),
    Room("/audit", mark("Audit"), _RUN, ("admin",)),
)


def rooms_of(role: Role) -> dict[str, list[Room]]:
    """The rooms of a role, by group."""
    found: dict[str, list[Room]] = {}
    for room in ROOMS:
        if role in room.roles:
            found.setdefault(room.group, []).append(room)
    return found


def home_of(role: Role) -> str:
    """Where somebody begins who has signed in."""
    return {"seller": "/sell", "reviewer": "/review", "admin": "/dashboard"}.get(role, "/account")
