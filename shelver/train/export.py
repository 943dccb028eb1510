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
from shelver.train.linear import Linear
from shelver.train.model import Head, NgramTable

PARITY_TOLERANCE: Final = 1e-4

Inputs = Mapping[str, NDArray[Any]]


def export(
    module: nn.Module,
    path: Path,
    probes: Sequence[Inputs],
    *,
    output: str | Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    tolerance: float = PARITY_TOLERANCE,
) -> float:
    """Write a module as one ONNX file, after proving that the file answers as torch does.

    Args:
        module: takes the tensors of a probe by position, gives one tensor, or a tuple of them.
        path: where to put the file. It appears under its name only when whole and proven.
        probes: inputs by name, in the module's order; the first one is traced, all are compared.
        output: name of the output, or names of all.
        dynamic: for each input, the axes whose length is free, with a name for the length.
        tolerance: greatest absolute difference allowed.

    Returns:
        The greatest absolute difference over the probes.

    Raises:
        ParityError: the difference is over the tolerance; no file is left.
    """
    module = module.eval()
    with torch.inference_mode():
        expected = [_arrays(module(*map(_tensor, probe.values()))) for probe in probes]
    staged = path.with_name(path.name + ".partial")
    try:
        _write(module, staged, probes[0], [output] if isinstance(output, str) else list(output), dynamic)
        worst = 0.0
        for probe, wanted in zip(probes, expected, strict=True):
            differences = [
                np.abs(got - of_torch) for got, of_torch in zip(run_file(staged, probe), wanted, strict=True)
            ]
            difference = float(np.max([part.max(initial=0.0) for part in differences]))
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


def _arrays(answer: Tensor | tuple[Tensor, ...]) -> list[NDArray[Any]]:
    return [part.numpy() for part in (answer if isinstance(answer, tuple) else (answer,))]


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _write(
    module: nn.Module, path: Path, probe: Inputs, outputs: list[str], dynamic: Mapping[str, Mapping[int, str]]
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
            output_names=outputs,
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


class PaddedBag(nn.Module):
    """The weighted sum of table rows over rectangles: ONNX has no embedding bag."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """ids (N, T), weights (N, T) with 0 for padding → (N, width)."""
        return torch.bmm(weights.unsqueeze(1), self.table[ids]).squeeze(1)


def export_ngrams(table: NgramTable | None, linear: Linear | None, path: Path) -> float:
    """Write an n-gram part: ids int64 (N, T) and weights float32 (N, T) → embedding (N, width).

    The learned vectors and the linear part's weights of an n-gram stand side by side, so that one gather fetches
    both.
    """
    sides = [] if table is None else [table.bag.weight.detach().cpu()]
    if linear is not None:
        sides.append(torch.from_numpy(linear.weight))
    rows = torch.cat(sides, dim=1)
    rng = np.random.default_rng(0)
    probes: list[Inputs] = []
    for n, width in ((3, 7), (1, 1), (5, 40)):
        weights = rng.random((n, width), np.float32)
        weights[:, width // 2 + 1 :] = 0
        probes.append({"ids": rng.integers(0, len(rows), (n, width)), "weights": weights})
    free = {0: "products", 1: "ngrams"}
    return export(PaddedBag(rows), path, probes, output="embedding", dynamic={"ids": free, "weights": free})


def export_head(
    head: Head,
    path: Path,
    *,
    text: NDArray[np.float32] | None,
    image: NDArray[np.float32] | None,
) -> float:
    """Write `emb2prob.onnx`: text (N, D_t) and image (N, D_i) → scores (N, M) of each expert.

    Args:
        head: the experts.
        path: where to put the file.
        text, image: some embeddings as the model gives them, to compare the file with torch on; None where the
            model does without.
    """
    given = {name: values for name, values in (("text", text), ("image", image)) if values is not None}
    n = len(next(iter(given.values())))
    probes: list[Inputs] = [
        {name: values[: max(n // part, 1)] for name, values in given.items()} for part in (2, n, 1)
    ]
    module: nn.Module = head
    if len(given) == 1:
        module = _OneModality(head, is_text=text is not None)
    free = {0: "products"}
    return export(
        module,
        path,
        probes,
        output=[f"scores_{name}" for name in head.named()],
        dynamic=dict.fromkeys(given, free),
    )


class _OneModality(nn.Module):
    """A head that looks at one thing only as a module of one input; the exporter takes no None."""

    def __init__(self, head: Head, *, is_text: bool) -> None:
        super().__init__()
        self.head = head
        self.is_text = is_text

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        """(N, D) → as many (N, M) as there are experts."""
        scores: tuple[Tensor, ...] = self.head(values, None) if self.is_text else self.head(None, values)
        return scores
