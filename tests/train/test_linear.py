"""The wide linear part, against scikit-learn's LIBLINEAR."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.svm import LinearSVC

from shelver.ngrams import Ngrams, NgramSpec, Vocabulary
from shelver.train.linear import COST, Linear, Targets, fit_linear

WORDS = ["bar", "stool", "deck", "chair", "lamp", "shade", "racing", "car", "toy", "oak", "red", "blue", "small"]
N_LABELS = 4


def problem(n: int = 300, seed: int = 0) -> tuple[Ngrams, NDArray[np.intp], int]:
    """Short texts whose words depend on the label, with some noise; every text of length 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_LABELS, n)
    texts = [" ".join(rng.choice([*WORDS, *(WORDS[3 * k : 3 * k + 3] * 4)], 5)) for k in labels]
    vocabulary = Vocabulary.fit(texts, NgramSpec(), min_count=2, max_features=2_000)
    return vocabulary.weigh(texts), labels.astype(np.intp), len(vocabulary)


def sparse(ngrams: Ngrams, n_features: int) -> csr_matrix:
    return csr_matrix((ngrams.weights, ngrams.ids, ngrams.offsets), shape=(len(ngrams), n_features))


def scores_of(linear: Linear, ngrams: Ngrams, dense: NDArray[np.float32] | None) -> NDArray[np.float32]:
    scores = linear.of_ngrams(ngrams) + linear.bias
    if dense is not None and linear.dense is not None:
        scores = scores + dense @ linear.dense
    return scores


@pytest.mark.parametrize("with_dense", [False, True], ids=["n-grams", "n-grams and a dense vector"])
def test_the_scores_are_those_of_liblinear_after_enough_passes(with_dense: bool) -> None:
    ngrams, labels, n_features = problem()
    matrix = sparse(ngrams, n_features)
    dense = None
    if with_dense:
        vectors = np.random.default_rng(1).normal(size=(len(ngrams), 6))
        dense = (0.7 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        matrix = hstack([matrix, csr_matrix(dense)]).tocsr()
    ours = fit_linear(ngrams, Targets.of_one(labels, N_LABELS), n_features=n_features, dense=dense, passes=150)
    theirs = LinearSVC(C=COST, tol=1e-8, max_iter=100_000).fit(matrix, labels)
    np.testing.assert_allclose(scores_of(ours, ngrams, dense), theirs.decision_function(matrix), atol=5e-3)


def test_ten_passes_rank_the_labels_as_liblinear_does() -> None:
    ngrams, labels, n_features = problem(400)
    ours = scores_of(fit_linear(ngrams, Targets.of_one(labels, N_LABELS), n_features=n_features), ngrams, None)
    matrix = sparse(ngrams, n_features)
    theirs = LinearSVC(C=COST, tol=1e-8, max_iter=100_000).fit(matrix, labels).decision_function(matrix)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.98


def test_the_same_seed_gives_the_same_weights_and_another_order_others() -> None:
    ngrams, labels, n_features = problem(100)

    def weights(seed: int) -> bytes:
        found = fit_linear(ngrams, Targets.of_one(labels, N_LABELS), n_features=n_features, passes=2, seed=seed)
        return found.weight.tobytes() + found.bias.tobytes()

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


def test_a_label_without_products_is_never_the_answer() -> None:
    ngrams, labels, n_features = problem(200)
    found = fit_linear(ngrams, Targets.of_one(labels, N_LABELS + 2), n_features=n_features)
    assert np.isfinite(found.weight).all()
    scores = scores_of(found, ngrams, None)
    assert (scores.argmax(axis=1) < N_LABELS).all()
    assert (scores[:, N_LABELS:] < 0).all()
    # The other labels do not notice it: each has weights of its own.
    alone = fit_linear(ngrams, Targets.of_one(labels, N_LABELS), n_features=n_features)
    np.testing.assert_allclose(found.weight[:, :N_LABELS], alone.weight, atol=1e-5)


def test_texts_without_ngrams_are_scored_by_the_bias_alone() -> None:
    empty = Ngrams(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(4, np.int64))
    found = fit_linear(empty, Targets.of_one(np.array([0, 0, 1]), 2), n_features=1)
    assert found.weight.tolist() == [[0.0, 0.0]]
    assert found.bias[0] > found.bias[1]
    assert (
        fit_linear(empty.rows(np.zeros(0, np.intp)), Targets.of_one(np.zeros(0, np.intp), 2), n_features=1).dense
        is None
    )


def test_progress_is_told_a_pass_at_a_time() -> None:
    ngrams, labels, n_features = problem(30)
    told: list[int] = []
    fit_linear(ngrams, Targets.of_one(labels, N_LABELS), n_features=n_features, passes=3, tell=told.append)
    assert told == [1, 2, 3]
