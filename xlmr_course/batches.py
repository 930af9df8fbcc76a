"""Sentences of many lengths as batches: what stands together, and how it becomes a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

POOL = 16  # batches


@dataclass(frozen=True)
class Encoded:
    """Sentences as token ids, with their class numbers."""

    ids: list[list[int]]
    labels: list[int]

    @classmethod
    def joined(cls, parts: Iterable[Encoded]) -> Encoded:
        """Several languages' sentences as one set."""
        parts = list(parts)
        return cls([ids for part in parts for ids in part.ids], [label for part in parts for label in part.labels])


def batches_by_length(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of sentences of similar length, in random order: short ones need not wait for long ones.

    Sentences are shuffled, sorted by length within pools of sixteen batches, and cut; the batches are shuffled again.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = POOL * batch_size
    batches = [
        chunk[start : start + batch_size]
        for first in range(0, len(order), pool)
        for chunk in [sorted(order[first : first + pool], key=lengths.__getitem__)]
        for start in range(0, len(chunk), batch_size)
    ]
    yield from (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


def shortest_first(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches for evaluation, where order does not matter: no two lengths meet that need not."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shares(batch: Sequence[int], rank: int, processes: int, parts: int) -> list[list[int]]:
    """One process's share of a batch, cut into parts that are computed one after the other.

    Every `processes`-th sentence is ours, so that in a batch sorted by length all processes get equal work. Parts that
    would be empty are left out, and so may all of them: a batch can be smaller than the team.

    >>> shares(range(10), rank=1, processes=2, parts=2)
    [[1, 5, 9], [3, 7]]
    """
    mine = list(batch)[rank::processes]
    return [part for part in (mine[first::parts] for first in range(parts)) if part]


def pad(ids: Sequence[Sequence[int] | Tensor], padding: int) -> Tensor:
    """Lists (or tensors) of ids as one tensor `(B, T)`, filled up on the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(i) for i in ids], batch_first=True, padding_value=padding)
