"""Frozen features: what is pooled, from which layer, and who may choose it."""

import pytest
import torch
from reference import batch
from toys import toy_checkpoint

from xlmr_course import checkpoints, features


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return checkpoints.load_encoder(toy_checkpoint(tmp_path_factory.mktemp("toy") / "toy", num_hidden_layers=3))


@pytest.fixture(scope="module")
def ids():
    padded, mask = batch([5, 9, 3, 7], 40)
    return [row[keep.bool()].tolist() for row, keep in zip(padded, mask, strict=True)]


def test_the_mean_is_that_of_the_real_tokens_of_each_layer(encoder, ids):
    found = features.sentence_features(encoder, ids, batch_size=2)
    assert found.shape == (4, 4, 32)
    for number, row in enumerate(ids):
        with torch.no_grad():
            states = encoder(torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            torch.testing.assert_close(found[number, layer], state[0].mean(dim=0), atol=1e-5, rtol=0)


def test_layers_above_the_highest_are_not_computed(encoder, ids, monkeypatch):
    every = features.sentence_features(encoder, ids)
    monkeypatch.setattr(encoder.layers[2], "forward", lambda *a: pytest.fail("the third layer was computed"))
    some = features.sentence_features(encoder, ids, [2, 0])
    torch.testing.assert_close(some, every[:, [2, 0]], atol=1e-6, rtol=0)
    assert len(encoder.layers) == 3


def test_the_first_token_is_s(encoder, ids):
    found = features.sentence_features(encoder, ids, [3], pooling="first")
    with torch.no_grad():
        wanted = encoder(torch.tensor([ids[1]])).last_hidden_state[0, 0]
    torch.testing.assert_close(found[1, 0], wanted, atol=1e-5, rtol=0)


def test_what_does_not_exist_is_named(encoder, ids):
    with pytest.raises(ValueError, match="there is no layer 4: 0 is the embeddings and 3 the last"):
        features.sentence_features(encoder, ids, [4])
    with pytest.raises(ValueError, match="pooling='max' is unknown; use mean or first"):
        features.sentence_features(encoder, ids, pooling="max")


def test_the_layer_that_classifies_best_is_chosen():
    """Layer 1 of three holds the label, the others noise; of two that do, the higher."""
    generator = torch.Generator().manual_seed(0)
    labels = [i % 2 for i in range(60)]
    rows = torch.randn(60, 3, 8, generator=generator)
    rows[:, 1, 0] = torch.tensor(labels) * 6.0
    layer, accuracies = features.choose_layer(rows.numpy(), labels)
    assert layer == 1
    assert accuracies[1] >= 0.9 > max(accuracies[0], accuracies[2])
    rows[:, 2] = rows[:, 1]
    assert features.choose_layer(rows.numpy(), labels)[0] == 2


def test_a_class_with_one_sentence_leaves_the_last_layer():
    assert features.choose_layer(torch.randn(3, 4, 8).numpy(), [0, 0, 1]) == (3, [])
