"""SentencePiece's file format and its text normaliser: the two things that are read rather than rebuilt.

A `.model` file is one protobuf message: the pieces with their scores, and the rules that normalise text before it is
cut. XLM-R's rules are SentencePiece's `nmt_nfkc`: Unicode NFKC, control characters removed, every kind of white space
made a plain space; then runs of spaces become one ▁, and one more ▁ is put in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

CONTROL = ("<unk>", "<s>", "</s>")  # the first three entries of a SentencePiece model, before any ordinary piece
NORMAL, UNKNOWN, CONTROL_TYPE = 1, 2, 3  # ModelProto.SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType


class ModelFileError(ValueError):
    """A file is no vocabulary that XLM-R's tokenizer can use. The message says why, in one sentence."""


class Normalizer:
    """Text as a Unigram model sees it: `" Ｈello  wörld①"` → `"▁Hello▁wörld1"`.

    Args:
        spec: a serialised SentencePiece `NormalizerSpec`; None for `nmt_nfkc`, which is XLM-R's.

    Raises:
        ModelFileError: the rules in `spec` are damaged.
    """

    def __init__(self, spec: bytes | None = None) -> None:
        self.spec = nmt_nfkc() if spec is None else spec
        try:
            self._normalizer = sentencepiece.SentencePieceNormalizer(normalizer_spec=self.spec)
            self._normalizer.normalize("ﬁ")
        except (RuntimeError, OSError, ValueError):
            raise ModelFileError("the normalisation rules in the model are damaged; fetch the file again") from None

    def __call__(self, text: str) -> str:
        """Normalise a text; what is empty or blank becomes the empty string.

        Raises:
            TypeError: not a string.
            ValueError: a lone surrogate, which UTF-8 cannot carry; the message gives its position.
        """
        if not isinstance(text, str):
            raise TypeError(f"expected a string, got {type(text).__name__}: {text!r:.80}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text holds half of a surrogate pair, U+{ord(text[error.start]):04X}, at position {error.start}; "
                "that is no character: repair the text where it was read, or remove it"
            ) from None
        return self._normalizer.normalize(text)


def nmt_nfkc() -> bytes:
    """XLM-R's normaliser as a serialised `NormalizerSpec`; the rules come with the `sentencepiece` package."""
    return sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc", add_dummy_prefix=True, escape_whitespaces=True, remove_extra_whitespaces=True
    ).serialized_normalizer_spec()


def write(pieces: Sequence[str], scores: Sequence[float], normalizer: bytes) -> bytes:
    """The bytes of a `.model` file: `<unk> <s> </s>`, then the pieces in order."""
    proto = sentencepiece_model_pb2.ModelProto()
    for name in CONTROL:
        proto.pieces.add(piece=name, score=0.0, type=UNKNOWN if name == "<unk>" else CONTROL_TYPE)
    for piece, score in zip(pieces, scores, strict=True):
        proto.pieces.add(piece=piece, score=score, type=NORMAL)
    proto.normalizer_spec.ParseFromString(normalizer)
    proto.trainer_spec.model_type = UNIGRAM
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return proto.SerializeToString(deterministic=True)


def read(data: bytes) -> tuple[list[str], list[float], bytes]:
    """Ordinary pieces, their scores, and the serialised normaliser of a `.model` file.

    Raises:
        ModelFileError: not such a file, not a Unigram model, or one whose entries XLM-R's ids do not fit.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelFileError(
            f"these {len(data):,} bytes are no SentencePiece model; the file is damaged or of another kind"
        ) from None
    if not proto.pieces:
        raise ModelFileError(
            f"these {len(data):,} bytes hold no vocabulary; the file is cut off, empty or of another kind"
        )
    if proto.trainer_spec.model_type != UNIGRAM:
        kind = sentencepiece_model_pb2.TrainerSpec.ModelType.Name(proto.trainer_spec.model_type)
        raise ModelFileError(f"the SentencePiece model is of type {kind}; XLM-R's is of type UNIGRAM")
    first = tuple(entry.piece for entry in proto.pieces[:3])
    if first != CONTROL:
        raise ModelFileError(
            f"the SentencePiece model begins with {' '.join(first)}; XLM-R's begins with {' '.join(CONTROL)}"
        )
    ordinary = proto.pieces[3:]
    for entry in ordinary:
        if entry.type != NORMAL:
            kind = sentencepiece_model_pb2.ModelProto.SentencePiece.Type.Name(entry.type)
            raise ModelFileError(f"the entry {entry.piece!r} of the SentencePiece model is {kind}; XLM-R's are NORMAL")
    spec = proto.normalizer_spec.SerializeToString()
    return [entry.piece for entry in ordinary], [entry.score for entry in ordinary], spec
