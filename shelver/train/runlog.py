"""The record of a run: `metrics.jsonl`, which is the truth, and TensorBoard events, which mirror it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

METRICS: Final = "metrics.jsonl"


class RunLog:
    """Appends rows of figures; a resumed run first drops the rows after the step it resumes from."""

    def __init__(self, folder: Path, *, phase: str, step: int) -> None:
        # Imported here: TensorBoard takes a second, and only training wants it.
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        file = folder / METRICS
        kept = []
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line) if line.endswith("}") else None
                if row is not None and (row["phase"] != phase or row["step"] <= step):
                    kept.append(line)
        file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._file = file.open("a", encoding="utf-8")
        self._phase = phase
        self._writer = SummaryWriter(str(folder / "tensorboard" / phase), purge_step=step or None)

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one row of figures, at a step of the phase."""
        row = {"phase": self._phase, "step": step, **{k: round(v, 6) for k, v in figures.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._file.close()
        self._writer.close()
