"""policy fit, policy show, policy compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelver.cli import say
from shelver.cli.catalogs import AsJson

if TYPE_CHECKING:
    from shelver.decide import Policy
    from shelver.evaluate.promises import Judged

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
    policies: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Find the thresholds that keep a promised precision, and write them down as a policy.

    Refuses a promise that the products cannot carry, and says how many more it needs.
    """
    from shelver.catalog.store import Catalog
    from shelver.decide import POLICIES, Policy, read_policies, write_policies
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
    with say.interruptible("Nothing was written."):
        found = fit_policy(
            classifier,
            model,
            Catalog.open(catalog),
            wanted,
            precision=precision,
            delta=delta,
            split=split,
            strict=read_strict(strict, classifier.taxonomy) if strict is not None else None,
            start=_share(start, "start"),
            say=say.progress,
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
    lines = [text, *(f"  {k}: threshold {t:g}" for k, t in found.strict.items()), str(file)]
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
        promise = policy.promise
        said = None
        if promise is not None:
            said = f"{promise.precision:g} at {promise.delta:g}"
            said += "" if promise.model_version == version else f" (for model {promise.model_version})"
        rows.append(
            (
                one,
                policy.decoder,
                ", ".join(f"{t:g}" for t in policy.thresholds) + (f" +{len(policy.strict)}" * bool(policy.strict)),
                f"{policy.min_level}-{policy.max_level or ''}",
                policy.unsure,
                said,
                promise.coverage if promise is not None else None,
            )
        )
    record = {one: _record(policy) for one, policy in known.items()}
    say.result(record, say.table(header, rows), as_json=as_json)


@app.command()
def compare(
    model: Model,
    catalog: Annotated[Path, typer.Argument(help="A catalog folder, or a golden set.")],
    names: Annotated[list[str] | None, typer.Argument(help="Some of the policies; else all.")] = None,
    split: Annotated[Split, typer.Option(help="Which products.")] = "test",
    policies: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare policies on the same labelled products: coverage, precision, outcomes, promises, value."""
    from dataclasses import asdict

    from shelver.catalog.store import Catalog
    from shelver.decide import policy_named
    from shelver.evaluate.promises import judge_policies
    from shelver.pipeline import Classifier
    from shelver.settings import read_settings

    known = _known(model, policies)
    chosen = {name: policy_named(name, known) for name in names} if names else known
    classifier = Classifier.open(model, threads=read_settings().threads)
    judged = judge_policies(classifier, Catalog.open(catalog), chosen, split=split, say=say.progress)
    header = ["policy", "coverage", "precision", "95 % interval", "right", "wrong", "suggested", "review"]
    header += ["abstained", "outside", "error", "promise", "value"]
    rows = [_row(one) for one in judged]
    record = {"model": str(model), "split": split, "policies": [asdict(one) for one in judged]}
    say.result(record, say.table(header, rows), as_json=as_json)


def _row(one: Judged) -> tuple[object, ...]:
    interval = f"{one.precision_low:.4f}-{one.precision_high:.4f}" if one.precision_low is not None else None
    outcomes = [one.outcomes[k] for k in ("suggested", "review", "abstained", "outside", "error")]
    said = None if one.promised is None else f"{one.promised:g} {one.promise}"
    n_wrong = one.outcomes["decided"] - one.n_right
    return (one.name, one.coverage, one.precision, interval, one.n_right, n_wrong, *outcomes, said, one.value)


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
