"""train, evaluate, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelver.cli import say
from shelver.cli.catalogs import AsJson, Columns, MappingFile, read_mapping

if TYPE_CHECKING:
    from shelver.catalog.mapping import Mapping
    from shelver.decide import Policy
    from shelver.evaluate import Figures, Report
    from shelver.train.config import TrainConfig


def train(
    catalogs: Annotated[
        list[Path],
        typer.Argument(
            metavar="CATALOG...",
            help="A catalog folder, as `shelver ingest` writes it. Of several the first one's tree is learned; "
            "the others may label other attributes.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    attributes: Annotated[
        str | None,
        typer.Option(help="all (those with labels enough), none, or names with a comma: colour,season."),
    ] = None,
    add_task: Annotated[
        list[str] | None,
        typer.Option(
            help="An attribute to add to the model --base, which is not changed and forgets nothing; may be given "
            "several times."
        ),
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The model folder that --add-task starts from.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A Python file that defines `config`; flags win over it.")
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="auto, none, ngram, use, hf:NAME, the last two perhaps with @tuned, or several with a plus: "
            "ngram+use."
        ),
    ] = None,
    image_encoder: Annotated[
        str | None,
        typer.Option(
            help="auto, none, lite0, lite0@tuned, colour, hf:NAME, timm:NAME, each perhaps with @crop, or several "
            "with a plus: lite0+colour."
        ),
    ] = None,
    head: Annotated[
        Literal["auto", "tree", "levels"] | None,
        typer.Option(help="A softmax among siblings, or one a level."),
    ] = None,
    fusion: Annotated[
        Literal["auto", "late", "joint"] | None, typer.Option(help="How text and picture come together.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "int8"] | None, typer.Option(help="Arithmetic of the networks that see pictures.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to compute; auto: a GPU if there is one.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training products, at most.")] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds that the whole training may take.")
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option("--refit/--no-refit", help="Learn again from train and validation; else by their number."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was cut off.")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn a model from one catalog or several and export it as a model folder."""
    from functools import partial

    from shelver.catalog.store import Catalog
    from shelver.settings import read_settings

    encoders = {"text-encoder": text_encoder, "image-encoder": image_encoder, "head": head, "precision": precision}
    _refuse_half_of_two(add_task, base, {"attributes": attributes, **encoders})
    opened = [Catalog.open(catalog) for catalog in catalogs]
    require_training()
    from shelver.train.add import add_attributes
    from shelver.train.folder import recorded_config
    from shelver.train.run import train as run_training

    chosen = _config(
        config,
        recorded_config(out) if resume else None,
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        head=head,
        fusion=fusion,
        precision=precision,
        device=device,
        epochs=epochs,
        time_limit_s=time_limit,
        refit=refit,
        seed=seed,
        attributes=_names(attributes),
    )
    if attributes == "all":
        chosen = chosen.model_copy(update={"attributes": None})
    settings = read_settings()
    learn = run_training
    if base is not None and add_task:
        learn = partial(add_attributes, base=base, names=add_task)
    with say.interruptible("The last checkpoint is kept: run `shelver train` with --resume to go on."):
        trained = learn(
            opened,
            out,
            chosen,
            cache=settings.cache,
            threads=settings.threads,
            resume=resume,
            say=say.progress,
        )
    if not trained.model_version:
        return  # one of several processes: the first one tells
    record = {
        "model": str(out),
        "model_version": trained.model_version,
        "choices": list(trained.choices),
        "validation": trained.validation,
        "seconds": round(trained.seconds, 1),
        "was_done": trained.was_done,
    }
    figures = ", ".join(f"{name} {value:.4f}" for name, value in trained.validation.items())
    text = f"{out} was trained already: model {trained.model_version}"
    if not trained.was_done:
        text = f"model {trained.model_version} in {out}, {trained.seconds:.0f} s" + (
            f"; validation {figures}" if figures else ""
        )
    say.result(record, text, as_json=as_json)


def _names(attributes: str | None) -> tuple[str, ...] | None:
    """The attributes that a flag names; None where it leaves the choice open."""
    if attributes is None or attributes == "all":
        return None
    return () if attributes == "none" else tuple(name.strip() for name in attributes.split(",") if name.strip())


def _refuse_half_of_two(
    add_task: list[str] | None, base: Path | None, of_whole_models: dict[str, str | None]
) -> None:
    """Raise ConfigError for flags of an added attribute that lack each other, or stand beside others."""
    from shelver.errors import ConfigError

    if bool(add_task) != (base is not None):
        raise ConfigError(
            "--add-task without --base" if add_task else "--base without --add-task",
            allowed="both, or neither",
            remedy="Name the attribute with --add-task and the model to start from with --base.",
        )
    beside = [name for name, value in of_whole_models.items() if value is not None]
    if add_task and beside:
        raise ConfigError(
            f"--{beside[0]} beside --add-task",
            allowed="an attribute to add, learned from what the base model sees",
            remedy=f"Leave --{beside[0]} out.",
        )


def require_training() -> None:
    """Say that the extra is missing before anything long starts.

    Raises:
        MissingExtraError: torch, or what exports and records, is not installed.
    """
    from importlib.util import find_spec

    from shelver.errors import MissingExtraError

    missing = [name for name in ("torch", "onnx", "onnxscript", "tensorboard") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"training needs {', '.join(missing)}, not installed",
            allowed="an environment with the `train` extra",
            remedy="Run `pip install 'shelver[train]'`.",
        )


def _config(file: Path | None, recorded: TrainConfig | None, **flags: Any) -> TrainConfig:
    from pydantic import ValidationError

    from shelver.errors import ConfigError
    from shelver.train.config import TrainConfig, load_config

    start = load_config(file) if file is not None else recorded or TrainConfig()
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return TrainConfig.model_validate({**start.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{'.'.join(map(str, first['loc']))} = {first['input']!r}",
            allowed=first["msg"].removeprefix("Value error, "),
            remedy="See `shelver train --help`.",
        ) from error


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    catalog: Annotated[Path, typer.Argument(help="A catalog folder, or a golden set.")],
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")],
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Which products.")] = "test",
    values: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with the value of each category: node_id or path, and value. Else the mean value of "
            "its products counts, where the catalog has values."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model folder and its policies on a split of a catalog.

    Writes report.json and report.html, and the model card into the model folder.
    """
    from shelver.catalog.store import Catalog
    from shelver.errors import InputError
    from shelver.evaluate import evaluate as score
    from shelver.folders import refuse_file
    from shelver.report import publish
    from shelver.settings import read_settings

    refuse_file(out)
    if (out / "catalog.json").exists() or (out / "manifest.json").exists():
        raise InputError(
            f"{out} is a catalog or a model",
            allowed="a folder for reports, new or existing",
            remedy="Name another --out; a folder below the model, such as report, will do.",
        )
    opened = Catalog.open(catalog)
    report = score(model, opened, split=split, values=values, say=say.progress, threads=read_settings().threads)
    written = publish(report, model=model, catalog=opened, out=out, say=say.progress)
    lines = [report_text(report), "", *map(str, written)]
    say.result(report.model_dump(mode="json"), "\n".join(lines), as_json=as_json)


def report_text(report: Report) -> str:
    """A report's main figures, as a table."""
    shown = ("n", "accuracy", "macro_f1", "weighted_f1", "hierarchical_f1", "top3_accuracy", "coverage", "ece")
    named: list[tuple[str, Figures]] = [
        ("all", report),
        *((f"level {level}", row) for level, row in report.by_level.items()),
        *((f"asked with {modality}", row) for modality, row in report.asked.items()),
        *((f"came with {modality}", row) for modality, row in report.by_modality.items()),
    ]
    rows = [[name, *[getattr(row, figure) for figure in shown]] for name, row in named]
    speed = f"{report.products_per_s:,.0f} products/s"
    head = f"model {report.model_version} on {report.split} of {report.catalog}, {speed}"
    decided = report.calibration.decided
    kept = ", ".join(
        f"{percent} % right: {getattr(report, f'coverage_at_{percent}') or 0:.4f}" for percent in (90, 95, 99)
    )
    lines = [
        f"calibration error {decided.before.ece or 0:.4f} before calibration, {decided.after.ece or 0:.4f} after",
        f"coverage at {kept}; AURC {report.aurc or 0:.4f}",
    ]
    if report.value_score is not None:
        lines.append(f"value {report.value_score:.4f}, with partial credit {report.value_score_partial or 0:.4f}")
    if report.lenient is not None:
        lines.append(
            f"{report.lenient.n_several:,} products have several right paths; with any of them right: "
            f"accuracy {report.lenient.figures.accuracy or 0:.4f}"
        )
    if report.attributes:
        lines += ["", _attributes_text(report)]
    if len(report.policies) > 1:
        columns = ("coverage", "precision", "promised", "hierarchical_coverage")
        points = [[name, *[getattr(point, key) for key in columns]] for name, point in report.policies.items()]
        lines += ["", say.table(["policy", *columns], points)]
    return "\n".join([head, say.table(["", *shown], rows), "", *lines])


def _attributes_text(report: Report) -> str:
    """The attributes' figures, as a table; the last three columns are accuracies of the same products."""
    shown = ("n", "n_values", "accuracy", "coverage", "precision", "macro_f1", "macro_f1_common", "ece")
    ways: tuple[Literal["text", "image", "both"], ...] = ("text", "image", "both")
    rows = []
    for name, one in report.attributes.items():
        if one.n:
            asked = [one.asked[way].accuracy if way in one.asked else None for way in ways]
            rows.append([name, *[getattr(one, figure) for figure in shown], *asked])
    return say.table(["attribute", *shown, *ways], rows)


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    feed: Annotated[
        Path | None, typer.Argument(help="A feed of products, in any format that ingest reads.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output file: .csv, .tsv, .jsonl (also .gz) or .parquet.")
    ] = None,
    mapping: MappingFile = None,
    column: Columns = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures that the feed names.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of a single product.")] = None,
    description: Annotated[str | None, typer.Option(help="Its description.")] = None,
    brand: Annotated[str | None, typer.Option(help="Its brand.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture of it; may be given several times.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Name of the policy that decides; without it, the one called default.")
    ] = None,
    policies: Annotated[
        Path | None, typer.Option(help="A file of policies, in place of the model's own policies.json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer for a feed of products, or for a single one."""
    from shelver.errors import InputError

    single = any(value is not None for value in (title, description, brand)) or bool(image)
    if single == (feed is not None) or (feed is None) != (out is None):
        raise InputError(
            "predict was called with "
            + (
                "a feed and a single product"
                if single and feed
                else "--out and a single product; --out goes with a feed"
                if single
                else "neither a feed with --out nor a product"
            ),
            allowed="`predict MODEL FEED --out FILE`, or `predict MODEL --title … --image …`",
            remedy="Call it one of these ways.",
        )
    if feed is not None and out is not None:
        read = read_mapping(mapping, column or [])
        _predict_feed(model, feed, out, read, images, policy, policies, as_json=as_json)
    else:
        _predict_one(model, title, description, brand, image or [], policy, policies, as_json=as_json)


def chosen_policy(model: Path, name: str | None, file: Path | None) -> tuple[str, Policy]:
    """The policy of this name, or the default one, from a file or from the model folder."""
    from shelver.decide.policies import DEFAULT, policies_of, policy_named, read_policies

    name = name or DEFAULT
    return name, policy_named(name, policies_of(model) if file is None else read_policies(file))


def _predict_feed(
    model: Path,
    feed: Path,
    out: Path,
    mapping: Mapping | None,
    images: Path | None,
    policy: str | None,
    policies: Path | None,
    *,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from shelver.batch import check_output, classify_feed
    from shelver.errors import InputError
    from shelver.pipeline import Classifier
    from shelver.settings import read_settings

    check_output(out)
    classifier = Classifier.open(model, threads=read_settings().threads)
    name, chosen = chosen_policy(model, policy, policies)
    with say.interruptible("Nothing was written."):
        report = classify_feed(
            classifier,
            feed,
            out,
            mapping=mapping,
            image_root=images,
            policy=chosen,
            policy_name=name,
            say=say.progress,
        )
    speed = round(report.products_per_s, 1)
    record = {**asdict(report), "policy": name, "products_per_s": speed, "out": str(out)}
    n_errors = sum(report.n_errors.values())
    outcomes = {
        "suggested": report.n_suggested,
        "for review": report.n_review,
        "abstained": report.n_abstained,
        "outside": report.n_outside,
    }
    parts = [f"{report.n_answered:,} answered", *[f"{n:,} {what}" for what, n in outcomes.items() if n]]
    lines = [
        f"{report.n_rows:,} rows = {' + '.join(parts)} + {n_errors:,} in error, "
        f"{report.products_per_s:,.0f} rows/s"
    ]
    lines += [f"  {code}: {n:,}" for code, n in sorted(report.n_errors.items())]
    lines += [f"  picture not usable, {code}: {n:,}" for code, n in sorted(report.n_picture_errors.items())]
    say.result(record, "\n".join([*lines, str(out)]), as_json=as_json)
    if report.n_rows and n_errors == report.n_rows:
        raise InputError(
            f"not one of the {report.n_rows:,} rows of {feed} could be answered; {out} says why for each",
            allowed="rows with a text or a picture that this model uses",
            remedy="Check which columns are read: name them with --column or --mapping, pictures with --images.",
        )


def _predict_one(
    model: Path,
    title: str | None,
    description: str | None,
    brand: str | None,
    images: list[Path],
    policy: str | None,
    policies: Path | None,
    *,
    as_json: bool,
) -> None:
    import json
    from dataclasses import asdict

    from shelver.batch import output_row
    from shelver.errors import InputError
    from shelver.pipeline import Classifier
    from shelver.product import Product
    from shelver.settings import read_settings

    pictures = []
    for path in images:
        if not path.is_file():
            raise InputError(f"no picture {path}", allowed="an existing file", remedy="Check the path.")
        pictures.append(path.read_bytes())
    classifier = Classifier.open(model, threads=read_settings().threads)
    product = Product("1", title=title, description=description, brand=brand, images=tuple(pictures))
    name, chosen = chosen_policy(model, policy, policies)
    predictions = classifier([product], policy=chosen)
    prediction, picture_error = predictions[0], predictions.picture_errors[0]
    if picture_error is not None:
        say.progress(f"a picture could not be used: {picture_error}")
    if prediction.error is not None:
        raise InputError(
            f"the product could not be answered: {prediction.error}",
            allowed="a text or a picture that this model uses",
            remedy="Give --title, --description or a readable --image.",
        )
    record = asdict(output_row(None, prediction, classifier.model_version, name))
    record["alternatives"] = json.loads(record["alternatives"])
    del record["product_id"], record["error"]
    lines = [f"{prediction.outcome} (from {prediction.modality}, policy {name})"]
    if prediction.path is not None:
        lines = [f"{prediction.path}  ({prediction.confidence:.1%}, from {prediction.modality})"]
    for attribute, answer in prediction.attributes.items():
        value = answer.value if isinstance(answer.value, str) else ", ".join(answer.value)
        lines.append(f"  {attribute}: {value}  ({answer.confidence:.1%}, from {answer.source})")
    lines += [f"  {a.confidence:6.1%}  {a.path}" for a in prediction.alternatives]
    say.result(record, "\n".join(lines), as_json=as_json)
