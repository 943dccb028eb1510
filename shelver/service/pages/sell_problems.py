"""What went wrong with the form of /sell, in words of those who sell: what it was, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shelver.errors import ImageError, ShelverError
from shelver.service.pages.locales import Words, mark
from shelver.service.problems import code_of
from shelver.service.products.payloads import MAX_PICTURES

_OF_CODE: Final[Mapping[str, str]] = {
    "busy": mark("The service is busy just now. What you typed is still here: try again in a moment."),
    "conflict": mark("The service is busy just now. What you typed is still here: try again in a moment."),
    "database_unavailable": mark("The service cannot save just now. What you typed is here: try again soon."),
    "key_reused": mark(
        "This form has listed a product already. Look at your listings; or save again to list another product."
    ),
    "not_ready": mark("The model is not ready yet. What you typed is still here: try again in a minute."),
    "storage_unavailable": mark("The service cannot save just now. What you typed is here: try again soon."),
    "too_large": mark("The picture is too large. Make it smaller: 1,000 pixels a side are plenty."),
    "unknown_category": mark("The categories have changed meanwhile. Choose the category again, then save."),
}
_OF_PICTURE: Final[Mapping[str, str]] = {
    "image_empty": mark("The file is empty. Choose another one."),
    "image_too_many_bytes": mark("The picture is too large. Make it smaller: 1,000 pixels a side are plenty."),
    "image_too_large": mark("The picture is too large. Make it smaller: 1,000 pixels a side are plenty."),
    "image_format": mark("This is not a picture that can be used. Choose a JPEG, PNG, WebP, GIF, BMP or AVIF."),
    "image_truncated": mark("The picture is not whole. Save or take it again."),
    "image_broken": mark("The picture cannot be read. Save it again as JPEG or PNG."),
    "decode_timeout": mark("The picture takes too long to read. Save it again as JPEG or PNG."),
    "decode_crashed": mark("The picture cannot be read. Save it again as JPEG or PNG."),
}
NOTHING: Final = mark("There is nothing to list yet. Type a title or add a picture.")
NO_CATEGORY: Final = mark("Choose a category: one of the suggestions, or another one that you search for.")
GONE: Final = mark("A picture is no longer here. Choose it again, then save.")


def message_of(_: Words, error: ShelverError) -> str:
    """What to tell of an error; its own words where we have no better ones."""
    if isinstance(error, ImageError):
        return message_of_picture(_, error.code)
    words = _OF_CODE.get(code_of(error) or "")
    return _(words) if words is not None else str(error)


def message_of_picture(_: Words, code: str, name: str = "") -> str:
    """What to tell of a picture that cannot be used, by the code that says why."""
    said = _(_OF_PICTURE.get(code, _OF_PICTURE["image_broken"]))
    return f"{name}: {said}" if name else said


def too_many(_: Words) -> str:
    """What to tell of more pictures than a product may have."""
    return _("A product has at most %(n)s pictures. The others were left out.", n=MAX_PICTURES)
