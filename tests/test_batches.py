"""What stands together in a batch, and who computes which part of it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from xlmr_course import batches
from xlmr_course.batches import Encoded


def test_batches_hold_every_sentence_once_and_similar_lengths_together():
    lengths = torch.randint(5, 60, (420,), generator=torch.Generator().manual_seed(1)).tolist()
    found = list(batches.batches_by_length(lengths, 16, torch.Generator().manual_seed(0)))
    assert sorted(i for batch in found for i in batch) == list(range(420))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in found]
    assert sorted(spread)[len(spread) // 2] <= 6
    assert found == list(batches.batches_by_length(lengths, 16, torch.Generator().manual_seed(0)))


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_every_sentence_is_computed_by_one_process_in_one_part(size, processes, parts):
    batch = list(range(100, 100 + size))
    given_out = [batches.shares(batch, rank, processes, parts) for rank in range(processes)]
    assert sorted(i for share in given_out for part in share for i in part) == batch
    assert all(part for share in given_out for part in share)
    work = [sum(map(len, share)) for share in given_out]
    assert max(work) - min(work) <= 1


def test_evaluation_goes_from_short_to_long():
    assert batches.shortest_first([5, 2, 9, 1], 3) == [[3, 1, 0], [2]]


def test_padding_and_joining():
    assert batches.pad([[0, 5, 2], [0, 2]], 1).tolist() == [[0, 5, 2], [0, 2, 1]]
    joined = Encoded.joined([Encoded([[0, 2]], [1]), Encoded([[0, 3, 2]], [0])])
    assert joined == Encoded([[0, 2], [0, 3, 2]], [1, 0])
