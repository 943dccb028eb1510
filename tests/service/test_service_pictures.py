"""Pictures are kept once, checked, shown to who may see them, and removed when nobody shows them any more."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shelver.errors import ImageError
from shelver.service.products.pictures import PictureStore

Draw = Callable[[tuple[int, int, int], int], bytes]


@pytest.fixture
def store(tmp_path: Path) -> PictureStore:
    return PictureStore(tmp_path / "pictures", grace_s=0)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_picture_is_named_by_its_bytes_and_kept_once(store: PictureStore, tmp_path: Path, draw: Draw) -> None:
    data = draw((200, 20, 20), 1)
    first, second = store.put(data), store.put(data)
    assert first == second
    assert first.hash == hashlib.sha256(data).hexdigest()
    assert (first.kind, first.n_bytes) == ("PNG", len(data))
    assert store.get(first.hash) == data
    assert len(files_of(tmp_path)) == 1


def test_what_is_no_picture_is_refused_and_leaves_nothing(store: PictureStore, tmp_path: Path, draw: Draw) -> None:
    for data, code in (
        (b"", "image_empty"),
        (b"<svg onload='alert(1)'/>", "image_format"),
        (draw((1, 2, 3), 1)[:200], "image_truncated"),
        (b"\x89PNG\r\n\x1a\nbroken", "image_truncated"),
        (bytes(20_000_001), "image_too_many_bytes"),
    ):
        with pytest.raises(ImageError) as refused:
            store.put(data)
        assert refused.value.code == code
    assert not files_of(tmp_path)


def test_a_name_that_is_no_hash_reads_no_file(store: PictureStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for name in ("../secret", "..", "", "A" * 64, "0" * 63, f"{'0' * 63}\n"):
        assert store.get(name) is None


def test_a_file_that_was_changed_on_disk_is_not_shown(store: PictureStore, tmp_path: Path, draw: Draw) -> None:
    stored = store.put(draw((200, 20, 20), 1))
    files_of(tmp_path)[0].write_bytes(b"something else")
    assert store.get(stored.hash) is None


def test_a_picture_that_was_put_a_moment_ago_is_not_removed(tmp_path: Path, draw: Draw) -> None:
    store = PictureStore(tmp_path, grace_s=60)
    data = draw((200, 20, 20), 1)
    stored = store.put(data)
    assert store.remove([stored.hash]) == 0
    os.utime(files_of(tmp_path)[0], (time.time() - 100, time.time() - 100))
    store.put(data)  # another request is about to refer to it
    assert store.remove([stored.hash]) == 0
    os.utime(files_of(tmp_path)[0], (time.time() - 100, time.time() - 100))
    assert store.remove([stored.hash, stored.hash]) == 1
    assert store.get(stored.hash) is None


def test_many_threads_put_the_same_pictures(store: PictureStore, tmp_path: Path, draw: Draw) -> None:
    pictures = [draw((200, 20, 20), seed) for seed in range(4)]
    failed: list[BaseException] = []

    def put_all() -> None:
        try:
            for data in pictures * 3:
                assert store.get(store.put(data).hash) == data
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=put_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(files_of(tmp_path)) == 4
    assert sorted(store.hashes()) == sorted(hashlib.sha256(data).hexdigest() for data in pictures)
