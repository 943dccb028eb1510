"""Published picture encoders, `hf:NAME` and `timm:NAME`: loaded, pooled, and told how they want their pixels.

`hf:NAME` is a folder or a name on the Hugging Face hub, such as `google/mobilenet_v2_1.0_224`,
`google/efficientnet-b0`, `facebook/convnext-tiny-224` or `google/vit-base-patch16-224-in21k`; of CLIP and SigLIP
the picture half is taken. Only safetensors are read, never pickled weights, and no code that comes with a model is
run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from shelver.errors import ConfigError, MissingExtraError
from shelver.folders import sha256_of
from shelver.images import ImageSpec
from shelver.train.hf_text import PlainEmbedding, hf_folder

_VERSION: Final = "v1"  # raised when the same weights would give other vectors


@dataclass(frozen=True, slots=True)
class PublishedEncoder:
    """A picture encoder and what it wants.

    Attributes:
        module: float32 (N, 3, H, W) → (N, D), frozen and in evaluation mode.
        source: names its weights in caches and manifests.
        spec: the size that was asked for, with the encoder's own mean and scale.
        width: D.
    """

    module: nn.Module
    source: str
    spec: ImageSpec
    width: int


class Pooled(nn.Module):
    """A transformers vision model and one vector of its answer.

    Of a convolutional network that is its own pooled answer, of a transformer its first token (CLS), or what the
    picture half of a CLIP or SigLIP pools.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        half = getattr(network, "vision_model", None)
        self.network = network if half is None else half
        for parent in list(self.network.modules()):
            for name, table in list(parent.named_children()):
                if type(table) is nn.Embedding:  # see PlainEmbedding
                    plain = PlainEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx)
                    plain.weight = table.weight
                    setattr(parent, name, plain)
        self._is_half = half is not None
        # A vision transformer knows the places of one size only; it interpolates them for others, if told to.
        embeddings = getattr(self.network, "embeddings", None)
        interpolates = hasattr(embeddings, "interpolate_pos_encoding")
        self._options = {"interpolate_pos_encoding": True} if interpolates else {}

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, D)."""
        answer = self.network(pixel_values=pixels, **self._options)
        hidden: Tensor = answer.last_hidden_state
        if self._is_half or hidden.ndim == 4:
            pooled: Tensor = answer.pooler_output
            return pooled.flatten(1)
        return hidden[:, 0]


def load_hf_image(name: str, spec: ImageSpec) -> PublishedEncoder:
    """A published encoder by its name, with or without "hf:" before it.

    Args:
        name: a folder, or a name on the hub.
        spec: the size to run it at; mean and scale come from the encoder.

    Raises:
        MissingExtraError: transformers is not installed.
        ConfigError: the model is not here, has no safetensors, is no encoder of pictures, or refuses the size.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError(
            f"the picture encoder `{name}` needs the package transformers, which is not installed",
            allowed="the extra `backbones`",
            remedy="Install it with `pip install 'shelver[train,backbones]'`, or train with another encoder.",
        )
    from transformers import AutoModel
    from transformers.utils import logging

    folder = hf_folder(name)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        network, notes = AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}",
            allowed="an encoder with config.json and model.safetensors; pickled weights (.bin) are not read",
            remedy="Download the model's safetensors, or save it again with `save_pretrained(FOLDER)`.",
        ) from error
    if network.main_input_name != "pixel_values" and not hasattr(network, "vision_model"):
        raise ConfigError(
            f"{folder} holds a {type(network).__name__}",
            allowed="an encoder of pictures: MobileNetV2, EfficientNet, ConvNeXt, ViT, SigLIP and their like",
            remedy="Choose another model.",
        )
    # A ViT saved with its classifier lacks the pooler, which is not used here.
    missing = sorted(key for key in notes["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"{folder} lacks {len(missing)} of the network's weights, such as {missing[0]}",
            allowed="a folder with all weights of its network",
            remedy="Download the model again.",
        )
    module = Pooled(network).eval().requires_grad_(False)
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(sha256_of(file).encode())
    mean, scale = _scaling(folder)
    wanted = ImageSpec.model_validate({**spec.model_dump(), "mean": mean, "scale": scale})
    return PublishedEncoder(
        module, f"hf-image-{_VERSION}-{digest.hexdigest()[:12]}", wanted, _width(module, wanted, name)
    )


def _scaling(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and scale in units of 0..255, from the model's own notes on preprocessing."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        raise ConfigError(
            f"{folder} has no preprocessor_config.json",
            allowed="a model that says how its pixels are scaled",
            remedy="Download that file too; it stands beside the model's config.json.",
        )
    notes: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    # (x * factor - offset - mean) / std, in that order, as far as the notes ask for it.
    factor = float(notes.get("rescale_factor", 1 / 255)) if notes.get("do_rescale", True) else 1.0
    offset = 1.0 if notes.get("rescale_offset") else 0.0
    means, stds = [0.0] * 3, [1.0] * 3
    if notes.get("do_normalize", True):
        means = [float(x) for x in notes.get("image_mean", [0.5] * 3)]
        stds = [float(x) for x in notes.get("image_std", [0.5] * 3)]
    mean = tuple((m + offset) / factor for m in means)
    # EfficientNet's own preprocessing divides by the deviation twice, and its weights were trained so.
    twice = notes.get("include_top", "EfficientNet" in str(notes.get("image_processor_type")))
    scale = tuple((s * s if twice else s) / factor for s in stds)
    return mean, scale


def load_timm(name: str, spec: ImageSpec) -> PublishedEncoder:
    """A timm encoder by its name, with or without "timm:" before it, such as `xception41` or `inception_v3`.

    Args:
        name: of a timm model with published weights.
        spec: the size to run it at; mean and scale come from the encoder.

    Raises:
        MissingExtraError: timm is not installed, or does not import beside this build of torch.
        ConfigError: there is no such model, its weights cannot be had, or it refuses the size.
    """
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError) as error:  # torchvision fails in all these ways
        raise MissingExtraError(
            f"the picture encoder `{name}` needs timm, which does not import here ({type(error).__name__})",
            allowed="an environment of its own with torch, torchvision and timm from one source: torchvision does "
            "not import beside the CPU build of torch",
            remedy="Make one, `pip install 'shelver[train,timm]'` in a fresh environment, and train there; the "
            "model folder runs anywhere.",
        ) from error
    plain = name.removeprefix("timm:")
    try:
        module = timm.create_model(plain, pretrained=True, num_classes=0).eval().requires_grad_(False)
    except Exception as error:  # an unknown name, or whatever the hub's client raises
        raise ConfigError(
            f"the encoder `timm:{plain}` cannot be made: {type(error).__name__}",
            allowed="a name from `timm.list_models(pretrained=True)` whose weights are in the hub's cache, or can "
            "be downloaded",
            remedy="Without the hub, copy its cache from a machine that has it and point HF_HOME at it.",
        ) from error
    settings = timm.data.resolve_model_data_config(module)
    mean, scale = ([255 * x for x in settings[key]] for key in ("mean", "std"))
    wanted = ImageSpec.model_validate({**spec.model_dump(), "mean": mean, "scale": scale})
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return PublishedEncoder(
        module, f"timm-{_VERSION}-{digest.hexdigest()[:12]}", wanted, _width(module, wanted, name)
    )


def _width(module: nn.Module, spec: ImageSpec, name: str) -> int:
    try:
        with torch.inference_mode():
            vector = module(torch.zeros(1, 3, spec.height_px, spec.width_px))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the encoder `{name}` refuses pictures of {spec.width_px}x{spec.height_px} px: "
            f"{str(error).splitlines()[0]}",
            allowed="a size that the network was made for",
            remedy="Name its own size, such as 224x224, as the picture size.",
        ) from error
    return int(vector.shape[1])
