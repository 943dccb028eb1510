"""Pictures of a product that is not saved yet, for forms that are sent more than once: the first time the picture
comes, afterwards only its name.

The picture lies in the store, noted as one that no product shows, and goes after a day. Its name is signed for
whoever sent it, since a hash alone would show others' pictures to who guesses it.
"""

from __future__ import annotations

import hmac
import re
import time
from dataclasses import dataclass
from typing import Final

from shelver.service.products.intake import put
from shelver.service.products.pictures import note
from shelver.service.state import Service

KEPT_S: Final = 20 * 3600
"""Less than the day after which a picture that no product shows is removed."""
_FORM: Final = re.compile(r"([0-9a-f]{64})-([0-9]{10,12})-([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Draft:
    """A picture of a form: its hash, and the name under which whoever sent it may see and save it."""

    hash: str
    name: str


def keep_draft(service: Service, user_id: str, data: bytes) -> Draft:
    """Keep a picture for a form that comes back.

    Raises:
        ImageError: it cannot be used.
        ServiceError: too many come at once.
    """
    stored = put(service.pictures, data)
    with service.database.writing() as session:
        note(session, [stored])
    ends = int(time.time()) + KEPT_S
    return Draft(stored.hash, f"{stored.hash}-{ends}-{_signed(service, user_id, stored.hash, ends)}")


def draft_of(service: Service, user_id: str, name: str) -> Draft | None:
    """The picture of this name; None where it is not his, or it was too long ago."""
    found = _FORM.fullmatch(name)
    if found is None:
        return None
    hash_, ends = found[1], int(found[2])
    right = hmac.compare_digest(found[3], _signed(service, user_id, hash_, ends))
    return Draft(hash_, name) if right and ends > time.time() else None


def _signed(service: Service, user_id: str, hash_: str, ends: int) -> str:
    said = f"{user_id}-{hash_}-{ends}".encode()
    return hmac.digest(service.tokens.derived("drafts"), said, "sha256").hex()
