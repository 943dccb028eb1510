"""What is learned from, and how answers are judged: titles with the values that people read out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shelver.errors import InputError


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled title.

    Attributes:
        title: as the seller wrote it.
        category: which attributes it may have hangs on its category.
        values: attribute to the values of which any one is a right answer; an empty tuple says that somebody
            looked and the title states none. Nothing is known of an attribute that is not listed, unless
            `ExtractSpec.unlisted` says otherwise.
    """

    title: str
    category: str
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers about (title, attribute) pairs, counted.

    Attributes:
        nn: neither the label nor the answer has a value.
        nv: the label has none, the answer has one.
        vn: the label has a value, the answer has none.
        vc: both have, and the answer is right, letter for letter.
        vw: both have, and the answer is wrong.

    Source:
        Brinkmann, Shraga and Bizer, "ExtractGPT", arXiv 2310.12537.
    """

    nn: int = 0
    nv: int = 0
    vn: int = 0
    vc: int = 0
    vw: int = 0

    @property
    def precision(self) -> float:
        """The share of the given values that are right; 0 where none was given."""
        given = self.nv + self.vc + self.vw
        return self.vc / given if given else 0.0

    @property
    def recall(self) -> float:
        """The share of the labelled values that were found; 0 where there is none."""
        labelled = self.vn + self.vc + self.vw
        return self.vc / labelled if labelled else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def tally(
    examples: Sequence[Example], answers: Sequence[Mapping[str, str]], *, unlisted_is_none: bool = False
) -> Tally:
    """Count answers over the pairs that the examples list.

    Args:
        examples: N labelled titles.
        answers: of each, attribute to value; one that is left out has no answer.
        unlisted_is_none: also count each answered attribute that an example does not list, as `nv`. The published
            protocol does not.

    Raises:
        InputError: not as many answers as examples.
    """
    if len(examples) != len(answers):
        raise InputError(
            f"{len(answers)} answers to {len(examples)} examples",
            allowed="one mapping an example",
            remedy="Ask about the same titles, in the same order.",
        )
    nn = nv = vn = vc = vw = 0
    for example, answered in zip(examples, answers, strict=True):
        for attribute, right in example.values.items():
            answer = answered.get(attribute)
            nn += not right and answer is None
            nv += not right and answer is not None
            vn += bool(right) and answer is None
            vc += bool(right) and answer is not None and answer in right
            vw += bool(right) and answer is not None and answer not in right
        if unlisted_is_none:
            nv += len(answered.keys() - example.values.keys())
    return Tally(nn, nv, vn, vc, vw)
