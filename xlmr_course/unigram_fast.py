"""Training a Unigram model with NumPy: the same steps as `unigram.py`'s readable form, for all words at once.

Two ideas make it fast.

1. Substrings are numbered level by level: a substring of length L + 1 is the pair (number of its first L characters,
   next character), so `np.unique` over pairs counts them, and a vocabulary is matched against all positions at once.
2. The lattices of all words advance together, one column (position in the word) at a time. Words are sorted by length,
   longest first, and node (word w, column t) has the number `offset[t] + w`, so a column is one contiguous slice.

The order of the training steps, and why each is taken: `unigram_training.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

SHIFT = 21  # a code point fits into 21 bits; the bits above it hold the number of the prefix before it
MINIMUM_COUNT = 0.5  # kExpectedFrequencyThreshold
TOO_LITTLE = "there is too little text to learn from: no piece is expected to be used even once; give more text"


def codes_of(text: str) -> np.ndarray:
    """The code points of a text, (characters,) int64."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def count_substrings(
    sentences: Sequence[str], script_of: Mapping[str, int], longest: int, by_bytes: bool = True
) -> dict[str, int]:
    """How often each candidate of 2 to `longest` characters occurs: as `unigram_training.count_substrings`."""
    text = "\0".join([*sentences, ""])
    codes = codes_of(text)
    alphabet, number = np.unique(codes, return_inverse=True)  # characters as small numbers
    script = np.array([script_of.get(chr(code), -1) for code in alphabet], np.int32)[number]  # (characters,)
    size = len(alphabet)
    # What tells two continuations apart: the whole character, or the first byte of its UTF-8 form.
    follower = [chr(code).encode("utf-8")[0] if by_bytes else place for place, code in enumerate(alphabet.tolist())]
    follower = np.array(follower)  # (alphabet,)
    found: dict[str, int] = {}
    position = np.flatnonzero(script != -1)  # where a substring of the present length starts
    prefix = number[position]  # its number
    running = np.maximum(script[position], 0)  # the script it is bound to; 0: not bound yet
    for length in range(1, longest + 1):
        following = position + length
        key = prefix * size + number[following]
        extended, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
        if length > 1 and len(position):
            # The extensions of one substring stand side by side; it branches if their followers are not all the same.
            parent, after = extended // size, follower[extended % size]
            first = np.flatnonzero(np.diff(parent, prepend=-1))
            branches = np.minimum.reduceat(after, first) < np.maximum.reduceat(after, first)
            total = np.add.reduceat(count, first)
            where = np.empty(prefix.max() + 1, np.int64)  # number of a substring -> a place where it stands
            where[prefix] = position
            for start, frequency in zip(where[parent[first[branches]]].tolist(), total[branches].tolist(), strict=True):
                found[text[start : start + length]] = frequency
        # Substrings to lengthen: they occur twice, and the next character may stand inside the same piece.
        script_next = script[following]
        fits = (script_next >= 0) & ((running == 0) | (script_next == 0) | (script_next == running))
        fits &= count[inverse] > 1
        position, prefix = position[fits], inverse[fits]
        running = np.where(running[fits] == 0, script_next[fits], running[fits])
        if not len(position):
            break
    return found


class Lattices:
    """The lattices of many words over one vocabulary, as arrays.

    An edge is an occurrence of a piece in a word. Edges are sorted by the node they end in, and among those the longest
    piece comes first, so that the first of equals is the one that SentencePiece takes.

    Args:
        words: the texts, (words,).
        pieces: the vocabulary; numbers of pieces are places in it, and `len(pieces)` stands for an unknown character.
        whole: keep the piece that is the whole word.
    """

    def __init__(self, words: Sequence[str], pieces: Sequence[str], whole: bool = True) -> None:
        lengths = np.array([len(word) for word in words])
        self.order = np.argsort(-lengths, kind="stable")  # row -> place in `words`, longest word first
        self.lengths = lengths[self.order]
        text = codes_of("".join(words[i] for i in self.order))
        row = np.repeat(np.arange(len(words)), self.lengths)  # word of each character
        column = np.arange(len(text)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        rest = self.lengths[row] - column  # characters from here to the word's end
        parts = []
        for length, position, piece in _occurrences(text, rest, pieces):
            if length == 1:  # what no piece of one character covers is unknown
                unknown = np.setdiff1d(np.arange(len(text)), position, assume_unique=True)
                position = np.concatenate([position, unknown])
                piece = np.concatenate([piece, np.full(len(unknown), len(pieces))])
            if not whole:
                inside = length < self.lengths[row[position]]
                position, piece = position[inside], piece[inside]
            parts.append((position, piece, np.full(len(position), length)))
        position, piece, length = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        end_column = column[position] + length
        key = (end_column * len(words) + row[position]) * (length.max() + 1) - length
        order = np.argsort(key, kind="stable")
        self.row = row[position][order].astype(np.int32)  # (edges,)
        self.start_column = column[position][order].astype(np.int32)
        self.end_column = end_column[order].astype(np.int32)
        self.piece = piece[order].astype(np.int32)
        self._index()

    def _index(self) -> None:
        """Node numbers and slices for the present edges."""
        columns = int(self.lengths[0]) + 1
        in_column = np.searchsorted(-self.lengths, -np.arange(columns), side="right")  # words that reach column t
        self.offset = np.concatenate([[0], np.cumsum(in_column)])  # (columns + 1,): first node of a column
        self.last = self.offset[self.lengths] + np.arange(len(self.lengths))  # (words,): each word's final node
        self.start = self.offset[self.start_column] + self.row
        end = self.offset[self.end_column] + self.row
        first_edge = np.flatnonzero(np.diff(end, prepend=-1))  # every node past column 0 has an edge into it
        self.slices = []  # per column: nodes [lo, hi), edges [lo, hi), first edge of each node within the slice
        node_of_group = end[first_edge]
        groups = np.searchsorted(node_of_group, self.offset)
        bounds = np.append(first_edge, len(end))
        for t in range(1, columns):
            lo, hi = bounds[groups[t]], bounds[groups[t + 1]]
            self.slices.append((self.offset[t], self.offset[t + 1], lo, hi, first_edge[groups[t] : groups[t + 1]] - lo))

    def select(self, rows: np.ndarray, pieces: np.ndarray) -> None:
        """Keep some words and pieces: masks (words,) over rows and (pieces + 1,)."""
        keep = rows[self.row] & pieces[self.piece]
        new_row = np.cumsum(rows) - 1
        self.row = new_row[self.row[keep]].astype(np.int32)
        self.start_column, self.end_column = self.start_column[keep], self.end_column[keep]
        self.piece = self.piece[keep]
        self.order, self.lengths = self.order[rows], self.lengths[rows]
        self._index()

    def expected_counts(self, scores: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
        """Forward–backward: how often each piece is used on average over all segmentations, and Σ counts · log p(word).

        The forward pass keeps, for each edge, its share of the probability that arrives at its end; the backward pass
        hands each word's count down along these shares. This equals exp(α + s + β − log Z), with one exponential an
        edge instead of two.

        Args:
            scores: (pieces + 1,) log p. counts: (words,) in the order of `words`.
        """
        alpha = np.zeros(self.offset[-1])
        share = scores[self.piece]
        for node, end, lo, hi, first in self.slices:
            x, word = share[lo:hi], self.row[lo:hi]
            x += alpha[self.start[lo:hi]]
            best = np.maximum.reduceat(x, first)
            x -= best[word]
            np.exp(x, out=x)
            total = np.add.reduceat(x, first)
            x /= total[word]
            alpha[node:end] = best + np.log(total)
        counts = counts[self.order]
        log_likelihood = float(alpha[self.last] @ counts)
        flow = np.zeros(self.offset[-1])
        flow[self.last] = counts
        for node, end, lo, hi, _ in reversed(self.slices):
            share[lo:hi] *= flow[node:end][self.row[lo:hi]]
            flow[self.start[lo:hi]] += share[lo:hi]  # one edge for each length and word: no start stands here twice
        return np.bincount(self.piece, share, len(scores)), log_likelihood

    def viterbi(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best scores of the words (words,), by row, and for each node the edge of its best path (nodes,)."""
        best = np.zeros(self.offset[-1])
        best_edge = np.full(self.offset[-1], -1)
        x = scores[self.piece]
        for node, end, lo, hi, first in self.slices:
            part, word = x[lo:hi], self.row[lo:hi]
            part += best[self.start[lo:hi]]
            best[node:end] = np.maximum.reduceat(part, first)
            equal = np.flatnonzero(part == best[node:end][word])[::-1]  # backwards: the first of equals is written last
            best_edge[node + word[equal]] = lo + equal
        return best[self.last], best_edge

    def walk(self, best_edge: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The best paths from their ends: in each step the rows that are still under way, and the pieces they use."""
        row, node = np.arange(len(self.lengths)), self.last
        while len(row):
            edge = best_edge[node]
            yield row, self.piece[edge]
            node = self.start[edge]
            under_way = node >= len(self.lengths)  # column 0 holds one node a word
            row, node = row[under_way], node[under_way]


class FastTrainer:
    """The pieces that are left in training and their log-probabilities: as `unigram_training.ReferenceTrainer`."""

    def __init__(self, words: Mapping[str, int], log_probs: Mapping[str, float], as_sentencepiece: bool = True) -> None:
        self.as_sentencepiece = as_sentencepiece
        self.pieces = list(log_probs)
        self.alive = np.arange(len(self.pieces))  # numbers of the pieces that are left, in SentencePiece's order
        self.scores = np.array(list(log_probs.values()))  # (alive,)
        self.single = np.array([len(piece) == 1 for piece in self.pieces] + [True])
        self.counts = np.array(list(words.values()), np.float64)
        self.corpus = Lattices(list(words), self.pieces)
        self.inside: Lattices | None = None  # the lattices of the pieces themselves, without the piece as a whole

    def __len__(self) -> int:
        return len(self.alive)

    def log_probs(self) -> dict[str, float]:
        """piece -> log p, in order."""
        return dict(zip((self.pieces[i] for i in self.alive), self.scores.tolist(), strict=True))

    def _edge_scores(self) -> np.ndarray:
        """(pieces + 1,): a character whose piece is gone, or never was, is unknown; other lost pieces have no edge."""
        scores = np.full(len(self.pieces) + 1, self.scores.min() - 10.0)
        scores[self.alive] = self.scores
        return scores

    def _select(self) -> None:
        usable = self.single.copy()
        usable[self.alive] = True
        self.corpus.select(np.ones(len(self.corpus.lengths), bool), usable)

    def em_step(self) -> float:
        """Expected counts, then new log-probabilities. Returns the log-likelihood before the step."""
        counts, log_likelihood = self.corpus.expected_counts(self._edge_scores(), self.counts)
        counts = counts[self.alive].astype(np.float32)
        self.alive, counts = self.alive[counts >= MINIMUM_COUNT], counts[counts >= MINIMUM_COUNT]
        if not len(self.alive):
            raise ValueError(TOO_LITTLE)
        counts = torch.tensor(counts.astype(np.float64))
        self.scores = (torch.digamma(counts) - torch.digamma(counts.sum())).float().double().numpy()
        self._select()
        return log_likelihood

    def prune(self, keep: int) -> None:
        """Drop the pieces that the likelihood misses least, until at most `keep` are left."""
        scores = self._edge_scores()
        _, best_edge = self.corpus.viterbi(scores)
        frequency = np.zeros(len(self.pieces) + 1)
        row_counts = self.counts[self.corpus.order]
        for row, piece in self.corpus.walk(best_edge):
            frequency += np.bincount(piece, row_counts[row], len(frequency))
        gone = np.ones(len(frequency), bool)
        gone[self.alive] = False
        frequency[gone] = 0  # unknown characters
        total = frequency.sum()

        loss = np.zeros(len(frequency), np.float32)
        droppable = np.zeros(len(frequency), bool)
        for own, alternative_score, parts, log_sum in self._alternatives(scores, frequency, gone):
            count = frequency[own]
            droppable[own[alternative_score > scores[own]]] = True  # its own best segmentation is not itself
            with np.errstate(divide="ignore", invalid="ignore"):  # unused pieces; they go below
                after = log_sum - parts * np.log(total + count * (parts - 1))
                loss[own] = count / total * (np.log(count) - np.log(total) - after)
        left = (frequency[self.alive] > 0) & ~droppable[self.alive]
        kept = self.alive[left & self.single[self.alive]]  # a single character has no second segmentation
        others = self.alive[left & ~self.single[self.alive]]
        others = others[np.argsort(-loss[others], kind="stable")]
        self.alive = np.concatenate([kept, others[: max(0, keep - len(kept))]])
        self.scores = scores[self.alive]
        if len(self.alive):
            self._select()

    def _alternatives(
        self, scores: np.ndarray, frequency: np.ndarray, gone: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """The second-best segmentations: pieces, their scores, number of parts, Σ log(frequency of part + of piece)."""
        if self.inside is None:
            self.inside_pieces = self.alive[~self.single[self.alive]]
            if len(self.inside_pieces):
                self.inside = Lattices([self.pieces[i] for i in self.inside_pieces], self.pieces, whole=False)
        if self.inside is None or gone[self.inside_pieces].all():
            return
        self.inside.select(~gone[self.inside_pieces[self.inside.order]], ~gone | self.single)
        own = self.inside_pieces[self.inside.order]  # row -> piece
        alternative_score, best_edge = self.inside.viterbi(scores)
        frequency = frequency.copy()
        if self.as_sentencepiece:
            frequency[gone] = frequency[self.alive[0]]
        parts, log_sum = np.zeros(len(own)), np.zeros(len(own))
        with np.errstate(divide="ignore"):
            for row, piece in self.inside.walk(best_edge):
                parts[row] += 1
                log_sum[row] += np.log(frequency[piece] + frequency[own[row]])
        yield own, alternative_score, parts, log_sum


def _occurrences(
    text: np.ndarray, rest: np.ndarray, pieces: Sequence[str]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Length by length, where pieces occur: (length, positions, pieces). `rest` says how far a match may reach."""
    codes = codes_of("".join(pieces))
    lengths = np.array([len(piece) for piece in pieces])
    begins = np.cumsum(lengths) - lengths
    piece, prefix = np.arange(len(pieces)), np.zeros(len(pieces), np.int64)
    position, state = np.arange(len(text)), np.zeros(len(text), np.int64)
    for length in range(1, int(lengths.max()) + 1):
        longer = lengths[piece] >= length
        piece, prefix = piece[longer], prefix[longer]
        known, prefix = np.unique(prefix << SHIFT | codes[begins[piece] + length - 1], return_inverse=True)
        ends_here = np.full(len(known), -1)
        exact = lengths[piece] == length
        ends_here[prefix[exact]] = piece[exact]
        within = rest[position] >= length
        position, state = position[within], state[within]
        key = state << SHIFT | text[position + length - 1]
        state = np.minimum(np.searchsorted(known, key), len(known) - 1)
        matches = known[state] == key
        position, state = position[matches], state[matches]
        number = ends_here[state]
        yield length, position[number >= 0], number[number >= 0]
