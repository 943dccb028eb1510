"""The house as DESIGN draws it: imports point down, heavy libraries have one home, nothing is unsafe or vague."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

REPO: Final = Path(__file__).parent.parent
PACKAGE: Final = REPO / "shelver"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))

# From the ground up; the rooms of one floor may use each other, as long as they do so in one direction.
FLOORS: Final = (
    {"errors", "settings", "folders", "addresses", "objects"},
    {"taxonomy", "attributes", "product", "images", "foreground", "windows", "ngrams"},
    {"decide", "calibrate", "metrics", "registry", "catalog", "datasets", "values", "extract"},
    {"pipeline"},
    {"explain"},
    {"evaluate", "report", "monitor", "plots", "compare", "library"},
    {"train", "batch", "stream", "fetch", "service", "client"},
    {"retrain", "sweep"},
    {"worker"},
    {"cli"},
)
FLOOR: Final = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Heavy library → the rooms that may import it.
HOMES: Final = {
    "torch": {"train"},
    "onnx": {"train"},
    "onnxscript": {"train"},
    "onnx_ir": {"train"},
    "tensorboard": {"train"},
    "transformers": {"train"},
    "huggingface_hub": {"train"},
    "timm": {"train"},
    "tokenizers": {"pipeline", "train"},
    "onnxruntime": {"pipeline"},
    "typer": {"cli"},
    "fastapi": {"service"},
    "sqlalchemy": {"service"},
    "jinja2": {"service"},
    "babel": {"service"},
    "ray": {"batch"},
    "faststream": {"stream"},
    "matplotlib": {"plots"},
    "obstore": {"objects"},
    "httpx2": {"client"},
}
# Module → a library that it may import far from its home, and why.
EXCEPTIONS: Final = {
    "train/int8.py": "onnxruntime",  # its quantiser, which makes files and answers nothing
}
# Room → the extras that it may need.
EXTRAS: Final = {
    "addresses": ("service",),
    "client": ("client",),
    "objects": ("s3",),
    "service": ("service", "postgresql"),
    "train": ("train", "backbones"),
    "plots": ("report",),
    "worker": ("service",),
}
SETTINGS_READERS: Final = {"cli", "service"}

FORBIDDEN_MODULES: Final = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS: Final = {"eval", "exec", "os.system", "os.popen", "yaml.load", "torch.jit.load"}
VAGUE_NAMES: Final = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc"}
MAX_LINES: Final = 500


class Import(NamedTuple):
    """One imported module, as `shelver.taxonomy.tree` or `numpy`, and whether it happens when the program runs."""

    name: str
    line: int
    at_run_time: bool


@cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), str(module))


def where(module: Path, line: int) -> str:
    return f"{module.relative_to(REPO)}:{line}"


def room_of(module: Path) -> str:
    """`shelver/train/loop.py` → train, `shelver/decide.py` → decide, `shelver/__init__.py` → empty."""
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def imports_of(module: Path) -> Iterator[Import]:
    """All imports, those inside functions included."""
    for_types_only = {
        id(inner)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree_of(module)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{where(module, node.lineno)}: imports are absolute"
            assert node.module is not None
            # `from shelver import registry` imports a room, `from shelver.catalog.store import Catalog` a name.
            names = (
                [f"shelver.{alias.name}" for alias in node.names] if node.module == "shelver" else [node.module]
            )
        for name in names:
            yield Import(name, getattr(node, "lineno", 0), id(node) not in for_types_only)


def rooms_used(module: Path, *, at_run_time: bool = False) -> Iterator[tuple[str, int]]:
    for imported in imports_of(module):
        parts = imported.name.split(".")
        if parts[0] == "shelver" and len(parts) > 1 and (imported.at_run_time or not at_run_time):
            yield parts[1], imported.line


def test_every_room_stands_on_a_floor() -> None:
    unknown = {room_of(module) for module in MODULES} - FLOOR.keys() - {"", "__main__"}
    assert not unknown, f"new rooms {sorted(unknown)}: give each a floor in FLOORS, and a line in the README"


def test_imports_point_down() -> None:
    up = [
        f"{where(module, line)}: {room_of(module)} imports {room}, which stands above it"
        for module in MODULES
        if room_of(module) in FLOOR
        for room, line in rooms_used(module)
        if room in FLOOR and FLOOR[room] > FLOOR[room_of(module)]
    ]
    assert not up, "\n".join(up)


def test_rooms_of_one_floor_use_each_other_in_one_direction_only() -> None:
    uses: dict[str, set[str]] = {}
    for module in MODULES:
        room = room_of(module)
        used = {other for other, _ in rooms_used(module, at_run_time=True) if other != room}
        uses.setdefault(room, set()).update(used)
    circles = sorted((a, b) for a in uses for b in uses[a] if a < b and a in uses.get(b, set()))
    assert not circles, f"rooms that import each other: {circles}"


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_has_one_home(library: str) -> None:
    elsewhere = [
        where(module, imported.line)
        for module in MODULES
        if room_of(module) not in HOMES[library]
        and EXCEPTIONS.get(module.relative_to(PACKAGE).as_posix()) != library
        for imported in imports_of(module)
        if imported.name.split(".")[0] == library
    ]
    assert not elsewhere, f"{library} is imported outside {sorted(HOMES[library])}: {elsewhere}"


def test_settings_are_read_at_the_entrance_only() -> None:
    readers = {room_of(module) for module in MODULES for room, _ in rooms_used(module) if room == "settings"}
    assert readers <= SETTINGS_READERS


def test_every_third_party_import_is_declared_and_a_room_needs_no_more_than_its_extras() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {distribution(line) for line in project["dependencies"]}
    optional = project["optional-dependencies"]
    owners = importlib.metadata.packages_distributions()
    undeclared = []
    for module in MODULES:
        extras = EXTRAS.get(room_of(module), ())
        allowed = core | {distribution(line) for extra in extras for line in optional[extra]}
        for imported in imports_of(module):
            top = imported.name.split(".")[0]
            if top in sys.stdlib_module_names or top == "shelver":
                continue
            if not {distribution(name) for name in owners.get(top, ())} & allowed:
                undeclared.append(f"{where(module, imported.line)}: {top}")
    assert not undeclared, "not in pyproject.toml, or in an extra that this room may not need: " + ", ".join(
        undeclared
    )


def distribution(requirement: str) -> str:
    """`PyArrow>=20` → pyarrow, spelled as the package index compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def test_everything_but_training_imports_where_torch_is_not_installed() -> None:
    names = [
        ".".join(module.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
        for module in MODULES
        if room_of(module) != "train" and module.stem not in ("__main__", "env")  # Alembic runs `env`
    ]
    absent = ["torch", "onnx", "onnxscript", "tensorboard", "sklearn", "scipy", "pandas", "networkx", "hiclass"]
    absent += ["matplotlib", "transformers", "huggingface_hub", "sentencepiece", "fasttext"]
    program = "import importlib, sys\n"
    program += f"for name in {absent}: sys.modules[name] = None\n"
    program += f"for name in {names}: importlib.import_module(name)\n"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=REPO)
    assert result.returncode == 0, result.stderr


def test_nothing_unpickles_evaluates_or_calls_a_shell() -> None:
    found = []
    for module in MODULES:
        for imported in imports_of(module):
            if imported.name.split(".")[0] in FORBIDDEN_MODULES:
                found.append(f"{where(module, imported.line)}: imports {imported.name}")
        for call in (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if (
                name in FORBIDDEN_CALLS
                or keywords.get("shell", "False") != "False"
                or keywords.get("allow_pickle", "False") != "False"
                or (name == "torch.load" and keywords.get("weights_only") != "True")
            ):
                found.append(f"{where(module, call.lineno)}: {name}(...)")
    assert not found, "\n".join(found)


def test_no_module_is_longer_than_500_lines() -> None:
    lengths = {module: len(module.read_text(encoding="utf-8").splitlines()) for module in MODULES}
    long = {str(module.relative_to(REPO)): n_lines for module, n_lines in lengths.items() if n_lines > MAX_LINES}
    assert not long, f"make each a folder of the same name: {long}"


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [
        str(module.relative_to(REPO))
        for module in MODULES
        if VAGUE_NAMES & set(re.split(r"[_/.]", str(module.relative_to(PACKAGE))))
    ]
    assert not vague


def test_every_module_begins_by_saying_what_it_is() -> None:
    silent = [str(module.relative_to(REPO)) for module in MODULES if not ast.get_docstring(tree_of(module))]
    assert not silent
