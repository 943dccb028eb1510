"""Several processes that train one model: `torchrun --nproc-per-node 4 -m shelver train ...`.

Each process takes its share of every step's products and the gradients are averaged, so that all hold the same
weights all the time. Only the first one writes: it alone judges, keeps checkpoints and exports.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from shelver.errors import ConfigError
from shelver.train.model import ProductModel

PATIENCE: Final = timedelta(hours=12)
"""How long the others wait while the first one embeds a catalog's pictures; `torchrun` ends them if it fails."""


def device_for(wanted: str) -> torch.device:
    """The device that a config's "auto", "cpu" or "cuda" means here; one GPU for each process of a machine.

    Raises:
        ConfigError: "cuda" where there is no GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda, but torch sees no GPU",
            allowed="auto or cpu on this machine",
            remedy="Install a GPU build of torch and its driver, or leave --device out.",
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def join(device: torch.device) -> None:
    """Meet the other processes that `torchrun` started; nothing to do where it did not."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def meet() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does what stands inside before the others, which then find it in the caches."""
    if rank():
        meet()
    yield
    if not rank():
        meet()


def count() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """This process's part of a step's rows."""
    return rows[rank() :: count()]


def average_gradients(model: ProductModel) -> None:
    """Give every process the mean of all processes' gradients."""
    if count() == 1:
        return
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            gradient = torch.zeros_like(parameter)
        # The table's gradient has rows for some n-grams only; sent whole, as not every backend adds sparse ones.
        if name.startswith("table."):
            gradient = gradient.to_dense()
        dist.all_reduce(gradient)
        gradient /= count()
        parameter.grad = gradient.to_sparse(1) if name.startswith("table.") else gradient


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' numbers."""
    if count() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def agree(value: float) -> float:
    """The first process's number, for all: clocks differ, and nobody may stop a step before the others."""
    if count() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        told = told.cuda()
    dist.broadcast(told, src=0)
    return float(told.item())
