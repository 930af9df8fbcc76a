"""The other side of every proof: transformers' own model on the very tensors of ours (shared, not copied)."""

import dataclasses

import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from xlmr_course import checkpoints
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import MaskedLM


def random_model(config: XLMRConfig, seed: int = 0, std: float = 0.02) -> MaskedLM:
    """A model whose every tensor is random: fresh ones have zero biases and unit LayerNorms, which would hide swaps."""
    generator = torch.Generator().manual_seed(seed)
    model = MaskedLM(Encoder(config, generator), generator).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                centre = 1.0 if "norm.weight" in name else 0.0
                parameter.normal_(centre, 0.1, generator=generator)
            elif std != config.initializer_range:
                parameter.normal_(0, std, generator=generator)
    return model


def transformers_model(model: MaskedLM, attention: str) -> XLMRobertaForMaskedLM:
    config = XLMRobertaConfig(**dataclasses.asdict(model.config), attn_implementation=attention)
    with torch.device("meta"):
        theirs = XLMRobertaForMaskedLM(config)
    tensors = checkpoints.to_hugging_face(model)
    tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"]
    tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"]
    theirs.load_state_dict({name: tensor.detach() for name, tensor in tensors.items()}, assign=True)
    theirs.tie_weights()
    embeddings = theirs.roberta.embeddings  # two buffers that no file holds
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)
    return theirs.eval()


def batch(lengths: list[int], vocab_size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids `(B, T)` with `<s>` and `</s>`, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocab_size - 1, (len(lengths), max(lengths)), generator=generator)
    ids[:, 0] = 0
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    for row, length in zip(ids, lengths, strict=True):
        if length > 1:
            row[length - 1] = 2
    return ids.masked_fill(~mask, 1), mask.long()


def some_labels(ids: torch.Tensor, mask: torch.Tensor, share: float = 0.3, seed: int = 0) -> torch.Tensor:
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < share
    chosen[0, 0] = True
    return ids.masked_fill(~(chosen & mask.bool()), -100)


def largest_gap(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> float:
    """The largest absolute difference at real tokens, of two `(B, T, …)`."""
    return (ours - theirs)[mask.bool()].abs().max().item()


def gradient_gaps(
    model: MaskedLM, loss: torch.Tensor, theirs: XLMRobertaForMaskedLM, their_loss: torch.Tensor
) -> dict[str, float]:
    """Each parameter's relative gap between the two gradients, |a - b| / |b|; leaves ours in `model`.

    A bias of the keys adds the same to all scores of a query, which softmax ignores: its true gradient is zero and
    what either side has is rounding. It is measured against the gradient of the keys' matrix.
    """
    model.zero_grad()
    loss.backward()
    gaps = {}

    def compare(name: str, wanted: torch.nn.Parameter) -> None:
        ours = model.get_parameter(name).grad
        key_bias = name.endswith("key.bias")
        scale = model.get_parameter(name.replace("bias", "weight")).grad.norm() if key_bias else wanted.grad.norm()
        gaps[name] = ((ours - wanted.grad).norm() / scale).item()
        wanted.grad = None  # at 560 M parameters there is no room for a third set

    for name, _ in model.named_parameters():
        parameter = theirs.get_parameter(checkpoints.name_in_file(name, model, "roberta."))
        parameter.register_post_accumulate_grad_hook(lambda parameter, name=name: compare(name, parameter))
    their_loss.backward()
    return gaps
