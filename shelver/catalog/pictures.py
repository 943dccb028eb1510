"""The pictures of one product, gathered from the cells of its row: bytes, files below a folder, addresses."""

from __future__ import annotations

import os
import re
import stat

from shelver.catalog.rows import Cell, Limits, Warn

MAX_URL_CHARS = 4_096

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


class Pictures:
    """Takes cells and keeps what can be used of them; a warning says what cannot.

    Args:
        root: the real path of the folder of the files.
        limits: bounds on sizes.
        read: False looks at files without reading them: each stands in `images` as b"".

    Attributes:
        images: the encoded pictures.
        urls: addresses, each once.
        files: name, as the row has it, and size in bytes of each file that was taken, each once.
        missing: the first file that is not there or is empty, as the row names it.
        warnings: `Warn` codes, each once, in the order met.
    """

    def __init__(self, root: str, limits: Limits, *, read: bool = True) -> None:
        self._root = root
        self._limits = limits
        self._read = read
        self._real: set[str] = set()
        self._n_bytes = self._n_named = 0
        self.images: list[bytes] = []
        self.urls: list[str] = []
        self.files: list[tuple[str, int]] = []
        self.missing: str | None = None
        self.warnings: dict[str, None] = {}

    def warn(self, code: Warn) -> None:
        self.warnings[code.value] = None

    def add(self, cell: Cell) -> None:
        """Bytes, an address, a file's path, a `{bytes, path}` struct, or a list of these."""
        if cell is None:
            return
        if isinstance(cell, bytes | str):
            # Counted before it is looked at: a million absent files would cost as much as present ones.
            self._n_named += 1
            if self._n_named > self._limits.images:
                self.warn(Warn.image_refused)
            elif isinstance(cell, str):
                self._add_text(cell.strip())
            elif self._may_take(len(cell)):
                self.images.append(cell)
        elif isinstance(cell, list):
            for item in cell:
                # A list in a list is no picture; following it could recurse without end.
                self.add(item) if not isinstance(item, list) else self.warn(Warn.image_refused)
        elif isinstance(cell.get("bytes"), bytes):
            self.add(cell["bytes"])
        elif isinstance(cell.get("path"), str) and cell.get("bytes") is None:
            self.add(cell["path"])
        elif any(item is not None for item in cell.values()):
            self.warn(Warn.image_refused)

    def add_file(self, name: str) -> None:
        """Takes a file below the picture folder; nothing outside it, whatever `..` or links say."""
        name = name.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/"):
            self.warn(Warn.image_refused)
            return
        try:
            real = os.path.realpath(os.path.join(self._root, name), strict=True)  # noqa: PTH118
            if not real.startswith(os.path.join(self._root, "")):  # noqa: PTH118
                self.warn(Warn.image_refused)
                return
            if real in self._real:  # a file that a row names twice is one picture, and is read once
                return
            # Not following links and not waiting for pipes: what was checked is what is read.
            handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            self.warn(Warn.image_missing)
            self.missing = self.missing or name
            return
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                self.warn(Warn.image_missing)
            elif self._may_take(status.st_size):
                data = b""
                if self._read:
                    with os.fdopen(handle, "rb", closefd=False) as file:
                        data = file.read(status.st_size)
                self._real.add(real)
                self.files.append((name, status.st_size))
                self.images.append(data)
        except OSError:
            self.warn(Warn.image_missing)
        finally:
            os.close(handle)

    def _may_take(self, n_bytes: int) -> bool:
        """Whether a picture of this size can be taken; counts it, or warns."""
        if not n_bytes:
            self.warn(Warn.image_missing)
        elif n_bytes > self._limits.image_bytes:
            self.warn(Warn.image_too_many_bytes)
        elif self._n_bytes + n_bytes > self._limits.product_image_bytes:
            self.warn(Warn.image_refused)
        else:
            self._n_bytes += n_bytes
            return True
        return False

    def _add_text(self, text: str) -> None:
        if not text:
            return
        if text.startswith("//"):
            text = f"https:{text}"
        if text[:8].lower().startswith(("http://", "https://")):
            if len(text) > MAX_URL_CHARS or _CONTROL.search(text):
                self.warn(Warn.image_refused)
            elif text not in self.urls:
                self.urls.append(text)
        elif _SCHEME.match(text):  # data:, file:, ftp:, C:\
            self.warn(Warn.image_refused)
        else:
            self.add_file(text)
