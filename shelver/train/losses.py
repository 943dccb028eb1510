"""The loss of the tree head: how surprised it is at every turn of the way down to the label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shelver.taxonomy import SiblingGroups


class TreeLoss(nn.Module):
    """Negative log likelihood of the label under the softmax-among-siblings distribution.

    P(label) is the product of the conditional probabilities along its path, so its negative logarithm is the sum
    over the levels of `logsumexp(siblings) - score`. Only the sibling groups on the path are touched.
    """

    start: Tensor
    size: Tensor
    slot_group: Tensor
    target_slots: Tensor

    def __init__(self, groups: SiblingGroups) -> None:
        super().__init__()
        for name in ("start", "size", "slot_group", "target_slots"):
            self.register_buffer(name, torch.tensor(getattr(groups, name), dtype=torch.int64), persistent=False)

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
        total = torch.logsumexp(first, dim=1) - first.gather(1, slots[:, :1]).squeeze(1)

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
        siblings = siblings.masked_fill(~inside, -torch.inf)
        chosen = siblings.gather(1, (slot - start)[:, None]).squeeze(1)
        return total.index_add(0, rows, torch.logsumexp(siblings, dim=1) - chosen)
