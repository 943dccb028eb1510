"""What stands in `compare.json`, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shelver.catalog.split import Part
from shelver.errors import InputError
from shelver.evaluate import AttributeFigures, Figures

COMPARISON: Final = "compare.json"
FORMAT_VERSION: Final = 2

Verdict = Literal["same", "better", "worse", "open"]
SliceKind = Literal["branch", "modality", "source", "language", "frequency"]
ValuesFrom = Literal["products", "file"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Part):
    """Milliseconds that one product alone takes, pictures decoded: the median, and what 95 % stay below."""

    n: int
    p50_ms: float
    p95_ms: float


class ModelRow(_Part):
    """One model.

    Attributes:
        name: its folder, or as much of its path as tells it from the others.
        model_version: twelve hex digits.
        figures: as in `report.json`, over all labelled products; the value scores among them. Where a product has
            several right paths, only the first is right.
        lenient: the same with any right path right; None where no product has several.
        attributes: of those that the model answers, by name, over the products with a label of the attribute.
        seconds: that the model took to answer for all products, reading the catalog not counted.
        products_per_s: products over seconds.
        core_bytes: size of the files that the model runs from.
        latency: of single products.
    """

    name: str
    model_version: str
    figures: Figures
    seconds: float
    products_per_s: float
    core_bytes: int
    latency: Latency
    lenient: Figures | None = None
    attributes: dict[str, AttributeFigures] = Field(default_factory=dict)


class Gap(_Part):
    """How much more the challenger has than the baseline, and the 95 % interval of it, in [-1, 1]."""

    difference: float
    low: float
    high: float


class SliceGap(_Part):
    """The two models on some of the products.

    Attributes:
        kind: what the products are sliced by.
        name: path of a branch; else "text", a source, a language, "head" and so on.
        n: products.
        value_share: of all products' value; of their number where values are unknown.
        baseline, challenger: accuracies.
        gap: of accuracy.
        n_gained, n_lost: products that only the challenger, or only the baseline, has right.
        p: of McNemar's test.
        p_holm: the same, corrected for the number of slices.
        verdict: of the challenger here: by `p_holm`.
    """

    kind: SliceKind
    name: str
    n: int
    value_share: float
    baseline: float
    challenger: float
    gap: Gap
    n_gained: int
    n_lost: int
    p: float
    p_holm: float
    verdict: Verdict


class AttributeGap(_Part):
    """The two models on one attribute that both answer.

    Attributes:
        name: of the attribute.
        n: products with a label of it.
        baseline, challenger: accuracies, as in `AttributeFigures`.
        gap: of accuracy.
        n_gained, n_lost, p: as of `SliceGap`.
        p_holm: corrected for the number of attributes.
        verdict: of the challenger here, by `p_holm`; "same" where no product tells the two apart.
    """

    name: str
    n: int
    baseline: float
    challenger: float
    gap: Gap
    n_gained: int
    n_lost: int
    p: float
    p_holm: float
    verdict: Verdict


class Pair(_Part):
    """A challenger against the baseline.

    Attributes:
        challenger: its name.
        verdict: of the challenger by the accuracy of its categories; "same" where the two are one model, or decide
            every category alike; "open" where they cannot be told apart.
        sentence: the verdict for people.
        warnings: where the challenger is worse, whatever the verdict.
        n_differing: products that the two decide differently.
        n_gained, n_lost, p: as of `SliceGap`, over all products.
        p_holm: corrected for the number of challengers.
        accuracy, hierarchical_credit: gaps; the credit is what a decision earns in `relative_lca`.
        value, value_partial: gaps of the value scores; None without values.
        n_more: labelled products needed beyond these to tell half a point; None where the verdict is settled.
        slices: the most valuable first within each kind.
        attributes: those that both models answer, in the baseline's order; they do not change the verdict.
    """

    challenger: str
    verdict: Verdict
    sentence: str
    warnings: tuple[str, ...]
    n_differing: int
    n_gained: int
    n_lost: int
    p: float
    p_holm: float
    accuracy: Gap
    hierarchical_credit: Gap
    value: Gap | None
    value_partial: Gap | None
    n_more: int | None
    slices: tuple[SliceGap, ...]
    attributes: tuple[AttributeGap, ...] = ()


class Comparison(_Part):
    """Several models on the same products.

    Attributes:
        n: labelled products. n_unlabelled: those left out.
        values_from: where the categories' values are from: "products", the mean of the catalog's `value` column;
            "file"; None where nothing is known and all products count alike.
        models: the baseline first.
        pairs: the other models, in their order.
        notes: what a reader has to know of how this was measured.
    """

    format_version: Literal[2] = FORMAT_VERSION
    catalog: str
    catalog_version: str
    split: Part
    n: int
    n_unlabelled: int
    values_from: ValuesFrom | None
    models: tuple[ModelRow, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()


def read_comparison(path: Path) -> Comparison:
    """Read a `compare.json`.

    Raises:
        InputError: there is none, or one of another format version.
    """
    allowed = f"a {COMPARISON} of format version {FORMAT_VERSION}, as `shelver compare --out` writes it"
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{path} is no comparison", allowed=allowed, remedy="Compare the models again."
        ) from error
