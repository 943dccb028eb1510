from __future__ import annotations

import random
import time
import tracemalloc
from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from shelver.catalog.near import NEAR_JACCARD, jaccard, near_groups
from shelver.catalog.split import PARTS, UNKNOWN, Split, Ties
from shelver.errors import ConfigError


def words(seed: int, n: int = 400) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice("aeioulnrstmd") for _ in range(rng.randint(3, 9))) for _ in range(n)]


def titles(n: int, seed: int = 0) -> list[str]:
    """Titles of some words; about a third is another title with a slip of the keyboard."""
    rng, vocabulary = random.Random(seed), words(seed)
    found: list[str] = []
    while len(found) < n:
        if found and rng.random() < 0.35:
            title = rng.choice(found)
            at = rng.randrange(len(title))
            found.append(title[:at] + rng.choice(["", "s", " ", "x"]) + title[at + rng.randint(0, 1) :])
        else:
            found.append(" ".join(rng.choice(vocabulary) for _ in range(rng.randint(1, 9))))
    return sorted({" ".join(title.split()) for title in found} - {""})


def components(keys: list[str]) -> set[frozenset[int]]:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(keys)))
    graph.add_edges_from(
        (a, b) for a, b in combinations(range(len(keys)), 2) if jaccard(keys[a], keys[b]) >= NEAR_JACCARD
    )
    return {frozenset(component) for component in nx.connected_components(graph)}


def as_sets(group: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(group == g).tolist()) for g in np.unique(group)}


@pytest.mark.parametrize("seed", range(2))
def test_near_groups_are_the_components_that_comparing_all_pairs_finds(seed: int) -> None:
    keys = titles(450, seed)
    found = near_groups(keys)
    assert as_sets(found.group) == components(keys)
    assert found.exhaustive
    assert len(np.unique(found.group)) < len(keys) - 40


def test_long_runs_of_alike_titles_are_still_compared_exactly() -> None:
    # One template: all share most shingles, so MinHash bands hold thousands of them.
    rng, vocabulary = random.Random(1), words(1)
    keys = sorted(
        {
            f"genuine replacement cover for the famous {rng.choice(vocabulary)} {rng.randint(0, 99)} by acme ltd"
            for _ in range(1_500)
        }
    )
    # Such titles are one chain; where it must not take everything, the stricter thresholds part it.
    whole = near_groups(keys)
    assert whole.n_narrowed == 0
    assert np.bincount(whole.group).max() > 0.3 * len(keys)
    found = near_groups(keys, capacity=0.1 * len(keys))
    assert found.n_narrowed > 0.3 * len(keys)
    assert np.bincount(found.group).max() <= 0.1 * len(keys)
    assert np.array_equal(found.whole, whole.group)


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("chocolate sandwich cookies", "chocolate sandwich cookie", True),
        ("nike men navy blue polo shirt", "nike men navy blue polo shirts", True),
        ("nike men navy blue polo shirt", "nike men dark red polo shirt", False),
        ("a", "b", False),
        ("ab", "abab", False),
        ("日本 茶", "日本 茶碗", False),
    ],
)
def test_a_plural_is_near_and_another_colour_is_not(one: str, other: str, near: bool) -> None:
    group = near_groups([one, other]).group
    assert (group[0] == group[1]) == near == (jaccard(one, other) >= NEAR_JACCARD)


def test_odd_keys_are_no_trouble() -> None:
    keys = ["", "a", "\ud800 half", "x" * 20_000, "x" * 20_001, "𐍈" * 3]
    found = near_groups(keys[1:])
    assert len(found.group) == 5
    assert found.group[2] == found.group[3]  # only the first 512 characters are looked at
    assert near_groups([]).group.shape == (0,)


def test_no_group_is_on_two_sides_and_the_proportions_come_out() -> None:
    ties = Ties()
    rng = random.Random(5)
    keys = titles(3_000, 7)
    pictures = [bytes([rng.randrange(256)]) * 32 for _ in range(200)]
    rows = []
    for number in range(4_000):
        key = rng.choice(keys) if rng.random() < 0.9 else ""
        shown = [rng.choice(pictures)] if rng.random() < 0.02 else []
        rows.append((key, shown))
        ties.add(key, shown, identity=str(number))
    parts, report = ties.deal(Split.parse("80/10/10"))
    assert np.bincount(parts, minlength=3).tolist() == [3200, 400, 400]
    by_key: dict[object, set[int]] = {}
    for (key, shown), part in zip(rows, parts.tolist(), strict=True):
        for tie in [key] if key else []:
            by_key.setdefault(tie, set()).add(part)
        for picture in shown:
            by_key.setdefault(picture, set()).add(part)
    assert all(len(sides) == 1 for sides in by_key.values())
    side = {key: next(iter(sides)) for key, sides in by_key.items() if isinstance(key, str)}
    present = sorted(side)
    group = near_groups(present).group
    assert all(len({side[present[i]] for i in members}) == 1 for members in as_sets(group))
    assert (report.leaking_products, report.leaking_titles, report.leaking_pictures) == (0, 0, 0)


def templated(n_of_template: int, n_others: int) -> list[str]:
    """Titles of one chain of near-equal ones, and others."""
    chain = [f"genuine replacement cover for the famous no {i:03d} by acme ltd" for i in range(n_of_template)]
    return chain + [f"{a} {b}" for a, b in zip(words(10, n_others), words(11, n_others), strict=True)]


def test_a_chain_of_templated_titles_that_train_can_hold_stays_whole() -> None:
    keys = templated(240, 120)
    ties = Ties()
    for key in keys:
        ties.add(key, [], identity=key)
    parts, report = ties.deal(Split.parse("80/10/10"))
    assert np.bincount(parts, minlength=3).tolist() == [288, 36, 36]
    assert set(parts[:240].tolist()) == {0}
    assert (report.n_narrowed, report.largest_group, report.leaking_products) == (0, 240, 0)
    near = [(a, b) for a, b in combinations(range(len(keys)), 2) if parts[a] != parts[b]]
    assert all(jaccard(keys[a], keys[b]) < NEAR_JACCARD for a, b in near)


def test_what_no_part_can_hold_is_narrowed_and_its_leaks_are_counted() -> None:
    keys = templated(300, 10)
    ties = Ties()
    for key in keys:
        ties.add(key, [], identity=key)
    parts, report = ties.deal(Split.parse("80/10/10"))
    assert report.n_narrowed == 300
    assert report.leaking_products >= (parts[:300] > 0).sum() > 0
    assert np.abs(np.bincount(parts, minlength=3) - [248, 31, 31]).max() <= 1
    own, kept = ties.respect(parts)
    assert np.array_equal(own, parts)
    assert (kept.n_narrowed, kept.leaking_products) == (0, report.leaking_products)


def test_products_count_and_not_titles_where_a_chain_must_fit() -> None:
    keys = templated(40, 40)
    ties = Ties()
    for number, key in enumerate(keys[:40] * 10 + keys[40:]):  # half of the titles, ten elevenths of the products
        ties.add(key, [], identity=str(number))
    assert ties.deal(Split.parse("80/10/10"))[1].n_narrowed == 40


def test_what_ties_products_takes_little_memory() -> None:
    ties = Ties()
    tracemalloc.start()
    try:
        for number in range(50_000):
            ties.add("the same title", [bytes(32)], identity=str(number))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / 50_000 < 40  # bytes: four numbers of eight, and room to grow


def test_the_order_of_the_rows_does_not_change_the_split() -> None:
    keys = titles(500, 3)
    sides: list[dict[str, int]] = []
    for seed in (0, 1):
        order = list(keys)
        random.Random(seed).shuffle(order)
        ties = Ties()
        for key in order:
            ties.add(key, [], identity=key)
        parts, _ = ties.deal(Split())
        sides.append(dict(zip(order, parts.tolist(), strict=True)))
    assert sides[0] == sides[1]


@pytest.mark.parametrize("wish", ["100/0/0", "0/0/100", "90/10/0", "0/50/50"])
def test_a_part_may_be_nothing(wish: str) -> None:
    ties = Ties()
    for key in titles(300):
        ties.add(key, [], identity=key)
    parts, _ = ties.deal(Split.parse(wish))
    counts = np.bincount(parts, minlength=3) / len(parts)
    assert np.abs(counts * 100 - Split.parse(wish).shares).max() < 1


@pytest.mark.parametrize("text", ["80/20", "80/10/11", "80/10/-10", "a/b/c", "", "80/10/10/0", "33.3/33.3/33.4"])
def test_a_wrong_split_is_an_error_that_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match="sum to 100"):
        Split.parse(text)


def test_a_feeds_own_split_stays_and_its_leaks_are_counted() -> None:
    ties = Ties()
    rows = [
        ("red cotton shirt for men", "train"),
        ("red cotton shirt for men", "test"),  # an equal title on the other side
        ("chocolate sandwich cookies", "train"),
        ("chocolate sandwich cookie", "validation"),  # a near one
        ("garden chair", "test"),
        ("garden chair", None),  # follows its twin
        ("lonely lamp", None),  # goes to train
    ]
    for number, (key, _) in enumerate(rows):
        ties.add(key, [], identity=str(number))
    own = np.array([UNKNOWN if part is None else PARTS.index(part) for _, part in rows])
    parts, report = ties.respect(own)
    assert [PARTS[p] for p in parts] == ["train", "test", "train", "validation", "test", "test", "train"]
    assert (report.method, report.leaking_products, report.leaking_titles) == ("own", 2, 1)
    assert report.n_placed == 2


def test_pictures_tie_products_whatever_their_titles_say() -> None:
    ties = Ties()
    for number in range(40):
        ties.add(f"title {words(number, 1)[0]} {number}", [b"p" * 32 if number % 2 else b""], identity=str(number))
    parts, _ = ties.deal(Split.parse("50/0/50"))
    assert len(set(parts[1::2].tolist())) == 1


def test_forty_thousand_titles_are_grouped_in_seconds() -> None:
    keys = titles(40_000, 11)
    started = time.monotonic()
    near_groups(keys)
    assert time.monotonic() - started < 15


@pytest.mark.drill
@pytest.mark.parametrize("template", ["item {i}", "product number {i:06d} of the catalog", "{a} {b} {i}"])
def test_two_hundred_thousand_titles_take_less_than_a_minute(template: str) -> None:
    rng, vocabulary = random.Random(0), words(0)
    keys = sorted(
        {template.format(i=i, a=rng.choice(vocabulary), b=rng.choice(vocabulary)) for i in range(200_000)}
    )
    started = time.monotonic()
    near_groups(keys, capacity=0.8 * len(keys))  # narrowed where it is one chain: the longest way
    assert time.monotonic() - started < 60
