"""Picture encoders by name: each file answers as its network does, and is told how it wants its pixels."""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.errors import ConfigError, MissingExtraError
from shelver.images import ImageSpec, fit, pixels
from shelver.pipeline import COLOUR_ID, COLOUR_WIDTH, Image2Emb, Prepared
from shelver.registry import ImagePart, ImageStage
from shelver.train.hf_image import load_hf_image
from shelver.train.image_encoders import calibration_pictures, export_image_part
from shelver.train.lite0 import LITE0_ID, WIDTH

SPEC = ImageSpec(height_px=64, width_px=32)
Draw = Callable[[tuple[int, int, int], int], bytes]


def embedded(folder: Path, part: ImagePart, data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    image2emb = Image2Emb.open(folder, ImageStage(parts=(part,)), threads=1)
    ready = image2emb.prepare(data)
    assert isinstance(ready, Prepared)
    vector: np.ndarray[Any, np.dtype[np.float32]] = image2emb.embed_prepared([[ready]]).values[0]
    return vector


class Small(nn.Module):
    """As wide as lite0, and exported in a moment."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.body = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(8)))
        self.head = nn.Conv2d(8, WIDTH, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 1280)."""
        x = F.relu6(self.stem(pixels))
        for layer in self.body:
            x = F.relu6(layer(x) + x)
        return F.relu6(self.head(x) * 3).mean(dim=(2, 3))


def test_a_tuned_encoder_has_a_name_of_its_own_in_caches(tmp_path: Path, draw: Draw) -> None:
    tuned = Small()
    first = export_image_part("lite0", SPEC, tmp_path, 0, model=tuned)
    with torch.no_grad():
        tuned.head.weight += 0.5
    second = export_image_part("lite0", SPEC, tmp_path, 1, model=tuned)
    assert len({first.source, second.source, LITE0_ID}) == 3
    data = draw((20, 20, 200), 1)
    assert np.abs(embedded(tmp_path, first, data) - embedded(tmp_path, second, data)).max() > 0.1


def test_colour_needs_no_file(tmp_path: Path) -> None:
    part = export_image_part("colour", SPEC, tmp_path, 0)
    assert part == ImagePart(encoder="colour", source=COLOUR_ID, spec=SPEC, file=None, width=COLOUR_WIDTH)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lite0, colour, hf:NAME or timm:NAME"):
        export_image_part("vgg", SPEC, tmp_path, 0)


def test_int8_needs_pictures_to_measure_on_and_leaves_nothing_else_behind(tmp_path: Path, draw: Draw) -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        export_image_part("lite0", SPEC, tmp_path, 0, precision="int8", model=Small())
    data = [b"broken", *(draw((25 * i, 250 - 20 * i, 120), i) for i in range(8))]
    seen = calibration_pictures(data, "fit", SPEC)
    assert seen.shape == (8, 64, 32, 3)
    parity: dict[str, float] = {}
    part = export_image_part(
        "lite0", SPEC, tmp_path, 0, precision="int8", calibration=seen, parity=parity, model=Small()
    )
    assert part.precision == "int8"
    assert parity["image2emb.onnx"] > 0
    assert [file.name for file in tmp_path.iterdir()] == ["image2emb.onnx"]
    plain = export_image_part("lite0", SPEC, tmp_path, 1, model=Small())
    a, b = (embedded(tmp_path, one, data[1]) for one in (part, plain))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.95
    assert not np.allclose(a, b, atol=1e-3)


def needs_transformers() -> Any:
    """The library; skips where the extra `backbones` is not installed, but fails where it ought to be."""
    if os.environ.get("CI") == "true":
        return importlib.import_module("transformers")
    return pytest.importorskip("transformers", reason="the extra `backbones` is not installed")


def mobilenet(t: Any) -> Any:
    return t.MobileNetV2Model(t.MobileNetV2Config(image_size=64, depth_multiplier=0.35)), 1280


def efficientnet(t: Any) -> Any:
    config = t.EfficientNetConfig(
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=0.1,
        hidden_dim=320,
        kernel_sizes=[3, 5],
        in_channels=[32, 16],
        out_channels=[16, 32],
        strides=[1, 2],
        num_block_repeats=[1, 1],
        expand_ratios=[1, 6],
        depthwise_padding=[],
    )
    return t.EfficientNetModel(config), 320


def convnext(t: Any) -> Any:
    return t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])), 32


def vit(t: Any) -> Any:
    config = t.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
    )
    return t.ViTModel(config), 32


def siglip(t: Any) -> Any:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = t.SiglipConfig(
        text_config={**small, "vocab_size": 99}, vision_config={**small, "image_size": 64, "patch_size": 16}
    )
    return t.SiglipModel(config), 32


def saved(make: Callable[[Any], Any], folder: Path, **notes: object) -> int:
    """A tiny network of random weights as a published model's folder; its width."""
    torch.manual_seed(0)
    model, width = make(needs_transformers())
    # As they come, tiny convolutional networks answer with zeros, which any mistake would do as well.
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    model.save_pretrained(folder)
    settings = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], **notes}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return int(width)


def answer_of(make: Callable[[Any], Any], folder: Path, data: bytes, spec: ImageSpec) -> Any:
    """What the library itself says of a picture."""
    model, _ = make(needs_transformers())
    model = type(model).from_pretrained(folder).eval()
    unit = torch.from_numpy(fit(Image.open(io.BytesIO(data)), spec).astype(np.float32) / 255)
    unit = (unit - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        half = model.vision_model if make is siglip else model
        answer = half(pixel_values=unit.permute(2, 0, 1)[None])
    vector = answer.last_hidden_state[:, 0] if make is vit else answer.pooler_output
    return vector.numpy().ravel()


@pytest.mark.parametrize("make", [mobilenet, efficientnet, convnext, vit, siglip])
def test_a_transformers_encoder_gives_the_pooled_features_of_the_library(
    make: Callable[[Any], Any], tmp_path: Path, draw: Draw
) -> None:
    width = saved(make, tmp_path)
    spec = ImageSpec(height_px=64, width_px=64)
    found = load_hf_image(f"hf:{tmp_path}", spec)
    assert found.width == width
    np.testing.assert_allclose(found.spec.mean, (123.675, 116.28, 103.53), rtol=1e-6)
    np.testing.assert_allclose(found.spec.scale, (58.395, 57.12, 57.375), rtol=1e-6)
    data = draw((200, 120, 40), 3)
    with torch.inference_mode():
        vector = found.module(torch.from_numpy(pixels([Image.open(io.BytesIO(data))], found.spec))).numpy()[0]
    expected = answer_of(make, tmp_path, data, spec)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(vector, expected, atol=1e-5 * largest, rtol=1e-3)
    assert np.ptp(vector) > 0.1 * largest > 0


@pytest.mark.parametrize("make", [convnext, siglip])
def test_a_transformers_encoder_answers_from_its_file_as_the_library_does(
    make: Callable[[Any], Any], tmp_path: Path, draw: Draw
) -> None:
    saved(make, tmp_path / "published")
    spec = ImageSpec(height_px=64, width_px=64)
    parity: dict[str, float] = {}
    part = export_image_part(f"hf:{tmp_path / 'published'}", spec, tmp_path, 0, parity=parity)
    assert 0 < parity["image2emb.onnx"] < 1e-2
    data = draw((200, 120, 40), 3)
    expected = answer_of(make, tmp_path / "published", data, spec)
    np.testing.assert_allclose(embedded(tmp_path, part, data), expected, atol=1e-4, rtol=1e-3)


def test_a_vision_transformer_takes_other_sizes_than_its_own(tmp_path: Path) -> None:
    saved(vit, tmp_path)
    found = load_hf_image(str(tmp_path), ImageSpec(height_px=96, width_px=64))
    assert torch.isfinite(found.module(torch.zeros(2, 3, 96, 64))).all()


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ({}, 1.0),
        ({"do_normalize": False}, 128 / 255),
        ({"do_rescale": False}, (128 - 0.5) / 0.25),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, (128 / 127.5 - 1.5) / 0.25),
        ({"image_processor_type": "EfficientNetImageProcessor"}, (128 / 255 - 0.5) / 0.25**2),
        ({"image_processor_type": "EfficientNetImageProcessor", "include_top": False}, (128 / 255 - 0.5) / 0.25),
    ],
)
def test_the_pixels_are_scaled_as_the_models_notes_say(
    tmp_path: Path, notes: dict[str, object], expected: float
) -> None:
    saved(convnext, tmp_path, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **notes}))
    spec = load_hf_image(str(tmp_path), ImageSpec(height_px=32, width_px=32)).spec
    if not notes:
        expected = (128 / 255 - 0.5) / 0.25
    assert (128 - spec.mean[0]) / spec.scale[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_scaling_of_efficientnet_is_that_of_its_own_processor(tmp_path: Path) -> None:
    transformers = needs_transformers()
    saved(convnext, tmp_path)
    processor = transformers.EfficientNetImageProcessorPil(
        image_mean=[0.485, 0.456, 0.406], image_std=[0.4785, 0.4733, 0.4743], do_resize=False
    )
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    theirs = np.asarray(processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0])
    spec = load_hf_image(str(tmp_path), ImageSpec(height_px=32, width_px=32)).spec
    ours = (pixels - np.array(spec.mean)) / np.array(spec.scale)
    np.testing.assert_allclose(ours.transpose(2, 0, 1), theirs, atol=1e-4)


def test_the_source_changes_with_the_weights(tmp_path: Path) -> None:
    spec = ImageSpec(height_px=32, width_px=32)
    saved(convnext, tmp_path)
    first = load_hf_image(str(tmp_path), spec).source
    assert load_hf_image(str(tmp_path), spec).source == first
    model = needs_transformers().ConvNextModel.from_pretrained(tmp_path)
    with torch.no_grad():
        model.layernorm.bias += 1
    model.save_pretrained(tmp_path)
    assert load_hf_image(str(tmp_path), spec).source != first


def test_a_folder_that_is_no_picture_encoder_says_what_it_lacks(tmp_path: Path) -> None:
    transformers = needs_transformers()
    spec = ImageSpec(height_px=32, width_px=32)
    saved(convnext, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json"):
        load_hf_image(str(tmp_path / "bare"), spec)

    saved(convnext, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickled weights"):
        load_hf_image(str(tmp_path / "pickled"), spec)

    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "text")
    with pytest.raises(ConfigError, match="holds a BertModel"):
        load_hf_image(str(tmp_path / "text"), spec)


def test_a_model_that_is_nowhere_is_asked_for_in_vain_and_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_transformers()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"hf:nobody/nothing.*tried.*--local-dir"):
        export_image_part("hf:nobody/nothing", SPEC, tmp_path, 0)


def test_timm_says_that_it_needs_an_environment_of_its_own(tmp_path: Path) -> None:
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError):
        with pytest.raises(MissingExtraError, match="environment of its own"):
            export_image_part("timm:xception41", SPEC, tmp_path, 0)


def test_a_timm_encoder_answers_from_its_file_as_the_library_does(tmp_path: Path, draw: Draw) -> None:
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError):
        pytest.skip("timm does not import beside the CPU build of torch: it needs torchvision")
    model = timm.create_model("test_convnext.r160_in1k", pretrained=False, num_classes=0).eval()
    if not timm.list_pretrained("test_convnext*"):
        pytest.skip("this timm has no tiny model")
    part = export_image_part("timm:test_convnext.r160_in1k", SPEC, tmp_path, 0, model=model)
    assert embedded(tmp_path, part, draw((200, 120, 40), 3)).shape == (part.width,)
