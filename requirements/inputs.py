"""What `make lock` compiles: pyproject's dependencies, with every extra but never torch.

torch has no line of its own, since its CPU and GPU builds have different hashes and the GPU builds pull in
CUDA packages; `make` installs it in a second step. The packages that every build of it needs are named here
instead, so that they are locked with hashes as everything else.

    python requirements/inputs.py                     prints what dev.lock is compiled from
    python requirements/inputs.py --core              prints what core.lock is compiled from
    python requirements/inputs.py --write FROM TO     gives what pip-compile wrote its heading and its place
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
HEADING = "# Made by `make lock`, for Python 3.11; do not edit. torch is not here, see CONTRIBUTING.md.\n"
TORCH_NEEDS = (
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools>=77",
    "sympy>=1.13.3",
    "typing-extensions>=4.10",
)


def requirements(*, core: bool) -> list[str]:
    """The package's own requirements, or those with all its extras and torch's; sorted, without torch."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    wanted = set(project["dependencies"])
    if not core:
        wanted.update(*project["optional-dependencies"].values(), TORCH_NEEDS)
    return sorted(line for line in wanted if re.split(r"[^\w.-]", line)[0] != "torch")


def write(compiled: Path, lock: Path) -> None:
    """Put the compiled lines in their place, under our heading and without pip-compile's remarks."""
    lines = compiled.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    lock.write_text(HEADING + "\n".join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write", source, target]:
            write(Path(source), Path(target))
        case ["--core"]:
            print("\n".join(requirements(core=True)))
        case _:
            print("\n".join(requirements(core=False)))
