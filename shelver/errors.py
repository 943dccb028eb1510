"""Every error that shelver raises on purpose, in one tree.

::

    ShelverError                 something went wrong, and this is what to do
    ├── InputError               a mistake in the call or the input             422, exit 2
    │   ├── TaxonomyError        the category tree cannot be read or is no tree
    │   ├── FeedError            the feed as a whole cannot be read (a bad row is quarantined instead)
    │   ├── CatalogError         the folder is no catalog, or not the one asked for
    │   ├── ConfigError          a config, a mapping or a flag is wrong
    │   ├── ImageError           one picture cannot be used; carries a code
    │   ├── ModelError           the folder is no whole model folder
    │   └── ShapeError           an array has the wrong shape
    ├── MissingExtraError        an optional part is not installed              501, exit 2
    ├── StorageError             the object storage does not answer             503, exit 1
    └── ParityError              the exported model answers differently         500, exit 1

Each says what was received, what is allowed and what to do, so one handler can render any of them:
the command line prints `str(error)` and exits with `exit_status`; a service answers `http_status`.
"""

from __future__ import annotations


class ShelverError(Exception):
    """Base of all errors with a remedy.

    Args:
        received: what was found, with the file, line, or name that it concerns.
        allowed: what would have been accepted.
        remedy: what the reader can do now, as a sentence.
    """

    http_status = 500
    exit_status = 1

    def __init__(self, received: str, *, allowed: str, remedy: str) -> None:
        self.received = received
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(f"{received.rstrip('.')}. Allowed: {allowed.rstrip('.')}. {remedy}")


class InputError(ShelverError):
    """A mistake in the call or the input: the caller can mend it."""

    http_status = 422
    exit_status = 2


class TaxonomyError(InputError):
    """The category tree cannot be read, or is not a tree. Names the line where there is one."""


class FeedError(InputError):
    """The feed as a whole cannot be read; a single bad row is quarantined, not raised."""


class CatalogError(InputError):
    """The folder is no catalog, is damaged, or is not the catalog that was asked for."""


class ConfigError(InputError):
    """A config file, a mapping or a flag is wrong."""


class ImageError(InputError):
    """One picture cannot be used.

    Args:
        code: a short stable reason, for example `image_too_large`; see `shelver.images`.
    """

    def __init__(self, code: str, received: str, *, allowed: str, remedy: str) -> None:
        self.code = code
        super().__init__(received, allowed=allowed, remedy=remedy)


class ModelError(InputError):
    """The folder is not a whole, unchanged model folder."""


class ShapeError(InputError):
    """An array has the wrong shape."""


class MissingExtraError(ShelverError):
    """An optional part of shelver is not installed."""

    http_status = 501
    exit_status = 2


class StorageError(ShelverError):
    """The object storage does not answer, or refuses.

    Args:
        detail: what it said, for the log: nobody else may read it.
    """

    http_status = 503

    def __init__(self, received: str, *, allowed: str, remedy: str, detail: str = "") -> None:
        self.detail = detail
        super().__init__(received, allowed=allowed, remedy=remedy)


class ParityError(ShelverError):
    """The exported model does not answer as the trained one did; nothing was written."""
