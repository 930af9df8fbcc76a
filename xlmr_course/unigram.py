"""The Unigram language model: a vocabulary of pieces with log-probabilities, and the best way to cut a text into them.

A text is a sequence of pieces, each drawn independently: p(x₁ … xₙ) = Π p(xᵢ). Which pieces, nobody wrote down, so a
text's probability is the sum over all ways to cut it, and tokenizing it means finding the most probable way.

Kudo 2018 (arXiv 1804.10959); the reference implementation is SentencePiece 0.2.3, `unigram_model.cc`. Left out:
user-defined symbols and byte fallback, which XLM-R has none of.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from xlmr_course import sentencepiece_file, unigram_training
from xlmr_course.lattice import UNKNOWN_PENALTY, Lattice, Node, tokens
from xlmr_course.sentencepiece_file import ModelFileError, Normalizer
from xlmr_course.unigram_training import SPACE, Step

__all__ = ["SPACE", "Lattice", "ModelFileError", "Node", "Step", "UnigramModel", "train"]


class UnigramModel:
    """Pieces and their log-probabilities, with the normaliser that belongs to them.

    Args:
        log_probs: piece -> log p, without `<unk> <s> </s>`; a piece that begins a word starts with ▁.
        normalizer: a serialised SentencePiece `NormalizerSpec`; None for XLM-R's, `nmt_nfkc`.

    Raises:
        ValueError: no pieces, an empty piece, or a score that is no finite number.
    """

    def __init__(self, log_probs: Mapping[str, float], normalizer: bytes | None = None) -> None:
        self.pieces = list(log_probs)
        self.scores = array("f", log_probs.values()).tolist()  # float32, as in the file
        if not self.pieces or "" in log_probs:
            raise ValueError("a Unigram model needs at least one piece, and no piece may be empty")
        if not all(map(math.isfinite, self.scores)):
            bad = next(piece for piece, score in zip(self.pieces, self.scores, strict=True) if not math.isfinite(score))
            raise ValueError(f"the score of {bad!r} is {log_probs[bad]}; scores are log-probabilities")
        self.log_probs = dict(zip(self.pieces, self.scores, strict=True))
        self.unknown_score = min(self.scores) - UNKNOWN_PENALTY
        self.longest = max(map(len, self.pieces))
        self.normalize = Normalizer(normalizer)
        self._table: dict[str, tuple[float, int]] = {}

    @classmethod
    def from_pieces(
        cls, pieces: Sequence[str], scores: Sequence[float], normalizer: bytes | None = None
    ) -> UnigramModel:
        """As the constructor, from two lists.

        Raises:
            ValueError: also when the lists differ in length or a piece stands twice.
        """
        if len(pieces) != len(scores):
            raise ValueError(f"{len(pieces):,} pieces but {len(scores):,} scores; give one score a piece")
        log_probs = dict(zip(pieces, scores, strict=True))
        if len(log_probs) < len(pieces):
            twice = next(piece for piece, count in Counter(pieces).items() if count > 1)
            raise ValueError(f"the piece {twice!r} stands twice in the list; give each piece once")
        return cls(log_probs, normalizer)

    def to_sentencepiece(self) -> bytes:
        """The model as the bytes of a SentencePiece `.model` file: `<unk> <s> </s>`, then the pieces in order."""
        return sentencepiece_file.write(self.pieces, self.scores, self.normalize.spec)

    @classmethod
    def from_sentencepiece(cls, data: bytes) -> UnigramModel:
        """Read the bytes of a SentencePiece `.model` file.

        Raises:
            ModelFileError: not such a file, not a Unigram model, or one whose entries XLM-R's ids do not fit.
        """
        pieces, scores, normalizer = sentencepiece_file.read(data)
        try:
            return cls.from_pieces(pieces, scores, normalizer)
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError(f"the SentencePiece model is damaged: {error}") from None

    def lattice(self, text: str) -> Lattice:
        """The lattice of a text."""
        return Lattice(self.normalize(text), self.log_probs, self.unknown_score, self.longest)

    def segment(self, text: str) -> list[str]:
        """The most probable segmentation; neighbouring unknown characters come as one token, as in SentencePiece."""
        return [token for token, _ in self.segment_numbers(self.normalize(text))]

    def nbest(self, text: str, n: int) -> list[tuple[list[str], float]]:
        """The n most probable segmentations with their log p, best first.

        Raises:
            ValueError: n below 1.
        """
        if n < 1:
            raise ValueError(f"n={n}: ask for at least one segmentation")
        return [(tokens(path), score) for path, score in self.lattice(text).nbest(n)]

    def sample(self, text: str, alpha: float, generator: torch.Generator | None = None) -> list[str]:
        """A random segmentation, drawn ∝ p^alpha: large alpha stays near the best one, 0 takes all alike.

        Raises:
            ValueError: alpha is negative or no finite number.
        """
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha={alpha}: use 0 (all segmentations alike) or more, such as 0.1")
        return tokens(self.lattice(text).sample(alpha, generator))

    def log_prob(self, text: str) -> float:
        """log p of a text, summed over all its segmentations."""
        return self.lattice(text).forward()[-1]

    def segment_numbers(self, text: str) -> list[tuple[str, int]]:
        """Viterbi, made for speed, on normalised text: each token with its place in `pieces`, −1 for unknown.

        `_table` holds every piece and every beginning of one, so the loop stops as soon as no piece can follow. Time
        and memory grow with the length of the text.

        On equal scores the first segmentation found stays, as in SentencePiece. It adds in float32, and so must this:
        an array("f") rounds what it stores. It also starts its sum again at −100,000 (kScoreResetThreshold).
        """
        if not self._table:
            self._table = _prefix_table(self.pieces, self.scores, self.unknown_score)
        lookup, unknown = self._table.get, (self.unknown_score, -1)
        length = len(text)
        best = array("f", [-math.inf]) * (length + 1)
        best[0] = 0.0
        starts, numbers = [0] * (length + 1), [-1] * (length + 1)
        for start in range(length):
            score = best[start]
            if score < -100_000:
                for position in range(start, min(start + self.longest, length) + 1):
                    best[position] -= score
                score = 0.0
            for end in range(start + 1, length + 1):
                entry = lookup(text[start:end])
                if entry is None:
                    if end > start + 1:
                        break
                    entry = unknown
                candidate = score + entry[0]
                before = best[end]
                if candidate > before:
                    best[end] = candidate
                    if best[end] > before:
                        starts[end], numbers[end] = start, entry[1]
        found: list[tuple[str, int]] = []
        end = length
        while end > 0:
            start, number = starts[end], numbers[end]
            if number < 0 and found and found[-1][1] < 0:
                found[-1] = (text[start:end] + found[-1][0], -1)
            else:
                found.append((text[start:end], number))
            end = start
        return found[::-1]


def _prefix_table(pieces: Sequence[str], scores: Sequence[float], unknown_score: float) -> dict[str, tuple[float, int]]:
    """piece -> (log p, place); a beginning of pieces that is none itself -> (−∞, −1), or unknown if one character."""
    table = dict(zip(pieces, zip(scores, range(len(pieces)), strict=True), strict=True))
    for piece in pieces:
        while (piece := piece[:-1]) and piece not in table:
            table[piece] = (unknown_score if len(piece) == 1 else -math.inf, -1)
    return table


def train(
    texts: Iterable[str],
    vocab_size: int,
    character_coverage: float = 0.9995,
    seed_size: int = 1_000_000,
    *,
    as_sentencepiece: bool = True,
    fast: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> UnigramModel:
    """Learn a vocabulary from text, as `SentencePieceTrainer` does with model type unigram and `nmt_nfkc`.

    Args:
        texts: any number of texts. SentencePiece leaves out what is longer than 4,192 bytes; here it is used too.
        vocab_size: pieces, counting `<unk> <s> </s>` as SentencePiece does; the model gets `vocab_size` − 3.
        character_coverage: the most frequent characters that make up this share of the text become pieces; the others
            are unknown.
        seed_size: substrings to start from, at most.
        as_sentencepiece: keep two quirks of its trainer; False mends them. `unigram_training` describes both.
        fast: NumPy, all words at once; False for the readable form in `unigram_training`, which gives the same pieces.
        on_step: called after each step, for a progress display or a plot.

    Raises:
        TypeError: a text that is no string, or one string instead of several.
        ValueError: no text; a coverage outside (0, 1]; or a `vocab_size` that is too small for the required characters
            or larger than the text allows. The message says which number would work.
    """
    return UnigramModel(
        unigram_training.learn(
            texts,
            vocab_size,
            character_coverage,
            seed_size,
            as_sentencepiece=as_sentencepiece,
            fast=fast,
            on_step=on_step,
        )
    )
