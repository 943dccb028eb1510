"""Which system answers which set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.data import Ask, Set
from benchmarks.measure import Learned
from benchmarks.ours import learner
from benchmarks.rivals import learn_fasttext, learn_lite0, learn_svm
from shelver.catalog.store import Catalog
from shelver.errors import ConfigError

_CONFIGS: Final = Path(__file__).parent.parent / "configs"
TUNED: Final = {"fashion": _CONFIGS / "tuned_fashion.py", "grocery": _CONFIGS / "tuned_grocery.py"}
"""The experiment of a catalog that has one of its own."""
_PICTURED: Final = ("fashion", "flipkart")
_HEADS: Final = ("fashion", "instacart", "hpc3level")


@dataclass(frozen=True, slots=True)
class System:
    """Something that learns a catalog and answers for its products.

    Attributes:
        name: as in the table.
        learn: catalog, set, scratch folder, threads → what predicts. Where one learning answers several sets, the
            set is the first of them.
        asks: what it can be asked with.
        catalogs: beginnings of the names of the catalogs it is run on; None for all.
    """

    name: str
    learn: Callable[[Catalog, Set, Path, int], Learned]
    asks: tuple[Ask, ...] = ("text", "picture", "both")
    catalogs: tuple[str, ...] | None = None

    def answers(self, one: Set) -> bool:
        return one.ask in self.asks and (self.catalogs is None or one.catalog.startswith(self.catalogs))


def _tuned(catalog: Catalog, one: Set, scratch: Path, threads: int) -> Learned:
    return learner({}, TUNED[one.catalog])(catalog, one, scratch, threads)


SYSTEMS: Final = (
    System("ours", learner({})),
    System("ours-text", learner({"image_encoder": "none"}), ("text",), _PICTURED),
    System("ours-picture", learner({"text_encoder": "none"}), ("picture",), ("fashion",)),
    System("ours-ngram", learner({"text_encoder": "ngram", "image_encoder": "none"}), ("text",)),
    System(
        "ours-linear",
        learner({"text_encoder": "ngram", "image_encoder": "none", "network": False, "linear": True}),
        ("text",),
        ("fashion", "instacart", "hpc3level", "flipkart"),
    ),
    System("ours-tree", learner({"head": "tree"}), catalogs=_HEADS),
    System("ours-levels", learner({"head": "levels"}), catalogs=_HEADS),
    System("ours-tuned", _tuned, catalogs=tuple(name for name, file in TUNED.items() if file.is_file())),
    # One SVM for each of 4,709 leaves takes hours and some 10 GB.
    System("svm", learn_svm, ("text",), ("fashion", "instacart", "hpc3level", "flipkart")),
    System("fasttext", learn_fasttext, ("text",)),
    System("lite0-lr", learn_lite0, ("picture",)),
)
"""Every system, in the order of the table."""


def systems_named(names: Sequence[str], configs: Sequence[str] = ()) -> list[System]:
    """The systems of these names, or all; `configs` adds ours from files, each `NAME=FILE`.

    Raises:
        ConfigError: a name fits none, or a config is not written so.
    """
    added = [System(name, learner({}, file)) for name, file in named_paths(configs)]
    known = [s for s in SYSTEMS if s.name not in {a.name for a in added}] + added
    if unknown := [name for name in names if name not in {s.name for s in known}]:
        raise ConfigError(
            f"system {unknown[0]!r}", allowed=", ".join(s.name for s in known), remedy="Name some of these."
        )
    return [s for s in known if not names or s.name in names]


def named_paths(words: Sequence[str]) -> list[tuple[str, Path]]:
    """The names and paths of words such as `NAME=PATH`.

    Raises:
        ConfigError: a word is not written so.
    """
    found = []
    for word in words:
        name, _, path = word.partition("=")
        if not (name and path):
            raise ConfigError(f"{word!r}", allowed="NAME=PATH", remedy="Write a name, an equals sign and a path.")
        found.append((name, Path(path)))
    return found
