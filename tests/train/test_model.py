"""The network: bags, and experts that see what they look at and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shelver.ngrams import Ngrams
from shelver.pipeline import padded
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.export import PaddedBag
from shelver.train.model import (
    SHARPNESS,
    Expert,
    Head,
    HeadKind,
    ImageExpert,
    JointExpert,
    LevelScores,
    NgramTable,
    ProductModel,
    Sentence,
    TextExpert,
    WideExpert,
    beside_ngrams,
    label_slots,
    level_sizes,
)
from shelver.train.optim import RowAdagrad
from shelver.train.tasks import Tasks

LABELS = np.array([3, 4, 5, 6], np.int32)


@pytest.fixture
def groups(seven: Taxonomy) -> SiblingGroups:
    return SiblingGroups.of(seven, np.isin(np.arange(7), [1]))


def experts(groups: SiblingGroups, kind: HeadKind = "tree") -> dict[str, Expert]:
    """All kinds of experts: on a sentence vector (columns 0-2), n-grams (3-10) and label scores (11-14)."""
    torch.manual_seed(0)
    tasks = Tasks(groups)
    standard = torch.randn(3), torch.rand(3) + 0.5
    sentence = Sentence((0, 3), *standard)
    inside = torch.from_numpy(label_slots(groups, LABELS))
    mean, scale = torch.randn(5), torch.rand(5) + 0.5
    return {
        "text": TextExpert(8, tasks, 0.5, kind, sentence=sentence, ngrams=(3, 11)),
        "ngram": TextExpert(8, tasks, 0.5, kind, sentence=None, ngrams=(3, 11)),
        "sentence": TextExpert(8, tasks, 0.5, kind, sentence=Sentence((0, 3), *standard), ngrams=None),
        "image": ImageExpert(mean, scale, 16, tasks, 0.5, kind),
        "joint": JointExpert((0, 11), mean, scale, 16, tasks, 0.5, kind),
        "linear": WideExpert((11, 15), torch.randn(4), inside, sentence=sentence, dense=torch.randn(3, 4)),
    }


def head(groups: SiblingGroups, kind: HeadKind = "tree") -> Head:
    return Head(experts(groups, kind)).eval()


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
        for rows, ids, weights in padded(bags, np.arange(len(lengths)), 8):
            found[rows] = PaddedBag(table.bag.weight.detach())(
                torch.from_numpy(ids), torch.from_numpy(weights)
            ).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[0] == 0).all()


@pytest.mark.parametrize("kind", ["tree", "levels"])
def test_each_expert_sees_what_it_needs_and_nothing_else(groups: SiblingGroups, kind: HeadKind) -> None:
    model = head(groups, kind)
    text, image = torch.randn(3, 15), torch.randn(3, 5)
    other_text, other_image = torch.randn(3, 15), torch.randn(3, 5)
    with torch.inference_mode():
        seen = model(text, image)
        with_other_picture, with_other_text = model(text, other_image), model(other_text, image)
    for name, expert, *answers in zip(
        model.named(), model.named().values(), seen, with_other_picture, with_other_text, strict=True
    ):
        first, picture, words = answers
        assert first.shape == (3, groups.n_slots)
        assert torch.equal(first, picture) is (expert.needs == "text"), name
        assert torch.equal(first, words) is (expert.needs == "image"), name
    assert [expert.needs for expert in model.named().values()] == ["text"] * 3 + ["image", "both", "text"]


def test_each_text_expert_looks_at_its_own_columns(groups: SiblingGroups) -> None:
    model = head(groups)
    text = torch.randn(64, 15)
    columns = {"text": range(11), "ngram": range(3, 11), "sentence": range(3), "linear": [0, 1, 2, *range(11, 15)]}
    for name, of_expert in columns.items():
        expert = model.named()[name]
        for column in range(15):
            changed = text.clone()
            changed[:, column] += 1.0
            with torch.inference_mode():
                same = torch.equal(expert(changed, torch.zeros(64, 5)), expert(text, torch.zeros(64, 5)))
            assert same is (column not in of_expert), (name, column)


def test_both_together_are_more_than_the_sum(groups: SiblingGroups) -> None:
    joint = experts(groups)["joint"].eval()
    assert isinstance(joint, JointExpert)
    text, image = torch.randn(2, 15), torch.randn(2, 5)
    shown, hidden = torch.ones(2, 1), torch.zeros(2, 1)
    with torch.inference_mode():
        both = joint(text, image, shown, shown)
        assert torch.equal(both, joint(text, image))
        neither = joint(text, image, hidden, hidden)
        assert torch.equal(neither, joint(torch.randn(2, 15), torch.randn(2, 5), hidden, hidden))
        assert torch.equal(joint(text, image, shown, hidden), joint(text, torch.randn(2, 5), shown, hidden))
        assert not torch.equal(joint(text, image, shown, hidden), neither)


def test_what_the_joint_expert_learns_does_not_move_the_texts_vectors(groups: SiblingGroups) -> None:
    of_all = experts(groups)
    text, image = torch.randn(2, 15, requires_grad=True), torch.randn(2, 5)
    joint = of_all["joint"](text, image)
    joint.square().sum().backward()
    assert text.grad is None
    of_all["ngram"](text, image).square().sum().backward()
    assert text.grad is not None


def test_rows_do_not_see_each_other(groups: SiblingGroups) -> None:
    model = head(groups)
    text, image = torch.randn(4, 15), torch.randn(4, 5)
    with torch.inference_mode():
        together = model(text, image)
        alone = [model(text[i : i + 1], image[i : i + 1]) for i in range(4)]
    for number, scores in enumerate(together):
        torch.testing.assert_close(scores, torch.cat([one[number] for one in alone]), atol=1e-5, rtol=1e-5)


def test_experts_on_one_embedding_share_nothing_that_a_checkpoint_holds(groups: SiblingGroups) -> None:
    state = ProductModel(NgramTable(4, 8), head(groups)).state_dict()
    places = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(places)) == len(places)


def test_the_linear_experts_scores_give_back_the_softmax_over_the_labels(groups: SiblingGroups) -> None:
    torch.manual_seed(1)
    bias = torch.randn(4)
    wide = WideExpert((0, 4), bias, torch.from_numpy(label_slots(groups, LABELS)), sentence=None, dense=None)
    text = torch.randn(6, 4) * 0.3
    with torch.inference_mode():
        probs = groups.distribution(wide(text).numpy())
    wanted = (SHARPNESS * (text + bias)).softmax(dim=1).numpy()
    np.testing.assert_allclose(groups.here(probs)[:, LABELS], wanted, atol=1e-5)


def test_a_dense_vector_beside_the_ngrams_adds_what_its_weights_say(groups: SiblingGroups) -> None:
    torch.manual_seed(2)
    sentence = Sentence((4, 7), torch.randn(3), torch.rand(3) + 0.5)
    dense, inside = torch.randn(3, 4), torch.from_numpy(label_slots(groups, LABELS))
    text = torch.randn(5, 7)
    with_dense = WideExpert((0, 4), torch.zeros(4), inside, sentence=sentence, dense=dense)
    bare = WideExpert((0, 4), torch.zeros(4), inside, sentence=None, dense=None)
    moved = text.clone()
    moved[:, :4] += beside_ngrams(sentence(text)) @ dense
    torch.testing.assert_close(with_dense(text), bare(moved), atol=1e-5, rtol=1e-5)


def test_a_label_lies_in_the_slots_that_its_path_passes(groups: SiblingGroups, seven: Taxonomy) -> None:
    inside = label_slots(groups, np.array([6, 1], np.int32))  # Deck below Chairs below Home; Toys itself
    home, toys, chairs, deck = (groups.node_slot[k] for k in (0, 1, 2, 6))
    assert set(np.flatnonzero(inside[0])) == {home, chairs, deck}
    assert set(np.flatnonzero(inside[1])) == {toys, groups.here_slot[1]}


def test_the_levels_head_tells_each_level_what_the_level_above_said(groups: SiblingGroups) -> None:
    torch.manual_seed(0)
    levels = LevelScores(6, groups)
    sizes = level_sizes(groups)
    hidden = torch.randn(3, 6)
    with torch.inference_mode():
        scores = levels(hidden)
        assert scores.shape == (3, sum(sizes)) == (3, groups.n_slots)
        second = levels.outs[1](torch.cat([hidden, scores[:, : sizes[0]].softmax(dim=1)], dim=1))
        torch.testing.assert_close(scores[:, sizes[0] : sizes[0] + sizes[1]], second)
        for parameter in levels.outs[0].parameters():
            parameter.mul_(2.0)
        changed = levels(hidden)
    assert not torch.allclose(changed[:, sizes[0] :], scores[:, sizes[0] :])


def test_a_picture_far_from_all_that_was_seen_is_clipped(groups: SiblingGroups) -> None:
    expert = experts(groups)["image"].eval()
    assert isinstance(expert, ImageExpert)
    far = expert.mean + 1e6 / expert.scale
    with torch.inference_mode():
        torch.testing.assert_close(expert(None, far[None]), expert(None, (far * 100)[None]))


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


def test_a_straight_expert_keeps_what_a_relu_would_cut_off() -> None:
    groups = SiblingGroups.of(Taxonomy.from_paths([("a",), ("b",), ("c",)]))
    torch.manual_seed(0)
    bent, straight = (
        TextExpert(4, Tasks(groups), 0.0, "tree", sentence=None, ngrams=(0, 4), straight=way).eval()
        for way in (False, True)
    )
    # Two texts whose vectors are negative everywhere: the same nothing behind a ReLU.
    texts = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [-4.0, -3.0, -2.0, -1.0]])
    with torch.no_grad():
        assert torch.equal(*bent(texts))
        assert not torch.allclose(*straight(texts))
