"""On what it was measured: the line that stands beside every figure."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("numpy", "onnxruntime", "torch", "scikit-learn", "fasttext")


def facts(threads: int) -> dict[str, Any]:
    """What every row says beside its figures; `load_before` counts the processes that were at work already."""
    return {
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_text(),
        "libraries": libraries_text(),
        "commit": commit(),
    }


def machine_text() -> str:
    """Processor, cores, memory, system and Python; no name of the machine."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {n_cores} cores, {gib:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def libraries_text() -> str:
    """The versions of what computes."""
    return ", ".join(f"{name} {found}" for name in _LIBRARIES if (found := _version(name)) is not None)


def commit() -> str | None:
    """The commit of this checkout, with a plus where files differ from it; None outside one."""
    found = _git("rev-parse", "--short=12", "HEAD")
    if not found:
        return None
    return found + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str:
    folder = str(Path(__file__).parent)
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
