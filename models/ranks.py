"""Several processes that train one model, as torchrun starts them: each has its part of every batch, and a GPU.

A step follows the mean gradient of all, so weights stay equal; one process, the first, measures and writes. What a
batch norm sees is its own process's part. Knows nothing of recipes or losses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn

from models.errors import LookoutError

_PATIENCE = timedelta(hours=2)
"""The others wait as long while the first measures."""

T = TypeVar("T")


class RanksError(LookoutError):
    """The processes cannot be brought together."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process, and how many there are."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is this process that measures and writes."""
        return self.index == 0

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give all processes the mean of their gradients."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat / self.count, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def agreed(self, value: T) -> T:
        """What the first process has; all wait until it is there."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]


@contextmanager
def ranks(cuda: bool) -> Iterator[Ranks]:
    """This process among those that torchrun started, or alone.

    Args:
        cuda: each has the GPU of its number on this machine.

    Raises:
        RanksError: there are more processes here than GPUs, or they do not find each other.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        if local >= torch.cuda.device_count():
            there = torch.cuda.device_count()
            raise RanksError(
                f"torchrun: process {local + 1} of this machine has no GPU, there are {there}; start fewer"
            )
        torch.cuda.set_device(local)
    try:
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RanksError(f"torchrun: {count} processes did not find each other ({reason})") from error
    try:
        yield Ranks(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
