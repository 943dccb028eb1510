"""The network: bags, branches and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shelver.ngrams import Ngrams
from shelver.pipeline import padded
from shelver.train.model import ImageBranch, NgramTable, PaddedNgramTable, TextBranch, TreeHead
from shelver.train.optim import RowAdagrad


def head(*, text: bool = True, image: bool = True) -> TreeHead:
    torch.manual_seed(0)
    text_branch = TextBranch(6, 16, 9, 0.5) if text else None
    image_branch = ImageBranch(torch.randn(5), torch.rand(5) + 0.5, 16, 9, 0.5) if image else None
    return TreeHead(text_branch, image_branch, 16, 9).eval()


def ones(n: int, value: float = 1.0) -> Tensor:
    return torch.full((n, 1), value)


def test_padded_rectangles_give_the_same_sums_as_the_embedding_bag() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    table = NgramTable(50, 8)
    lengths = np.array([0, 1, 40, 3, 0, 200, 7, 7])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    bags = Ngrams(
        rng.integers(0, 50, lengths.sum(), dtype=np.int32), rng.random(lengths.sum(), np.float32), offsets
    )
    with torch.inference_mode():
        expected = table(
            torch.from_numpy(bags.ids).long(), torch.from_numpy(bags.weights), torch.from_numpy(offsets)
        ).numpy()
        found = np.full_like(expected, np.nan)
        for rows, ids, weights in padded(bags, np.arange(len(lengths))):
            found[rows] = PaddedNgramTable(table)(torch.from_numpy(ids), torch.from_numpy(weights)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[0] == 0).all()


@pytest.mark.parametrize(("text", "image"), [(True, True), (True, False), (False, True)])
def test_what_is_absent_does_not_matter_at_all(text: bool, image: bool) -> None:
    model = head(text=text, image=image)
    garbage = [(torch.randn(3, 6), torch.randn(3, 5)) for _ in range(2)]
    values = torch.randn(3, 6), torch.randn(3, 5)
    with torch.inference_mode():
        if text and image:
            for noise_text, noise_image in garbage:
                assert torch.equal(
                    model(values[0], ones(3), noise_image, ones(3, 0)),
                    model(values[0], ones(3), torch.zeros(3, 5), ones(3, 0)),
                )
                assert torch.equal(
                    model(noise_text, ones(3, 0), values[1], ones(3)),
                    model(torch.zeros(3, 6), ones(3, 0), values[1], ones(3)),
                )
        nothing = model(
            garbage[0][0] if text else None,
            ones(3, 0) if text else None,
            garbage[0][1] if image else None,
            ones(3, 0) if image else None,
        )
    assert (nothing == 0).all()


def test_a_missing_picture_is_not_a_blank_one() -> None:
    model = head()
    blank = torch.zeros(1, 5)
    with torch.inference_mode():
        missing = model(torch.ones(1, 6), ones(1), blank, ones(1, 0))
        seen = model(torch.ones(1, 6), ones(1), blank, ones(1))
    assert not torch.allclose(missing, seen)


def test_both_together_are_more_than_the_sum() -> None:
    model = head()
    text, image = torch.randn(2, 6), torch.randn(2, 5)
    with torch.inference_mode():
        both = model(text, ones(2), image, ones(2))
        apart = model(text, ones(2), image, ones(2, 0)) + model(text, ones(2, 0), image, ones(2))
    assert not torch.allclose(both, apart)


def test_rows_do_not_see_each_other() -> None:
    model = head()
    text, image = torch.randn(4, 6), torch.randn(4, 5)
    present = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    with torch.inference_mode():
        together = model(text, ones(4) - present, image, present)
        alone = [
            model(text[i : i + 1], ones(1) - present[i : i + 1], image[i : i + 1], present[i : i + 1])
            for i in range(4)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-5)


def test_the_rows_that_a_step_does_not_touch_stay_as_they_are() -> None:
    torch.manual_seed(0)
    table = NgramTable(10, 4)
    before = table.bag.weight.detach().clone()
    optimizer = RowAdagrad(table.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        ids = torch.tensor([2, 7, 2])
        table(ids, torch.ones(3), torch.tensor([0, 2, 3])).square().sum().backward()
        optimizer.step()
    moved = (table.bag.weight.detach() != before).any(dim=1)
    assert moved.nonzero().squeeze(1).tolist() == [2, 7]


def test_row_adagrad_is_adagrad_with_the_mean_square_of_each_row() -> None:
    torch.manual_seed(0)
    table = NgramTable(5, 4)
    expected = table.bag.weight.detach().clone().double()
    squares = torch.zeros(5, dtype=torch.float64)
    optimizer = RowAdagrad(table.parameters(), lr=0.05)
    for step in range(5):
        ids = torch.tensor([step % 5, 3, 3])
        weights = torch.tensor([0.5, 1.0, 2.0])
        target = torch.randn(2, 4)
        optimizer.zero_grad(set_to_none=True)
        (table(ids, weights, torch.tensor([0, 2, 3])) - target).square().sum().backward()
        assert table.bag.weight.grad is not None
        gradient = table.bag.weight.grad.to_dense().double()
        optimizer.step()
        squares += gradient.square().mean(dim=1)
        touched = squares > 0
        expected[touched] -= 0.05 * gradient[touched] / squares[touched].sqrt()[:, None]
        torch.testing.assert_close(table.bag.weight.detach().double(), expected, atol=1e-6, rtol=1e-5)
