"""What the child process of a trial does: it opens a model, asks it a few products, and writes one line of JSON.

python -m shelver.library.child FOLDER
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from PIL import Image

from shelver.decide import policies_of
from shelver.decide.attributes import check_rules
from shelver.decide.plan import plan_of
from shelver.errors import ModelError
from shelver.pipeline import Classifier
from shelver.product import Product

_SPARE_BYTES: Final = 6 << 30
"""Address space of the child beside four times the model's files: the interpreter and its libraries reserve it."""


def answer_once(folder: Path) -> str:
    """Open the model, check its policies, ask it a text, a picture, and both; returns its version.

    Raises:
        ModelError: an answer is no answer.
        ShelverError: as `Classifier.open` and `policies_of`.
    """
    classifier = Classifier.open(folder, threads=1)
    stage = classifier.prob2pred
    for policy in policies_of(folder).values():
        plan_of(policy, stage.groups)
        check_rules(policy, stage.attributes)
    picture, title = _picture(), "A small red chair, size 40"
    products = (
        Product("text", title=title),
        Product("picture", images=(picture,)),
        Product("both", title=title, images=(picture,)),
    )
    embedded = classifier.embed(products)
    probs = classifier.emb2prob(embedded.text, embedded.image)
    known = probs.modality > 0
    sums = probs.nodes[:, classifier.taxonomy.level == 1].sum(axis=1)
    sound = bool(np.isfinite(probs.nodes).all()) and bool(np.allclose(sums[known], 1, atol=1e-3))
    sound &= all(bool(np.isfinite(values).all()) for values in probs.attributes.values())
    answers = list(classifier.decide(products, embedded, probs))
    if not (sound and known.any() and all(answers[row].node_id for row in np.flatnonzero(known).tolist())):
        raise ModelError(
            "it answers without a sound probability",
            allowed="finite probabilities that sum to 1 on level 1",
            remedy="Train or export it again.",
        )
    return classifier.model_version


def _picture() -> bytes:
    shades = np.add.outer(np.arange(64) * 2, np.arange(64)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.stack([shades, shades.T, 255 - shades], axis=-1)).save(file, "PNG")
    return file.getvalue()


def _limit(folder: Path) -> None:
    """No dump of memory, no growing file, and no more memory than a model of this size can need."""
    n_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_AS, 4 * n_bytes + _SPARE_BYTES),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _say(status: int, **record: Any) -> NoReturn:
    sys.stdout.write("\n" + json.dumps(record) + "\n")
    sys.stdout.flush()
    # Threads of a half-opened model are not waited for.
    os._exit(status)


def _main(folder: Path) -> None:
    started = time.perf_counter()
    try:
        _limit(folder)
        version = answer_once(folder)
    except Exception as error:  # whatever a library thinks of a file: the reason goes to whoever registers it
        _say(3, refused=str(error) or type(error).__name__)
    _say(0, model_version=version, seconds=round(time.perf_counter() - started, 3))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
