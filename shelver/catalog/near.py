"""Which titles are nearly equal: groups of keys that must not be parted.

Two keys are *near-equal* when the Jaccard similarity of their shingle sets is at least `NEAR_JACCARD`. The
shingles of a key are the 3-grams of its first `SHINGLED_CHARS` characters with a space put before and after.
A typo or a plural in a title of some words stays above the threshold, another colour or size mostly falls
below it.

Groups are the connected components, so no two near-equal keys are in different groups. Chains can make a
component swallow a catalog of templated titles ("… blue …", "… light blue …"). One that is larger than the
caller can place whole is looked at again with the stricter thresholds of `LADDER`, up to "equal only".
`NearGroups.n_narrowed` counts the keys that this concerned, and `NearGroups.whole` still has the components as
they were, so that what was parted can be counted.

Candidates come from MinHash bands (rensa): a pair at the threshold is missed with probability 4e-8, a pair
above it more seldom. Every candidate is then verified exactly. Catalogs of
numbered titles ("Item 000123 of our catalog") have billions of candidates: after a budget of pairs only
neighbours are compared, and `NearGroups.exhaustive` says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import rensa
from numpy.typing import NDArray

NEAR_JACCARD = 0.85
LADDER = (0.9, 0.95)
MIN_NARROWED = 20
"""Fewer keys are never parted, whatever share of a tiny catalog they are."""
SHINGLED_CHARS = 512

_BAND_ROWS = 6
_BANDS_A_BLOCK = 6
_N_BLOCKS = 6  # 36 bands of 6 rows: (1 - 0.85**6)**36 = 4e-8
_ROWS_A_CHUNK = 16_384
_MAX_RUN = 512  # longer runs are parted by their rare shingles before pairs are formed
_MAX_PAIRS = 1 << 18
_MIN_BUDGET = 20_000_000
_BUDGET_A_KEY = 500
_LONG = 128  # shingles; above it single rare shingles are selective enough, and pairs of them too many

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearGroups:
    """Groups of near-equal keys.

    Attributes:
        group: shape (N,), int64; equal numbers are one group; the number is the least index of a member.
        whole: likewise, before any component was narrowed.
        n_narrowed: keys in components that were too large and were parted by a stricter threshold.
        exhaustive: False where the budget of pairs ran out.
    """

    group: Ints
    whole: Ints
    n_narrowed: int
    exhaustive: bool


@dataclass(slots=True)
class _Budget:
    """How many candidate pairs may still be looked at."""

    pairs: int


@dataclass(frozen=True, slots=True)
class _Shingles:
    """Shingle sets, one a key, as ranks by rarity (0 is the rarest), ascending, concatenated.

    Attributes:
        ranks: (S,) int32. starts, sizes: (N,) int64.
        sketch: (N, 4) uint64; bit j is the parity of the shingles that hash to j. Two sketches differ in at
            most as many bits as the sets differ in shingles, which makes a cheap and safe first test.
    """

    ranks: NDArray[np.int32]
    starts: Ints
    sizes: Ints
    sketch: NDArray[np.uint64]


def near_groups(keys: Sequence[str], *, weight: Ints | None = None, capacity: float = math.inf) -> NearGroups:
    """Groups distinct title keys so that near-equal keys are together.

    Args:
        keys: N distinct, non-empty keys, sorted; 200,000 take some ten seconds and 300 MB.
        weight: what each key counts for `capacity`, shape (N,); 1 where not said.
        capacity: the largest group that can stay whole.
    """
    n = len(keys)
    everyone = np.arange(n, dtype=np.int64)
    if n < 2:
        return NearGroups(everyone, everyone, 0, True)
    shingles = _shingles(keys)
    budget = _Budget(max(_MIN_BUDGET, _BUDGET_A_KEY * n))
    whole = _components(shingles, NEAR_JACCARD, budget)
    group = whole.copy()
    narrowed = 0
    for threshold in (*LADDER, None):
        size = np.bincount(group, weight, minlength=n)
        too_large = (size > capacity) & (np.bincount(group, minlength=n) > MIN_NARROWED)
        for giant in np.flatnonzero(too_large):
            members = np.flatnonzero(group == giant)
            if threshold == LADDER[0]:
                narrowed += len(members)
            if threshold is None:
                group[members] = members
            else:
                group[members] = members[_components(_subset(shingles, members), threshold, budget)]
    return NearGroups(group, whole, narrowed, budget.pairs > 0)


def jaccard(a: str, b: str) -> float:
    """The similarity that the definition speaks of, for two keys, in [0, 1]."""
    one, other = _shingle_set(a), _shingle_set(b)
    return len(one & other) / len(one | other)


def _shingle_set(key: str) -> set[str]:
    padded = f" {key[:SHINGLED_CHARS]} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _shingles(keys: Sequence[str]) -> _Shingles:
    chunks = [_codes(keys[at : at + _ROWS_A_CHUNK]) for at in range(0, len(keys), _ROWS_A_CHUNK)]
    seen = [np.unique(codes, return_counts=True) for codes, _ in chunks]
    vocabulary, inverse = np.unique(np.concatenate([codes for codes, _ in seen]), return_inverse=True)
    counts = np.bincount(inverse, np.concatenate([count for _, count in seen]))
    rank = np.empty(len(vocabulary), np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(vocabulary))
    ranks: list[NDArray[np.int32]] = []
    sketches: list[NDArray[np.uint64]] = []
    sizes = np.concatenate([sizes for _, sizes in chunks])
    for _ in range(len(chunks)):
        codes, chunk_sizes = chunks.pop(0)  # popped, so that the memory goes as it is replaced
        found, sketch = _by_rarity(rank[np.searchsorted(vocabulary, codes)], chunk_sizes)
        ranks.append(found)
        sketches.append(sketch)
    return _Shingles(np.concatenate(ranks), np.cumsum(sizes) - sizes, sizes, np.concatenate(sketches))


def _codes(keys: Sequence[str]) -> tuple[NDArray[np.uint64], Ints]:
    """The distinct shingles of each key, concatenated, and how many each key has."""
    padded = [f" {key[:SHINGLED_CHARS]} " for key in keys]
    # Three code points of 21 bits fill 63 bits, so a code is the shingle itself and no hash of it.
    chars = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded], np.int64)
    codes = (chars[:-2] << np.uint64(42)) | (chars[1:-1] << np.uint64(21)) | chars[2:]
    row = np.repeat(np.arange(len(padded)), lengths)[:-2]
    inside = np.ones(len(codes), bool)  # not across the seam of two keys
    ends = np.cumsum(lengths)[:-1]
    inside[ends - 1] = inside[ends - 2] = False
    codes, row = codes[inside], row[inside]
    order = np.lexsort((codes, row))
    codes, row = codes[order], row[order]
    new = np.ones(len(codes), bool)
    new[1:] = (codes[1:] != codes[:-1]) | (row[1:] != row[:-1])
    return codes[new], np.bincount(row[new], minlength=len(padded)).astype(np.int64)


def _by_rarity(ranks: NDArray[np.int32], sizes: Ints) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """The ranks in ascending order within each set, and the sketches."""
    row = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    ranks = ranks[np.lexsort((ranks, row))]
    mixed = _mixed(ranks.astype(np.uint64))
    bit = np.uint64(1) << (mixed & np.uint64(63))
    word = (mixed >> np.uint64(6)) & np.uint64(3)
    sketch = np.zeros((len(sizes), 4), np.uint64)
    for w in range(4):
        sketch[:, w] = np.bitwise_xor.reduceat(np.where(word == w, bit, np.uint64(0)), np.cumsum(sizes) - sizes)
    return ranks, sketch


def _subset(shingles: _Shingles, members: Ints) -> _Shingles:
    sizes = shingles.sizes[members]
    ranks = shingles.ranks[_gather(shingles.starts[members], sizes)]
    return _Shingles(ranks, np.cumsum(sizes) - sizes, sizes, shingles.sketch[members])


def _gather(starts: Ints, sizes: Ints) -> Ints:
    """Positions of several slices, one after the other."""
    shift = starts - (np.cumsum(sizes) - sizes)
    return np.repeat(shift, sizes) + np.arange(int(sizes.sum()), dtype=np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: a bijection, so that neighbouring numbers become unrelated bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _components(shingles: _Shingles, threshold: float, budget: _Budget) -> Ints:
    """Connected components of "Jaccard >= threshold"; the label is the least index of a member."""
    labels = np.arange(len(shingles.sizes), dtype=np.int64)
    waiting: list[tuple[Ints, Ints]] = []
    n_waiting = 0
    for a, b in _candidates(shingles, threshold, labels, budget):
        apart = (labels[a] != labels[b]) & _may_be_near(shingles, a, b, threshold)
        waiting.append((a[apart], b[apart]))
        n_waiting += int(apart.sum())
        if n_waiting >= _MAX_PAIRS // 16:
            _join(shingles, labels, waiting, threshold)
            waiting, n_waiting = [], 0
    _join(shingles, labels, waiting, threshold)
    return labels


def _join(shingles: _Shingles, labels: Ints, pairs: list[tuple[Ints, Ints]], threshold: float) -> None:
    """Verifies the waiting pairs and unites the true ones; changes `labels`."""
    if not pairs:
        return
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    for at in range(0, len(a), _MAX_PAIRS // 16):
        x, y = a[at : at + _MAX_PAIRS // 16], b[at : at + _MAX_PAIRS // 16]
        apart = labels[x] != labels[y]
        x, y = x[apart], y[apart]
        if len(x):
            near = _are_near(shingles, x, y, threshold)
            unite(labels, x[near], y[near])


def unite(labels: Ints, a: Ints, b: Ints) -> None:
    """Unites the groups of a[i] and b[i] for all i; changes `labels`. A group's label is its least index."""
    while len(a):
        one, other = labels[a], labels[b]
        apart = one != other
        a, b, one, other = a[apart], b[apart], one[apart], other[apart]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while True:
            shorter = labels[labels]
            if np.array_equal(shorter, labels):
                break
            labels[:] = shorter


def _may_be_near(shingles: _Shingles, a: Ints, b: Ints, threshold: float) -> NDArray[np.bool_]:
    total = shingles.sizes[a] + shingles.sizes[b]
    # Jaccard >= t means that the sets differ in at most (1 - t) / (1 + t) of the sum of their sizes.
    most = (1 - threshold) / (1 + threshold) * total + 1e-9
    differing = np.bitwise_count(shingles.sketch[a] ^ shingles.sketch[b]).sum(axis=1)
    near: NDArray[np.bool_] = differing <= most
    return near


def _are_near(shingles: _Shingles, a: Ints, b: Ints, threshold: float) -> NDArray[np.bool_]:
    both = np.stack([a, b], axis=1).ravel()
    sizes = shingles.sizes[both]
    pair = np.repeat(np.arange(len(both), dtype=np.int64) // 2, sizes)
    tokens = np.sort((pair << 32) | shingles.ranks[_gather(shingles.starts[both], sizes)].astype(np.int64))
    twice = tokens[1:][tokens[1:] == tokens[:-1]] >> 32
    common = np.bincount(twice, minlength=len(a))
    union = shingles.sizes[a] + shingles.sizes[b] - common
    near: NDArray[np.bool_] = common >= threshold * union - 1e-9
    return near


def _candidates(
    shingles: _Shingles, threshold: float, labels: Ints, budget: _Budget
) -> Iterator[tuple[Ints, Ints]]:
    """Pairs that share a band of MinHashes, and that `labels` does not yet put together."""
    for block in range(_N_BLOCKS):
        bands = _band_hashes(shingles, seed=block + 1)
        for band in range(_BANDS_A_BLOCK):
            everyone = np.arange(len(shingles.sizes), dtype=np.int64)
            yield from _pairs_of_runs(shingles, everyone, bands[:, band], threshold, labels, budget, refine=True)


def _band_hashes(shingles: _Shingles, *, seed: int) -> NDArray[np.uint64]:
    n = len(shingles.sizes)
    bands = np.zeros((n, _BANDS_A_BLOCK), np.uint64)
    for at in range(0, n, _ROWS_A_CHUNK):
        sizes = shingles.sizes[at : at + _ROWS_A_CHUNK]
        first = shingles.starts[at]
        tokens = _mixed(shingles.ranks[first : first + int(sizes.sum())].astype(np.uint64))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            tokens, offsets, _BAND_ROWS * _BANDS_A_BLOCK, seed
        )
        digests = np.array(matrix.to_rows(), np.uint64).reshape(len(sizes), _BANDS_A_BLOCK, _BAND_ROWS)
        hashed = bands[at : at + _ROWS_A_CHUNK]
        for row in range(_BAND_ROWS):
            hashed[:] = _mixed(hashed ^ digests[:, :, row])
    return bands


def _pairs_of_runs(
    shingles: _Shingles,
    members: Ints,
    signature: NDArray[np.uint64],
    threshold: float,
    labels: Ints,
    budget: _Budget,
    *,
    refine: bool,
) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of members with an equal signature that `labels` does not yet put together."""
    order = np.argsort(signature, kind="stable")
    ordered, sorted_members = signature[order], members[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(ordered)))
    if refine and budget.pairs > 0:
        for start, length in zip(starts[lengths > _MAX_RUN], lengths[lengths > _MAX_RUN], strict=True):
            yield from _pairs_by_rare_shingles(
                shingles, sorted_members[start : start + length], threshold, labels, budget
            )
        starts, lengths = starts[lengths <= _MAX_RUN], lengths[lengths <= _MAX_RUN]
    several = lengths > 1
    starts, lengths = starts[several], lengths[several]
    at = _gather(starts, lengths)
    left = np.repeat(starts + lengths, lengths) - at  # members from here to the end of the run
    # Neighbours first: what they join need not be compared again.
    distance = 1
    while len(at) and (distance == 1 or budget.pairs > 0):
        keep = left > distance
        at, left = at[keep], left[keep]
        budget.pairs -= len(at)
        for piece in range(0, len(at), _MAX_PAIRS):
            a = sorted_members[at[piece : piece + _MAX_PAIRS]]
            b = sorted_members[at[piece : piece + _MAX_PAIRS] + distance]
            apart = labels[a] != labels[b]
            yield a[apart], b[apart]
        distance += 1


def _pairs_by_rare_shingles(
    shingles: _Shingles, members: Ints, threshold: float, labels: Ints, budget: _Budget
) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of a long run, such as ten thousand titles "Item 12345", without comparing all with all.

    Order the shingles of each set by their rarity within the run. Sets of n shingles that share at least
    o = ceil(threshold * n) of them share k among their first n - o + k: the prefix filter, exact. Long texts
    take k = 1, titles k = 2.

    Source:
        Wang, Li, Feng 2012, "Can we beat the prefix filtering?" (the k-prefix scheme).
    """
    sizes = shingles.sizes[members]
    n_shared = 1 if int(sizes.max()) > _LONG else 2
    tokens = shingles.ranks[_gather(shingles.starts[members], sizes)]
    row = np.repeat(np.arange(len(members), dtype=np.int64), sizes)
    _, inverse, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    order = np.lexsort((tokens, counts[inverse], row))
    tokens = tokens[order].astype(np.uint64)
    starts = np.cumsum(sizes) - sizes
    overlap = np.ceil(threshold * sizes - 1e-9).astype(np.int64)
    prefix = np.minimum(sizes - overlap + n_shared, sizes)
    longest = int(prefix.max())
    rows_of: list[Ints] = []
    signatures: list[NDArray[np.uint64]] = []
    for chosen in combinations(range(longest), n_shared):
        rows = np.flatnonzero(prefix > chosen[-1])
        picked = np.sort(np.stack([tokens[starts[rows] + place] for place in chosen], axis=1), axis=1)
        signature = np.zeros(len(rows), np.uint64)
        for column in range(n_shared):
            signature = _mixed(signature ^ picked[:, column])
        rows_of.append(rows)
        signatures.append(signature)
    rows, signature = np.concatenate(rows_of), np.concatenate(signatures)
    yield from _pairs_of_runs(shingles, members[rows], signature, threshold, labels, budget, refine=False)
