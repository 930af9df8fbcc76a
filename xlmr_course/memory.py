"""How much memory a training step needs, by arithmetic, and what to change when it doesn't fit.

Weights, gradients and AdamW's two moments are exact: four bytes each. Activations are an estimate, 34·s·b·h bytes a
layer in half precision for b sentences of s tokens and hidden size h, twice that in float32 (Korthikanti et al. 2022,
section 4; the attention matrices, 5·a·s²·b more, are not stored by the GPU kernels).
"""

from __future__ import annotations

from dataclasses import dataclass

from xlmr_course.encoder import XLMRConfig

ACTIVATIONS = 34  # bytes for each token, layer and unit of width, in half precision


@dataclass(frozen=True)
class StepMemory:
    """Bytes."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


def word_table(config: XLMRConfig) -> int:
    """Parameters of all embedding tables and their LayerNorm."""
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    return (rows + 2) * config.hidden_size


def layers(config: XLMRConfig) -> int:
    """Parameters of the layers: four square matrices, two wide ones, two LayerNorms, and the biases."""
    h, f = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * (h * h + h) + 2 * h * f + h + f + 4 * h)


def of_step(
    config: XLMRConfig,
    sentences: int,
    tokens: int,
    *,
    half: bool,
    freeze_embeddings: bool,
    gradient_checkpointing: bool = False,
) -> StepMemory:
    """The memory of one step.

    Args:
        config: the model's shape; its task's head is left out.
        sentences, tokens: of the part of a batch that is computed at a time; tokens are those of each sentence.
        half: bfloat16 or float16 for what is computed. Weights, gradients and optimiser stay in float32; the layers'
            matrices are kept a second time in half precision during a step.
        freeze_embeddings: no gradients and no optimiser for the tables.
        gradient_checkpointing: only the layers' inputs are kept, and one layer at a time is computed again.
    """
    trained = layers(config) + (0 if freeze_embeddings else word_table(config))
    unit = sentences * tokens * config.hidden_size * (1 if half else 2)
    if gradient_checkpointing:
        activations = unit * (2 * config.num_hidden_layers + ACTIVATIONS)
    else:
        activations = unit * ACTIVATIONS * config.num_hidden_layers
    weights = 4 * (layers(config) + word_table(config)) + (2 * layers(config) if half else 0)
    return StepMemory(weights, 4 * trained, 8 * trained, activations)


def advice(config: XLMRConfig, settings, sentences: int, tokens: int, device: str, total: int | None = None) -> str:
    """What to change after a GPU ran out of memory, and about how much each change saves.

    Args:
        settings: what was asked for, a `Settings`.
        sentences, tokens: of the part that did not fit.
        total: bytes that the device has, if known.
    """
    told = {name: getattr(settings, name) for name in ("freeze_embeddings", "gradient_checkpointing")}
    told["half"] = settings.precision in ("float16", "bfloat16")
    now = of_step(config, sentences, tokens, **told)

    def saves(sentences: int = sentences, tokens: int = tokens, **changed: bool) -> str:
        return f"{(now.total - of_step(config, sentences, tokens, **(told | changed)).total) / 1e6:,.0f} MB less"

    ways = []
    if sentences > 1:
        fewer = (sentences + 1) // 2
        ways.append(f"--accumulate {2 * settings.accumulate} computes {fewer} at a time ({saves(fewer)}, same result)")
    if not told["gradient_checkpointing"]:
        ways.append(f"--gradient-checkpointing is slower ({saves(gradient_checkpointing=True)}, same result)")
    if not told["half"]:
        ways.append(f"--precision float16 ({saves(half=True)})")
    if not told["freeze_embeddings"]:
        ways.append(f"--freeze-embeddings ({saves(freeze_embeddings=True)})")
    if tokens > 32:
        ways.append(f"--max-length {tokens // 2} ({saves(tokens=tokens // 2)})")
    size = "" if total is None else f", which has {total / 1e9:.1f} GB"
    fixed = (now.total - now.activations) / 1e9
    return (
        f"out of memory on {device}{size}, at {sentences} sentences of {tokens} tokens; the step needs about "
        f"{now.total / 1e9:.1f} GB, {fixed:.1f} of them for weights, gradients and optimiser: "
        + "; ".join(ways or ["use a smaller checkpoint"])
    )
