"""Sentence features from an encoder that is not trained, and a standard classifier on them.

A sentence's feature is the mean of its tokens' vectors. The vector of `<s>` has meaning only where training gave it
one: in XLM-R's pretraining no loss ever stands on it. Which layer is best depends on the checkpoint, and the dev
sentences of the training language say it: see `choose_layer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xlmr_course.batches import pad, shortest_first
from xlmr_course.encoder import Encoder

POOLINGS = ("mean", "first")


@torch.inference_mode()
def sentence_features(
    encoder: Encoder,
    ids: Sequence[Sequence[int]],
    layers: Sequence[int] | None = None,
    pooling: str = "mean",
    batch_size: int = 64,
) -> Tensor:
    """Features of sentences from some layers, `(sentences, layers, hidden_size)`, on the CPU.

    Args:
        encoder: is put into evaluation mode; runs where its weights are.
        ids: token ids, `<s>` and `</s>` included.
        layers: 0 is the embeddings, 1 the first layer's output, and so on; None for all. Layers above the highest are
            not computed.
        pooling: `"mean"` over the real tokens, or `"first"`, the vector of `<s>`.

    Raises:
        ValueError: a layer or a pooling that does not exist.
    """
    depth = len(encoder.layers)
    layers = range(depth + 1) if layers is None else layers
    if wrong := [layer for layer in layers if not 0 <= layer <= depth]:
        raise ValueError(f"there is no layer {wrong[0]}: 0 is the embeddings and {depth} the last of this encoder")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r} is unknown; use {' or '.join(POOLINGS)}")
    encoder.eval()
    batches = shortest_first([len(row) for row in ids], batch_size)
    whole, encoder.layers = encoder.layers, encoder.layers[: max(layers)]
    try:
        found = torch.cat([_pooled(encoder, [ids[i] for i in batch], layers, pooling) for batch in batches])
    finally:
        encoder.layers = whole
    order = torch.tensor([i for batch in batches for i in batch])
    return found[order.argsort()]


def _pooled(encoder: Encoder, ids: list[Sequence[int]], layers: Sequence[int], pooling: str) -> Tensor:
    """One batch: `(B, layers, H)`."""
    inputs = pad(ids, encoder.config.pad_token_id).to(encoder.embeddings.word.weight.device)
    states = encoder(inputs, output_hidden_states=True).hidden_states  # (B, T, H) each, zeros at padding
    if pooling == "first":
        return torch.stack([states[layer][:, 0] for layer in layers], dim=1).cpu()
    counts = torch.tensor([len(row) for row in ids], device=inputs.device)[:, None]
    return torch.stack([states[layer].sum(dim=1) / counts for layer in layers], dim=1).cpu()


def classifier(features: np.ndarray, labels: Sequence[int], seed: int = 0):
    """scikit-learn's logistic regression on features `(sentences, hidden_size)`, each scaled to the same spread."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Few sentences, many features: a strong penalty. Weaker ones fit the training sentences without a mistake.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, random_state=seed))
    return model.fit(features, labels)


def choose_layer(
    train: Tensor, train_labels: Sequence[int], dev: Tensor, dev_labels: Sequence[int]
) -> tuple[int, list[float]]:
    """The layer whose features serve the dev sentences best, and every layer's accuracy there.

    Args:
        train, dev: `(sentences, layers, hidden_size)` in the language of training; nothing else may choose.

    Returns:
        The place in the second dimension; of equals the highest.
    """
    accuracies = [
        float(classifier(train[:, layer].numpy(), train_labels).score(dev[:, layer].numpy(), dev_labels))
        for layer in range(train.shape[1])
    ]
    return max(range(len(accuracies)), key=lambda layer: (accuracies[layer], layer)), accuracies
