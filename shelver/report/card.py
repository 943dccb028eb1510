"""The model card: a README.md that says what a model folder is, how good it is, and how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from shelver import plots, registry
from shelver.attributes import Vocabulary
from shelver.evaluate import AttributeFigures, Figures, Report
from shelver.registry import Manifest
from shelver.report import words
from shelver.taxonomy import Taxonomy

CARD: Final = "README.md"
FIGURES: Final = Path("report") / "figures.json"
MAX_TOP_CATEGORIES: Final = 12
MAX_ATTRIBUTES: Final = 40
MAX_CHARS: Final = 120


def write_card(manifest: Manifest, report: Report | None, folder: Path) -> Path:
    """Write the `README.md` of a model folder.

    The card shows every split that was evaluated so far: the main figures of each are kept beside the core, in
    `report/figures.json`.

    Args:
        manifest: of the model.
        report: a new evaluation of it, or None to write the card from what is known.
        folder: the model folder.
    """
    known = _known(folder, manifest.model_version)
    if report is not None and report.model_version == manifest.model_version:
        known[f"{report.catalog}/{report.split}"] = _brief(report)
        _write(
            folder / FIGURES,
            json.dumps({"model_version": manifest.model_version, "evaluations": known}, indent=2) + "\n",
        )
    path = folder / CARD
    _write(path, _card(manifest, known, folder))
    return path


def _card(manifest: Manifest, known: dict[str, dict[str, Any]], folder: Path) -> str:
    tree = Taxonomy.load(folder / registry.TAXONOMY)
    counts = registry.read_labels(folder)
    reads = " and ".join(name for name, has in (("texts", manifest.text), ("pictures", manifest.image)) if has)
    lines = [
        f"# Model {_plain(folder.resolve().name)}",
        "",
        f"A shelver model, version `{manifest.model_version}`. It reads the {reads} of products and puts each on "
        f"its place in a tree of {tree.n_nodes:,} categories, with a calibrated confidence.",
        "",
        "## Use",
        "",
        "`MODEL` is this folder.",
        "",
        "```",
        'shelver predict MODEL --title "..."' + (" --image photo.jpg" if manifest.image else ""),
        "shelver predict MODEL FEED.csv --out answers.csv",
        "```",
        "",
        "```python",
        "from shelver.pipeline import Classifier",
        "from shelver.product import Product",
        "",
        'classifier = Classifier.open("MODEL")',
        'print(classifier([Product("1", title="...")])[0])',
        "```",
        "",
        ("A product may lack its text or its picture. " if manifest.text and manifest.image else "")
        + "A product that has nothing the model reads is answered with an error code.",
        "",
        "## Tree and data",
        "",
        *_table(["", ""], _data(tree, counts)),
        "",
        *_top_categories(tree, counts),
        *_attributes(manifest, folder),
        "## How it works",
        "",
        *_table(["", ""], [*words.encoders(manifest).items(), ("shelver", manifest.shelver_version),
                           ("commit", manifest.git_commit or "unknown")]),
        "",
        "## Figures",
        "",
        *_figures(known),
        "## Calibration",
        "",
        "The experts' scores are added with a weight for each level (level 1 first), fitted on products that no "
        "expert learned from; then the confidence is the softmax among siblings, from level to level. Where one "
        "such distribution is not honest enough, several are blended, each with its share.",
        "",
        *_table(["asked with", "expert", "weights"], words.weights(manifest)),
        "",
        "## Limits",
        "",
        *_limits(manifest, tree, counts),
        "",
        "## Training config",
        "",
        *_table(["setting", "value"], words.settings(manifest).items()),
        "",
        "The exported files answer as the trained model did: the greatest difference, over sample inputs, was "
        + ", ".join(f"{value:.0e} in `{name}`" for name, value in sorted(manifest.parity.items()))
        + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _data(tree: Taxonomy, counts: dict[str, int]) -> list[tuple[str, str]]:
    seen = np.array([counts.get(node_id, 0) for node_id in tree.ids], np.int64)
    used = seen[seen > 0]
    rows = [
        ("categories", f"{tree.n_nodes:,}, of them {tree.n_leaves:,} leaves, in {tree.n_levels} levels"),
        ("tree version", tree.version),
        ("training products", f"{int(seen.sum()):,}"),
        ("categories with training products", f"{len(used):,}"),
    ]
    if len(used):
        rows.append(
            ("products in such a category", f"{np.median(used):,.0f} (median), {used.min():,} to {used.max():,}")
        )
    return rows


def _top_categories(tree: Taxonomy, counts: dict[str, int]) -> list[str]:
    """Level 1, by training products."""
    sums = np.zeros(tree.n_nodes, np.int64)
    seen = np.array([counts.get(node_id, 0) for node_id in tree.ids], np.int64)
    np.add.at(sums, tree.ancestors_at(np.arange(tree.n_nodes), 1), seen)
    first = np.flatnonzero(tree.level == 1)
    order = first[np.argsort(-sums[first], kind="stable")]
    rows = [(tree.names[k], f"{sums[k]:,}") for k in order[:MAX_TOP_CATEGORIES].tolist()]
    more = len(order) - len(rows)
    if more > 0:
        rows.append((f"{more:,} more", f"{int(sums[order[MAX_TOP_CATEGORIES:]].sum()):,}"))
    return [*_table(["level 1", "training products"], rows), ""]


def _attributes(manifest: Manifest, folder: Path) -> list[str]:
    """What it answers beside the category; nothing for a model that answers only that."""
    if not manifest.head.attributes:
        return []
    found = Vocabulary.load(folder / registry.ATTRIBUTES).attributes
    rows = [
        (
            one.name,
            f"{len(one.values):,}" + (", several a product" if one.multi else ""),
            f"{len(one.nodes):,} {'category' if len(one.nodes) == 1 else 'categories'} and all below"
            if one.nodes
            else "every category",
        )
        for one in found[:MAX_ATTRIBUTES]
    ]
    if len(found) > MAX_ATTRIBUTES:
        rows.append((f"{len(found) - MAX_ATTRIBUTES:,} more", "", ""))
    return ["## Attributes", "", *_table(["attribute", "values", "applies to"], rows), ""]


def _figures(known: dict[str, dict[str, Any]]) -> list[str]:
    if not known:
        return ["Not evaluated yet: `shelver evaluate MODEL CATALOG --out FOLDER` fills this in.", ""]
    lines = ["Macro-F1 is over the labels present in truth or answers.", ""]
    header = ["", "products", *[m.name for m in words.BRIEF]]
    for evaluation in sorted(known.values(), key=lambda one: (one["catalog"], one["split"])):
        rows = []
        for name, raw in evaluation["rows"].items():
            row = Figures.model_validate(raw)
            rows.append(
                [name, f"{row.n:,}", *[words.shown(getattr(row, m.key), percent=m.percent) for m in words.BRIEF]]
            )
        lines += [
            f"### {_plain(evaluation['split'])} split of {_plain(evaluation['catalog'])}",
            "",
            *([words.SPLITS[evaluation["split"]], ""] if words.SPLITS.get(evaluation["split"]) else []),
            *_table(header, rows),
            "",
            *_attribute_figures(evaluation.get("attributes") or {}),
        ]
    return lines


def _attribute_figures(raw: dict[str, Any]) -> list[str]:
    found = {name: AttributeFigures.model_validate(one) for name, one in raw.items()}
    if not found:
        return []
    rows = [
        [name, f"{one.n:,}", *[words.shown(getattr(one, m.key), percent=m.percent) for m in words.ATTRIBUTES]]
        for name, one in list(found.items())[:MAX_ATTRIBUTES]
    ]
    return [*_table(["attribute", "labelled", *[m.name for m in words.ATTRIBUTES]], rows), ""]


def _limits(manifest: Manifest, tree: Taxonomy, counts: dict[str, int]) -> list[str]:
    missing = sum(not counts.get(tree.ids[k]) for k in tree.leaves.tolist())
    few = sum(0 < n < 10 for n in counts.values())
    lines = [
        "- It only knows the categories of its tree; a product of another kind is put somewhere all the same, so "
        "treat a low confidence as a question.",
        "- The figures hold for products like those it was measured on. Other sellers, seasons and languages may "
        "be harder; watch its corrections.",
        "- The labels that it learned from have errors of their own; it learned those too.",
    ]
    if missing:
        lines.append(
            f"- {missing:,} of {tree.n_leaves:,} leaves had no training product; it will hardly answer those."
        )
    if few:
        lines.append(f"- {few:,} categories had fewer than 10 training products; expect less of those.")
    if manifest.text is None:
        lines.append("- It reads no texts.")
    if manifest.image is None:
        lines.append("- It sees no pictures.")
    return lines


def _brief(report: Report) -> dict[str, Any]:
    """What the card keeps of a report."""
    rows: dict[str, Figures] = {"all": report.figures}
    rows |= {f"level {level}": row for level, row in report.by_level.items() if row.n}
    rows |= {f"asked with {words.MODALITIES[modality]}": row for modality, row in report.asked.items()}
    if report.lenient is not None:
        rows["any of several right paths"] = report.lenient.figures
    labelled = {name: one.figures.model_dump() for name, one in report.attributes.items() if one.n}
    return {
        "catalog": report.catalog,
        "catalog_version": report.catalog_version,
        "split": report.split,
        "rows": {name: row.model_dump() for name, row in rows.items()},
        **({"attributes": labelled} if labelled else {}),
    }


def _known(folder: Path, model_version: str) -> dict[str, dict[str, Any]]:
    """Evaluations of this very model that were written earlier; a damaged file is as good as none."""
    try:
        written = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        if written["model_version"] != model_version:
            return {}
        known: dict[str, dict[str, Any]] = written["evaluations"]
        for one in known.values():
            for row in one["rows"].values():
                Figures.model_validate(row)
            for row in one.get("attributes", {}).values():
                AttributeFigures.model_validate(row)
            str(one["catalog"]), str(one["split"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return {}
    return known


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [
        "| " + " | ".join(_plain(cell) if line is not lines[1] else cell for cell in line) + " |" for line in lines
    ]


def _plain(text: str) -> str:
    """A text that is no markup, in Markdown or in the HTML that Markdown lets through."""
    text = " ".join(plots.printable(text[: 10 * MAX_CHARS]).split())
    text = text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#!~])", r"\\\1", text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.replace(path)
