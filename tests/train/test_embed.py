"""Picture embeddings are made once, whatever happens to the process that makes them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shelver.images import ImageSpec
from shelver.pipeline import COLOUR_ID, COLOUR_WIDTH, Image2Emb
from shelver.registry import ImagePart, ImageStage
from shelver.train import embed
from shelver.train.embed import EmbeddingCache, ImageEmbedder, cache_name
from shelver.train.image_encoders import export_image_part
from shelver.train.lite0 import LITE0_ID, WIDTH

Draw = Callable[[tuple[int, int, int], int], bytes]
SPEC = ImageSpec(height_px=32, width_px=32)
COLOUR = ImagePart(encoder="colour", source=COLOUR_ID, spec=SPEC, file=None, width=COLOUR_WIDTH)
BROKEN = b"\x89PNG\r\n\x1a\nbroken"


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def value(x: float) -> np.ndarray[tuple[int], np.dtype[np.float16]]:
    return np.full(3, x, np.float16)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImagePart]:
    folder = tmp_path_factory.mktemp("lite0")
    parity: dict[str, float] = {}
    other = SPEC.model_copy(update={"mean": (0.0, 0.0, 0.0), "scale": (255.0, 255.0, 255.0)})
    part = export_image_part("lite0", other, folder, 0, parity=parity)
    assert 0 < parity["image2emb.onnx"] <= 1e-4
    return folder, part


def test_lite0_is_exported_with_its_own_scaling(lite0: tuple[Path, ImagePart]) -> None:
    folder, part = lite0
    assert part == ImagePart(encoder="lite0", source=LITE0_ID, spec=SPEC, file="image2emb.onnx", width=WIDTH)
    assert [file.name for file in folder.iterdir()] == ["image2emb.onnx"]


def opened(lite0: tuple[Path, ImagePart], *, colour: bool = False) -> Image2Emb:
    folder, part = lite0
    return Image2Emb.open(folder, ImageStage(parts=(part, COLOUR) if colour else (part,)), threads=1)


@pytest.fixture(scope="module")
def image2emb(lite0: tuple[Path, ImagePart]) -> Image2Emb:
    return opened(lite0)


def filled(folder: Path, **values: float) -> EmbeddingCache:
    cache = EmbeddingCache(folder, 3)
    for name, x in values.items():
        cache.put(key(name), value(x))
    return cache


def test_what_was_flushed_is_found_by_another_instance(tmp_path: Path) -> None:
    filled(tmp_path, a=1, b=2).flush()
    filled(tmp_path, c=3).flush()
    again = EmbeddingCache(tmp_path, 3)
    for name, x in (("a", 1), ("b", 2), ("c", 3)):
        found = again.get(key(name))
        assert found is not None
        assert found.tolist() == [x] * 3
        assert found.dtype == np.float16
    assert again.get(key("d")) is None


def test_what_waits_to_be_written_is_found_too(tmp_path: Path) -> None:
    cache = filled(tmp_path, a=1)
    found = cache.get(key("a"))
    assert found is not None
    assert found.tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == []
    cache.flush()
    cache.flush()
    assert len(list(tmp_path.iterdir())) == 2
    assert cache.get(key("a")) is not None


def test_the_cache_writes_by_itself_when_enough_has_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "FLUSH_PICTURES", 2)
    filled(tmp_path, a=1, b=2, c=3)
    again = EmbeddingCache(tmp_path, 3)
    assert [again.get(key(name)) is not None for name in "abc"] == [True, True, False]


def test_leftovers_of_a_killed_run_are_not_read_and_do_no_harm(tmp_path: Path) -> None:
    filled(tmp_path, a=1).flush()
    (tmp_path / "dead.keys.partial").write_bytes(b"half")
    (tmp_path / "dead.values.partial").write_bytes(b"")
    np.save(tmp_path / "dead.values.npy", np.zeros((4, 3), np.float16))  # its keys were never written
    again = EmbeddingCache(tmp_path, 3)
    assert again.get(key("a")) is not None
    again.put(key("b"), value(2))
    again.flush()
    assert EmbeddingCache(tmp_path, 3).get(key("b")) is not None


def test_a_damaged_segment_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    filled(tmp_path, good=1).flush()
    for damage in ("cut", "gone", "other width", "keys cut", "keys empty"):
        folder = tmp_path / damage.replace(" ", "-")
        filled(folder, x=5).flush()
        (keys,), (values,) = folder.glob("*.keys.npy"), folder.glob("*.values.npy")
        if damage == "cut":
            values.write_bytes(values.read_bytes()[:-2])
        elif damage == "gone":
            values.unlink()
        elif damage == "other width":
            np.save(values, np.zeros((1, 4), np.float16))
        else:
            keys.write_bytes(keys.read_bytes()[:-2] if damage == "keys cut" else b"")
        cache = EmbeddingCache(folder, 3)
        assert cache.get(key("x")) is None, damage
        cache.put(key("x"), value(6))
        cache.flush()
        found = EmbeddingCache(folder, 3).get(key("x"))
        assert found is not None
        assert found.tolist() == [6, 6, 6]


def test_pictures_are_embedded_once_and_unusable_ones_are_remembered(
    tmp_path: Path, image2emb: Image2Emb, draw: Draw
) -> None:
    red, blue = draw((200, 0, 0), 1), draw((0, 0, 200), 2)
    products = [[red], [], [red, blue], [BROKEN], [BROKEN, blue]]
    embedder = ImageEmbedder(image2emb, tmp_path)
    first = embedder(products)
    assert (embedder.n_computed, embedder.n_cached, embedder.n_unusable) == (3, 0, 2)
    assert first.present.tolist() == [True, False, True, False, True]
    assert first.values.dtype == np.float16
    second = embedder(products)
    assert (embedder.n_computed, embedder.n_cached) == (3, 3)
    embedder.close()

    other = ImageEmbedder(image2emb, tmp_path)
    third = other(products)
    assert (other.n_computed, other.n_cached, other.n_unusable) == (0, 3, 2)
    for again in (second, third):
        assert again.present.tolist() == first.present.tolist()
        assert again.values.tobytes() == first.values.tobytes()
    other.close()
    assert len(list(tmp_path.rglob("*.npy"))) == 2  # nothing new, nothing written


def test_the_embedding_of_a_product_is_that_of_the_serving_path(
    tmp_path: Path, image2emb: Image2Emb, draw: Draw
) -> None:
    pictures = [draw((200, 0, 0), 1), draw((0, 0, 200), 2)]
    embedder = ImageEmbedder(image2emb, tmp_path)
    ours = embedder([pictures, pictures[:1]])
    opened = [Image.open(io.BytesIO(data)) for data in pictures]
    served = image2emb([opened, opened[:1]])
    np.testing.assert_allclose(ours.values.astype(np.float32), served.values, atol=4e-3)
    np.testing.assert_allclose(served.values[0], image2emb.pictures(opened).mean(axis=0), atol=1e-5)
    embedder.close()


def test_no_products_give_no_rows(tmp_path: Path, image2emb: Image2Emb) -> None:
    embedder = ImageEmbedder(image2emb, tmp_path)
    nothing = embedder([])
    assert nothing.values.shape == (0, image2emb.width)
    assert embedder([[], []]).present.tolist() == [False, False]
    embedder.close()


def test_another_part_is_embedded_beside_what_the_cache_has(
    tmp_path: Path, lite0: tuple[Path, ImagePart], draw: Draw
) -> None:
    products = [[draw((200, 0, 0), 1)], [BROKEN], [draw((0, 0, 200), 2), draw((0, 200, 0), 3)]]
    plain = ImageEmbedder(opened(lite0), tmp_path)
    first = plain(products)
    plain.close()
    (segment,) = tmp_path.rglob("*.values.npy")
    before = segment.read_bytes()

    both = opened(lite0, colour=True)
    embedder = ImageEmbedder(both, tmp_path)
    second = embedder(products)
    embedder.close()
    assert embedder.n_computed == 4
    assert embedder.n_unusable == plain.n_unusable == 1
    assert second.values[:, :-COLOUR_WIDTH].tobytes() == first.values.tobytes()
    assert second.present.tolist() == [True, False, True]
    assert segment.read_bytes() == before
    assert len(list(tmp_path.rglob("*.values.npy"))) == 2  # of colours alone, and the old ones

    alone = ImageEmbedder(Image2Emb.open(tmp_path, ImageStage(parts=(COLOUR,)), threads=1), tmp_path)
    third = alone(products)
    assert (alone.n_computed, alone.n_cached) == (0, 4)
    assert third.values.tobytes() == second.values[:, -COLOUR_WIDTH:].tobytes()
    alone.close()


def test_whatever_changes_the_vectors_of_a_part_changes_the_name_of_its_cache() -> None:
    part = ImagePart(encoder="hf:some/thing", source="a/b c", spec=SPEC, file="image2emb.onnx", width=3)
    others = [
        part.model_copy(update=change)
        for change in (
            {"encoder": "lite0"},
            {"source": "a/b d"},
            {"view": "crop"},
            {"precision": "int8"},
            {"spec": ImageSpec(height_px=64, width_px=32)},
            {"spec": SPEC.model_copy(update={"background": (0, 0, 0)})},
        )
    ]
    names = {cache_name(one) for one in (part, *others)}
    assert len(names) == 1 + len(others)
    assert cache_name(part.model_copy(update={"file": "image2emb.1.onnx"})) == cache_name(part)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in names)
