"""Masked language modelling: which tokens to hide, the head that guesses them, and the loss.

BERT's objective as XLM-R uses it (Devlin et al. 2019, section 3.1; Conneau et al. 2020, section 3): 15 %
of the tokens are chosen; of those 80 % become `<mask>`, 10 % a random token, 10 % stay. The model has to
name the original of every chosen token.

With 250,002 words the head is the expensive part: for 1,024 tokens the scores alone take 1 GB. Only the
chosen tokens count for the loss, so only they are projected (fairseq does the same), about a seventh.

Letters in shape comments: B sentences, T tokens in the longest, N real tokens, M chosen ones, H hidden
size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xlmr_course.encoder import Encoder, initialise

IGNORED = -100  # the label of a token that was not chosen, torch's default `ignore_index`


def mask_tokens(
    input_ids: Tensor,
    tokenizer,
    probability: float = 0.15,
    generator: torch.Generator | None = None,
    *,
    rule: Literal["independent", "exact"] = "independent",
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Choose tokens, hide them, and keep the originals as labels. Call it anew for every epoch.

    Special tokens are never chosen, and never drawn as a random replacement.

    Args:
        input_ids: `(B, T)`; left as they are.
        tokenizer: gives `mask_token_id`, `all_special_ids` and `len()`, the size of the vocabulary.
        probability: the share of ordinary tokens to choose.
        generator: draws everything; without one torch's global generator does.
        rule: "independent" chooses each token by its own coin (transformers' collator), so a sentence of
            20 has 3 on average, and in one case of 26 none. "exact" chooses ⌊p·n + u⌋ of a sentence's n
            ordinary tokens, u uniform in [0, 1) (fairseq): 3 of 20, always; and 1 or 2 of 10, 1.5 on
            average.
        mask_share: of the chosen, how many become `<mask>`; the loss would otherwise be read off the input.
        random_share: how many become a random ordinary token, so that no token can be trusted blindly. The
            rest stay, because later, in fine-tuning, there is no `<mask>`.

    Returns:
        `(inputs, labels)`, both `(B, T)`: the changed ids, and the original ids at chosen places, else
        -100.

    Raises:
        ValueError: a share outside [0, 1], or ids the tokenizer does not have.
    """
    size, special = len(tokenizer), sorted(set(tokenizer.all_special_ids))
    shares = {"probability": probability, "mask_share": mask_share, "random_share": random_share}
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} is not a share: give a number between 0 and 1")
    if mask_share + random_share > 1:
        raise ValueError(f"mask_share={mask_share} and random_share={random_share} add up to more than 1")
    if input_ids.numel() and (input_ids.min() < 0 or input_ids.max() >= size):
        raise ValueError(
            f"input_ids run from {int(input_ids.min())} to {int(input_ids.max())}, but this tokenizer has ids "
            f"0 to {size - 1}: encode with the tokenizer that is passed here"
        )

    # Random numbers are drawn on the generator's own device: one on the CPU gives the same masks on a GPU.
    device = generator.device if generator is not None else input_ids.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device).to(input_ids.device)

    ordinary = ~torch.isin(input_ids, torch.tensor(special, device=input_ids.device))
    if rule == "independent":
        chosen = ordinary & (uniform(*input_ids.shape) < probability)
    elif rule == "exact":
        counts = (probability * ordinary.sum(dim=1) + uniform(len(input_ids))).long()  # (B,)
        # A random order of each row, specials last; the first `counts` of it are chosen.
        order = uniform(*input_ids.shape).masked_fill(~ordinary, 2.0).argsort(dim=1)
        chosen = order.argsort(dim=1) < counts[:, None]  # argsort of an order gives each token's rank in it
    else:
        raise ValueError(f"rule={rule!r} is unknown: there are 'independent' and 'exact'")

    labels = input_ids.masked_fill(~chosen, IGNORED)
    fate = uniform(*input_ids.shape)
    inputs = input_ids.masked_fill(chosen & (fate < mask_share), tokenizer.mask_token_id)
    randomised = chosen & (fate >= mask_share) & (fate < mask_share + random_share)
    drawn = torch.randint(size - len(special), input_ids.shape, generator=generator, device=device)
    drawn = drawn.to(input_ids.device, input_ids.dtype)
    for id in special:  # ascending: step over each special id, so that every ordinary id is equally likely
        drawn += drawn >= id
    return torch.where(randomised, drawn, inputs), labels


class LMHead(nn.Module):
    """Dense, GELU, LayerNorm, then a score for each word: the product with its embedding, plus a bias.

    The decoder has no matrix of its own. It is the embedding table (tied weights, Press & Wolf 2017),
    which is why `forward` is given it.
    """

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """`(M, H)` states and the table `(V, H)` -> `(M, V)` scores."""
        return F.linear(self.transform(x), words, self.bias)

    def transform(self, x: Tensor) -> Tensor:
        """`(M, H)` -> `(M, H)`: everything before the scores."""
        return self.layer_norm(F.gelu(self.dense(x)))


class TiedTable:
    """The word table in its two roles, embedding and decoder, with one gradient for both.

    `look_up` and `loss` compute what `F.embedding` and `F.cross_entropy(F.linear(...))` compute. Left to
    autograd, each role makes a gradient as large as the table (384 MB for 250,002 words of 384) and a third
    tensor holds their sum. Here the decoder leaves its part, `(M, V)` and `(M, H)`, for the look-up, whose
    turn comes last; that one multiplies them out and adds its few rows into the product. The softmax keeps
    one tensor of scores where autograd would keep three.
    """

    def __init__(self, table: Tensor):
        self.table = table
        self.left: tuple[Tensor, Tensor] | None = None  # gradient of the scores (M, V), and the states (M, H)

    def look_up(self, ids: Tensor, padding: int) -> Tensor:
        """`(N,)` -> `(N, H)`; the row of `padding` learns nothing from this."""
        return _LookUp.apply(self.table, ids, padding, self)

    def loss(self, x: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """States `(M, H)`, bias `(V,)` and true ids `(M,)` -> the mean cross-entropy and the scores `(M, V)`.

        Call it once, on states that come from `look_up`. The scores carry no gradient.
        """
        return _Loss.apply(x, self.table, bias, targets, self)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, ids: Tensor, padding: int, tied: TiedTable) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.tied = padding, tied
        return F.embedding(ids, table)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (ids,) = ctx.saved_tensors
        of_scores, x = ctx.tied.left
        ctx.tied.left = None
        total = (of_scores.T @ x.to(of_scores.dtype)).to(gradient.dtype)  # (V, M) (M, H) -> (V, H)
        real = ids != ctx.padding
        return total.index_add_(0, ids[real], gradient[real]), None, None, None


class _Loss(torch.autograd.Function):
    ROWS = 16  # tokens whose 250,002 scores are in hand at once: 16 MB

    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, bias: Tensor, targets: Tensor, tied: TiedTable):
        logits = F.linear(x, table, bias)
        wide = torch.promote_types(logits.dtype, torch.float32)  # half precision is too coarse for the sums
        totals = torch.cat([rows.to(wide).logsumexp(dim=1) for rows in logits.split(_Loss.ROWS)])  # (M,)
        ctx.save_for_backward(x, table, logits, totals, targets)
        ctx.tied = tied
        ctx.mark_non_differentiable(logits)
        true = logits.gather(1, targets[:, None]).squeeze(1)
        return (totals - true.to(wide)).mean(), logits

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, _):
        x, table, logits, totals, targets = ctx.saved_tensors
        of_scores = torch.empty_like(logits)  # softmax - one-hot, over M
        parts = zip(*(t.split(_Loss.ROWS) for t in (logits, totals, targets, of_scores)), strict=True)
        for rows, total, target, result in parts:
            share = (rows.to(total.dtype) - total[:, None]).exp_()
            share[torch.arange(len(rows), device=rows.device), target] -= 1
            result.copy_(share.mul_(gradient / len(logits)))
        if ctx.needs_input_grad[1]:
            ctx.tied.left = of_scores, x
        of_x = (of_scores @ table.to(of_scores.dtype)).to(x.dtype)
        return of_x, None, of_scores.sum(dim=0, dtype=totals.dtype), None, None


@dataclass
class MaskedLMOutput:
    """What `MaskedLM` returns."""

    loss: Tensor | None  # mean cross-entropy of the chosen tokens, in nats; exp(loss) is the perplexity
    logits: Tensor  # (B, T, V), zeros at padding; with labels (M, V), the chosen tokens in reading order


class MaskedLM(nn.Module):
    """An encoder with the head that guesses hidden tokens.

    Args:
        encoder: its embedding table serves as decoder.
        generator: draws the head's first weights; without one torch's global generator does.
    """

    architecture = "XLMRobertaForMaskedLM"  # what transformers calls it, for config.json

    def __init__(self, encoder: Encoder, generator: torch.Generator | None = None):
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        device = encoder.embeddings.word.weight.device
        with torch.device(device):
            self.lm_head = LMHead(encoder.config)
        if device.type != "meta":
            initialise(self.lm_head, encoder.config, generator)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> MaskedLMOutput:
        """Scores for every token, or the loss on the chosen ones.

        Args:
            input_ids: `(B, T)`.
            attention_mask: `(B, T)`, see `Encoder`.
            labels: `(B, T)`, the true id at chosen places and -100 elsewhere, as from `mask_tokens`.

        Raises:
            ValueError: what `Encoder` raises; labels of the wrong shape, of no word, on padding, or all -100.
        """
        packing = self.encoder.plan(input_ids, attention_mask)
        words = self.encoder.embeddings.word.weight
        if labels is None:
            states, _ = self.encoder.packed(input_ids, packing)
            return MaskedLMOutput(None, packing.unpack(self.lm_head(states[-1], words)))
        chosen = self.check_labels(labels, packing.keep)
        targets = labels.flatten()[chosen].long()  # (M,)
        tied = TiedTable(words)
        found = tied.look_up(packing.pack(input_ids), self.config.pad_token_id)
        states, _ = self.encoder.packed(input_ids, packing, words=found)
        if packing.index is not None:
            # Where each place of the batch (B·T) stands among the real tokens (N).
            rank = torch.empty(labels.numel(), dtype=torch.long, device=labels.device)
            rank[packing.index] = torch.arange(len(packing.index), device=labels.device)
            chosen = rank[chosen]
        loss, logits = tied.loss(self.lm_head.transform(states[-1][chosen]), self.lm_head.bias, targets)
        return MaskedLMOutput(loss, logits)

    def check_labels(self, labels: Tensor, keep: Tensor) -> Tensor:
        """The places in the flattened batch that are chosen, `(M,)`; a ValueError when labels make no sense."""
        if labels.shape != keep.shape:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and input_ids {tuple(keep.shape)}: they must be "
                f"equal, with {IGNORED} at every token that does not count"
            )
        chosen = labels != IGNORED
        if not chosen.any():
            raise ValueError(
                f"no token is chosen: every label is {IGNORED}, so there is no loss; mask again, or use a larger batch"
            )
        smallest, largest = (int(x) for x in labels[chosen].aminmax())
        if smallest < 0 or largest >= self.config.vocab_size:
            raise ValueError(
                f"label {smallest if smallest < 0 else largest} is outside the vocabulary: a label is an id from "
                f"0 to {self.config.vocab_size - 1}, or {IGNORED} for a token that does not count"
            )
        if (chosen & ~keep).any():
            row, column = (chosen & ~keep).nonzero()[0].tolist()
            raise ValueError(
                f"sentence {row} has a label at place {column}, which is padding: set labels to {IGNORED} there"
            )
        return chosen.flatten().nonzero().flatten()
