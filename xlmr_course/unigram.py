"""The Unigram language model: a vocabulary of pieces with log-probabilities, and the best way to cut a text into them.

A text is a sequence of pieces, each drawn independently: p(x₁ … xₙ) = Π p(xᵢ). Which pieces, nobody wrote down, so a
text's probability is the sum over all ways to cut it, and tokenizing it means finding the most probable way.

Kudo 2018 (arXiv 1804.10959); the reference implementation is SentencePiece 0.2.3, `unigram_model.cc`. Left out:
user-defined symbols and byte fallback, which XLM-R has none of.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
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
        self._scores = [*self.scores, self.unknown_score]  # so that place −1 has a score too
        self._root: dict[str, tuple] = {}  # of the trie: character -> node
        self._remembered: dict[str, tuple[int, ...]] = {}  # word -> places; () if it must be cut anew

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
        text = self.normalize(text)
        found: list[str] = []
        end, known = 0, True
        for place in self._cut(text):
            start, end = end, end + (len(self.pieces[place]) if place >= 0 else 1)
            if place < 0 and not known:
                found[-1] += text[start:end]
            else:
                found.append(text[start:end])
            known = place >= 0
        return found

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

    def segment_numbers(self, text: str) -> list[int]:
        """`segment` for text that is normalised already: each token's place in `pieces`, −1 for unknown."""
        places = self._cut(text)
        return [place for place, before in zip(places, [0, *places], strict=False) if place >= 0 or before >= 0]

    def _cut(self, text: str) -> list[int]:
        """The best segmentation, as places in `pieces`, −1 for each unknown character.

        No piece crosses the start of a word, so each word is cut on its own, and remembered. But SentencePiece adds up
        the scores of a whole text in single precision, and by rounding, a score of the text so far can decide between
        two segmentations of a word that are as good as equal. A word that holds such a near tie is cut anew each time,
        from the score so far. 0.01 is near enough: down to −4,096 one addition is off by 0.00012 at most, and there are
        at most twice 32 in two ways to cut a word of 32 characters, 0.008 in all.
        """
        if not self._root:
            self._root = self._branch(range(len(self.pieces)), 0)[0]
            self._words_apart = not any(piece.rfind(SPACE) > 0 for piece in self.pieces)
        found: list[int] = []
        score, single = 0.0, array("f", [0.0])  # what is stored in it is rounded to single precision
        for word in unigram_training.split_words(text) if self._words_apart else [text]:
            places = self._remembered.get(word)
            if places is None and len(word) <= 32:
                places, near_tie, _ = self._viterbi(word, 0.0)
                if len(self._remembered) >= 200_000:
                    self._remembered.clear()
                self._remembered[word] = places = () if near_tie else tuple(places)
            if places and score > -4096:
                for place in places:
                    single[0] = score + self._scores[place]
                    score = single[0]
            else:
                places, _, score = self._viterbi(word, score)
            found += places
        return found

    def _viterbi(self, text: str, score: float) -> tuple[list[int], bool, float]:
        """Cut a text, given the score of what stands before it: places, whether a near tie was met, and the new score.

        It walks down a trie from each position, so it stops as soon as no piece can follow; time and memory grow with
        the length of the text. On equal scores the first segmentation found stays. Which scores are equal depends on
        rounding, so the sums are rounded as SentencePiece 0.2.3 rounds them: to single precision, and started again
        below −100,000 (kScoreResetThreshold), where single precision would no longer tell pieces apart.
        """
        root, pieces, longest = self._root, self.pieces, self.longest
        unknown, near_tie = ({}, self.unknown_score, -1), False
        length = len(text)
        best = [-math.inf] * (length + 1)  # score of the best path to each position
        best[0] = score
        starts, places = [0] * (length + 1), [-1] * (length + 1)  # of the last piece on it
        single = array("f", [0.0])
        for start in range(length):
            score = best[start]
            if score < -100_000:
                for position in range(start, min(start + longest, length + 1)):
                    single[0] = best[position] - score
                    best[position] = single[0]
                score = 0.0
            end, children = start, root
            for character in text[start : start + longest]:
                node = children.get(character)
                if node is None:
                    if end > start:
                        break
                    node = unknown
                end += 1
                below, candidate, place = node
                if below is None:  # not built yet: `candidate` holds the places of the pieces that go on from here
                    if len(candidate) == 1 and end > start + 1:  # one is left: compare it as a whole
                        place = candidate[0]
                        if not text.startswith(pieces[place], start):
                            break
                        end = start + len(pieces[place])
                        below, candidate = {}, self.scores[place]
                    else:
                        node = children[character] = self._branch(candidate, end - start)
                        below, candidate, place = node
                children = below
                gain = score + candidate - best[end]
                if gain > 0:
                    single[0] = score + candidate
                    if single[0] > best[end]:
                        best[end], starts[end], places[end] = single[0], start, place
                if -0.01 < gain < 0.01:
                    near_tie = True
        found: list[int] = []
        end = length
        while end > 0:
            found.append(places[end])
            end = starts[end]
        return found[::-1], near_tie, best[length]

    def _branch(self, numbers: Iterable[int], depth: int) -> tuple[dict[str, tuple], float, int]:
        """A node of the trie, for the pieces with these places, which begin with the same `depth` characters.

        A node is (children, log p, place) of the piece that ends there, or of none: −∞, −1. A child is
        (None, places, 0) until a text first comes to it: most of 250,000 pieces are never met.
        """
        score, place, pieces = (self.unknown_score if depth == 1 else -math.inf), -1, self.pieces
        below: defaultdict[str, list[int]] = defaultdict(list)
        for number in numbers:
            try:
                below[pieces[number][depth]].append(number)
            except IndexError:  # the piece ends here
                score, place = self.scores[number], number
        return {character: (None, tuple(places), 0) for character, places in below.items()}, score, place


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
