"""A challenger against the baseline: figures, slices, and the sentences that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.compare import paired
from shelver.compare.ask import Answers, differing
from shelver.compare.golden import Golden, Slice
from shelver.compare.schema import AttributeGap, Gap, ModelRow, Pair, SliceGap, Verdict

SEED: Final = 0
TELLING: Final = 0.005
"""The difference of accuracy that is worth telling: half a point."""


@dataclass(frozen=True, slots=True)
class _Count:
    """Products that the two models answer alike or not: n of them, gained and lost by the challenger."""

    n: int
    n_gained: int
    n_lost: int

    @property
    def difference(self) -> float:
        return (self.n_gained - self.n_lost) / self.n

    @property
    def p(self) -> float:
        return paired.mcnemar(self.n_gained, self.n_lost)


def model_row(answers: Answers, golden: Golden) -> ModelRow:
    """One model's line of the table."""
    return ModelRow(
        name=answers.name,
        model_version=answers.model_version,
        figures=answers.figures,
        seconds=_short(answers.seconds),
        products_per_s=round(len(golden) / max(answers.seconds, 1e-9), 1),
        core_bytes=answers.core_bytes,
        latency=answers.latency,
        lenient=answers.lenient,
        attributes={name: one.figures for name, one in answers.attributes.items()},
    )


def judge(
    baseline: Answers, challengers: Sequence[Answers], golden: Golden, slices: Sequence[Slice]
) -> list[Pair]:
    """Say of each challenger whether it is better than the baseline.

    "better" and "worse" need both McNemar's test, corrected for the number of challengers, and the interval of the
    difference of accuracy; "open" is everything in between.

    Args:
        baseline: what the champion said of the N products.
        challengers: what the others said.
        golden: what is true.
        slices: of the products.

    Returns:
        A pair for each challenger, in their order. Equal input gives equal output, whatever machine.
    """
    counts = [_count(baseline, challenger) for challenger in challengers]
    corrected = paired.holm([count.p for count in counts])
    gaps = _gaps(baseline, challengers, golden)
    return [
        _pair(baseline, challenger, golden, slices, count, p_holm, gap, n_challengers=len(challengers))
        for challenger, count, p_holm, gap in zip(challengers, counts, corrected, gaps, strict=True)
    ]


def _pair(
    baseline: Answers,
    challenger: Answers,
    golden: Golden,
    slices: Sequence[Slice],
    count: _Count,
    p_holm: float,
    gaps: dict[str, Gap],
    *,
    n_challengers: int,
) -> Pair:
    n_differing = int(differing(baseline, challenger).sum())
    sliced = _sliced(baseline, challenger, golden, slices)
    known = golden.values_from is not None
    if challenger.model_version == baseline.model_version or not n_differing:
        verdict: Verdict = "same"
    else:
        verdict = _verdict(p_holm, gaps["accuracy"])
    n_more = None
    if verdict == "open":
        needed = paired.products_needed(count.n_gained, count.n_lost, count.n, difference=TELLING)
        n_more = max(0, needed - count.n)
    pair = Pair(
        challenger=challenger.name,
        verdict=verdict,
        sentence="",
        warnings=(),
        n_differing=n_differing,
        n_gained=count.n_gained,
        n_lost=count.n_lost,
        p=count.p,
        p_holm=p_holm,
        accuracy=gaps["accuracy"],
        hierarchical_credit=gaps["credit"],
        value=gaps["value"] if known else None,
        value_partial=gaps["value_partial"] if known else None,
        n_more=n_more,
        slices=sliced,
        attributes=_attributes(baseline, challenger),
    )
    sentence = _sentence(pair, baseline, challenger, count.n, n_challengers)
    return pair.model_copy(update={"sentence": sentence, "warnings": _warnings(pair, golden)})


def _count(baseline: Answers, challenger: Answers, rows: NDArray[np.bool_] | None = None) -> _Count:
    before, after = baseline.correct, challenger.correct
    if rows is not None:
        before, after = before[rows], after[rows]
    return _counted(before, after)


def _counted(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> _Count:
    return _Count(len(before), int((after & ~before).sum()), int((before & ~after).sum()))


def _gaps(baseline: Answers, challengers: Sequence[Answers], golden: Golden) -> list[dict[str, Gap]]:
    """Differences with their bootstrap intervals; all challengers meet the same resamples."""
    worth = golden.value / golden.value.mean()
    columns = [np.ones(len(golden)), worth]
    for challenger in challengers:
        right = challenger.correct.astype(np.float64) - baseline.correct
        credit = challenger.credit - baseline.credit
        columns += [right, credit, right * worth, credit * worth]
    drawn = paired.resampled_sums(np.stack(columns, axis=1), seed=SEED)
    n, resampled_worth = drawn[:, 0], np.maximum(drawn[:, 1], 1e-12)
    found = []
    for i in range(len(challengers)):
        first = 2 + 4 * i
        gaps = {}
        for place, name in enumerate(("accuracy", "credit", "value", "value_partial")):
            by = n if place < 2 else resampled_worth
            low, high = paired.interval(drawn[:, first + place] / by)
            mean = float(columns[first + place].mean())
            gaps[name] = Gap(difference=_short(mean), low=_short(low), high=_short(high))
        found.append(gaps)
    return found


def _sliced(
    baseline: Answers, challenger: Answers, golden: Golden, slices: Sequence[Slice]
) -> tuple[SliceGap, ...]:
    counts = [_count(baseline, challenger, one.rows) for one in slices]
    corrected = paired.holm([count.p for count in counts])
    total = float(golden.value.sum())
    found = []
    for number, (one, count, p_holm) in enumerate(zip(slices, counts, corrected, strict=True)):
        low, high = paired.share_interval(count.n_gained, count.n_lost, count.n, seed=SEED + 1 + number)
        gap = Gap(difference=_short(count.difference), low=_short(low), high=_short(high))
        found.append(
            SliceGap(
                kind=one.kind,
                name=one.name,
                n=count.n,
                value_share=_short(float(golden.value[one.rows].sum()) / total),
                baseline=_short(float(baseline.correct[one.rows].mean())),
                challenger=_short(float(challenger.correct[one.rows].mean())),
                gap=gap,
                n_gained=count.n_gained,
                n_lost=count.n_lost,
                p=count.p,
                p_holm=p_holm,
                verdict=_verdict(p_holm, gap),
            )
        )
    return tuple(found)


def _attributes(baseline: Answers, challenger: Answers) -> tuple[AttributeGap, ...]:
    """Attribute by attribute, those that both models answer."""
    both = {
        name: (one.right, challenger.attributes[name].right)
        for name, one in baseline.attributes.items()
        if name in challenger.attributes
    }
    counts = [_counted(*right) for right in both.values()]
    corrected = paired.holm([count.p for count in counts])
    found = []
    for (name, (before, after)), count, p_holm in zip(both.items(), counts, corrected, strict=True):
        low, high = paired.share_interval(count.n_gained, count.n_lost, count.n, seed=SEED)
        gap = Gap(difference=_short(count.difference), low=_short(low), high=_short(high))
        found.append(
            AttributeGap(
                name=name,
                n=count.n,
                baseline=_short(float(before.mean())),
                challenger=_short(float(after.mean())),
                gap=gap,
                n_gained=count.n_gained,
                n_lost=count.n_lost,
                p=count.p,
                p_holm=p_holm,
                verdict=_verdict(p_holm, gap) if count.n_gained + count.n_lost else "same",
            )
        )
    return tuple(found)


def _verdict(p: float, gap: Gap) -> Verdict:
    if p > 1 - paired.LEVEL:
        return "open"
    return "better" if gap.low > 0 else "worse" if gap.high < 0 else "open"


def _sentence(pair: Pair, baseline: Answers, challenger: Answers, n: int, n_challengers: int) -> str:
    a, b = baseline.name, challenger.name
    if pair.verdict == "same":
        if baseline.model_version == challenger.model_version:
            return f"{b} is the same model as {a}: version {baseline.model_version}."
        return f"{b} is the same as {a} here: not one of {n:,} decisions differs."
    p = f"McNemar {p_value(pair.p_holm)}"
    if n_challengers > 1:
        p += f", corrected for {n_challengers} challengers"
    evidence = f"accuracy {points(pair.accuracy, p)}"
    if pair.value is not None:
        evidence += f"; value {points(pair.value)}"
    if pair.verdict != "open":
        return f"{b} is {pair.verdict} than {a}: {evidence}."
    more = f"{n:,} products are enough to tell half a point, so what difference there is should be smaller"
    if pair.n_more:
        about = round(pair.n_more, 2 - len(str(pair.n_more)))  # such an estimate has two digits at most
        more = f"some {about:,} more labelled products are needed to tell half a point"
    return f"{b} and {a} cannot be told apart: {evidence}; {more}."


def _warnings(pair: Pair, golden: Golden) -> tuple[str, ...]:
    """Where the challenger is worse: in the value if not in the mean, slice by slice, the largest first, and in
    which attributes."""
    b = pair.challenger
    of_attributes = [
        f"{b} is worse on attribute {one.name}: "
        f"{points(one.gap, f'McNemar {p_value(one.p_holm)}, corrected for {len(pair.attributes)} attributes')}."
        for one in pair.attributes
        if one.verdict == "worse"
    ]
    if pair.verdict == "same":
        return tuple(of_attributes)
    said = []
    if pair.value is not None and pair.value.high < 0 and pair.verdict != "worse":
        said.append(f"{b} is worse by value, though not by accuracy: {points(pair.value)}.")
    of = "value" if golden.values_from is not None else "products"
    worse = sorted((one for one in pair.slices if one.verdict == "worse"), key=lambda one: -one.value_share)
    for one in worse:
        p = f"McNemar {p_value(one.p_holm)}, corrected for {len(pair.slices)} slices"
        share = f"{one.value_share:.0%}".replace("%", " %")
        said.append(f"{b} is worse on {slice_name(one)}, {share} of the {of}: {points(one.gap, p)}.")
    return (*said, *of_attributes)


def slice_name(one: SliceGap) -> str:
    """What a slice is called in a sentence: a branch by its path, others with what they are sliced by."""
    return one.name if one.kind == "branch" else f"{one.kind} {one.name}"


def points(gap: Gap, *more: str) -> str:
    """A gap in points: "+1.2 points (95 % interval +0.4 to +2.0)", with more inside the bracket."""
    digits = 1 if gap.high - gap.low >= TELLING else 2
    difference, low, high = (
        f"{round(100 * value, digits) + 0.0:+.{digits}f}" for value in (gap.difference, gap.low, gap.high)
    )
    inside = [f"{100 * paired.LEVEL:.0f} % interval {low} to {high}", *more]
    return f"{difference} points ({', '.join(inside)})"


def p_value(value: float) -> str:
    """A p-value in a sentence: "p = .004"."""
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".")


def _short(value: float) -> float:
    return round(value, 6)
