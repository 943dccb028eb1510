"""An optimizer for embedding tables: cheap for the few rows that a step touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulated squared gradient a row, for sparse gradients.

    torch's SparseAdam makes some fifteen passes over the touched rows and keeps two states as large as the table;
    this makes three and keeps one number a row.

    Args:
        parameters: tables, shape (V, D), with sparse gradients.
        lr: learning rate; a row's first step moves it by about `lr` in each entry.

    Source:
        Naumov et al. 2019, "Deep learning recommendation model for personalization and recommendation systems";
        Duchi et al. 2011, "Adaptive subgradient methods".
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Take one step; a closure is not used."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                gradient: Tensor = table.grad.coalesce()
                rows, values = gradient.indices()[0], gradient.values()
                state = self.state[table]
                if not state:
                    state["squares"] = torch.zeros(len(table))
                squares = state["squares"]
                squares.index_add_(0, rows, values.square().mean(dim=1))
                table.index_add_(0, rows, values * (-group["lr"] / (squares[rows].sqrt() + 1e-10))[:, None])
