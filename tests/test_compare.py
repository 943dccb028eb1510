"""Comparisons: the statistics against scipy and simulation, the verdicts on models whose truth is known."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import stats

from shelver import metrics, registry
from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.cli import main
from shelver.compare import Comparison, Pair, compare, paired, read_comparison, write_comparison
from shelver.compare.ask import Answers, AttributeAnswers, ask, differing
from shelver.compare.golden import Golden, Slice, read_golden, slices_of
from shelver.compare.judge import judge, model_row, points
from shelver.compare.page import ATTRIBUTE_COLUMNS, attribute_cells, page
from shelver.compare.run import model_names
from shelver.compare.schema import Gap, Latency
from shelver.errors import CatalogError, InputError, ModelError, ShapeError
from shelver.evaluate import AttributeFigures, Figures, evaluate
from shelver.taxonomy import Taxonomy

BAR, DECK, LAMPS, CARS = 5, 6, 3, 4  # nodes of the seven-node tree


def quiet(line: str) -> None:
    pass


def golden_of(tree: Taxonomy, node: NDArray[np.int32], value: NDArray[np.float64] | None = None) -> Golden:
    nothing = np.full(len(node), None, object)
    return Golden(
        tree=tree,
        node=node,
        value=np.ones(len(node)) if value is None else value,
        values_from=None if value is None else "products",
        inputs=np.ones(len(node), np.int8),
        source=nothing,
        language=nothing,
        n_unlabelled=0,
    )


def answers_of(name: str, golden: Golden, right: NDArray[np.bool_]) -> Answers:
    """A model that is right where it is told to be, and else says "Cars", or "Lamps" of cars."""
    wrong = np.where(golden.node == CARS, LAMPS, CARS)
    node = np.where(right, golden.node, wrong).astype(np.int32)
    return Answers(
        name=name,
        model_version=name,
        tree=golden.tree,
        node=node,
        confidence=np.ones(len(node), np.float32),
        correct=node == golden.node,
        credit=golden.tree.lca_level(node, golden.node)
        / np.maximum(golden.tree.level[node], golden.tree.level[golden.node]),
        figures=Figures(n=len(node)),
        seconds=1.0,
        latency=Latency(n=1, p50_ms=1, p95_ms=1),
        core_bytes=1,
    )


def judged(golden: Golden, *right: NDArray[np.bool_], slices: Sequence[Slice] | None = None) -> list[Pair]:
    champion, *others = (answers_of("ABCD"[i], golden, one) for i, one in enumerate(right))
    return judge(champion, others, golden, slices_of(golden, {}) if slices is None else slices)


# The statistics


def test_mcnemar_is_the_exact_binomial_test() -> None:
    rng = np.random.default_rng(0)
    counts = [(0, 0), (0, 1), (0, 9), (5, 5), (1, 300), *rng.integers(0, 400, (60, 2)).tolist(), (51_000, 50_000)]
    for gained, lost in counts:
        expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert paired.mcnemar(gained, lost) == pytest.approx(expected, rel=1e-8), (gained, lost)
        assert paired.mcnemar(gained, lost) == paired.mcnemar(lost, gained)


def test_holms_correction_is_what_the_definition_says() -> None:
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert paired.holm([0.9, 0.8]) == (1.0, 1.0)
    assert paired.holm([]) == ()
    rng = np.random.default_rng(1)
    p = rng.random((2_000, 20))
    errs = [min(paired.holm(row.tolist())) <= 0.05 for row in p]
    assert np.mean(errs) < 0.07  # twenty tests of nothing: one in twenty cries, not two in three


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    rng = np.random.default_rng(2)
    gap = rng.choice([-1.0, 0.0, 1.0], 900, p=[0.05, 0.85, 0.1])
    worth = rng.lognormal(0, 1.5, 900)
    drawn = paired.resampled_sums(np.stack([np.ones(900), worth, gap, gap * worth], 1), seed=0)
    assert drawn.shape == (paired.N_RESAMPLES, 4)
    assert (drawn[:, 0] == 900).all()
    for ours, data, statistic in (
        (drawn[:, 2] / 900, (gap,), lambda x, axis: x.mean(axis)),
        (
            drawn[:, 3] / drawn[:, 1],
            (gap * worth, worth),
            lambda x, w, axis: x.sum(axis) / w.sum(axis),
        ),
    ):
        theirs = stats.bootstrap(
            data, statistic, n_resamples=4_000, method="percentile", paired=True, vectorized=True, rng=3
        ).confidence_interval
        width = theirs.high - theirs.low
        assert paired.interval(ours) == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)
    by_counts = paired.share_interval(int((gap > 0).sum()), int((gap < 0).sum()), 900, seed=4)
    assert by_counts == pytest.approx(paired.interval(drawn[:, 2] / 900), abs=0.003)


def test_equal_seeds_give_equal_resamples_however_they_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = np.random.default_rng(3).normal(size=(50, 2))
    whole = paired.resampled_sums(columns, seed=7, n_resamples=101)
    monkeypatch.setattr(paired, "_BLOCK_ENTRIES", 400)
    assert np.allclose(paired.resampled_sums(columns, seed=7, n_resamples=101), whole)
    assert not np.allclose(paired.resampled_sums(columns, seed=8, n_resamples=101), whole)
    with pytest.raises(ShapeError):
        paired.resampled_sums(columns[:0], seed=0)


def test_intervals_hold_the_true_difference_nineteen_times_out_of_twenty() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for draw in range(400):
        gained, lost, _ = rng.multinomial(600, [0.09, 0.06, 0.85])
        low, high = paired.share_interval(gained, lost, 600, seed=draw, n_resamples=500)
        held += low <= 0.03 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_with_the_products_needed_a_difference_shows_four_times_out_of_five() -> None:
    n = paired.products_needed(60, 40, 1_000, difference=0.02)
    rng = np.random.default_rng(5)
    found = [paired.mcnemar(g, lost) <= 0.05 for g, lost, _ in rng.multinomial(n, [0.06, 0.04, 0.9], size=500)]
    assert 0.74 <= np.mean(found) <= 0.86
    assert paired.products_needed(0, 0, 100, difference=0.005) > 1_000  # no disagreement in 100 proves little


# Verdicts


def test_a_better_model_is_called_better_by_how_much_and_how_surely(seven: Taxonomy) -> None:
    rng = np.random.default_rng(6)
    golden = golden_of(seven, rng.choice(np.array([BAR, DECK, LAMPS, CARS], np.int32), 4_000))
    before = rng.random(4_000) < 0.8
    after = before | (rng.random(4_000) < 0.1)
    [pair] = judged(golden, before, after)
    assert pair.verdict == "better"
    assert pair.accuracy.difference == pytest.approx((after.mean() - before.mean()), abs=1e-6)
    assert pair.accuracy.low > 0
    assert (pair.n_gained, pair.n_lost) == (int((after & ~before).sum()), 0)
    assert pair.sentence.startswith("B is better than A: accuracy +1.7 points (95 % interval +1.")
    assert "McNemar p < .001" in pair.sentence
    [back] = judged(golden, after, before)
    assert back.verdict == "worse"
    assert back.accuracy.difference == -pair.accuracy.difference
    assert "B is worse than A: accuracy -1.7 points" in back.sentence


def test_models_that_cannot_be_told_apart_are_not_and_it_says_how_many_products_more(seven: Taxonomy) -> None:
    rng = np.random.default_rng(7)
    golden = golden_of(seven, rng.choice(np.array([BAR, DECK, LAMPS, CARS], np.int32), 800))
    [pair] = judged(golden, rng.random(800) < 0.9, rng.random(800) < 0.9)
    assert pair.verdict == "open"
    assert pair.accuracy.low < 0 < pair.accuracy.high
    assert pair.n_more is not None
    needed = paired.products_needed(pair.n_gained, pair.n_lost, 800, difference=0.005)
    assert pair.n_more == needed - 800 > 10_000
    assert "A cannot be told apart" in pair.sentence
    assert "more labelled products are needed to tell half a point" in pair.sentence


def test_equal_models_are_seldom_told_apart_even_many_at_once(seven: Taxonomy) -> None:
    rng = np.random.default_rng(8)
    golden = golden_of(seven, rng.choice(np.array([BAR, LAMPS], np.int32), 300))
    cried = 0
    for _ in range(60):
        right = [rng.random(300) < 0.8 for _ in range(4)]
        cried += any(pair.verdict != "open" for pair in judged(golden, *right, slices=[]))
    assert cried <= 7  # at most one in twenty is allowed, 3 of 60, and noise


def test_a_model_made_worse_on_the_most_valuable_branch_is_caught_though_its_mean_is_better(
    seven: Taxonomy,
) -> None:
    rng = np.random.default_rng(9)
    node = rng.choice(np.array([BAR, DECK, LAMPS, CARS], np.int32), 5_000, p=[0.06, 0.34, 0.3, 0.3])
    value = np.where(node == BAR, 12.0, 1.0)  # few products, much of the value
    golden = golden_of(seven, node, value)
    before = rng.random(5_000) < 0.85
    after = before | (rng.random(5_000) < 0.3)  # a bit better everywhere
    after &= (node != BAR) | (rng.random(5_000) < 0.85)  # but on bar stools
    assert after.mean() > before.mean()
    [pair] = judged(golden, before, after)
    assert pair.verdict == "better"
    branch = next(one for one in pair.slices if one.name == "Home > Chairs > Bar")
    assert branch.verdict == "worse"
    assert branch.gap.high < 0
    assert branch.value_share == pytest.approx(value[node == BAR].sum() / value.sum(), abs=1e-6)
    warned = [warning for warning in pair.warnings if "Home > Chairs > Bar" in warning]
    share = f"{branch.value_share:.0%}"[:-1]
    assert warned == [warning for warning in warned if f"{share} % of the value: -" in warning]
    assert len(warned) == 1
    assert pair.value is not None
    # The value by category is what the metrics call value score.
    both = [answers_of("A", golden, before), answers_of("B", golden, after)]
    scores = [metrics.value_score(node, one.node, value) or 0 for one in both]
    partial = [metrics.value_score(node, one.node, value, taxonomy=seven) or 0 for one in both]
    assert pair.value.difference == pytest.approx(scores[1] - scores[0], abs=1e-6)
    assert pair.value_partial is not None
    assert pair.value_partial.difference == pytest.approx(partial[1] - partial[0], abs=1e-6)
    earned = [metrics.relative_lca(seven, node, one.node) for one in both]
    assert pair.hierarchical_credit.difference == pytest.approx(earned[1] - earned[0], abs=1e-6)


def test_a_loss_of_value_behind_a_better_mean_is_told(seven: Taxonomy) -> None:
    rng = np.random.default_rng(10)
    node = rng.choice(np.array([BAR, DECK, LAMPS, CARS], np.int32), 3_000)
    value = rng.lognormal(0, 1, 3_000)
    golden = golden_of(seven, node, value)
    before = rng.random(3_000) < 0.8
    after = before | ((value < 1) & (rng.random(3_000) < 0.5))
    after &= (value < 4) | (rng.random(3_000) < 0.6)
    [pair] = judged(golden, before, after, slices=[])
    assert pair.verdict == "better"
    assert pair.value is not None
    assert pair.value.high < 0
    assert any("worse by value, though not by accuracy" in warning for warning in pair.warnings)


# Attributes, and several right paths


def with_attributes(answers: Answers, **right: NDArray[np.bool_]) -> Answers:
    """The same model, right in its attributes where it is told to be."""
    found = {
        name: AttributeAnswers(AttributeFigures(n=len(one), accuracy=round(float(one.mean()), 6)), one)
        for name, one in right.items()
    }
    return replace(answers, attributes=found)


def test_attributes_are_compared_product_by_product_and_leave_the_verdict_alone(seven: Taxonomy) -> None:
    rng = np.random.default_rng(20)
    golden = golden_of(seven, rng.choice(np.array([BAR, DECK, LAMPS, CARS], np.int32), 3_000))
    before = rng.random(3_000) < 0.8
    after = before | (rng.random(3_000) < 0.3)
    colour = rng.random(2_000) < 0.9  # only some products have a label of it
    worse = colour & (rng.random(2_000) < 0.95)
    season = rng.random(3_000) < 0.7
    better = season | (rng.random(3_000) < 0.1)
    use = rng.random(500) < 0.5
    one = with_attributes(answers_of("A", golden, before), colour=colour, season=season, use=use, old=use)
    other = with_attributes(answers_of("B", golden, after), season=better, colour=worse, use=use, new=use)
    [pair] = judge(one, [other], golden, [])
    [plain] = judged(golden, before, after, slices=[])
    assert pair.verdict == plain.verdict == "better"
    assert pair.sentence == plain.sentence
    assert [gap.name for gap in pair.attributes] == ["colour", "season", "use"]  # those that both answer
    assert [gap.verdict for gap in pair.attributes] == ["worse", "better", "same"]
    p = []
    for gap, (was, now) in zip(pair.attributes, ((colour, worse), (season, better), (use, use)), strict=True):
        assert gap.n == len(was)
        assert (gap.baseline, gap.challenger) == pytest.approx((was.mean(), now.mean()), abs=1e-6)
        assert gap.gap.difference == pytest.approx(now.mean() - was.mean(), abs=1e-6)
        gained, lost = int((now & ~was).sum()), int((was & ~now).sum())
        assert gap.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)
        p.append(gap.p)
        low, high = gap.gap.low, gap.gap.high
        theirs = stats.bootstrap(
            (now.astype(float) - was,), np.mean, n_resamples=2_000, method="percentile", rng=1
        ).confidence_interval
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert tuple(gap.p_holm for gap in pair.attributes) == pytest.approx(paired.holm(p))
    assert [w for w in pair.warnings if "attribute" in w] == [w for w in pair.warnings if "B is worse on" in w]
    points_lost = f"{100 * pair.attributes[0].gap.difference:.1f} points"
    assert f"B is worse on attribute colour: {points_lost} (95 % interval -" in pair.warnings[-1]
    assert "corrected for 3 attributes" in pair.warnings[-1]


def test_models_with_the_same_categories_are_warned_of_worse_attributes(seven: Taxonomy) -> None:
    golden = golden_of(seven, np.full(600, BAR, np.int32))
    right = np.ones(600, np.bool_)
    one = with_attributes(answers_of("A", golden, right), colour=right)
    other = with_attributes(answers_of("B", golden, right), colour=np.arange(600) % 10 > 0)
    [pair] = judge(one, [other], golden, [])
    assert pair.verdict == "same"
    assert len(pair.warnings) == 1
    assert "worse on attribute colour" in pair.warnings[0]


def test_the_page_has_a_line_for_each_attribute_and_model(seven: Taxonomy) -> None:
    rng = np.random.default_rng(21)
    golden = golden_of(seven, rng.choice(np.array([BAR, LAMPS], np.int32), 400))
    right = [rng.random(400) < 0.8 for _ in range(3)]
    answers = [
        with_attributes(
            answers_of("ABC"[i], golden, one), colour=right[i], **({"use": right[0]} if i != 1 else {})
        )
        for i, one in enumerate(right)
    ]
    lenient = Figures(n=400, accuracy=0.9876, hierarchical_f1=0.99)
    comparison = Comparison(
        catalog="c",
        catalog_version="v",
        split="test",
        n=400,
        n_unlabelled=0,
        values_from=None,
        models=tuple(model_row(one, golden) for one in (replace(answers[0], lenient=lenient), *answers[1:])),
        pairs=tuple(judge(answers[0], answers[1:], golden, [])),
    )
    rows = attribute_cells(comparison)
    assert [row[:2] for row in rows] == [
        [n, m] for n, models in (("colour", "ABC"), ("use", "AC")) for m in models
    ]
    assert all(len(row) == len(ATTRIBUTE_COLUMNS) for row in rows)
    assert rows[0][7:] == [None] * 5  # the baseline against itself
    assert rows[4][7:] == ["+0.00", "+0.00", "+0.00", "p = 1.000", "same"]
    text = page(comparison)
    assert text.count('<section id="attributes">') == text.count('<section id="several">') == 1
    assert "0.9876" in text
    assert text.count("<svg") == 1 + sum(pair.verdict != "same" for pair in comparison.pairs)
    without = comparison.model_copy(
        update={
            "models": tuple(model_row(answers_of("A", golden, one), golden) for one in right),
            "pairs": (),
        }
    )
    assert '<section id="attributes">' not in page(without)
    assert '<section id="several">' not in page(without)


def test_several_right_paths_are_read_and_shown_beside_the_strict_figures(
    text_model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    assert read_golden(tiny_catalog, "test").also is None
    tree = tiny_catalog.taxonomy
    shutil.copytree(tiny_catalog.folder, tmp_path / "several")
    [shard] = [shard.file for shard in tiny_catalog.info.shards if shard.split == "test"]
    table = pq.read_table(tmp_path / "several" / shard)
    also = [[tree.ids[k] for k in range(tree.n_nodes)] if i < 2 else ["gone"] if i < 4 else [] for i in range(30)]
    column = pa.array(also, pa.list_(pa.string()))
    named = [name for name in table.column_names if name != "also_node_ids"]
    pq.write_table(table.select(named).append_column("also_node_ids", column), tmp_path / "several" / shard)
    catalog = Catalog(tmp_path / "several", tiny_catalog.info)
    golden = read_golden(catalog, "test")
    assert golden.also is not None
    assert golden.also[:2].tolist() == [list(range(tree.n_nodes))] * 2
    assert (golden.also[2:] == -1).all()
    answers = ask(text_model, catalog, "test", golden, name="A", threads=1, say=quiet)
    strict = ask(text_model, tiny_catalog, "test", read_golden(tiny_catalog, "test"), name="A", say=quiet)
    assert strict.lenient is None
    assert answers.figures == strict.figures
    assert np.array_equal(answers.correct, strict.correct)
    assert answers.lenient is not None
    saved = ~answers.correct[:2] & (answers.node[:2] >= 0)
    assert answers.lenient.accuracy == pytest.approx((answers.correct.sum() + saved.sum()) / 30, abs=1e-6)
    report = evaluate(text_model, catalog, say=quiet, threads=1)
    assert report.lenient is not None
    assert report.lenient.figures == answers.lenient


def test_unharmed_models_raise_no_warning(seven: Taxonomy) -> None:
    rng = np.random.default_rng(11)
    golden = golden_of(seven, rng.choice(np.array([BAR, DECK, LAMPS, CARS], np.int32), 500))
    n_warned = sum(
        bool(judged(golden, rng.random(500) < 0.8, rng.random(500) < 0.8)[0].warnings) for _ in range(40)
    )
    assert n_warned <= 5


def test_slices_are_branches_of_level_1_and_deeper_ones_with_much_of_the_value(seven: Taxonomy) -> None:
    node = np.repeat(np.array([BAR, DECK, LAMPS, CARS], np.int32), [30, 500, 400, 19])
    value = np.where(node == BAR, 20.0, 1.0)
    golden = replace(
        golden_of(seven, node, value), source=np.array([None, "web"], object)[(node == DECK).astype(int)]
    )
    made = {(one.kind, one.name): int(one.rows.sum()) for one in slices_of(golden, {"Deck": 90, "Lamps": 10})}
    assert made == {
        ("branch", "Home"): 930,
        ("branch", "Home > Chairs"): 530,
        ("branch", "Home > Lamps"): 400,
        ("branch", "Home > Chairs > Bar"): 30,
        ("branch", "Home > Chairs > Deck"): 500,
        ("source", "web"): 500,
        ("frequency", "head"): 500,
        ("frequency", "tail"): 449,
    }  # Toys has 19 products, too few to say anything; Toys > Cars too


def test_points_are_rounded_to_what_the_interval_can_tell() -> None:
    assert points(Gap(difference=0.012, low=0.004, high=0.02)) == "+1.2 points (95 % interval +0.4 to +2.0)"
    narrow = points(Gap(difference=-0.0004, low=-0.0012, high=0.0004), "McNemar p = .300")
    assert narrow == "-0.04 points (95 % interval -0.12 to +0.04, McNemar p = .300)"
    assert points(Gap(difference=-0.0001, low=-0.01, high=0.01)).startswith("+0.0 points")


# Real model folders


@pytest.fixture(scope="module")
def comparison(text_model: Path, image_model: Path, tiny_catalog: Catalog) -> Comparison:
    return compare([text_model, image_model], tiny_catalog, threads=1, say=quiet)


def test_the_table_has_the_figures_of_a_report_and_what_a_model_costs(
    comparison: Comparison, text_model: Path, tiny_catalog: Catalog
) -> None:
    report = evaluate(text_model, tiny_catalog, say=quiet, threads=1)
    first = comparison.models[0]
    assert first.figures == report.figures
    assert first.model_version == report.model_version
    assert (comparison.n, comparison.n_unlabelled) == (report.n, 0)
    manifest = json.loads((text_model / "manifest.json").read_text())
    files = ["manifest.json", *manifest["files"]]
    assert first.core_bytes == sum((text_model / name).stat().st_size for name in files)
    assert 0 < first.latency.p50_ms <= first.latency.p95_ms
    assert first.latency.n == report.n
    assert first.products_per_s == pytest.approx(report.n / first.seconds, rel=0.02)
    assert first.figures.value_score is None
    assert comparison.values_from is None
    assert any("No values" in note for note in comparison.notes)
    assert [pair.challenger for pair in comparison.pairs] == [m.name for m in comparison.models[1:]]


def test_products_that_a_model_cannot_answer_count_as_wrong(comparison: Comparison) -> None:
    picture = comparison.models[1].figures
    assert picture.coverage is not None
    assert picture.coverage < 1  # a third of the products have no picture
    [pair] = comparison.pairs
    right = [round((m.figures.accuracy or 0) * comparison.n) for m in comparison.models]
    assert pair.n_gained - pair.n_lost == right[1] - right[0]
    assert pair.n_differing >= pair.n_gained + pair.n_lost
    assert {one.kind for one in pair.slices} <= {"branch", "modality", "source", "frequency"}


def test_the_same_model_exported_twice_is_called_the_same(
    text_model: Path, tiny_catalog: Catalog, embeddings_cache: Path, tmp_path: Path
) -> None:
    from shelver.train.folder import recorded_config
    from shelver.train.run import train

    copied, again = tmp_path / "copied", tmp_path / "again"
    shutil.copytree(text_model, copied)
    config = recorded_config(text_model)
    assert config is not None
    train(tiny_catalog, again, config, cache=embeddings_cache, say=quiet)
    found = compare([text_model, copied, again], tiny_catalog, threads=1, say=quiet)
    assert [pair.verdict for pair in found.pairs] == ["same", "same"]
    assert "copied is the same model as" in found.pairs[0].sentence
    assert all(pair.n_differing == 0 and not pair.warnings for pair in found.pairs)
    # Another version, as after an export by another release, and no other decision: that is enough.
    golden = read_golden(tiny_catalog, "test")
    one, other = (ask(m, tiny_catalog, "test", golden, name=m.name, threads=1, say=quiet) for m in (again, copied))
    [pair] = judge(one, [replace(other, model_version="another")], golden, [])
    assert pair.verdict == "same"
    assert "not one of 30 decisions differs" in pair.sentence


def test_a_comparison_survives_its_file_and_the_page_is_offline(comparison: Comparison, tmp_path: Path) -> None:
    file, page = write_comparison(comparison, tmp_path / "out", say=quiet)
    assert read_comparison(file) == comparison
    text = page.read_text(encoding="utf-8")
    for pair in comparison.pairs:
        assert pair.sentence.split(":")[0] in text
    assert text.count("<svg") == sum(pair.verdict != "same" for pair in comparison.pairs) > 0
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")
    file.write_text('{"format_version": 9}')
    with pytest.raises(InputError, match="is no comparison"):
        read_comparison(file)


def valued_catalog(folder: Path, rows: Sequence[str]) -> Catalog:
    feed = folder / "feed.csv"
    feed.write_text("product_id,title,category,split,value\n" + "".join(f"{row}\n" for row in rows))
    ingest(feed, folder / "catalog")
    return Catalog.open(folder / "catalog")


def test_a_category_is_worth_what_its_products_are_or_what_a_file_says(tmp_path: Path) -> None:
    rows = ["1,bar,Home > Bar,test,4", "2,bar,Home > Bar,test,", "3,lamp,Home > Lamps,test,2", "4,x,,test,9"]
    catalog = valued_catalog(tmp_path, [*rows, "5,bar,Home > Bar,train,1", "6,car,Toys > Cars,train,1"])
    golden = read_golden(catalog, "test")
    assert golden.value.tolist() == [2.5, 2.5, 2]
    assert (golden.values_from, golden.n_unlabelled) == ("products", 1)
    tree = catalog.taxonomy
    worth = np.zeros(tree.n_nodes)
    worth[golden.node[0]] = 7
    golden = read_golden(catalog, "test", worth)
    assert golden.value.tolist() == [7, 7, 0]
    assert golden.values_from == "file"
    for impossible in (np.zeros(tree.n_nodes), worth - 1, worth * np.nan):
        with pytest.raises(InputError, match="values that are below 0"):
            read_golden(catalog, "test", impossible)
    with pytest.raises(CatalogError, match="no labelled product in its validation split"):
        read_golden(catalog, "validation")


def test_models_must_know_the_categories_and_be_whole_before_anything_is_asked(
    text_model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    stranger = valued_catalog(tmp_path, ["1,bar,Garden > Shed,test,4", "2,bar,Home > Lamps,train,"])
    with pytest.raises(CatalogError, match=r"'Garden > Shed', are not in the tree"):
        compare([text_model, text_model], stranger, threads=1, say=quiet)
    told: list[str] = []
    with pytest.raises(ModelError):
        compare([text_model, tmp_path / "nothing"], tiny_catalog, threads=1, say=told.append)
    assert not told
    with pytest.raises(InputError, match="no model"):
        compare([], tiny_catalog)


def test_decisions_in_different_trees_are_told_apart_by_their_ids(seven: Taxonomy) -> None:
    names = ["Toys", "Home", "Garden", "Cars", "Chairs", "Lamps", "Bar", "Deck"]
    other = Taxonomy.from_parents(names, names, [None, None, None, 0, 1, 1, 4, 4])
    golden = golden_of(seven, np.array([BAR, DECK, LAMPS, CARS], np.int32))
    one = answers_of("A", golden, np.array([True] * 4))
    said = other.indices(["Bar", "Bar", "Garden", "Cars"])
    said[3] = -1
    assert differing(one, replace(one, tree=other, node=said)).tolist() == [False, True, True, True]
    unanswered = replace(one, node=np.array([BAR, DECK, LAMPS, -1], np.int32))
    assert not differing(
        unanswered, replace(one, tree=other, node=other.indices(["Bar", "Deck", "Lamps", "Cars"]))
    )[:3].any()
    empty = replace(one, tree=other, node=np.full(4, -1, np.int32))
    assert differing(unanswered, empty).tolist() == [True, True, True, False]


def test_names_are_as_long_as_they_must_be() -> None:
    assert model_names([Path("models/a"), Path("models/b")]) == ["a", "b"]
    assert model_names([Path("x/best"), Path("y/best")]) == ["x/best", "y/best"]
    assert model_names([Path("x/best"), Path("x/best")]) == ["best", "best (2)"]


def test_the_command_prints_the_verdict_and_writes_what_it_is_told_to(
    text_model: Path,
    image_model: Path,
    tiny_catalog: Catalog,
    empty_settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shelver", "compare", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    folder = tiny_catalog.folder
    values = empty_settings / "values.csv"
    values.write_text("path,value\nToys > Cars,30\n")
    out = empty_settings / "out"
    status, said, _ = run(text_model, image_model, folder, "--values", values, "--out", out)
    assert status == 0
    assert image_model.name in said
    assert "accuracy" in said
    assert "value" in said
    assert (out / "compare.json").is_file()
    assert (out / "compare.html").is_file()
    written = read_comparison(out / "compare.json")
    assert written.values_from == "file"
    gap = written.pairs[0].value
    assert gap is not None
    first, second = (model.figures.value_score or 0 for model in written.models)
    assert gap.difference == pytest.approx(second - first, abs=2e-6)
    report = evaluate(image_model, tiny_catalog, values=values, say=quiet, threads=1)
    assert report.value_score == second
    status, said, told = run(image_model, text_model, folder, "--split", "validation", "--json")
    record = json.loads(said)
    assert record["split"] == "validation"
    assert record["notes"][0].startswith("The validation split is no test")
    assert "asking" in told
    status, _, told = run(text_model, folder)
    assert status == 2
    assert "two models or more" in told
    status, _, told = run(text_model, image_model, folder, "--out", text_model)
    assert status == 2
    assert registry.read_manifest(text_model).model_version
