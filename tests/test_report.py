"""The page and the model card: offline, safe whatever the products are called, of limited size, and true."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from shelver import registry
from shelver.attributes import Attribute, Value, Vocabulary
from shelver.calibrate.experts import Part
from shelver.catalog.store import Catalog
from shelver.evaluate import (
    AttributeFigures,
    AttributePoint,
    AttributeReport,
    Branch,
    Calibrated,
    Confusions,
    Example,
    Examples,
    Figures,
    Honesty,
    Lenient,
    Mistake,
    PolicyPoint,
    Report,
    SiblingMistake,
    SourceFigures,
    ValueMistake,
    Views,
    evaluate,
)
from shelver.evaluate.parts import Bins, Curve
from shelver.registry import AttributeHead, Manifest
from shelver.report import MAX_BYTES, learning_rows, publish, write_card, write_html
from shelver.report.words import encoders, interval, weights

if find_spec("matplotlib") is None:
    if os.environ.get("CI") == "true":
        raise RuntimeError("CI must have matplotlib: install the `report` extra")
    pytest.skip("matplotlib is not installed", allow_module_level=True)

NASTY = '"><script>alert(1)</script><img src=http://x.test/a onerror=alert(2)>\x00\ud800 $x$'


class Page(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "style" and not self.style:
            self.style = data
        else:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


Write = Callable[..., Page]


@pytest.fixture(scope="module")
def report(both_model: Path, tiny_catalog: Catalog) -> Report:
    return evaluate(both_model, tiny_catalog, say=lambda line: None, threads=1)


@pytest.fixture(scope="module")
def bare(report: Report) -> Report:
    """A report with hardly anything to draw, so that its page is made at once."""
    empty = dict.fromkeys(("before", "after"), Honesty(n=0))
    return report.model_copy(
        update={
            "examples": Examples(),
            "confusions": Confusions(),
            "siblings": (),
            "tree": (),
            "policies": {},
            "calibration": Calibrated(decided=report.calibration.decided.model_copy(update=empty)),
            "selective": Views(all=Curve()),
            "selective_by_level": {},
            "reliability": Views(all=Bins()),
            "asked": {},
            "by_modality": {},
            "by_frequency": {},
            "by_source": {},
            "by_level": {"1": Figures(n=0)},
            "ece": None,
        }
    )


@pytest.fixture(scope="module")
def manifest(both_model: Path) -> Manifest:
    return registry.read_manifest(both_model)


@pytest.fixture
def write(tmp_path: Path, manifest: Manifest) -> Write:
    def page(
        report: Report,
        pictures: dict[str, bytes] | None = None,
        learning: list[dict[str, object]] | None = None,
    ) -> Page:
        path = write_html(
            report, tmp_path / "new" / "report.html", pictures=pictures or {}, learning=learning, manifest=manifest
        )
        assert path.stat().st_size < MAX_BYTES
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]
        return Page(path.read_text(encoding="utf-8"))

    return page


@pytest.fixture
def copied(both_model: Path, tmp_path: Path) -> Path:
    """A model folder to write into; the others share the original."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for file in both_model.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "run").mkdir()
    (folder / "run" / "metrics.jsonl").write_bytes((both_model / "run" / "metrics.jsonl").read_bytes())
    return folder


def with_names(report: Report, name: str, n: int = 12) -> Report:
    examples = tuple(
        Example(
            product_id=f"{i} {name}",
            title=name,
            true_path=name,
            predicted_path=f"{name} > x",
            confidence=0.5,
            modality="both",
        )
        for i in range(n)
    )
    return report.model_copy(
        update={
            "model": name,
            "catalog": name,
            "by_source": {name: report.figures, "b": report.figures},
            "n_errors": {name: 3},
            "confusions": Confusions(
                pairs=(Mistake(true_path=name, predicted_path=name, n=1, share=1.0),),
                paths=(name, "b"),
                matrix=((1, 2), (3, 4)),
                other=(0, 1),
                unanswered=(0, 0),
            ),
            "examples": Examples(right=examples, wrong=examples, unsure=examples),
            "siblings": (
                SiblingMistake(
                    true_path=name,
                    predicted_path=name,
                    n=1,
                    share=1,
                    lost=1,
                    examples=examples[:3],
                    like=examples[:2],
                ),
            ),
            "tree": (
                Branch(name=name, parent=None, n=9, accuracy=0.5, inside=1, stake=1, lost=1),
                Branch(name=name, parent=0, n=9, accuracy=0.5, inside=1, stake=1, lost=1, examples=examples[:2]),
            ),
            "policies": {
                name: PolicyPoint(
                    decoder="climb",
                    min_level=1,
                    max_level=2,
                    promised=0.9,
                    coverage=0.8,
                    precision=0.95,
                    accuracy=0.7,
                    hierarchical_coverage=0.75,
                    value_score_partial=None,
                    outcomes={"decided": 8, "review": 2},
                )
            },
        }
    )


SHOWN = 3 * 12 + 3 + 2 + 2
"""Products on the page of `with_names`."""


def test_all_that_an_evaluation_leaves_behind(
    report: Report, copied: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    said: list[str] = []
    before = registry.read_manifest(copied).model_version
    written = publish(report, model=copied, catalog=tiny_catalog, out=tmp_path / "out", say=said.append)
    assert [path.name for path in written] == ["report.json", "report.html", "README.md"]
    assert said == []
    page = Page(written[1].read_text(encoding="utf-8"))
    anchors = (
        "levels",
        "asked",
        "calibration",
        "confidence",
        "confusions",
        "tree",
        "learning",
        "examples",
        "model",
    )
    for anchor in anchors:
        assert ("section", {"id": anchor}) in page.tags, anchor
    assert f"{100 * (report.accuracy or 0):.1f} %" in page.text
    assert f"{report.n:,} labelled products" in page.text
    shown = report.examples
    in_siblings = sum(len(pair.examples) + len(pair.like) for pair in report.siblings)
    in_tree = sum(len(branch.examples) for branch in report.tree)
    assert page.count("li") == len((*shown.right, *shown.wrong, *shown.unsure)) + in_siblings + in_tree
    assert all(one.product_id in page.text for one in (*shown.right, *shown.wrong, *shown.unsure))
    assert page.count("img") > 0
    assert "flatter" not in page.text  # these are the products of the test split
    assert "data:image" not in written[0].read_text(encoding="utf-8")
    assert registry.read_manifest(copied, verify=True).model_version == before


def test_the_page_needs_no_network_no_script_and_no_other_file(report: Report, write: Write) -> None:
    page = write(report, {one.product_id: b"\xff\xd8jpeg" for one in report.examples.right})
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href"):
                assert (value or "").startswith("data:image/jpeg;base64," if tag == "img" else "#")
    policy = next(a["content"] or "" for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "prefers-color-scheme:dark" in page.style
    targets = {(a.get("href") or "")[1:] for t, a in page.tags if t == "a"}
    assert targets <= {a.get("id") for t, a in page.tags if t == "section"}


def test_nothing_that_a_product_is_called_becomes_markup(report: Report, write: Write) -> None:
    honest, hostile = write(with_names(report, "name")), write(with_names(report, NASTY))
    assert hostile.count("script") == 0
    assert hostile.count("img") == honest.count("img") == 0
    assert [tag for tag, _ in hostile.tags if tag != "path"] == [tag for tag, _ in honest.tags if tag != "path"]
    assert '"><script>alert(1)</script>' in hostile.text


def test_pictures_make_room_before_anything_else_does(bare: Report, write: Write) -> None:
    many = with_names(bare, "name")
    noise = np.random.default_rng(0).bytes(300_000)
    some = write(many, {f"{i} name": noise for i in range(12)})
    assert 0 < some.count("img") < SHOWN  # 400 kB each as base64
    none = write(many, {f"{i} name": noise * 20 for i in range(12)})
    assert none.count("img") == 0
    assert none.count("li") == SHOWN
    assert none.count("svg") == some.count("svg") > 0
    for page in (some, none):
        assert ("section", {"id": "tree"}) in page.tags
        assert ("section", {"id": "siblings"}) in page.tags


def test_a_tree_too_large_for_the_page_is_left_out_and_the_rest_stays(
    report: Report, bare: Report, write: Write
) -> None:
    branch = with_names(bare, "<&\"'>" * 60).tree[1].model_copy(update={"parent": None})
    page = write(bare.model_copy(update={"tree": (branch,) * 1500, "examples": report.examples}))
    assert ("section", {"id": "tree"}) not in page.tags
    assert ("section", {"id": "examples"}) in page.tags


def test_names_without_end_are_cut(bare: Report, write: Write) -> None:
    page = write(with_names(bare, "endless " * 50_000))
    assert page.count("li") == SHOWN


def test_the_tree_unfolds_from_the_branch_that_loses_the_most(bare: Report, write: Write) -> None:
    def branch(name: str, parent: int | None, lost: float) -> Branch:
        return Branch(name=name, parent=parent, n=10, accuracy=0.5, inside=0.75, stake=0.5, lost=lost)

    tree = (
        branch("Little", None, 0.25),
        branch("Much", None, 0.75),
        branch("Leaf", 0, 0.25),
        branch("End", 1, 0.75),
    )
    page = write(bare.model_copy(update={"tree": tree}))
    after = page.text.split("The tree and its mistakes", 1)[-1]
    places = [after.index(name) for name in ("Much", "End", "Little", "Leaf")]
    assert places == sorted(places)
    assert after.split("Much")[1].startswith("1050.0 %75.0 %50.0 %75.0 %")
    assert sum(tag == "details" and "open" in attributes for tag, attributes in page.tags) == 1
    widths = [a["width"] for t, a in page.tags if t == "rect" and a.get("class") == "lost"]
    assert widths == ["45.0", "45.0", "15.0", "15.0"]


def test_each_policy_stands_in_the_picture_and_in_the_table(bare: Report, write: Write) -> None:
    point = with_names(bare, "x").policies["x"]
    some = {"search": point, "tax": point.model_copy(update={"coverage": 0.5, "precision": None})}
    page = write(bare.model_copy(update={"policies": some}))
    assert "1: precision 0.950 at coverage 0.8" in page.text
    assert "2: precision" not in page.text  # nothing was decided, so it has no place in the picture
    assert re.search(r"1 +searchclimb1 to 22 review90.0 %95.0 %80.0 %75.0 %–", page.text)
    assert "2  tax" in page.text
    assert "What the policies make of it" not in write(bare).text


def test_calibration_is_shown_before_and_after_for_each_level(report: Report, write: Write) -> None:
    text = write(report).text
    for name in ("level 1", "level 2", "level 3", "decided category"):
        assert f"Reliability, {name}" in text
    assert "before: accuracy" in text
    assert "after: accuracy" in text


def test_values_are_shown_where_they_are_known(bare: Report, write: Write) -> None:
    assert "value, partial" not in write(bare).text.split("How sure")[0]
    update = {"values": "file", "value_score": 0.625, "value_score_partial": 0.75}
    page = write(bare.model_copy(update=update))
    assert "62.5 %" in page.text
    assert "Values of the categories were read from a file." in page.text


@pytest.mark.parametrize(
    ("rows", "n_curves"),
    [
        (None, 0),
        ([], 0),
        ([{"phase": "choose"}, {"epoch": 1}, {"epoch": "x", "train_loss": 1.0}], 0),
        ([{"step": 5, "train_loss": 1.0, "note": "x"}, {"step": 9, "train_loss": None}], 1),
        ([{"epoch": 1, "train_loss": float("nan")}, {"epoch": 2, "validation_accuracy": 0.5}], 1),
        (
            [
                {"phase": phase, "epoch": i, "train_loss": 1 / (i + 1), "validation_accuracy": i / 5000}
                for phase in ("choose", "refit")
                for i in range(5000)
            ],
            4,
        ),
    ],
)
def test_learning_curves_are_drawn_from_whatever_numbers_there_are(
    rows: list[dict[str, object]] | None, n_curves: int, bare: Report, write: Write
) -> None:
    page = write(bare, learning=rows)
    assert (("section", {"id": "learning"}) in page.tags) == (n_curves > 0)
    described = page.text.split("Learning curves", 1)[-1].split("How it learned", 1)[0]
    if n_curves > 1:
        assert len(re.findall(r"(choose|refit): ", described)) == n_curves


def test_damaged_lines_of_a_training_log_are_passed_over(tmp_path: Path) -> None:
    assert learning_rows(tmp_path) is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n\xff\xfe\n[1]\n{"epoch": 2}\n{"epo')
    assert learning_rows(tmp_path) == [{"epoch": 1}, {"epoch": 2}]


def test_without_matplotlib_the_rest_is_written_and_the_remedy_said(
    report: Report, copied: Path, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[str] = []
    written = publish(report, model=copied, catalog=tiny_catalog, out=tmp_path / "out", say=said.append)
    assert [path.name for path in written] == ["report.json", "README.md"]
    assert not (tmp_path / "out" / "report.html").exists()
    assert len(said) == 1
    assert "pip install 'shelver[report]'" in said[0]


def test_a_card_says_what_the_model_is_before_anyone_evaluated_it(copied: Path, manifest: Manifest) -> None:
    card = write_card(manifest, None, copied).read_text(encoding="utf-8")
    assert manifest.model_version in card
    assert "Not evaluated yet" in card
    assert "| training products | 90 |" in card
    assert re.search(r"\| Home \| 54 \|", card)
    assert "ngram" in card
    assert "lite0" in card
    assert f"| hidden | {manifest.config['hidden']} |" in card


def test_a_card_keeps_the_figures_of_every_split_of_this_very_model(
    report: Report, copied: Path, manifest: Manifest
) -> None:
    other = report.model_copy(update={"split": "validation", "accuracy": 0.123, "catalog": "b"})
    write_card(manifest, report, copied)
    card = write_card(manifest, other, copied).read_text(encoding="utf-8")
    assert f"### test split of {report.catalog}" in card
    assert "### validation split of b" in card
    assert card.count("flatter it") == 1
    assert "12.3 %" in card
    assert write_card(manifest, None, copied).read_text(encoding="utf-8") == card
    assert write_card(manifest, report, copied).read_text(encoding="utf-8") == card
    stranger = report.model_copy(update={"model_version": "0" * 12, "split": "train"})
    assert write_card(manifest, stranger, copied).read_text(encoding="utf-8") == card
    (copied / "report" / "figures.json").write_text('{"model_version": 3}')
    assert "Not evaluated yet" in write_card(manifest, None, copied).read_text(encoding="utf-8")


def test_no_name_becomes_markup_in_a_card(report: Report, copied: Path, manifest: Manifest) -> None:
    card = write_card(manifest, report.model_copy(update={"catalog": f"{NASTY} | [x](y) `c`\n# h"}), copied)
    text = card.read_text(encoding="utf-8")
    assert "<script" not in text
    assert r"\[x\](y) \`c\`" in text
    assert "\n# h" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 9) for line in tables)


def test_a_folder_that_cannot_be_written_to_costs_only_the_card(
    report: Report, copied: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    (copied / "README.md").mkdir()
    said: list[str] = []
    written = publish(report, model=copied, catalog=tiny_catalog, out=tmp_path / "out", say=said.append)
    assert [path.name for path in written] == ["report.json", "report.html"]
    assert "model card" in said[0]


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Wilson's own bounds for 81 of 263, as textbooks print them.
    low, high = interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert interval(0.0, 10)[0] == 0.0
    assert interval(1.0, 10)[1] == pytest.approx(1.0)


def test_what_a_manifest_says_is_put_in_words(manifest: Manifest) -> None:
    said = encoders(manifest)
    assert said["texts"] == "ngram (21 wide); reads title, brand, description"
    assert said["pictures"].startswith("lite0 (32 x 32 px")
    assert "may stop at 1 inner" in said["head"]
    rows = weights(manifest)
    assert {name for name, _, _ in rows} == {"text", "picture", "text and picture"}
    assert all(expert and len(by_level.split(", ")) == 3 for _, expert, by_level in rows)


def test_a_report_without_pictures_curves_and_mistakes_still_makes_a_page(bare: Report, write: Write) -> None:
    page = write(bare)
    assert "Not one wrong answer." in page.text
    for anchor in ("examples", "tree", "siblings", "calibration"):
        assert ("section", {"id": anchor}) not in page.tags
    assert "–" in page.text


def test_a_blend_is_told_part_by_part(manifest: Manifest) -> None:
    own = manifest.calibration
    parts = tuple(Part(share=share, weights=own.weights["text"]) for share in (0.75, 0.25))
    blended = manifest.model_copy(update={"calibration": own.model_copy(update={"blends": {"text": parts}})})
    asked = [name for name, _, _ in weights(blended)]
    assert asked.count("text, 75 % of the blend") == asked.count("text, 25 % of the blend") > 0
    assert "text" not in asked
    assert asked.count("picture") == [name for name, _, _ in weights(manifest)].count("picture")


def attribute(n: int = 100, accuracy: float = 0.875, **more: object) -> AttributeReport:
    """How one attribute was answered, with something of everything."""
    half = AttributeFigures(n=n // 2, n_values=3, accuracy=0.5, macro_f1=0.25, coverage=0.75)
    return AttributeReport.model_validate(
        {
            "n": n,
            "n_values": 5,
            "accuracy": accuracy,
            "coverage": 0.975,
            "precision": 0.9,
            "macro_f1": 0.625,
            "ece": 0.0125,
            "coverage_at_95": 0.4375,
            "n_learned": 4,
            "n_unlearned": 3,
            "n_unknown": 2,
            "by_source": {"image": SourceFigures(n=40, share=0.4, precision=0.7)},
            "asked": {"text": half, "image": half.model_copy(update={"accuracy": 0.3125}), "both": half},
            "reliability": Bins(n=(50, 50), confidence=(0.5, 0.9), accuracy=(0.45, 0.95)),
            "confusions": (ValueMistake(true_value="navy", predicted_value="black", n=17, share=0.34),),
            **more,
        }
    )


def test_attributes_stand_in_tables_beside_their_pictures(bare: Report, write: Write) -> None:
    found = {
        "colour": attribute(),
        "season": attribute(400, multi=True, asked={}),
        "cut": AttributeReport(n=0, n_learned=2),
    }
    page = write(bare.model_copy(update={"attributes": found}))
    assert ("section", {"id": "attributes"}) in page.tags
    assert ("a", {"href": "#attributes"}) in page.tags
    text = page.text.split("Each attribute over the products", 1)[1]
    assert "Attributes of the model without any label here: 1." in text
    # labelled, values, learned, accuracy, answered, precision, macro-F1, of common values, weighted, micro
    assert "colour10054" + "87.5 %97.5 %90.0 %62.5 %–––" + "32" in text
    assert text.index("season (several)400") < text.index("colour1005")  # most is known of it
    assert "text: accuracy" in text
    assert "31.2 %" in text  # from the picture alone
    assert "navyblack1734.0 %" in text
    assert "43.8 %" in text  # coverage at 95 %
    assert "Reliability of colour" in text
    assert "Reliability of season" in text
    assert "Accuracy of attributes, asked three ways" in text


def test_a_page_without_attributes_and_one_right_path_each_says_nothing_of_them(
    bare: Report, write: Write
) -> None:
    page = write(bare)
    assert ("section", {"id": "attributes"}) not in page.tags
    assert ("section", {"id": "several"}) not in page.tags
    assert "Each attribute over" not in page.text
    assert "enient" not in page.text


def test_of_many_attributes_eight_are_drawn_and_all_are_in_the_tables(bare: Report, write: Write) -> None:
    many = {f"a{i}{NASTY}": attribute(1000 - i, asked={}) for i in range(30)}
    page = write(bare.model_copy(update={"attributes": many}))
    assert page.count("svg") - write(bare).count("svg") == 8
    assert sum(f'a{i}"><script>' in page.text for i in range(30)) == 30
    assert page.count("script") == 0
    assert "Those of 22 more" in page.text
    crowd = {f"a{i}": attribute(1000 - i, asked={}) for i in range(300)}
    assert (
        "More attributes, in report.json alone: 100." in write(bare.model_copy(update={"attributes": crowd})).text
    )


def test_strict_and_lenient_figures_stand_side_by_side(bare: Report, write: Write) -> None:
    lenient = Lenient(n_several=1234, figures=bare.figures.model_copy(update={"accuracy": 0.9375}))
    page = write(bare.model_copy(update={"lenient": lenient, "accuracy": 0.8125}))
    assert ("section", {"id": "several"}) in page.tags
    text = page.text.split("1,234 products have more than one right path", 1)[1]
    assert "81.2 %93.8 %" in text


def test_what_a_policy_makes_of_attributes_stands_below_the_policies(bare: Report, write: Write) -> None:
    point = with_names(bare, "x").policies["x"]
    ruled = point.model_copy(
        update={"attributes": {"colour": AttributePoint(promised=0.95, coverage=0.625, precision=0.9625)}}
    )
    assert "taxcolour95.0 %96.2 %62.5 %" in write(bare.model_copy(update={"policies": {"tax": ruled}})).text


def test_a_card_lists_attributes_and_their_figures(report: Report, copied: Path, manifest: Manifest) -> None:
    head = AttributeHead(name="colour", start=0, calibration=manifest.calibration)
    heads = manifest.head.model_copy(update={"attributes": (head,)})
    of_model = manifest.model_copy(update={"head": heads})
    values = tuple(Value(name=name) for name in ("red", "blue", "pink"))
    Vocabulary(attributes=(Attribute(name="colour", multi=True, values=values, nodes=("Home",)),)).save(
        copied / registry.ATTRIBUTES
    )
    # The card is of the model that the report is of, whatever its manifest would be called.
    judged = report.model_copy(
        update={"attributes": {"colour": attribute()}, "model_version": of_model.model_version}
    )
    card = write_card(of_model, judged, copied).read_text(encoding="utf-8")
    assert "| colour | 3, several a product | 1 category and all below |" in card
    assert "| colour | 100 | 87.5 % |" in card
    assert write_card(of_model, None, copied).read_text(encoding="utf-8") == card
    assert "colour" not in write_card(manifest, report, copied).read_text(encoding="utf-8")
