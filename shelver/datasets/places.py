"""Finds a recipe's files in the folder that the user names."""

from __future__ import annotations

from pathlib import Path

from shelver.errors import FeedError
from shelver.taxonomy import Taxonomy


def file_in(source: Path, *patterns: str, recipe: str) -> Path:
    """The file of a recipe.

    Args:
        source: the folder, or the file itself.
        patterns: names, also with `*`; the first that is there wins.
        recipe: for the message.

    Raises:
        FeedError: there is no such file.
    """
    if source.is_file():
        return source
    for pattern in patterns:
        found = sorted(path for path in source.glob(pattern) if path.is_file()) if source.is_dir() else []
        if found:
            return found[0]
    raise FeedError(
        f"{source} {'has no ' + ' or '.join(patterns) if source.is_dir() else 'is not there'}",
        allowed=f"the folder of the set {recipe}, with {' or '.join(patterns)}",
        remedy="Check the path; the README says where the set comes from.",
    )


def no_taxonomy(_: Path) -> Taxonomy | None:
    """For sets whose tree is that of the rows' paths."""
    return None


def no_pictures(_: Path) -> Path | None:
    """For sets whose pictures stand in their rows, or that have none."""
    return None
