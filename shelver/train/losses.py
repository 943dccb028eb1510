"""The losses: how surprised a head is at every turn of the way down to the label, and at an attribute's value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.taxonomy import SiblingGroups
from shelver.train.model import HeadKind, level_sizes
from shelver.train.tasks import Tasks


class TreeLoss(nn.Module):
    """Negative log likelihood of the label under the softmax-among-siblings distribution.

    P(label) is the product of the conditional probabilities along its path, so its negative logarithm is the sum
    over the levels of `logsumexp(siblings) - score`. Only the sibling groups on the path are touched.

    Args:
        groups: the slots' sibling groups.
        level_weights: of the levels' parts, L of them; None weighs all 1.
        smoothing: share of a label's weight that is spread evenly over it and its siblings, in [0, 1).
    """

    start: Tensor
    size: Tensor
    slot_group: Tensor
    target_slots: Tensor
    level_weights: Tensor

    def __init__(
        self, groups: SiblingGroups, *, level_weights: Sequence[float] | None = None, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        for name in ("start", "size", "slot_group", "target_slots"):
            self.register_buffer(name, torch.tensor(getattr(groups, name), dtype=torch.int64), persistent=False)
        weights = torch.tensor(level_weights or [1.0] * groups.taxonomy.n_levels, dtype=torch.float32)
        self.register_buffer("level_weights", weights, persistent=False)
        self.smoothing = smoothing

    def forward(self, scores: Tensor, nodes: Tensor) -> Tensor:
        """Loss of each product.

        Args:
            scores: raw scores of the slots, float (N, M).
            nodes: labelled nodes, int64 (N,).

        Returns:
            float (N,), in nats.
        """
        slots = self.target_slots[nodes]
        # Everyone's first turn is in the same group, the first: a slice, not a gather.
        first = scores[:, : int(self.size[0])]
        total = F.cross_entropy(first, slots[:, 0], reduction="none", label_smoothing=self.smoothing)
        total = total * self.level_weights[0]

        # All later turns of all products at once, so that the backward pass fills one gradient, not one a level.
        rows, columns = torch.nonzero(slots[:, 1:] >= 0, as_tuple=True)
        if not len(rows):
            return total
        slot = slots[rows, columns + 1]
        group = self.slot_group[slot]
        start, size = self.start[group], self.size[group]
        offset = torch.arange(int(size.max()), device=scores.device)
        inside = offset < size[:, None]
        index = rows[:, None] * scores.shape[1] + torch.where(inside, start[:, None] + offset, start[:, None])
        siblings = scores.reshape(-1).index_select(0, index.reshape(-1)).reshape(index.shape)
        target = siblings.gather(1, (slot - start)[:, None]).squeeze(1)
        if self.smoothing:
            mean = siblings.masked_fill(~inside, 0.0).sum(dim=1) / size
            target = (1.0 - self.smoothing) * target + self.smoothing * mean
        surprise = torch.logsumexp(siblings.masked_fill(~inside, -torch.inf), dim=1) - target
        return total.index_add(0, rows, surprise * self.level_weights[columns + 1])


class LevelsLoss(nn.Module):
    """Cross entropy of the label's ancestor at each level, among all slots of that level, whatever their parents.

    Args:
        groups, level_weights, smoothing: as in `TreeLoss`.
    """

    target_slots: Tensor

    def __init__(
        self, groups: SiblingGroups, *, level_weights: Sequence[float] | None = None, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer(
            "target_slots", torch.tensor(groups.target_slots, dtype=torch.int64), persistent=False
        )
        self.sizes = level_sizes(groups)
        self.level_weights = list(level_weights or [1.0] * len(self.sizes))
        self.smoothing = smoothing

    def forward(self, scores: Tensor, nodes: Tensor) -> Tensor:
        """Loss of each product; shapes as in `TreeLoss.forward`."""
        slots = self.target_slots[nodes]
        total = scores.new_zeros(len(scores))
        first = 0
        for level, size in enumerate(self.sizes):
            at = slots[:, level]
            # -100 is torch's mark for rows that have no label; their part of the loss is 0.
            target = torch.where(at >= 0, at - first, -100)
            of_level = scores[:, first : first + size]
            total = total + self.level_weights[level] * F.cross_entropy(
                of_level, target, reduction="none", label_smoothing=self.smoothing
            )
            first += size
        return total


class TasksLoss(nn.Module):
    """The sum over the tasks of a product's losses; a task that it has no label of adds nothing.

    Args:
        tasks: what is learned.
        tree: the loss of the tree's task; None where there is none.
        share: of the attributes' losses beside the tree's.
    """

    def __init__(self, tasks: Tasks, tree: TreeLoss | LevelsLoss | None, share: float = 1.0) -> None:
        super().__init__()
        self.tasks = tasks
        self.tree = tree
        self.share = share

    def forward(
        self, scores: Tensor, nodes: Tensor, labels: Sequence[Tensor], noise: Tensor | None = None
    ) -> Tensor:
        """Loss of each product.

        Args:
            scores: raw scores of the slots of all tasks, float (N, M).
            nodes: labelled nodes, int64 (N,), -1 where there is none.
            labels: of each attribute, int64 (N,), or (N, V) where it takes several values; -1 where not known.
            noise: the logarithm of each task's noise variance, tree first, shape (T,): a noisier task weighs
                less. None: all weigh alike.

        Returns:
            float (N,), in nats.

        Source:
            Kendall et al. 2018, "Multi-task learning using uncertainty to weigh losses for scene geometry and
            semantics".
        """
        total = scores.new_zeros(len(scores))
        if self.tree is not None:
            of_tree = self.tree(scores[:, : self.tasks.n_tree_slots], nodes.clamp(min=0)) * (nodes >= 0)
            total = total + _weighed(of_tree, nodes >= 0, noise, 0)
        for number, (task, wanted) in enumerate(zip(self.tasks.attributes, labels, strict=True), start=1):
            of_values = scores[:, task.slots]
            if task.attribute.multi:
                known = wanted[:, 0] >= 0
                answers = wanted.clamp(min=0).to(scores.dtype)
                of_task = F.binary_cross_entropy_with_logits(of_values, answers, reduction="none").sum(dim=1)
            else:
                known = wanted >= 0
                of_task = F.cross_entropy(of_values, wanted.clamp(min=0), reduction="none")
            total = total + self.share * _weighed(of_task * known, known, noise, number)
        return total


def _weighed(loss: Tensor, known: Tensor, noise: Tensor | None, number: int) -> Tensor:
    """A task's losses, by its noise where that is learned."""
    if noise is None:
        return loss
    return torch.exp(-noise[number]) * loss + 0.5 * noise[number] * known


def loss_for(
    kind: HeadKind,
    tasks: Tasks,
    *,
    level_weights: Sequence[float] | None,
    smoothing: float,
    share: float = 1.0,
) -> TasksLoss:
    """The loss of some tasks; `kind` is that of the tree's head."""
    tree: TreeLoss | LevelsLoss | None = None
    if tasks.groups is not None:
        of_kind = TreeLoss if kind == "tree" else LevelsLoss
        tree = of_kind(tasks.groups, level_weights=level_weights, smoothing=smoothing)
    return TasksLoss(tasks, tree, share)
