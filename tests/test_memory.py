"""The arithmetic of a step's memory, against counted parameters and against the facts about XLM-R large."""

from types import SimpleNamespace

import pytest

from xlmr_course import memory
from xlmr_course.encoder import Encoder, XLMRConfig

LARGE = XLMRConfig.large()


@pytest.mark.parametrize(
    "config", [XLMRConfig.tiny(), XLMRConfig.small(), XLMRConfig.base(), LARGE], ids=lambda c: c.hidden_size
)
def test_the_formula_counts_the_encoder_s_parameters(config):
    encoder = Encoder(config, device="meta")
    assert memory.word_table(config) == sum(p.numel() for p in encoder.embeddings.parameters())
    assert memory.layers(config) == sum(p.numel() for p in encoder.layers.parameters())


def test_large_without_frozen_words_is_sixteen_bytes_a_parameter():
    step = memory.of_step(LARGE, 32, 128, half=False, freeze_embeddings=False)
    assert step.total - step.activations == 16 * 558_840_832


def test_what_saves_memory_saves_it():
    full = memory.of_step(LARGE, 32, 128, half=True, freeze_embeddings=False)
    frozen = memory.of_step(LARGE, 32, 128, half=True, freeze_embeddings=True)
    assert full.total - frozen.total == 12 * 256_531_456
    assert frozen.activations == pytest.approx(3.42e9, rel=0.01)  # 24 layers × 34 × 128 × 32 × 1024
    again = memory.of_step(LARGE, 32, 128, half=True, freeze_embeddings=True, gradient_checkpointing=True)
    assert again.activations < 0.15 * frozen.activations


def asked(**changed):
    told = {"precision": "float32", "freeze_embeddings": False, "gradient_checkpointing": False, "accumulate": 1}
    return SimpleNamespace(**(told | changed))


def test_the_advice_names_what_is_not_done_yet():
    text = memory.advice(LARGE, asked(), 32, 128, "cuda:0", 15_800_000_000)
    assert text.startswith("out of memory on cuda:0, which has 15.8 GB, at 32 sentences of 128 tokens; ")
    for option in ("--accumulate 2", "--gradient-checkpointing", "--precision float16", "--freeze-embeddings"):
        assert option in text
    text = memory.advice(
        LARGE,
        asked(precision="float16", freeze_embeddings=True, gradient_checkpointing=True, accumulate=4),
        8,
        128,
        "x",
    )
    assert "6.5 of them for weights, gradients and optimiser: --accumulate 8 computes 4 at a time (43 MB less" in text
    assert "--freeze-embeddings" not in text
    assert "--gradient-checkpointing" not in text
