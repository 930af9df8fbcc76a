"""A checkpoint that trains in a second: two narrow layers and a vocabulary of the words of `own_corpus`."""

from pathlib import Path

import torch
from conftest import TOPICS

from xlmr_course import checkpoints
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.tokenizer import XLMRTokenizer
from xlmr_course.unigram import UnigramModel


def toy_checkpoint(folder: Path, dropout: float = 0.02, num_hidden_layers: int = 2) -> Path:
    """Write it, with random weights."""
    words = sorted({f"▁{word}" for text in TOPICS.values() for word in text.split()})
    letters = [*"▁abcdefghijklmnopqrstuvwxyzAE0123456789.:"]
    pieces = [*words, *letters]
    tokenizer = XLMRTokenizer(UnigramModel.from_pieces(pieces, [-4.0] * len(words) + [-8.0] * len(letters)))
    config = XLMRConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    encoder = Encoder(config, torch.Generator().manual_seed(0))
    return checkpoints.save_pretrained(encoder, tokenizer, folder)
