"""How well hidden tokens are guessed, language by language: by a model, and by counting.

Masks drawn at random would make two evaluations differ by luck. So each text comes in several copies with another part
hidden in each, until every token was hidden once; and what is hidden is always `<mask>`, so that nothing can be copied
from the input. The mean loss in nats is then a property of model and text, and exp(loss) is the perplexity: among how
many equally likely tokens the model hesitates.

It compares models over the *same* tokenizer. It does not compare languages: a language that is cut into letters has
fewer candidates for each token than one that is cut into words.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from xlmr_course.batches import pad
from xlmr_course.mlm import IGNORED, MaskedLM

ROWS = 64  # in a batch


def hide_each_once(ids: Tensor, tokenizer, probability: float = 0.15, generator: torch.Generator | None = None):
    """Copies of one text, each with another part hidden, together hiding every ordinary token once.

    Args:
        ids: `(T,)`, with `<s>` and `</s>`, which are never hidden.
        probability: about this share of the tokens is hidden in each copy; 0.15 makes seven copies.

    Returns:
        `(inputs, labels)`, both `(C, T)`; copies in which nothing would be hidden are left out.
    """
    copies = max(1, round(1 / probability))
    ordinary = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    order = torch.rand(len(ids), generator=generator).masked_fill(~ordinary, 2.0).argsort().argsort()
    hidden = (order % copies == torch.arange(copies)[:, None]) & ordinary  # (C, T)
    hidden = hidden[hidden.any(dim=1)]
    rows = ids.expand(len(hidden), -1)
    return rows.masked_fill(hidden, tokenizer.mask_token_id), rows.masked_fill(~hidden, IGNORED)


@dataclass(frozen=True)
class HeldOut:
    """Texts of each language as batches `(inputs, labels)`, both `(rows, T)`, the same for all who are measured."""

    batches: dict[str, list[tuple[Tensor, Tensor]]]

    @classmethod
    def of(
        cls,
        tokenizer,
        texts: Mapping[str, Sequence[str]],
        *,
        length: int = 128,
        probability: float = 0.15,
        seed: int = 0,
    ) -> HeldOut:
        """Hide every token of every text once; texts longer than `length` ids are cut into several rows.

        Raises:
            ValueError: a language holds no token that could be hidden.
        """
        made = {}
        for language, found in texts.items():
            generator = torch.Generator().manual_seed(seed)
            rows = []
            for text in found:
                ids = tokenizer.encode(text)[1:-1]
                for start in range(0, len(ids), length - 2):
                    part = [tokenizer.bos_token_id, *ids[start : start + length - 2], tokenizer.eos_token_id]
                    rows += zip(*hide_each_once(torch.tensor(part), tokenizer, probability, generator), strict=True)
            if not rows:
                raise ValueError(f"the held-out text of {language!r} is empty; give it some or leave the language out")
            rows.sort(key=lambda row: len(row[0]))
            made[language] = [
                (pad([i for i, _ in part], tokenizer.pad_token_id), pad([labels for _, labels in part], IGNORED))
                for part in (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))
            ]
        return cls(made)

    def sums(self, model: MaskedLM, rank: int = 0, processes: int = 1) -> Tensor:
        """This process's part: each language's summed loss and number of hidden tokens, `(languages, 2)`."""
        training, device = model.training, next(model.parameters()).device
        model.eval()
        sums = torch.zeros(len(self.batches), 2, dtype=torch.float64)
        with torch.no_grad():
            for row, batches in zip(sums, self.batches.values(), strict=True):
                for inputs, labels in batches[rank::processes]:
                    count = int((labels != IGNORED).sum())
                    loss = model(inputs.to(device), labels=labels.to(device)).loss
                    row += torch.tensor([float(loss) * count, count])
        model.train(training)
        return sums

    def loss(self, model: MaskedLM) -> dict[str, float]:
        """Nats per hidden token, by language."""
        return self.means(self.sums(model))

    def means(self, sums: Tensor) -> dict[str, float]:
        """`sums`, added up over the processes, as nats per hidden token."""
        return dict(zip(self.batches, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))

    def places(self, language: str) -> Iterator[tuple[int, int, int]]:
        """Each hidden token of a language with what stands left and right of it: (left, token, right)."""
        for inputs, labels in self.batches[language]:
            for row, column in (labels != IGNORED).nonzero().tolist():
                yield int(inputs[row, column - 1]), int(labels[row, column]), int(inputs[row, column + 1])


def held_out_loss(
    model: MaskedLM,
    tokenizer,
    texts: Mapping[str, Sequence[str]],
    *,
    length: int = 128,
    probability: float = 0.15,
    seed: int = 0,
) -> dict[str, float]:
    """Nats per hidden token, by language; see the head of this module. exp of it is the perplexity."""
    return HeldOut.of(tokenizer, texts, length=length, probability=probability, seed=seed).loss(model)


def perplexities(losses: Mapping[str, float]) -> dict[str, float]:
    """exp(loss) by language."""
    return {language: math.exp(loss) for language, loss in losses.items()}


def mean(losses: Mapping[str, float]) -> float:
    """The mean over languages, each counting alike."""
    return sum(losses.values()) / len(losses)


# --- by counting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """The free numbers of the counting baselines; `Counts` says what they do."""

    own: float = 0.9
    spread: float = 0.0
    discount: float = 0.8
    left: float = 0.8
    right: float = 0.8
    pair: float = 0.85


GRID = {
    "own": (0.5, 0.7, 0.8, 0.9, 0.95, 0.99),
    "spread": (0.0, 0.2, 0.4, 0.6, 0.8),
    "discount": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97),
    "left": (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "right": (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "pair": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
}


class Counts:
    """What can be guessed by counting in one language: how frequent a token is, and what stands beside it.

    Without neighbours a token has the probability Q(w): its share of the language's tokens, mixed with its share in all
    languages (`own`) and, as in Kneser–Ney smoothing, with the share of different neighbours it was seen with
    (`spread`). A neighbour's counts are discounted absolutely, and what that frees goes to Q:

        P(w | neighbour) = max(c(w, neighbour) − discount, 0) / c(neighbour) + γ(neighbour) · Q(w)

    Both neighbours speak together, as if independent of each other given w:

        P(w | l, r) ∝ Q(w) · (P(w | l) / Q(w))^left · (P(w | r) / Q(w))^right

    and where this very pair was seen with something between, that counts first (`pair`, an absolute discount again).
    A neighbour that is hidden says nothing. `fit` finds the free numbers on dev text, for each language by itself:
    more than the model that is compared with it is allowed.

    Args:
        rows: ids of the language's texts, each with `<s>` and `</s>`.
        everything: token → count, over all languages.
        tokenizer: says which ids are ordinary, so can be hidden.
    """

    def __init__(self, rows: Sequence[Sequence[int]], everything: Mapping[int, int], tokenizer) -> None:
        special = set(tokenizer.all_special_ids)
        self.mask, size = tokenizer.mask_token_id, len(tokenizer)
        self.after: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.before: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.between: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        alone, partners, anywhere = np.zeros(size), np.zeros(size), np.ones(size)
        for row in rows:
            for left, token, right in zip(row, row[1:], row[2:], strict=False):
                if token not in special:
                    alone[token] += 1
                    self.after[left][token] += 1
                    self.before[right][token] += 1
                    self.between[left, right][token] += 1
        for table in (self.after, self.before):
            for seen in table.values():
                partners[list(seen)] += 1
        anywhere[list(everything)] += list(everything.values())
        anywhere[list(special)] = 0
        self.alone, self.partners, self.anywhere = (x / x.sum() for x in (alone, partners, anywhere))
        self.unigram, self.bigram, self.numbers = Numbers(), Numbers(), Numbers()

    def frequencies(self, numbers: Numbers) -> np.ndarray:
        """Q of each id, `(V,)`."""
        here = (1 - numbers.spread) * self.alone + numbers.spread * self.partners
        return numbers.own * here + (1 - numbers.own) * self.anywhere

    def fit(self, places: Sequence[tuple[int, int, int]], rounds: int = 3) -> None:
        """Choose each number from its grid, one after the other, several times over, so that the loss is smallest."""
        tokens = [token for _, token, _ in places]
        self.unigram = min(
            (Numbers(own=own) for own in GRID["own"]), key=lambda numbers: self._unigram_loss(tokens, numbers)
        )
        self.bigram = self._fitted(self._table(self._left_only(places)), self.bigram, rounds)
        self.numbers = self._fitted(self._table(places), self.numbers, rounds)

    def _fitted(self, table: dict[str, np.ndarray], numbers: Numbers, rounds: int) -> Numbers:
        for _ in range(rounds):
            for name, grid in GRID.items():
                choices = [replace(numbers, **{name: value}) for value in grid]
                numbers = min(choices, key=lambda numbers: -np.log(self._cloze(table, numbers)).mean())
        return numbers

    def _left_only(self, places: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        return [(left, token, self.mask) for left, token, _ in places]

    def unigram_loss(self, places: Sequence[tuple[int, int, int]]) -> float:
        """Nats per token, guessed by frequency alone. `places` are (left, token, right), as from `HeldOut.places`."""
        return self._unigram_loss([token for _, token, _ in places], self.unigram)

    def bigram_loss(self, places: Sequence[tuple[int, int, int]]) -> float:
        """Nats per token, guessed from the token to its left alone, as a language model by counting does."""
        return float(-np.log(self._cloze(self._table(self._left_only(places)), self.bigram)).mean())

    def cloze_loss(self, places: Sequence[tuple[int, int, int]]) -> float:
        """Nats per token, guessed from the tokens to its left and right."""
        return float(-np.log(self.cloze(places)).mean())

    def cloze(self, places: Sequence[tuple[int, int, int]]) -> np.ndarray:
        """P(token | left, right) of each place, `(places,)`."""
        return self._cloze(self._table(places), self.numbers)

    def _unigram_loss(self, tokens: Sequence[int], numbers: Numbers) -> float:
        return float(-np.log(self.frequencies(numbers)[tokens]).mean())

    def _table(self, places: Sequence[tuple[int, int, int]]) -> dict[str, np.ndarray]:
        """What was counted at each place, flat: the token itself, then all that were seen beside its neighbours.

        Only these need to be looked at one by one. All others have the same factor to Q, so their sum is known.
        """
        flat: dict[str, list] = {name: [] for name in ("start", "token", "left", "right")}
        each: dict[str, list] = {name: [] for name in ("n left", "k left", "n right", "k right", "n", "k", "c")}
        nothing: Counter[int] = Counter()
        for left, token, right in places:
            beside = nothing if left == self.mask else self.after.get(left, nothing)
            beyond = nothing if right == self.mask else self.before.get(right, nothing)
            candidates = [token, *((beside.keys() | beyond.keys()) - {token})]
            flat["start"].append(len(flat["token"]))
            flat["token"] += candidates
            flat["left"] += [beside[candidate] for candidate in candidates]
            flat["right"] += [beyond[candidate] for candidate in candidates]
            between = nothing if self.mask in (left, right) else self.between.get((left, right), nothing)
            told = (beside.total(), len(beside), beyond.total(), len(beyond), between.total(), len(between))
            for name, value in zip(each, (*told, between[token]), strict=True):
                each[name].append(value)
        return {name: np.array(values) for name, values in (flat | each).items()}

    def _cloze(self, table: dict[str, np.ndarray], numbers: Numbers) -> np.ndarray:
        starts = table["start"]
        lengths = np.diff([*starts, len(table["token"])])
        base = self.frequencies(numbers)[table["token"]]
        covered = np.add.reduceat(base, starts)
        weights, usual = base.copy(), np.ones(len(starts))
        for side, power in (("left", numbers.left), ("right", numbers.right)):
            total = np.maximum(table[f"n {side}"], 1)
            free = np.where(table[f"n {side}"], numbers.discount * table[f"k {side}"] / total, 1.0)  # γ; 1: unknown
            direct = np.maximum(table[side] - numbers.discount, 0) / np.repeat(total, lengths)
            weights *= (direct / base + np.repeat(free, lengths)) ** power
            usual *= free**power
        found = weights[starts] / (np.add.reduceat(weights, starts) + usual * np.maximum(0, 1 - covered))
        total = np.maximum(table["n"], 1)
        pair = np.maximum(table["c"] - numbers.pair, 0) / total + numbers.pair * table["k"] / total * found
        return np.where(table["n"], pair, found)


def counted_losses(
    tokenizer, train: Mapping[str, Sequence[str]], dev: HeldOut, *others: HeldOut
) -> list[dict[str, dict[str, float]]]:
    """The counting baselines, trained on `train` and tuned on `dev`, on dev and on each of `others`.

    Returns:
        For each held-out set `{"unigram": {language: nats}, "bigram": {…}, "cloze": {…}}`.
    """
    rows = {language: [tokenizer.encode(text) for text in texts] for language, texts in train.items()}
    everything = Counter(token for found in rows.values() for row in found for token in row)
    for special in tokenizer.all_special_ids:
        everything.pop(special, None)
    results = [{"unigram": {}, "bigram": {}, "cloze": {}} for _ in (dev, *others)]
    for language in dev.batches:
        counts = Counts(rows[language], everything, tokenizer)
        counts.fit(list(dev.places(language)))
        for result, held_out in zip(results, (dev, *others), strict=True):
            places = list(held_out.places(language))
            result["unigram"][language] = counts.unigram_loss(places)
            result["bigram"][language] = counts.bigram_loss(places)
            result["cloze"][language] = counts.cloze_loss(places)
    return results
