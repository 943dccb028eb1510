"""Object storage: the only home of obstore.

Keys and the endpoint come from the environment, as obstore reads them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from shelver.errors import ConfigError, MissingExtraError, StorageError

_PIECE_BYTES: Final = 16 << 20
"""Each request has half a minute; a model is fetched in such pieces."""
_RETRIES: Final = 3
_RETRY_S: Final = 15
_SHOWN_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class About:
    """What the storage says of an object.

    Attributes:
        tag: differs after every change.
        n_bytes: its size.
        changed_at: when it was last written, by the storage's clock.
    """

    tag: str
    n_bytes: int
    changed_at: datetime


class Objects:
    """Objects below one address. Any number of threads and processes may use it.

    Args:
        address: such as s3://bucket/prefix.

    Raises:
        ConfigError: it is none.
        MissingExtraError: obstore is not installed.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                "a storage that cannot be used",  # somebody may have put a key into it
                allowed="such as s3://bucket/prefix, with keys and endpoint in AWS_ variables",
                remedy="Change the setting.",
            )
        try:
            from obstore import exceptions
            from obstore.store import S3Store
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "object storage needs obstore, not installed",
                allowed="an environment with the `s3` extra",
                remedy="Run `pip install 'shelver[s3]'`.",
            ) from error
        self._errors = exceptions
        limit = timedelta(seconds=_RETRY_S)
        with self._asked():
            self._store = S3Store.from_url(address, retry_config={"max_retries": _RETRIES, "retry_timeout": limit})

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object whole, whatever stood there.

        Raises:
            StorageError: the storage does not answer, or refuses; so do all of these.
        """
        import obstore

        with self._asked():
            obstore.put(self._store, name, content)

    def replace(self, name: str, content: bytes, tag: str | None) -> bool:
        """Write an object only if it still has this tag; with None, only if there is none. Says whether it did."""
        import obstore

        try:
            with self._asked():
                obstore.put(self._store, name, content, mode="create" if tag is None else {"e_tag": tag})
        except _MovedOnError:
            return False
        return True

    def get(self, name: str) -> tuple[bytes, str] | None:
        """An object of moderate size, and its tag; None where there is none."""
        import obstore

        try:
            with self._asked():
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), found.meta["e_tag"] or ""
        except FileNotFoundError:
            return None

    def fetch(self, name: str, into: Path, *, limit: int) -> None:
        """Write an object to a new file.

        Args:
            name: of the object.
            into: the file.
            limit: most bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        import obstore

        about = self.about(name)
        if about is None:
            raise FileNotFoundError(name)
        if about.n_bytes > limit:
            raise StorageError(
                f"{name} has {about.n_bytes:,} bytes", allowed=f"at most {limit:,}", remedy="Look at the storage."
            )
        with into.open("xb") as file:
            for start in range(0, about.n_bytes, _PIECE_BYTES):
                n_bytes = min(_PIECE_BYTES, about.n_bytes - start)
                with self._asked():
                    file.write(obstore.get_range(self._store, name, start=start, length=n_bytes))

    def about(self, name: str) -> About | None:
        """What is known of an object without reading it; None where there is none."""
        import obstore

        try:
            with self._asked():
                found = obstore.head(self._store, name)
        except FileNotFoundError:
            return None
        return About(found["e_tag"] or "", found["size"], found["last_modified"])

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        with self._asked():
            obstore.delete(self._store, name)

    def names(self, below: str) -> Iterator[str]:
        """The names of all objects below one, such as `models/`."""
        import obstore

        with self._asked():
            for some in obstore.list(self._store, below):
                for found in some:
                    yield found["path"]

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Errors of the storage as ours; what is not there stays a FileNotFoundError."""
        try:
            yield
        except (self._errors.AlreadyExistsError, self._errors.PreconditionError) as error:
            raise _MovedOnError from error
        except (self._errors.BaseError, TimeoutError) as error:
            raise StorageError(
                f"the object storage does not answer as it should ({type(error).__name__})",
                allowed="a bucket that is there, keys that may read and write it, and a network to it",
                remedy="Try again later; the operator finds the reason in the log.",
                detail=str(error).split("<")[0].split("\n")[0][:_SHOWN_CHARS],  # what follows is XML
            ) from error


class _MovedOnError(Exception):
    """Somebody else has written it."""
