"""Fine-tuning the picture encoder: it learns, what is frozen stays, and a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError
from shelver.images import ImageSpec
from shelver.pipeline import run_file
from shelver.taxonomy import SiblingGroups
from shelver.train.checkpoint import Checkpoints
from shelver.train.lite0 import Lite0, export_lite0, load_lite0
from shelver.train.tune import Tuned, TuneSpec, encoder, loop, network, open_tuned, tune_lite0
from shelver.train.tune.network import Network
from shelver.train.tune.pictures import at_size, labelled_pictures, prepare, random_box

SPEC = ImageSpec(height_px=64, width_px=64)
SMALL = TuneSpec(epochs=2, batch_size=8, frozen_blocks=11, head_epochs=3, train_scale=0.5)
RED, BLUE = (200, 20, 20), (20, 20, 200)

Draw = Callable[[tuple[int, int, int], int], bytes]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def catalog(draw: Draw, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two colours in the ratio 1:1; the first product has two pictures, one product's picture is damaged, one
    product has no picture, and one of those without a label has one."""
    rows: list[dict[str, Any]] = []
    for i in range(40):
        colour, category = ((RED, "Home > Chairs"), (BLUE, "Home > Lamps"))[i % 2]
        rows.append(
            {
                "product_id": f"p{i}",
                "image": [draw(colour, i)] if i else [draw(colour, 0), draw(colour, 100)],
                "category": category,
                "split": ("train", "train", "train", "validation", "test")[i // 2 % 5],
            }
        )
    rows[2]["image"] = [b"\x89PNG\r\n\x1a\nbroken"]
    rows[3]["image"] = []
    rows[4]["category"] = None
    folder = tmp_path_factory.mktemp("tune")
    pq.write_table(pa.Table.from_pylist(rows), folder / "feed.parquet")
    ingest(folder / "feed.parquet", folder / "catalog")
    return Catalog.open(folder / "catalog")


def tuned(catalog: Catalog, work: Path, spec: TuneSpec = SMALL, **more: Any) -> Tuned:
    groups = SiblingGroups.of(catalog.taxonomy)
    given = {"work": work, "seed": 0, "threads": 1, "say": lambda line: None, **more}
    return tune_lite0(catalog, groups, SPEC, spec, **given)


@pytest.fixture(scope="module")
def done(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tuned(catalog, tmp_path_factory.mktemp("work"))


def state(model: Lite0) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


def test_two_colours_are_learned_and_the_figures_are_those_of_validation(done: Tuned) -> None:
    assert done.validation == {"accuracy": 1.0, "macro_f1": 1.0}
    assert done.seconds > 0
    assert not done.model.training
    assert not any(parameter.requires_grad for parameter in done.model.parameters())


def test_only_the_blocks_that_are_not_frozen_have_moved(done: Tuned) -> None:
    before, after = load_lite0().state_dict(), done.model.state_dict()
    moved = {name.rsplit(".", 1)[0] for name, value in after.items() if not torch.equal(value, before[name])}
    expected = {name.rsplit(".", 1)[0] for name in before if name.startswith("head")}
    expected |= {
        name.rsplit(".", 1)[0] for i in range(11, 16) for name in before if name.startswith(f"blocks.{i}.")
    }
    assert moved == expected


def test_every_tensor_moves_by_a_like_share_of_its_own_size_however_large_it_is(done: Tuned) -> None:
    before, after = load_lite0().state_dict(), done.model.state_dict()
    sizes, shares = [], []
    for name, value in before.items():
        if name.startswith(("blocks.12.", "blocks.13.", "blocks.14.")):
            sizes.append(float(value.square().mean().sqrt()))
            shares.append(float((after[name] - value).square().mean().sqrt()) / sizes[-1])
    assert max(sizes) / min(sizes) > 100
    assert max(shares) / min(shares) < 10


def test_the_weights_stand_in_a_file_that_opens_and_exports_as_the_model_that_came_back(
    done: Tuned, tmp_path: Path
) -> None:
    assert state(open_tuned(done.weights)) == state(done.model)
    assert state(done.model) != state(load_lite0())
    assert {path.name for path in done.weights.parent.iterdir()} == {"tuned.json", "tuned.safetensors"}
    path = tmp_path / "image2emb.onnx"
    assert export_lite0(path, 64, 64, model=done.model) <= 1e-4
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = done.model(x).numpy()
        untouched = load_lite0()(x).numpy()
    (answer,) = run_file(path, {"pixels": x.numpy()})
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    assert np.abs(answer - untouched).max() > 1e-2


def test_the_same_call_again_opens_what_is_there_and_another_seed_gives_other_weights(
    catalog: Catalog, done: Tuned
) -> None:
    work = done.weights.parent.parent
    lines: list[str] = []
    again = tuned(catalog, work, say=lines.append)
    assert (again.weights_sha256, again.validation, again.seconds) == (
        done.weights_sha256,
        done.validation,
        done.seconds,
    )
    assert lines == []
    other = tuned(catalog, work, seed=1)
    assert other.weights != done.weights
    assert other.weights_sha256 != done.weights_sha256


class CutError(Exception):
    """The end of the process, as far as a test inside one can have it."""


@pytest.mark.parametrize(
    ("where", "name", "call", "every_s"),
    [
        (encoder, "prepare", 2, 60.0),
        (loop.Tuner, "fit_head", 1, 60.0),
        (Checkpoints, "save", 1, 60.0),
        (loop.Tuner, "_step", 2, 60.0),  # two steps an epoch
        (loop.Tuner, "_step", 2, 0.0),
        (loop.Tuner, "judge", 1, 60.0),
        (loop.Tuner, "_step", 4, 0.0),
        (encoder, "sha256_of", 1, 60.0),
    ],
)
def test_a_run_that_is_cut_off_and_resumed_gives_the_same_bits(
    catalog: Catalog, done: Tuned, tmp_path: Path, where: Any, name: str, call: int, every_s: float
) -> None:
    real, calls = getattr(where, name), 0

    def cut(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise CutError
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_EVERY_S", every_s)
        patch.setattr(where, name, cut)
        with pytest.raises(CutError):
            tuned(catalog, tmp_path)
    resumed = tuned(catalog, tmp_path)
    assert resumed.weights_sha256 == done.weights_sha256
    assert resumed.validation == done.validation


def test_pictures_kept_as_they_are_serve_as_well_as_activations(catalog: Catalog, tmp_path: Path) -> None:
    # Activations are kept at half precision, so the two agree closely and not to the bit.
    still = SMALL.model_copy(update={"mirror": False, "shift_cells": 0, "epochs": 1})
    kept = tuned(catalog, tmp_path / "activations", still)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "MAX_CACHE_BYTES", 0)
        computed = tuned(catalog, tmp_path / "pictures", still)
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        one, two, untouched = kept.model(x), computed.model(x), load_lite0()(x)
    assert (one - two).abs().max() < 0.1 * (one - untouched).abs().max()


def test_every_usable_picture_of_a_labelled_product_is_an_example_and_nothing_else_is(catalog: Catalog) -> None:
    found = list(labelled_pictures(catalog, "train", SPEC))
    numbers = [number for number, _, _ in found]
    ids = [product.product_id for products in catalog.products("train") for product in products]
    # Two pictures, then one; p2's is damaged, p3 has none, p4 no label.
    assert [ids[number] for number in numbers[:5]] == ["p0", "p0", "p1", "p5", "p10"]
    assert len(found) == 24 + 1 - 3
    assert {catalog.taxonomy.names[labels[0]] for _, labels, _ in found} == {"Chairs", "Lamps"}
    assert all(fitted.shape == (64, 64, 3) for _, _, fitted in found)


def test_mirrored_copies_are_what_the_frozen_blocks_make_of_mirrored_pictures(
    catalog: Catalog, tmp_path: Path
) -> None:
    lite0 = load_lite0()
    net = Network(lite0, 2, n_frozen=3, dropout=0.0, drop_path=0.0)
    kept = prepare(
        tmp_path, catalog, ("train", "validation"), SPEC, frozen=net.frozen, mirror=True, say=lambda line: None
    )
    assert kept.values.shape == (22 + 8, 2, 16, 16, 24)
    pictures = np.stack([fitted for _, _, fitted in labelled_pictures(catalog, "validation", SPEC)])
    pixels = torch.from_numpy((pictures[:, :, ::-1].astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    expected = net.frozen(pixels).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(kept.values[22:, 1], expected, atol=0.02, rtol=1e-2)
    assert np.abs(kept.values[22:, 0] - expected).max() > 0.5


def test_a_file_of_activations_that_a_kill_left_unfinished_is_made_again(catalog: Catalog, tmp_path: Path) -> None:
    def broken(pixels: torch.Tensor) -> torch.Tensor:
        raise CutError

    def kept(frozen: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        return prepare(tmp_path, catalog, ("train",), SPEC, frozen=frozen, mirror=False, say=lambda line: None)

    with pytest.raises(CutError):
        kept(broken)
    assert (tmp_path / "inputs.bin").is_file()
    whole = kept(lambda pixels: pixels)
    assert whole.values.shape == (22, 1, 64, 64, 3)
    np.testing.assert_array_equal(kept(broken).values, whole.values)  # whole now: nothing is computed


@pytest.mark.parametrize(("height_px", "width_px"), [(96, 72), (144, 144), (64, 32)])
def test_the_parts_of_the_network_make_the_encoder_and_its_5x5_gradients_are_autograds(
    height_px: int, width_px: int
) -> None:
    lite0 = load_lite0().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net = Network(lite0, 5, n_frozen=2, dropout=0.0, drop_path=0.0)
    pixels = torch.rand(2, 3, height_px, width_px, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = net.frozen(pixels).requires_grad_()

    learned = {name: p for name, p in net.encoder.named_parameters() if p.requires_grad} | {"x": x}

    def gradients() -> dict[str, torch.Tensor]:
        found = torch.autograd.grad(net.features(x).square().sum(), list(learned.values()))
        return dict(zip(learned, found, strict=True))

    ours = gradients()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_depthwise", lambda conv, x: conv(x))
        plain = gradients()
    assert "blocks.3.depthwise.weight" in ours
    assert "blocks.1.depthwise.weight" not in ours
    for name, gradient in plain.items():
        assert (ours[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max(), name
    if height_px % 32 == 0 and width_px % 32 == 0:
        torch.testing.assert_close(net.features(net.frozen(pixels)), lite0(pixels), atol=1e-5, rtol=0)


def test_the_training_size_is_in_eights_and_keeps_the_shape() -> None:
    def size(height_px: int, width_px: int, scale: float = 0.75) -> tuple[int, int]:
        small = TuneSpec(train_scale=scale).train_size(ImageSpec(height_px=height_px, width_px=width_px))
        return small.height_px, small.width_px

    assert size(128, 96) == (96, 72)
    assert size(192, 192) == (144, 144)
    assert size(224, 224, 0.8) == (176, 176)
    assert size(64, 32) == (48, 32)
    assert size(224, 160, 1.0) == (224, 160)


def test_moved_and_mixed_pictures_hold_nothing_but_the_pictures() -> None:
    x = torch.arange(4.0)[:, None, None, None] + torch.linspace(0, 0.5, 48).reshape(6, 8) + torch.zeros(4, 3, 6, 8)
    moved = loop._shifted(x, 2, np.random.default_rng(0))
    assert moved.shape == x.shape
    assert not torch.equal(moved, x)
    for i in range(4):
        assert set(moved[i].flatten().tolist()) <= set(x[i].flatten().tolist())
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(50):
        mixed, share = loop._mixed(x, rng)
        theirs = mixed == x.flip(0)
        assert torch.equal(torch.where(theirs, x.flip(0), x), mixed)
        assert float(theirs.float().mean()) == pytest.approx(share)
        shares.append(share)
    assert 0.3 < np.mean(shares) < 0.8


def test_mixing_pictures_and_skipping_blocks_learns_too(catalog: Catalog, tmp_path: Path) -> None:
    calm = SMALL.model_copy(update={"lr": 5e-4, "head_epochs": 20, "full_epochs": 2})
    lively = calm.model_copy(update={"cutmix": 0.5, "drop_path": 0.2})
    one, other = tuned(catalog, tmp_path, calm), tuned(catalog, tmp_path, lively)
    assert one.validation["accuracy"] == other.validation["accuracy"] == 1.0
    assert one.weights_sha256 != other.weights_sha256


def test_where_validation_is_learned_from_it_gives_no_figures(catalog: Catalog, tmp_path: Path) -> None:
    quick = SMALL.model_copy(update={"epochs": 0})
    assert tuned(catalog, tmp_path, quick, splits=("train", "validation")).validation == {}
    untouched = tuned(catalog, tmp_path, quick)
    assert untouched.validation["accuracy"] == 1.0
    assert state(untouched.model) == state(load_lite0())


def test_a_catalog_without_a_usable_picture_is_refused(draw: Draw, tmp_path: Path) -> None:
    rows = [
        {"product_id": f"p{i}", "title": "chair", "category": "Home", "split": "train", "image": b"GIF89a broken"}
        for i in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "feed.parquet")
    ingest(tmp_path / "feed.parquet", tmp_path / "catalog")
    with pytest.raises(CatalogError, match="no labelled product with a usable picture in train"):
        tuned(Catalog.open(tmp_path / "catalog"), tmp_path / "work")


def test_progress_is_said_with_rate_and_time_left(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(loop, "TELL_EVERY_S", 0.0)
    tuned(catalog, tmp_path, say=lines.append)
    told = [line for line in lines if line.startswith("tuning: epoch 2 of 2")]
    assert told
    assert all("pictures/s" in line and "s left" in line for line in told)
    assert any("epoch 1 done" in line and "validation accuracy" in line for line in lines)


def test_the_written_weights_are_the_encoders_and_nothing_more(done: Tuned) -> None:
    assert load_file(done.weights).keys() == Lite0().state_dict().keys()
    assert F.relu6(torch.tensor(7.0)) == 6  # what the features are bounded by
    with torch.no_grad():
        features = done.model(torch.rand(3, 3, 64, 64))
    assert features.min() >= 0
    assert features.max() <= 6


def test_random_crops_keep_the_promised_share_of_the_area_and_lie_inside() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        left, top, right, bottom = random_box(60, 90, 0.4, rng)
        assert 0 <= left < right <= 90 + 1e-9
        assert 0 <= top < bottom <= 60 + 1e-9
        shares.append((right - left) * (bottom - top) / (60 * 90))
    # Where a stretched part would stand over the edge it is cut there, at most by what the stretch added.
    assert min(shares) > 0.4 * 3 / 4
    assert min(shares) < 0.5
    assert max(shares) > 0.9


def test_a_crop_shows_the_part_in_its_box() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[20:, 20:] = 255
    size = ImageSpec(height_px=32, width_px=32)
    # A hair of what lies beside the box is mixed into its edge.
    assert at_size(picture, size, (20, 20, 40, 40))[2:, 2:].min() == 255
    assert at_size(picture, size, (0, 0, 20, 20))[:-2, :-2].max() == 0
    assert at_size(picture, size).shape == (32, 32, 3)


def test_random_crops_are_learned_from_repeatably_and_by_either_view(catalog: Catalog, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"crops": 0.5, "train_scale": 1.0, "epochs": 10})
    first = tuned(catalog, tmp_path / "a", recipe)
    assert first.validation["accuracy"] == 1.0
    assert state(first.model) == state(tuned(catalog, tmp_path / "b", recipe).model)
    assert state(first.model) != state(tuned(catalog, tmp_path / "c", recipe, view="crop").model)
