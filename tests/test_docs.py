"""What the documents say is true: the README's tree, the links, the command list, the locks, the make targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

REPO: Final = Path(__file__).parent.parent
PACKAGE: Final = REPO / "shelver"
DOCUMENTS: Final = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")])

FENCE: Final = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
# A name in a drawn tree: what stands first on its line after the branches.
TREE_NAME: Final = re.compile(r"^[\s│├└─|`+-]*([\w.-][\w./-]*)", re.MULTILINE)
CLI_COMMAND: Final = "typer shelver.cli utils docs --name shelver --output docs/cli.md"


def readme_trees() -> str:
    """The drawn trees of the README: its code blocks that begin at the package's folder or name it in a line."""
    blocks = FENCE.findall((REPO / "README.md").read_text(encoding="utf-8"))
    return "\n".join(block for block in blocks if re.search(r"^[\s│├└─]*shelver/(\s|$)", block, re.MULTILINE))


def test_the_readmes_tree_names_every_file_and_folder_of_the_package() -> None:
    shown = {name.rstrip("/") for name in TREE_NAME.findall(readme_trees())}
    shown |= {Path(name).name for name in shown}
    rooms = {
        path.name
        for path in PACKAGE.iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and not path.stem.startswith("__"))
    }
    assert not rooms - shown, f"missing in the README's tree: {sorted(rooms - shown)}"


def test_what_the_readmes_tree_names_exists() -> None:
    names = [name for name in TREE_NAME.findall(readme_trees()) if name.endswith(("/", ".py", ".md", ".toml"))]
    assert names, "the README draws no tree of the package"
    gone = [
        name
        for name in names
        if not (REPO / name).exists() and not any(path.exists() for path in PACKAGE.rglob(Path(name).name))
    ]
    assert not gone, f"named in the README's tree, but not there: {gone}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_relative_links_resolve(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        target, _, anchor = unquote(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (document.parent / target).resolve() if target else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(link)
    assert not broken


def anchors(document: Path) -> set[str]:
    """The anchors that a code host gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_documents_name_no_path_of_one_machine() -> None:
    guilty = [
        str(document.relative_to(REPO))
        for document in DOCUMENTS
        if re.search(r"(?<![\w.])/(work|root|home)/", document.read_text(encoding="utf-8"))
    ]
    assert not guilty


def test_decision_records_are_numbered_without_gaps_and_have_their_four_parts() -> None:
    records = sorted((REPO / "docs" / "adr").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        headings = re.findall(r"^## (\w+)", record.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Alternatives"], record.name


def test_the_command_page_is_what_the_command_line_says_today(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    arguments = CLI_COMMAND.replace("docs/cli.md", str(page)).split()
    # A terminal's width and colours must not show in the page.
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True, text=True, check=False, cwd=REPO, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    # Words, not lines: where a line breaks is not what we hold.
    assert written.split() == page.read_text(encoding="utf-8").split(), f"docs/cli.md is old: run `{CLI_COMMAND}`"


def test_every_make_target_that_a_document_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z]+)[^`]*`", document.read_text(encoding="utf-8"))
    }
    assert named <= targets
    assert {"demo", "test", "lint", "drills", "bench", "lock", "clean", "help"} <= targets


def lock(name: str) -> dict[str, str]:
    """Package → version of a lock file, after checking that each line is exact and hashed."""
    text = (REPO / "requirements" / f"{name}.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    pins = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        pinned = re.fullmatch(r"([a-z0-9-]+)==(\S+)( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+", line.strip())
        assert pinned, f"{name}.lock: {line[:80]!r} is no exact, hashed requirement"
        pins[pinned[1]] = pinned[2]
    return pins


def test_the_locks_cover_pyproject_with_exact_hashed_versions_and_without_torch() -> None:
    core, everything, bench = lock("core"), lock("dev"), lock("bench")
    assert "torch" not in everything
    assert not [name for name in everything if name.startswith(("nvidia-", "cuda-", "triton", "sentence-"))]
    assert core.items() <= everything.items(), "core.lock and dev.lock disagree: run `make lock`"
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    for lines, pins in ((project["dependencies"], core), (extras, everything | bench)):
        wanted = {re.split(r"[^\w.-]", line)[0].lower() for line in lines} - {"torch"}
        assert wanted <= pins.keys(), "pyproject.toml has changed: run `make lock`"


def test_the_licence_is_the_one_that_the_project_file_names() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    text = (REPO / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
