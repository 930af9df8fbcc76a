"""XLM-RoBERTa's encoder: embeddings, attention, the post-LN layer and the stack of them.

The arithmetic is that of fairseq's `RobertaEncoder` and of transformers' `modeling_xlm_roberta.py`: same
weights, same numbers. What differs is that *padding is never computed*. The real tokens of a batch are
gathered into one long matrix `(N, hidden_size)`. Linear layers, LayerNorms and GELUs do not care which
sentence a row belongs to, so they run on that matrix. Only attention does, and it takes the sentences of
equal length together, so it needs no mask either. See `Packing`.

Left out: decoding, cross-attention, relative positions, the pooler (XLM-R never trained one).

Letters in shape comments: B sentences, T tokens in the longest of them, N real tokens in the batch, H
hidden size, h heads, d = H / h the size of one head, V vocabulary, L length of the sentences in one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass
class XLMRConfig:
    """The shape of a model, in transformers' words. The defaults are those of `xlm-roberta-base`."""

    vocab_size: int = 250_002
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    # Rows 0 and 1 of the position table are never a token's, so 514 rows serve 512 tokens.
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} cannot be shared evenly by "
                f"num_attention_heads={self.num_attention_heads}: make one a multiple of the other"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id={self.pad_token_id} is outside the vocabulary of {self.vocab_size} entries")
        if self.max_tokens < 1:
            raise ValueError(
                f"max_position_embeddings={self.max_position_embeddings} leaves no position for a token: "
                f"the first {self.pad_token_id + 1} rows are reserved, so ask for more"
            )

    @property
    def max_tokens(self) -> int:
        """How many tokens a sentence may have: 512 for the published models."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def _shape(cls, overrides: dict, **shape) -> XLMRConfig:
        return cls(**(shape | overrides))

    @classmethod
    def tiny(cls, **overrides) -> XLMRConfig:
        """Small enough to train on a laptop in minutes: 0.9 M parameters, 4 MB, sentences of up to 128 tokens."""
        return cls._shape(
            overrides,
            vocab_size=4000,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=130,
        )

    @classmethod
    def small(cls, **overrides) -> XLMRConfig:
        """The shape of multilingual-e5-small, an encoder distilled from XLM-R: 118 M parameters."""
        return cls._shape(overrides, hidden_size=384, intermediate_size=1536, layer_norm_eps=1e-12)

    @classmethod
    def base(cls, **overrides) -> XLMRConfig:
        """`FacebookAI/xlm-roberta-base`: 278 M parameters with its head."""
        return cls._shape(overrides)

    @classmethod
    def large(cls, **overrides) -> XLMRConfig:
        """`FacebookAI/xlm-roberta-large`: 560 M parameters with its head."""
        return cls._shape(
            overrides, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
        )


@dataclass(frozen=True)
class Packing:
    """Which places of a padded batch `(B, T)` hold real tokens, and in which order they are computed.

    Sentences are sorted by length, so that those of equal length stand next to each other. With lengths 3,
    2, 3 and T = 3 the places 3 and 4 (the second sentence) come first, then 0 1 2 and 6 7 8: `groups` is
    [(1, 2), (2, 3)].
    """

    keep: Tensor  # (B, T) bool: is this place a real token?
    index: Tensor | None  # (N,) places in the flattened batch; None when there is no padding at all
    groups: list[tuple[int, int]]  # (number of sentences, their length), shortest first

    @classmethod
    def of(cls, keep: Tensor) -> Packing:
        """Plan for a mask `(B, T)` of bools; real tokens need not stand on the left, nor side by side."""
        rows, width = keep.shape
        lengths, order = keep.sum(dim=1).sort(stable=True)
        if lengths[0] == width:
            return cls(keep, None, [(rows, width)])
        places = torch.arange(rows * width, device=keep.device).view(rows, width)
        distinct, counts = lengths.unique_consecutive(return_counts=True)
        groups = list(zip(counts.tolist(), distinct.tolist(), strict=True))
        return cls(keep, places[order][keep[order]], groups)

    def pack(self, x: Tensor) -> Tensor:
        """`(B, T, ...)` -> `(N, ...)`: the real tokens only."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """`(N, ...)` -> `(B, T, ...)` with zeros where there is padding."""
        if self.index is not None:
            x = x.new_zeros(self.keep.numel(), *x.shape[1:]).index_copy(0, self.index, x)
        return x.unflatten(0, tuple(self.keep.shape))


class Dropout(nn.Module):
    """Zero a share `p` of the values in training and scale the others up (Srivastava et al. 2014).

    `nn.Dropout` draws a float for each value, which on a CPU costs more than a layer's softmax. Sixteen random
    bits are enough: four values share one 64-bit draw and `p` is rounded to 1/65,536, at a third of the time.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = min(round(self.p * 65_536), 65_535)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: x.numel()].view(x.shape)  # -32,768 … 32,767
        keep = torch.ge(bits, dropped - 32_768, out=torch.empty_like(x))  # ones and zeros
        return x * keep.mul_(65_536 / (65_536 - dropped))


class Embeddings(nn.Module):
    """Word + token type + position, then LayerNorm and dropout."""

    def __init__(self, config: XLMRConfig):
        super().__init__()
        size, self.padding = config.hidden_size, config.pad_token_id
        self.word = nn.Embedding(config.vocab_size, size, padding_idx=self.padding)
        self.position = nn.Embedding(config.max_position_embeddings, size, padding_idx=self.padding)
        # XLM-R has a single token type, one row added to every token. The files carry it, so the model does.
        self.token_type = nn.Embedding(config.type_vocab_size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def positions(self, input_ids: Tensor) -> Tensor:
        """`(B, T)` ids -> `(B, T)` rows of the position table: 2, 3, 4, … for real ids, 1 for padding.

        The count starts behind the padding id, whose row means "no position" (fairseq `make_positions`).
        """
        real = input_ids.ne(self.padding).long()
        return real.cumsum(dim=1) * real + self.padding

    def forward(self, ids: Tensor, positions: Tensor, words: Tensor | None = None) -> Tensor:
        """Ids and positions, both `(N,)` -> `(N, H)`; `words` `(N, H)` saves the look-up if it is done already."""
        words = self.word(ids) if words is None else words
        return self.dropout(self.norm(words + self.token_type.weight[0] + self.position(positions)))


class SelfAttention(nn.Module):
    """Multi-head attention, softmax(Q Kᵀ / √d) V in each head (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: XLMRConfig):
        super().__init__()
        size, self.heads = config.hidden_size, config.num_attention_heads
        self.scale = (size // self.heads) ** -0.5
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)
        self.output = nn.Linear(size, size)

    def forward(self, x: Tensor, packing: Packing, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """`(N, H)` -> `(N, H)` and, on request, the attention weights `(B, h, T, T)`."""
        # (N, H) -> (N, h, d), three times
        qkv = [part(x).unflatten(-1, (self.heads, -1)) for part in (self.query, self.key, self.value)]
        given = None
        if weights:
            mixed, given = self.written_out(*map(packing.unpack, qkv), packing.keep)
            mixed = packing.pack(mixed)
        elif x.device.type == "cpu" or len(packing.groups) == 1:
            mixed = self.by_length(qkv, packing)
        else:
            # On a GPU many small calls cost more than the padding they save.
            mixed = packing.pack(self.fused(*map(packing.unpack, qkv), packing.keep))
        return self.output(mixed.flatten(-2)), given  # (N, h, d) -> (N, H)

    def by_length(self, qkv: list[Tensor], packing: Packing) -> Tensor:
        """One call for each length that occurs: no padding, so no mask. Three of `(N, h, d)` -> `(N, h, d)`."""
        sizes = [count * length for count, length in packing.groups]
        parts = zip(*(x.split(sizes) for x in qkv), packing.groups, strict=True)
        # (count · length, h, d) -> (count, length, h, d), and back
        mixed = [self.fused(*(x.unflatten(0, group) for x in (q, k, v))).flatten(0, 1) for q, k, v, group in parts]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def fused(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
        """PyTorch's own kernel, which never holds the weights. Three of `(B, L, h, d)` -> `(B, L, h, d)`."""
        if self.training and self.dropout.p > 0 and q.device.type == "cpu":
            return self.written_out(q, k, v, keep)[0]  # the CPU kernel knows no dropout
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, h, L, d)
        mask = None if keep is None else keep[:, None, None, :]
        dropout = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale).transpose(1, 2)

    def written_out(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same step by step: three of `(B, T, h, d)` -> `(B, T, h, d)` and the weights `(B, h, T, T)`.

        `keep` `(B, T)` is true at real tokens; weights from and to the others are zero.
        """
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, h, T, d)
        scores = (q @ k.transpose(-1, -2)) * self.scale  # (B, h, T, T)
        if keep is None:
            weights = scores.softmax(dim=-1)
        else:
            scores = scores.masked_fill(~keep[:, None, None, :], float("-inf"))
            weights = scores.softmax(dim=-1) * keep[:, None, :, None]
        weights = self.dropout(weights)
        return (weights @ v).transpose(1, 2), weights


class FeedForward(nn.Module):
    """Two linear layers with the exact (erf) GELU between them; each token by itself."""

    def __init__(self, config: XLMRConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))  # (N, H) -> (N, 4H) -> (N, H)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, x·Φ(x) (Hendrycks and Gimpel 2016).

    Only a backward pass needs the values from before. Without one they are overwritten: the tensor is four times as
    wide as any other, and not asking for a second one makes the forward pass an eighth faster.
    """
    return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


class Layer(nn.Module):
    """Post-LN: each half adds to its input and *then* normalises (XL and XXL normalise first)."""

    def __init__(self, config: XLMRConfig):
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, packing: Packing, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """`(N, H)` -> `(N, H)` and, on request, the attention weights `(B, h, T, T)`."""
        mixed, given = self.attention(x, packing, weights)
        x = self.attention_norm(x + self.dropout(mixed))
        return self.output_norm(x + self.dropout(self.feed_forward(x))), given


@dataclass
class EncoderOutput:
    """What `Encoder` returns."""

    last_hidden_state: Tensor  # (B, T, H), zeros at padding
    hidden_states: tuple[Tensor, ...] | None = None  # the embeddings first, then each layer: (B, T, H) each
    attentions: tuple[Tensor, ...] | None = None  # each layer: (B, h, T, T), zeros from and to padding


class Encoder(nn.Module):
    """XLM-R's encoder.

    Args:
        config: the shape.
        generator: draws the initial weights; without one torch's global generator does.
        device: where the weights live. "meta" allocates none, for loading a checkpoint into.

    Set `gradient_checkpointing = True` to keep only each layer's input for the backward pass and compute
    the rest again: slower by about a third, and far less memory (Chen et al. 2016).
    """

    def __init__(
        self, config: XLMRConfig, generator: torch.Generator | None = None, device: str | torch.device = "cpu"
    ):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        with torch.device("meta"):  # no values yet: torch's default ones would be drawn for nothing
            self.embeddings = Embeddings(config)
            self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        if torch.device(device).type != "meta":
            self.to_empty(device=device)
            initialise(self, config, generator)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> EncoderOutput:
        """Contextual vectors for a batch of token ids.

        Args:
            input_ids: `(B, T)`.
            attention_mask: `(B, T)`, 1 for real tokens and 0 for padding. Without one every id that is not
                padding is real, as in fairseq; transformers would attend to the padding.
            output_hidden_states: also return the embeddings and each layer's output.
            output_attentions: also return the attention weights, by a slower path that holds them.

        Raises:
            ValueError: ids outside the vocabulary, too many tokens, a mask of the wrong shape, an empty row.
        """
        packing = self.plan(input_ids, attention_mask)
        states, attentions = self.packed(input_ids, packing, output_hidden_states, output_attentions)
        states = [packing.unpack(x) for x in states]
        return EncoderOutput(
            states[-1], tuple(states) if output_hidden_states else None, attentions if output_attentions else None
        )

    def packed(
        self,
        input_ids: Tensor,
        packing: Packing,
        all_states: bool = False,
        weights: bool = False,
        words: Tensor | None = None,
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Hidden states of the real tokens only, `(N, H)` each, and the attentions `(B, h, T, T)` on request.

        Only the last state unless `all_states`. `mlm.py` picks the masked tokens from it.
        """
        positions = self.embeddings.positions(input_ids)
        x = self.embeddings(packing.pack(input_ids), packing.pack(positions), words)
        states, attentions = [x], []
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x, given = checkpoint(layer, x, packing, weights, use_reentrant=False)
            else:
                x, given = layer(x, packing, weights)
            states = [*states, x] if all_states else [x]
            attentions.append(given)
        return states, tuple(attentions)

    def plan(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Packing:
        """Check a batch and say which tokens of it are real; see `forward` for the arguments and errors."""
        config = self.config
        whole = input_ids.dtype in (torch.int64, torch.int32)
        if input_ids.dim() != 2 or input_ids.numel() == 0 or not whole:
            raise ValueError(
                f"input_ids of shape {tuple(input_ids.shape)} and type {input_ids.dtype}: integers of shape "
                "(sentences, tokens) are needed, at least one of each"
            )
        smallest, largest = (int(x) for x in input_ids.aminmax())
        if smallest < 0 or largest >= config.vocab_size:
            raise ValueError(
                f"id {smallest if smallest < 0 else largest} in input_ids is outside the vocabulary: ids run "
                f"from 0 to {config.vocab_size - 1}; was the text encoded with this checkpoint's tokenizer?"
            )
        real = input_ids.ne(config.pad_token_id)
        counts = real.sum(dim=1)
        row = int(counts.argmax())
        if counts[row] > config.max_tokens:
            raise ValueError(
                f"sentence {row} has {int(counts[row])} tokens, and this model has positions for "
                f"{config.max_tokens}: encode with truncation=True, max_length={config.max_tokens}, or split "
                "the text"
            )
        keep = real if attention_mask is None else as_bool(attention_mask, input_ids)
        empty = (~keep.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"no real token in sentence {empty[0]} ({len(empty)} of {len(keep)} are empty): leave empty "
                "rows out of the batch, or check the attention mask"
            )
        return Packing.of(keep)


def as_bool(attention_mask: Tensor, input_ids: Tensor) -> Tensor:
    """`(B, T)` of ones and zeros -> bools; anything else is an error that says so."""
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}: "
            "they must be equal, with 1 for a real token and 0 for padding"
        )
    keep = attention_mask.bool()
    if not torch.equal(keep.to(attention_mask.dtype), attention_mask):
        smallest, largest = (float(x) for x in attention_mask.aminmax())
        raise ValueError(
            f"attention_mask holds values from {smallest:g} to {largest:g}: only 1 for a real token and 0 for "
            "padding are understood"
        )
    return keep


@torch.no_grad()
def initialise(module: nn.Module, config: XLMRConfig, generator: torch.Generator | None = None) -> None:
    """Fresh weights: N(0, 0.02) for matrices and tables, zeros for biases and the padding rows, ones for
    LayerNorm (fairseq `init_bert_params`)."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.weight.fill_(1.0)
            part.bias.zero_()
        elif isinstance(part, nn.Linear):
            part.weight.normal_(0.0, config.initializer_range, generator=generator)
            part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(0.0, config.initializer_range, generator=generator)
            if part.padding_idx is not None:
                part.weight[part.padding_idx].zero_()
