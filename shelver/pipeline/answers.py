"""Embeddings to probabilities, probabilities to decisions, and the stages put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shelver import registry
from shelver.attributes import EMPTY, Vocabulary
from shelver.calibrate import MODALITIES, Calibration
from shelver.decide import DEEPEST, Applying, Policy, Predictions, Probabilities, decide
from shelver.errors import ShapeError
from shelver.pipeline.embedding import Embedding
from shelver.pipeline.image import Image2Emb, Picture
from shelver.pipeline.session import open_session
from shelver.pipeline.text import Text2Emb
from shelver.pipeline.values import ValueAnswer
from shelver.registry import Manifest
from shelver.taxonomy import SiblingGroups, Taxonomy

_STRANGE: Final = 0.5
"""Only texts that are at least so strange are looked at again: those without known n-grams are among them."""


def sibling_groups(taxonomy: Taxonomy, stops: Sequence[str]) -> SiblingGroups:
    """Sibling groups of a model whose products may stop at the inner nodes with these ids."""
    may_stop = np.zeros(taxonomy.n_nodes, np.bool_)
    may_stop[taxonomy.indices(list(stops))] = True
    return SiblingGroups.of(taxonomy, may_stop)


class Emb2Prob:
    """Embeddings to calibrated probabilities on the tree.

    `emb2prob.onnx` gives each expert's scores of the slots; the calibration says how far each is believed, and how
    strange a product is beside those that were held out in training.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        groups: SiblingGroups,
        calibration: Calibration,
        *,
        text_width: int | None,
        image_width: int | None,
        ngrams: slice | None = None,
        values: Sequence[ValueAnswer] = (),
        added: Mapping[str, onnxruntime.InferenceSession] = MappingProxyType({}),
    ) -> None:
        """Takes what `open` finds.

        Args:
            session: scores the tree and the attributes that were learned with it.
            groups: the tree's slots.
            calibration: of the tree.
            text_width, image_width: of the embeddings; None where the model does without.
            ngrams: the columns of the text embedding that known n-grams fill.
            values: the attributes.
            added: what scores attributes that were added later, by file.
        """
        self._session = session
        self._values = tuple(values)
        self._added = dict(added)
        self.groups = groups
        self.text_width = text_width
        self.image_width = image_width
        self._ngrams = ngrams
        self._outside = calibration.outside
        self._believed = [calibration.ready(modality, groups) for modality in MODALITIES]

    @classmethod
    def open(
        cls,
        folder: Path,
        manifest: Manifest,
        groups: SiblingGroups,
        vocabulary: Vocabulary = EMPTY,
        *,
        threads: int | None = None,
    ) -> Emb2Prob:
        """Open the stage of a model folder; `vocabulary` is its `attributes.json`."""
        values = [ValueAnswer.of(vocabulary.by_name[head.name], head) for head in manifest.head.attributes]
        files = sorted({of.file for of in values} - {registry.EMB2PROB})
        return cls(
            open_session(folder / registry.EMB2PROB, threads),
            groups,
            manifest.calibration,
            text_width=manifest.text.width if manifest.text else None,
            image_width=manifest.image.width if manifest.image else None,
            ngrams=_ngram_columns(manifest),
            values=values,
            added={file: open_session(folder / file, threads) for file in files},
        )

    def __call__(self, text: Embedding | None, image: Embedding | None) -> Probabilities:
        """Probabilities of N products.

        Args:
            text, image: embeddings; None where the model, or the caller, has none of that kind.

        Raises:
            ShapeError: widths or lengths that do not fit the model.
        """
        feed, modality = self._feed(text, image)
        whole = _asked(self._session, feed)
        scores = [part[:, : self.groups.n_slots] for part in whole]
        nodes = np.zeros((len(modality), self.groups.taxonomy.n_nodes), np.float32)
        # What has nothing to be known by is as strange as can be.
        outside = np.ones(len(modality), np.float32) if self._outside is not None else None
        for code, (name, believed) in enumerate(zip(MODALITIES, self._believed, strict=True), start=1):
            of_code = modality == code
            if not of_code.any():
                continue
            alone = bool(of_code.all())
            of_these = scores if alone else [of_expert[of_code] for of_expert in scores]
            found = believed(of_these)
            if alone:
                nodes = found
            else:
                nodes[of_code] = found
            if self._outside is not None and outside is not None:
                outside[of_code] = self._outside(name, of_these, found, self.groups)
        if outside is not None and text is not None and self._ngrams is not None:
            # A text without a single n-gram that training saw, and no picture beside it.
            asked = np.flatnonzero((modality == 1) & (outside > _STRANGE))
            outside[asked[~text.values[asked, self._ngrams].any(axis=1)]] = 1.0
        by_file = {registry.EMB2PROB: whole}
        for file, session in self._added.items():
            by_file[file] = _asked(session, feed)
        answered = {of.attribute.name: of(by_file[of.file], modality) for of in self._values}
        return Probabilities(
            nodes,
            modality,
            outside,
            {name: probs for name, (probs, _) in answered.items()},
            {name: sources for name, (_, sources) in answered.items()},
        )

    def nodes(self, text: Embedding | None, image: Embedding | None) -> NDArray[np.float32]:
        """P(node) alone, shape (N, K), as `Probabilities.nodes` has it, without the work for all else.

        Raises:
            ShapeError: as a call.
        """
        scores, modality = self.scores(text, image)
        nodes = np.zeros((len(modality), self.groups.taxonomy.n_nodes), np.float32)
        for code, believed in enumerate(self._believed, start=1):
            of_code = modality == code
            if of_code.any():
                nodes[of_code] = believed([of_expert[of_code] for of_expert in scores])
        return nodes

    def scores(
        self, text: Embedding | None, image: Embedding | None
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.int8]]:
        """Each expert's raw scores of the tree's slots, E arrays of (N, M), and what each row has, as in
        `Probabilities`.

        What an expert says of a row that lacks what it looks at means nothing; the calibration leaves it out.
        """
        feed, modality = self._feed(text, image)
        return [part[:, : self.groups.n_slots] for part in _asked(self._session, feed)], modality

    def _feed(
        self, text: Embedding | None, image: Embedding | None
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int8]]:
        """What the files read, and what each row has."""
        given = [e for e in (text, image) if e is not None]
        n = len(given[0].values) if given else 0
        feed: dict[str, NDArray[np.float32]] = {}
        modality = np.zeros(n, np.int8)
        for name, embedding, width, bit in (
            ("text", text, self.text_width, 1),
            ("image", image, self.image_width, 2),
        ):
            if width is None:
                continue
            if embedding is None:
                embedding = Embedding.absent(n, width)
            if embedding.values.shape != (n, width) or embedding.present.shape != (n,):
                raise ShapeError(
                    f"{name} embeddings of shape {embedding.values.shape}",
                    allowed=f"({n}, {width})",
                    remedy="Take them from this model's own stages.",
                )
            feed[name] = embedding.values
            modality |= (embedding.present * np.int8(bit)).astype(np.int8)
        return feed, modality


def _asked(
    session: onnxruntime.InferenceSession, feed: Mapping[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """A file's scores; one that is older than a part of the embeddings reads the columns before it."""
    inputs = {one.name: feed[one.name][:, : one.shape[1]] for one in session.get_inputs()}
    scores: list[NDArray[np.float32]] = session.run(None, inputs)
    return scores


def _ngram_columns(manifest: Manifest) -> slice | None:
    """Where the n-gram part's vector stands in the text embedding; None where the model reads no n-grams."""
    at = 0
    for part in manifest.text.parts if manifest.text else ():
        if part.ngrams is not None:
            return slice(at, at + part.width)
        at += part.width
    return None


class Prob2Pred:
    """Probabilities to decisions; owns the tree, knows where attributes apply, and has no model."""

    def __init__(self, taxonomy: Taxonomy, groups: SiblingGroups, attributes: Applying | None = None) -> None:
        self.taxonomy = taxonomy
        self.groups = groups
        self.attributes = attributes

    def __call__(self, probs: Probabilities, policy: Policy = DEEPEST) -> Predictions:
        """Decide N products by a policy; see `shelver.decide.decide`."""
        return decide(probs, self.taxonomy, self.groups, policy, self.attributes)


class ImageText2Prob:
    """Texts and decoded pictures to probabilities: the first three stages as one."""

    def __init__(self, text2emb: Text2Emb | None, image2emb: Image2Emb | None, emb2prob: Emb2Prob) -> None:
        self.text2emb = text2emb
        self.image2emb = image2emb
        self.emb2prob = emb2prob

    def __call__(self, texts: Sequence[str | None], images: Sequence[Sequence[Picture]]) -> Probabilities:
        """Probabilities of N products from N texts and the pictures of each."""
        text = self.text2emb(texts) if self.text2emb is not None else None
        image = self.image2emb(images) if self.image2emb is not None else None
        return self.emb2prob(text, image)


class Emb2Pred:
    """Embeddings to decisions: the last two stages as one, for who keeps embeddings and changes policies."""

    def __init__(self, emb2prob: Emb2Prob, prob2pred: Prob2Pred) -> None:
        self.emb2prob = emb2prob
        self.prob2pred = prob2pred

    def __call__(
        self, text: Embedding | None, image: Embedding | None, *, policy: Policy = DEEPEST
    ) -> Predictions:
        """Decisions for N products."""
        return self.prob2pred(self.emb2prob(text, image), policy)


class ImageText2Pred:
    """Texts and decoded pictures to decisions: all four stages as one."""

    def __init__(self, imagetext2prob: ImageText2Prob, prob2pred: Prob2Pred) -> None:
        self.imagetext2prob = imagetext2prob
        self.prob2pred = prob2pred

    def __call__(
        self, texts: Sequence[str | None], images: Sequence[Sequence[Picture]], *, policy: Policy = DEEPEST
    ) -> Predictions:
        """Decisions for N products from N texts and the pictures of each."""
        return self.prob2pred(self.imagetext2prob(texts, images), policy)
