"""The last step of a training: what learned becomes the files of a model folder, sealed by its manifest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import numpy as np

from shelver import __version__, registry
from shelver.attributes import Vocabulary
from shelver.folders import sha256_of
from shelver.pipeline import Text2Emb
from shelver.registry import AttributeHead, HeadStage, ImageStage, Manifest, TextPart, TextStage
from shelver.taxonomy import Taxonomy
from shelver.train.config import TrainConfig
from shelver.train.data import Examples
from shelver.train.export import export_head, export_ngrams
from shelver.train.phases import Fitted, value_counts
from shelver.train.stages import Settled

PROBES: Final = 16
"""Training products that the exported head is compared on."""


def seal(
    out: Path,
    staged: Path,
    tree: Taxonomy,
    config: TrainConfig,
    settled: Settled,
    fitted: Fitted,
    frozen: tuple[TextPart, ...],
    image: ImageStage | None,
    learned: Examples,
    parity: dict[str, float],
) -> Manifest:
    """Export what learned, and write the core of the model folder."""
    built = fitted.built
    model = built.model.to("cpu")
    parts = frozen
    if built.vocabulary is not None:
        file = registry.part_file("text2emb", len(frozen))
        built.vocabulary.save(staged / registry.NGRAMS)
        parity[file] = export_ngrams(model.table, built.linear, staged / file)
        width = (settled.plan.text_width if model.table is not None else 0) + (
            len(built.linear.bias) if built.linear is not None else 0
        )
        parts = (
            *frozen,
            TextPart(encoder="ngram", source=None, file=file, width=width, ngrams=settled.plan.ngrams),
        )
    text = TextStage(spec=config.text, parts=parts) if parts else None
    examples = learned.rows(np.arange(min(len(learned), PROBES)))
    parity[registry.EMB2PROB] = export_head(
        model.head,
        staged / registry.EMB2PROB,
        text=Text2Emb.open(staged, text)(examples.texts).values if text is not None else None,
        image=examples.image.values.astype(np.float32) if examples.image is not None else None,
    )
    tree.save(staged / registry.TAXONOMY)
    tasks, node = fitted.tasks, fitted.learned.node
    nodes, counts = np.unique(node[node >= 0], return_counts=True)
    seen = {tree.ids[k]: n for k, n in zip(nodes.tolist(), counts.tolist(), strict=True)}
    registry.write_labels(staged / registry.LABELS, seen, value_counts(fitted))
    if tasks.attributes:
        Vocabulary(attributes=tuple(t.attribute for t in tasks.attributes)).save(staged / registry.ATTRIBUTES)
    assert tasks.groups is not None
    stops = np.flatnonzero(tasks.groups.here_slot >= 0).tolist()
    manifest = Manifest(
        shelver_version=__version__,
        git_commit=git_commit(),
        config=config.model_dump(mode="json"),
        text=text,
        image=image,
        head=HeadStage(
            kind=settled.plan.head,
            stops=tuple(tree.ids[k] for k in stops),
            attributes=tuple(
                AttributeHead(name=t.name, start=t.start, calibration=fitted.chosen.values[t.name])
                for t in tasks.attributes
            ),
        ),
        taxonomy_version=tree.version,
        calibration=fitted.chosen.calibration,
        parity=parity,
        files={file.name: sha256_of(file) for file in sorted(staged.iterdir())},
    )
    registry.write_core(staged, out, manifest)
    return manifest


def git_commit() -> str | None:
    """The commit of the checkout that this module stands in, or None outside one."""
    git = shutil.which("git")
    if git is None:
        return None
    package = Path(__file__).parents[1]
    call = [git, "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"]
    found = subprocess.run(call, capture_output=True, text=True, check=False).stdout.split("\n")  # noqa: S603
    # Installed into an environment inside somebody's own repository, that repository's commit would be a lie.
    return found[1] if len(found) > 1 and Path(found[0]) == package.parent else None
