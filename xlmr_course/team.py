"""Several processes that train one model: each computes its share of every batch, and gradients are averaged.

`accelerate launch` starts the processes and tells them who they are; its `PartialState` finds the device of each and
connects them (gloo between CPUs, NCCL between GPUs). PyTorch's `DistributedDataParallel` averages the gradients. What
is left is here: who writes, who waits, and how results come together. A single process is a team of one.

    accelerate launch --num_processes 2 -m xlmr_course finetune …
    accelerate launch --multi_gpu --num_processes 2 -m xlmr_course finetune --device cpu …

The second is for CPUs: accelerate's own `--cpu` starts a single process unless MPI is installed, and `--multi_gpu` is
its name for torchrun.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """This process's place. `device` is where it computes; `rank` counts from 0 and 0 is the one that writes."""

    device: str = "cpu"
    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls, device: str | None = None) -> Team:
        """The team that this process was started in.

        Args:
            device: `"cpu"`, `"cuda"`, `"cuda:1"`; None picks a GPU if there is one, and under a launcher this
                process's own.

        Raises:
            ValueError: there is no such device here.
        """
        if device is not None:
            _check(device)
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        atexit.register(_leave)
        return cls(str(state.device), state.process_index, state.num_processes)

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def join(self, model: nn.Module) -> nn.Module:
        """The model as the team calls it: gradients are averaged over all processes during the backward pass."""
        if self.size == 1:
            return model
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def silent(self, model: nn.Module, until: bool) -> contextlib.AbstractContextManager:
        """Around a forward and backward pass: gradients add up here and are not sent yet, until the step's last."""
        return contextlib.nullcontext() if until or self.size == 1 else model.no_sync()

    def gather(self, thing: T) -> list[T]:
        """Everyone's `thing`, by rank, to everyone."""
        if self.size == 1:
            return [thing]
        things: list = [None] * self.size
        torch.distributed.all_gather_object(things, thing)
        return things

    def agreed(self, thing: T) -> T:
        """What the main process has; decisions that depend on a clock must be the same for all."""
        return self.gather(thing)[0]

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the main process goes through before the others: it downloads, they find the files."""
        if self.size > 1 and not self.main:
            torch.distributed.barrier()
        yield
        if self.size > 1 and self.main:
            torch.distributed.barrier()


def _check(device: str) -> None:
    known = torch.cuda.device_count() if device.split(":")[0] == "cuda" else 1
    number = device.partition(":")[2] or "0"
    if device.split(":")[0] not in ("cpu", "cuda") or not number.isdigit():
        raise ValueError(f"device={device!r} is unknown; use cpu, cuda, or cuda:1 for the second GPU")
    if int(number) >= known:
        raise ValueError(f"device={device!r} is not here: PyTorch sees {known} GPUs; use cpu, or leave it out")


def _leave() -> None:
    gc.collect()  # a model that is still in a cycle holds on to the group, whose threads must end before Python does
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
