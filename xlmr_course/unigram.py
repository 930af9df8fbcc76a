"""The Unigram language model: a vocabulary of pieces with log-probabilities, and the best way to cut a text into them.

Kudo 2018 (arXiv 1804.10959); the reference implementation is SentencePiece's `unigram_model.cc`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

SPACE = "▁"  # U+2581, how SentencePiece writes a space: pieces stay visible, and joining them gives the text back
UNKNOWN_PENALTY = 10.0  # kUnkPenalty: an unknown character costs this much more than the least likely piece
CONTROL = ("<unk>", "<s>", "</s>")  # the first three entries of a SentencePiece model, before any ordinary piece


class ModelFileError(ValueError):
    """A file is not a SentencePiece Unigram model that XLM-R's tokenizer can use. The message says why."""


class UnigramModel:
    """Pieces and their log-probabilities, and the text normaliser that belongs to them.

    Args:
        pieces: ordinary pieces, without `<unk> <s> </s>`; a piece that begins a word starts with ▁.
        scores: log p of each piece, in the same order.
        normalizer: a serialised SentencePiece `NormalizerSpec`; None for XLM-R's rule, `nmt_nfkc`.

    Raises:
        ValueError: no pieces, an empty or repeated piece, or not one finite score a piece.
    """

    def __init__(self, pieces: Sequence[str], scores: Sequence[float], normalizer: bytes | None = None) -> None:
        self.pieces = list(pieces)
        self.scores = array("f", scores).tolist()  # float32 like the file, so that ties fall as they do there
        if not self.pieces:
            raise ValueError("a Unigram model needs at least one piece; none was given")
        if len(self.pieces) != len(self.scores):
            raise ValueError(f"{len(self.pieces)} pieces but {len(self.scores)} scores; give one score a piece")
        self.index = {piece: number for number, piece in enumerate(self.pieces)}  # piece -> position in `pieces`
        if len(self.index) != len(self.pieces) or "" in self.index:
            raise ValueError("a piece is empty or stands twice in the list; give each piece once")
        self.unknown_score = min(self.scores) - UNKNOWN_PENALTY
        if not max(map(abs, self.scores)) < float("inf"):
            raise ValueError("a score is infinite or not a number; scores are log-probabilities")
        self.normalizer = normalizer or nmt_nfkc()
        self._normalizer = sentencepiece.SentencePieceNormalizer(normalizer_spec=self.normalizer)
        self._trie: dict = {}

    def normalize(self, text: str) -> str:
        """The text as the model sees it: NFKC, one ▁ for each run of white space, and one at the start.

        Raises:
            TypeError: not a string.
            ValueError: a lone surrogate, which no encoding can carry; the message gives its position.
        """
        if not isinstance(text, str):
            raise TypeError(f"expected a string, got {type(text).__name__}: {text!r:.80}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text holds half a surrogate pair, U+{ord(text[error.start]):04X}, at position {error.start}; "
                "such a code point is no character: repair the text or remove it"
            ) from None
        return self._normalizer.normalize(text)

    def segment(self, text: str) -> list[str]:
        """The most probable segmentation of a text. Neighbouring unknown characters come as one token."""
        return [token for token, _ in self.segment_normalized(self.normalize(text))]

    def segment_normalized(self, text: str) -> list[tuple[str, int]]:
        """As `segment`, for text that is normalised already: tokens with their place in `pieces`, -1 for unknown."""
        if not self._trie:
            self._trie = _trie(self.pieces, self.scores)
        trie, unknown_score, end = self._trie, self.unknown_score, len(text)
        # An array("f") rounds what it stores to float32, and the comparison below sees the sum before it is rounded:
        # so does SentencePiece, and on equal scores this decides which piece wins.
        best = array("f", bytes(4 * (end + 1)))
        came_from = array("q", [-1]) * (end + 1)
        piece_of = array("q", [-1]) * (end + 1)
        for start in range(end):
            score_here, node, has_single, stop = best[start], trie, False, start
            while stop < end and (node := node.get(text[stop])) is not None:
                stop += 1
                if "" in node:
                    score, number = node[""]
                    if came_from[stop] < 0 or score_here + score > best[stop]:
                        best[stop], came_from[stop], piece_of[stop] = score_here + score, start, number
                    has_single = has_single or stop == start + 1
            stop = start + 1
            if not has_single and (came_from[stop] < 0 or score_here + unknown_score > best[stop]):
                best[stop], came_from[stop], piece_of[stop] = score_here + unknown_score, start, -1
        tokens: list[tuple[str, int]] = []
        while end > 0:
            start, number = came_from[end], piece_of[end]
            if number < 0 and tokens and tokens[-1][1] < 0:
                tokens[-1] = (text[start:end] + tokens[-1][0], -1)
            else:
                tokens.append((text[start:end], number))
            end = start
        return tokens[::-1]

    def to_sentencepiece(self) -> bytes:
        """The model as the bytes of a SentencePiece `.model` file: `<unk> <s> </s>`, then the pieces in order."""
        proto = sentencepiece_model_pb2.ModelProto()
        for name in CONTROL:
            proto.pieces.add(piece=name, score=0.0, type=2 if name == "<unk>" else 3)  # UNKNOWN, CONTROL
        for piece, score in zip(self.pieces, self.scores, strict=True):
            proto.pieces.add(piece=piece, score=score, type=1)  # NORMAL
        proto.normalizer_spec.ParseFromString(self.normalizer)
        proto.trainer_spec.model_type = 1  # UNIGRAM
        proto.trainer_spec.vocab_size = len(proto.pieces)
        return proto.SerializeToString(deterministic=True)

    @classmethod
    def from_sentencepiece(cls, data: bytes) -> UnigramModel:
        """Read the bytes of a SentencePiece `.model` file.

        Raises:
            ModelFileError: not such a file, not a Unigram model, or one whose entries XLM-R's ids don't fit.
        """
        proto = sentencepiece_model_pb2.ModelProto()
        try:
            proto.ParseFromString(data)
        except DecodeError:
            raise ModelFileError(
                f"these {len(data):,} bytes are not a SentencePiece model; the file may be damaged or of another kind"
            ) from None
        if not proto.pieces:
            raise ModelFileError("the SentencePiece model holds no pieces; the file may be cut off or of another kind")
        if proto.trainer_spec.model_type != 1:
            kind = sentencepiece_model_pb2.TrainerSpec.ModelType.Name(proto.trainer_spec.model_type)
            raise ModelFileError(f"the SentencePiece model is of type {kind}; XLM-R's is UNIGRAM")
        first = tuple(entry.piece for entry in proto.pieces[:3])
        if first != CONTROL:
            raise ModelFileError(
                f"the SentencePiece model begins with {' '.join(first)}; XLM-R's begins with {' '.join(CONTROL)}"
            )
        for entry in proto.pieces[3:]:
            if entry.type != 1:
                raise ModelFileError(f"the SentencePiece model holds {entry.piece!r}, which is no ordinary piece")
        ordinary = proto.pieces[3:]
        return cls(
            [entry.piece for entry in ordinary],
            [entry.score for entry in ordinary],
            proto.normalizer_spec.SerializeToString(),
        )


def nmt_nfkc() -> bytes:
    """SentencePiece's built-in normaliser that XLM-R uses, as a serialised `NormalizerSpec`."""
    return sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc", add_dummy_prefix=True, escape_whitespaces=True, remove_extra_whitespaces=True
    ).serialized_normalizer_spec()


def _trie(pieces: Sequence[str], scores: Sequence[float]) -> dict:
    """Nested dicts, one level a character; under "" stands (score, number) of the piece that ends there."""
    root: dict = {}
    for number, (piece, score) in enumerate(zip(pieces, scores, strict=True)):
        node = root
        for character in piece:
            node = node.setdefault(character, {})
        node[""] = (score, number)
    return root
