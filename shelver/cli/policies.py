"""policy fit, policy show, policy compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from shelver.cli import say
from shelver.cli.catalogs import AsJson

if TYPE_CHECKING:
    from shelver.catalog.store import Catalog
    from shelver.decide import AttributeRule, Policy, Probabilities, Promise
    from shelver.decide.labelled import JudgedAttribute
    from shelver.evaluate.promises import Judged
    from shelver.pipeline import Classifier
    from shelver.product import Product

BATCH_ROWS: Final = 256
Split = Literal["train", "validation", "test"]
Model = Annotated[Path, typer.Argument(help="A model folder.")]
PoliciesFile = Annotated[
    Path | None, typer.Option("--policies", help="File of policies; else policies.json in the model folder.")
]

app = typer.Typer(
    name="policy", no_args_is_help=True, help="Fit, show and compare policies: what consumers want of decisions."
)


@app.command()
def fit(
    model: Model,
    catalog: Annotated[Path, typer.Argument(help="A catalog folder with labelled products.")],
    name: Annotated[str, typer.Option(help="Name of the policy; one of the same name is replaced.")],
    precision: Annotated[float, typer.Option(help="Share of the decisions that shall be right, such as .95.")],
    delta: Annotated[
        float, typer.Option(help="Chance that bad luck with these products breaks the promise.")
    ] = 0.05,
    decoder: Annotated[
        Literal["best_leaf", "greedy", "climb"], typer.Option(help="How a node is found.")
    ] = "greedy",
    min_level: Annotated[int, typer.Option(min=1, help="The shallowest level that counts as an answer.")] = 1,
    max_level: Annotated[int | None, typer.Option(min=1, help="The deepest level that is wanted.")] = None,
    unsure: Annotated[
        Literal["stop", "suggest", "review", "abstain"], typer.Option(help="What becomes of the other products.")
    ] = "stop",
    outside: Annotated[
        float | None, typer.Option(help="Send the strangest away: the share of known products that stays.")
    ] = None,
    split: Annotated[
        Split, typer.Option(help="Which products; the model must not have learned from them.")
    ] = "validation",
    strict: Annotated[
        Path | None,
        typer.Option(help="JSON: node id to the precision that decisions in its branch need; delta is shared."),
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(help="Threshold to start the search at; chosen without looking at these products."),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PRECISION",
            help="Promise a precision for an attribute's answers too, such as colour=.95, with the same delta for "
            "each; may be given several times. Other attributes are always answered.",
        ),
    ] = None,
    policies: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Find the thresholds that keep a promised precision, and write them down as a policy.

    Refuses a promise that the products cannot carry, and says how many more it needs.
    """
    from shelver.catalog.store import Catalog
    from shelver.decide import POLICIES, AttributeRule, Policy, read_policies, write_policies
    from shelver.decide.attributes import check_rules
    from shelver.decide.labelled import fit_attributes
    from shelver.evaluate.promises import fit_policy, read_strict
    from shelver.pipeline import Classifier
    from shelver.settings import read_settings

    file = policies or model / POLICIES
    known = read_policies(file) if file.exists() else {}
    classifier = Classifier.open(model, threads=read_settings().threads)
    wanted = Policy(
        decoder=decoder,
        min_level=min_level,
        max_level=max_level,
        unsure=unsure,
        outside=_share(outside, "outside"),
    )
    targets = _targets(attribute or [])
    # Before the long part: a name that is not known.
    named = wanted.model_copy(update={"attributes": {name: AttributeRule() for name in targets}})
    check_rules(named, classifier.prob2pred.attributes)
    opened = Catalog.open(catalog)
    with say.interruptible("Nothing was written."):
        found = fit_policy(
            classifier,
            model,
            opened,
            wanted,
            precision=precision,
            delta=delta,
            split=split,
            strict=read_strict(strict, classifier.taxonomy) if strict is not None else None,
            start=_share(start, "start"),
            say=say.progress,
        )
        if targets:
            # The node comes first: what is answered depends on what was decided.
            found = fit_attributes(
                _answers(classifier, opened, split),
                classifier.prob2pred,
                found,
                targets,
                delta=delta,
                model_version=classifier.model_version,
                catalog_version=opened.info.fingerprint,
                split=split,
            )
    write_policies(file, {**known, name: found})
    promise = found.promise
    assert promise is not None
    thresholds = ", ".join(f"{threshold:g}" for threshold in found.thresholds)
    text = (
        f"{name}: with confidence {1 - delta:g}, at least {precision:.4g} of all decisions are right; thresholds "
        f"by level {thresholds}. It costs {1 - promise.coverage:.1%} of the coverage: of {promise.n_products:,} "
        f"products {promise.n_decided:,} are decided ({promise.coverage:.1%}), {promise.n_right:,} of them rightly"
    )
    lines = [text, *(f"  {k}: threshold {t:g}" for k, t in found.strict.items())]
    for attribute_name, rule in found.attributes.items():
        kept = rule.promise
        assert kept is not None
        lines.append(
            f"  {attribute_name}: at least {kept.precision:.4g} of its answers are right; answered from "
            f"{rule.threshold:g} on, for {kept.coverage:.1%} of the {kept.n_products:,} products of which it is "
            f"known; {kept.n_right:,} of {kept.n_decided:,} answers are right"
        )
    lines.append(str(file))
    say.result({"name": name, "file": str(file), **_record(found)}, "\n".join(lines), as_json=as_json)


@app.command()
def show(
    model: Model,
    name: Annotated[str | None, typer.Argument(help="One policy; else all.")] = None,
    policies: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the policies of a model and what they promise."""
    from shelver import registry
    from shelver.decide import policy_named

    version = registry.read_manifest(model, verify=False).model_version
    known = _known(model, policies)
    if name is not None:
        known = {name: policy_named(name, known)}
    header = ["policy", "decoder", "thresholds", "levels", "unsure", "promise", "coverage"]
    rows = []
    for one, policy in known.items():
        rows.append(
            (
                one,
                policy.decoder,
                ", ".join(f"{t:g}" for t in policy.thresholds) + (f" +{len(policy.strict)}" * bool(policy.strict)),
                f"{policy.min_level}-{policy.max_level or ''}",
                policy.unsure,
                *_promised(policy.promise, version),
            )
        )
    ruled = [
        (one, name, _words(rule), *_promised(rule.promise, version))
        for one, policy in known.items()
        for name, rule in policy.attributes.items()
    ]
    text = say.table(header, rows)
    if ruled:
        text += "\n\n" + say.table(["policy", "attribute", "answered", "promise", "coverage"], ruled)
    say.result({one: _record(policy) for one, policy in known.items()}, text, as_json=as_json)


@app.command()
def compare(
    model: Model,
    catalog: Annotated[Path, typer.Argument(help="A catalog folder, or a golden set.")],
    names: Annotated[list[str] | None, typer.Argument(help="Some of the policies; else all.")] = None,
    split: Annotated[Split, typer.Option(help="Which products.")] = "test",
    policies: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare policies on the same labelled products: coverage, precision, outcomes, promises, value; and those of
    each attribute."""
    from dataclasses import asdict

    from shelver.catalog.store import Catalog
    from shelver.decide import policy_named
    from shelver.decide.labelled import judge_attributes
    from shelver.evaluate.promises import judge_policies
    from shelver.pipeline import Classifier
    from shelver.settings import read_settings

    known = _known(model, policies)
    chosen = {name: policy_named(name, known) for name in names} if names else known
    classifier = Classifier.open(model, threads=read_settings().threads)
    opened = Catalog.open(catalog)
    judged = judge_policies(classifier, opened, chosen, split=split, say=say.progress)
    header = ["policy", "coverage", "precision", "95 % interval", "right", "wrong", "suggested", "review"]
    header += ["abstained", "outside", "error", "promise", "value"]
    rows = [_row(one) for one in judged]
    text = say.table(header, rows)
    record: dict[str, Any] = {"model": str(model), "split": split, "policies": [asdict(one) for one in judged]}
    record["attributes"] = []
    attributes = classifier.prob2pred.attributes
    if attributes is not None and attributes.names:
        answers = _answers(classifier, opened, split)
        about = judge_attributes(answers, classifier.prob2pred, chosen)
        record["attributes"] = [asdict(one) for one in about]
        columns = ["policy", "attribute", "known", "coverage", "precision", "95 % interval", "answers", "right"]
        if about:
            text += "\n\n" + say.table([*columns, "promise"], [_attribute_row(one) for one in about])
    say.result(record, text, as_json=as_json)


def _row(one: Judged) -> tuple[object, ...]:
    interval = f"{one.precision_low:.4f}-{one.precision_high:.4f}" if one.precision_low is not None else None
    outcomes = [one.outcomes[k] for k in ("suggested", "review", "abstained", "outside", "error")]
    said = None if one.promised is None else f"{one.promised:g} {one.promise}"
    n_wrong = one.outcomes["decided"] - one.n_right
    return (one.name, one.coverage, one.precision, interval, one.n_right, n_wrong, *outcomes, said, one.value)


def _attribute_row(one: JudgedAttribute) -> tuple[object, ...]:
    interval = f"{one.precision_low:.4f}-{one.precision_high:.4f}" if one.precision_low is not None else None
    said = None if one.promised is None else f"{one.promised:g} {one.promise}"
    counts = (one.n_answers, one.n_right)
    return (one.policy, one.attribute, one.n_products, one.coverage, one.precision, interval, *counts, said)


def _promised(promise: Promise | None, version: str) -> tuple[str | None, float | None]:
    """A promise in words, and its coverage."""
    if promise is None:
        return None, None
    other = "" if promise.model_version == version else f" (for model {promise.model_version})"
    return f"{promise.precision:g} at {promise.delta:g}{other}", promise.coverage


def _words(rule: AttributeRule) -> str:
    if not rule.answer:
        return "never"
    return "always" if rule.threshold is None else f"from {rule.threshold:g}"


def _targets(given: list[str]) -> dict[str, float]:
    """`NAME=PRECISION` as name to precision."""
    from shelver.errors import ConfigError

    found: dict[str, float] = {}
    for one in given:
        name, _, share = one.rpartition("=")
        try:
            precision = float(share)
        except ValueError:
            precision = 0.0
        if not name or name in found or not 0 < precision < 1:
            raise ConfigError(
                f"--attribute {one}",
                allowed="NAME=PRECISION, the latter above 0 and below 1; each attribute once",
                remedy="Write --attribute colour=.95, for example.",
            )
        found[name] = precision
    return found


def _answers(
    classifier: Classifier, catalog: Catalog, split: Split
) -> Iterator[tuple[Sequence[Product], Probabilities]]:
    """The products of a split with a labelled attribute, and their probabilities."""
    with_images = classifier.image2emb is not None
    for products in catalog.products(split, images=with_images, batch_rows=BATCH_ROWS):
        labelled = [product for product in products if product.attributes]
        if labelled:
            embedded = classifier.embed(labelled)
            yield labelled, classifier.emb2prob(embedded.text, embedded.image)


def _known(model: Path, policies: Path | None) -> dict[str, Policy]:
    from shelver.decide import policies_of, read_policies

    return read_policies(policies) if policies is not None else policies_of(model)


def _record(policy: Policy) -> dict[str, Any]:
    return policy.model_dump(mode="json")


def _share(value: float | None, name: str) -> float | None:
    from shelver.errors import ConfigError

    if value is not None and not 0 < value < 1:
        raise ConfigError(f"--{name} {value:g}", allowed="above 0 and below 1", remedy="Write .99, for example.")
    return value
