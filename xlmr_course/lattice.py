"""All ways to cut a text into pieces, as a graph: Viterbi, forward–backward, n-best and sampling run on it.

Positions are numbered between characters, 0 before the first. A node is a piece at a place; a path of nodes from
position 0 to the end is one segmentation, and its log p is the sum of its nodes' scores. So `unigram_model.cc` in
SentencePiece, and Kudo 2018 (arXiv 1804.10959), §3.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

UNKNOWN_PENALTY = 10.0  # kUnkPenalty: an unknown character costs this much more than the least likely piece


class Node(NamedTuple):
    """One piece at one place of a text: `text[start:end]`, log p. An unknown character is a node too."""

    start: int
    end: int
    piece: str
    score: float
    known: bool = True


class Lattice:
    """All ways to cut a text into pieces: each path of nodes from position 0 to the end is one.

    Args:
        text: normalised text, such as `"▁hello"`.
        log_probs: piece -> log p.
        unknown_score: for a character that is no piece; None for the least log p − 10.
        longest: characters of the longest piece; None to look.
    """

    def __init__(
        self,
        text: str,
        log_probs: Mapping[str, float],
        unknown_score: float | None = None,
        longest: int | None = None,
    ) -> None:
        if unknown_score is None:
            unknown_score = min(log_probs.values()) - UNKNOWN_PENALTY
        longest = longest or max(map(len, log_probs))
        self.text = text
        self.nodes: list[Node] = []
        self.ending: list[list[Node]] = [[] for _ in range(len(text) + 1)]  # position -> nodes that end there
        self.starting: list[list[Node]] = [[] for _ in range(len(text) + 1)]
        for start in range(len(text)):
            for end in range(start + 1, min(start + longest, len(text)) + 1):
                piece = text[start:end]
                if piece in log_probs:
                    self._add(Node(start, end, piece, log_probs[piece]))
                elif end == start + 1:
                    self._add(Node(start, end, piece, unknown_score, known=False))

    def _add(self, node: Node) -> None:
        self.nodes.append(node)
        self.ending[node.end].append(node)
        self.starting[node.start].append(node)

    def best_scores(self) -> tuple[list[float], list[Node | None]]:
        """Viterbi: for each position (length + 1,) the log p of the best path to it, and that path's last node."""
        best: list[float] = [0.0] * len(self.ending)
        last: list[Node | None] = [None] * len(self.ending)
        for end in range(1, len(self.ending)):
            # max() keeps the first of equals. Nodes stand in order of their start: the longest last piece wins a tie.
            last[end] = max(self.ending[end], key=lambda node: best[node.start] + node.score)
            best[end] = best[last[end].start] + last[end].score
        return best, last

    def viterbi(self) -> tuple[list[Node], float]:
        """The most probable path and its log p."""
        best, last = self.best_scores()
        path: list[Node] = []
        while (node := last[path[-1].start if path else -1]) is not None:
            path.append(node)
        return path[::-1], best[-1]

    def forward(self, alpha: float = 1.0) -> list[float]:
        """log Σ p^alpha over all paths from the start to each position, (length + 1,)."""
        scores = [0.0] * len(self.ending)
        for end in range(1, len(scores)):
            scores[end] = logsumexp([scores[node.start] + alpha * node.score for node in self.ending[end]])
        return scores

    def backward(self) -> list[float]:
        """log Σ p over all paths from each position to the end, (length + 1,)."""
        scores = [0.0] * len(self.starting)
        for start in range(len(scores) - 2, -1, -1):
            scores[start] = logsumexp([node.score + scores[node.end] for node in self.starting[start]])
        return scores

    def posteriors(self) -> list[float]:
        """For each of `nodes`, the probability that the text was cut so that this node is used."""
        forward, backward = self.forward(), self.backward()
        return [math.exp(forward[node.start] + node.score + backward[node.end] - forward[-1]) for node in self.nodes]

    def expected_counts(self) -> dict[str, float]:
        """piece -> how often it is used on average over all segmentations, weighted by their probability."""
        counts: dict[str, float] = {}
        for node, probability in zip(self.nodes, self.posteriors(), strict=True):
            if node.known:
                counts[node.piece] = counts.get(node.piece, 0.0) + probability
        return counts

    def nbest(self, n: int) -> list[tuple[list[Node], float]]:
        """The n most probable paths with their log p, best first; fewer if there are fewer.

        A* from the end: a partial path is worth its own score plus the best score from the start to where it begins,
        which Viterbi knows exactly. So paths are completed in order, and nothing is searched in vain.
        """
        best, _ = self.best_scores()
        order = itertools.count()  # equal values: first in, first out
        agenda = [(-best[-1], next(order), len(self.text), 0.0, None)]  # (−value, _, position, score, (node, rest))
        results: list[tuple[list[Node], float]] = []
        while agenda and len(results) < n:
            _, _, position, score, path = heapq.heappop(agenda)
            if position == 0:
                nodes = []
                while path is not None:
                    node, path = path
                    nodes.append(node)
                results.append((nodes, score))
                continue
            for node in self.ending[position]:
                ahead = score + node.score
                heapq.heappush(agenda, (-(best[node.start] + ahead), next(order), node.start, ahead, (node, path)))
        return results

    def sample(self, alpha: float, generator: torch.Generator | None = None) -> list[Node]:
        """Draw a path with probability ∝ p(path)^alpha: forward to filter, backward to draw (Kudo 2018, §3.3)."""
        forward = self.forward(alpha)
        draws = torch.rand(len(self.text) + 1, dtype=torch.float64, generator=generator).tolist()
        path: list[Node] = []
        position = len(self.text)
        while position > 0:
            rest = draws[position]
            for node in self.ending[position]:
                rest -= math.exp(forward[node.start] + alpha * node.score - forward[position])
                if rest < 0:
                    break
            path.append(node)
            position = node.start
        return path[::-1]


def logsumexp(values: Sequence[float]) -> float:
    """log Σ exp(v), without overflow: the largest value is taken out first."""
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def tokens(path: Sequence[Node]) -> list[str]:
    """The pieces of a path; neighbouring unknown characters come as one token, as in SentencePiece."""
    result: list[str] = []
    for known, nodes in itertools.groupby(path, key=lambda node: node.known):
        pieces = [node.piece for node in nodes]
        result += pieces if known else ["".join(pieces)]
    return result
