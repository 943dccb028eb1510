"""From trained modules to ONNX files, and the proof that the files answer as the modules do."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shelver.errors import ParityError
from shelver.pipeline import run_file
from shelver.train.model import NgramTable, PaddedNgramTable, TreeHead

PARITY_TOLERANCE: Final = 1e-4

Inputs = Mapping[str, NDArray[Any]]


def export(
    module: nn.Module,
    path: Path,
    probes: Sequence[Inputs],
    *,
    output: str,
    dynamic: Mapping[str, Mapping[int, str]],
    tolerance: float = PARITY_TOLERANCE,
) -> float:
    """Write a module as one ONNX file, after proving that the file answers as torch does.

    Args:
        module: takes the tensors of a probe by position, gives one tensor.
        path: where to put the file. It appears under its name only when whole and proven.
        probes: inputs by name, in the module's order; the first one is traced, all are compared.
        output: name of the output.
        dynamic: for each input, the axes whose length is free, with a name for the length.
        tolerance: greatest absolute difference allowed.

    Returns:
        The greatest absolute difference over the probes.

    Raises:
        ParityError: the difference is over the tolerance; no file is left.
    """
    module = module.eval()
    with torch.inference_mode():
        expected = [module(*map(_tensor, probe.values())).numpy() for probe in probes]
    staged = path.with_name(path.name + ".partial")
    try:
        _write(module, staged, probes[0], output, dynamic)
        worst = 0.0
        for probe, wanted in zip(probes, expected, strict=True):
            (got,) = run_file(staged, probe)
            difference = float(np.abs(got - wanted).max(initial=0.0))
            if not difference <= tolerance:  # also refuses NaN
                raise ParityError(
                    f"{path.name}: ONNX Runtime and torch differ by {difference:.2e}",
                    allowed=f"a difference of at most {tolerance:.0e}",
                    remedy="Nothing was written. Use the locked versions of torch, onnxscript and onnxruntime.",
                )
            worst = max(worst, difference)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return worst


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _write(
    module: nn.Module, path: Path, probe: Inputs, output: str, dynamic: Mapping[str, Mapping[int, str]]
) -> None:
    dims: dict[str, Any] = {}
    shapes = []
    for name in probe:
        axes = dynamic.get(name, {})
        shapes.append({axis: dims.setdefault(label, torch.export.Dim(label)) for axis, label in axes.items()})
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(map(_tensor, probe.values())),
            dynamo=True,
            verbose=False,
            input_names=list(probe),
            output_names=[output],
            dynamic_shapes=tuple(shapes),
        )
        assert program is not None
        # The exporter notes stack traces, with paths of the machine, at each node; nobody runs those.
        for node in program.model.graph:
            node.metadata_props.clear()
        for value in program.model.graph.initializers.values():
            value.metadata_props.clear()
        program.model.metadata_props.clear()
        program.save(str(path), external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter (progress, absent torchvision, its own deprecations) off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def export_text(table: NgramTable, path: Path) -> float:
    """Write `text2emb.onnx`: ids int64 (N, T) and weights float32 (N, T) → embedding (N, D_t)."""
    n_features = table.bag.num_embeddings
    rng = np.random.default_rng(0)
    probes: list[Inputs] = []
    for n, width in ((3, 7), (1, 1), (5, 40)):
        weights = rng.random((n, width), np.float32)
        weights[:, width // 2 + 1 :] = 0
        probes.append({"ids": rng.integers(0, n_features, (n, width)), "weights": weights})
    free = {0: "products", 1: "ngrams"}
    return export(
        PaddedNgramTable(table), path, probes, output="embedding", dynamic={"ids": free, "weights": free}
    )


def export_head(head: TreeHead, path: Path, *, text_width: int | None, image_width: int | None) -> float:
    """Write `emb2prob.onnx`: embeddings and presence, as far as the model uses them → scores (N, M)."""
    rng = np.random.default_rng(0)
    probes: list[Inputs] = []
    for n in (4, 1, 9):
        probe: dict[str, NDArray[Any]] = {}
        for name, width in (("text", text_width), ("image", image_width)):
            if width is None:
                continue
            probe[name] = rng.random((n, width), np.float32)
            if name == "image" and head.image is not None:
                # As wide as the pictures that were seen: a feature that hardly varied is scaled up a thousandfold,
                # and any other value of it would make scores so large that only their rounding was compared.
                standard = rng.standard_normal((n, width), np.float32)
                probe[name] = head.image.mean.numpy() + standard / head.image.scale.numpy()
            probe[f"{name}_present"] = (rng.random((n, 1)) < 0.7).astype(np.float32)
        probes.append(probe)
    free = {0: "products"}
    module: nn.Module = head
    if text_width is None or image_width is None:
        module = _OneModality(head, is_text=text_width is not None)
    return export(module, path, probes, output="scores", dynamic=dict.fromkeys(probes[0], free))


class _OneModality(nn.Module):
    """A head with one branch as a module of two inputs; the exporter takes no None."""

    def __init__(self, head: TreeHead, *, is_text: bool) -> None:
        super().__init__()
        self.head = head
        self.is_text = is_text

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """(N, D), (N, 1) → (N, M)."""
        scores: Tensor = (
            self.head(values, present, None, None) if self.is_text else self.head(None, None, values, present)
        )
        return scores
