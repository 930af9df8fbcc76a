"""What stands on the encoder for a task: a head that classifies a whole sentence.

The names are those of transformers' `XLMRobertaForSequenceClassification`: its `from_pretrained` reads a saved model.

Letters in shape comments: B sentences, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_course.encoder import Encoder, initialise


@dataclass
class ClassifierOutput:
    """What a classifier returns: `logits` `(B, C)`, and the mean cross-entropy in nats if labels were given."""

    logits: Tensor
    loss: Tensor | None = None


class ClassificationHead(nn.Module):
    """dropout → dense → tanh → dropout → linear, on the vector of `<s>` (fairseq `RobertaClassificationHead`)."""

    def __init__(self, hidden_size: int, num_labels: int, dropout: float = 0.1):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, num_labels)

    def forward(self, sentence: Tensor) -> Tensor:
        """`(B, H)` → `(B, C)`."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(sentence)))))


class SequenceClassifier(nn.Module):
    """An encoder with a classification head.

    Args:
        encoder: pretrained or not; it is trained along unless its parameters are frozen.
        num_labels: the number of classes C, at least two.
        generator: draws the head's initial weights.
    """

    architecture = "XLMRobertaForSequenceClassification"

    def __init__(self, encoder: Encoder, num_labels: int, generator: torch.Generator | None = None):
        super().__init__()
        if num_labels < 2:
            raise ValueError(f"num_labels={num_labels}: a classifier needs at least two classes to choose from")
        self.encoder = encoder
        self.config = encoder.config
        self.classifier = ClassificationHead(encoder.config.hidden_size, num_labels, encoder.config.hidden_dropout_prob)
        initialise(self.classifier, encoder.config, generator)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> ClassifierOutput:
        """Classify each sentence of a batch.

        Args:
            input_ids: `(B, T)`; the first token of each is `<s>`.
            attention_mask: `(B, T)`, 1 for real tokens.
            labels: `(B,)` class numbers.
        """
        states = self.encoder(input_ids, attention_mask).last_hidden_state  # (B, T, H)
        logits = self.classifier(states[:, 0])  # (B, C)
        return ClassifierOutput(logits, None if labels is None else F.cross_entropy(logits, labels))
