"""XLM-R's tokenizer: a Unigram model, and the ids that fairseq gave its pieces.

Ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the pieces, and `<mask>` last. In SentencePiece's own file the first
three entries are `<unk> <s> </s>`, so a piece's id is its SentencePiece id + 1 (fairseq's dictionary put `<pad>` in).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from xlmr_course.unigram import SPACE, ModelFileError, UnigramModel

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
VOCABULARY_FILE = "sentencepiece.bpe.model"  # a Unigram model in spite of its name


class XLMRTokenizer:
    """Text to XLM-R's ids and back.

    Args:
        model: the pieces; a vocabulary of n pieces gives n + 5 ids.
        model_max_length: the longest sequence that the encoder has positions for.
    """

    def __init__(self, model: UnigramModel, model_max_length: int = 512) -> None:
        self.model, self.model_max_length = model, model_max_length
        self.tokens = [*SPECIAL, *model.pieces, "<mask>"]  # list[str], id -> token
        self.ids = {token: number for number, token in enumerate(self.tokens)}  # token -> id
        self.bos_token_id, self.pad_token_id, self.eos_token_id, self.unk_token_id = range(4)
        self.mask_token_id = len(self.tokens) - 1
        self.vocab_size = len(self.tokens)
        self._special = re.compile("|".join(map(re.escape, [*SPECIAL, "<mask>"])))

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `<s> <pad> </s> <unk> <mask>`."""
        return [0, 1, 2, 3, self.mask_token_id]

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> XLMRTokenizer:
        """Load a vocabulary: a folder with `sentencepiece.bpe.model`, or a checkpoint's name.

        Raises:
            ModelFileError: there is no vocabulary, or it is damaged or of another kind.
        """
        folder = Path(name_or_path)
        if not folder.is_dir():
            from xlmr_course import sources

            folder = sources.locate(str(name_or_path))
        path = folder / VOCABULARY_FILE
        if not path.is_file():
            raise ModelFileError(f"{folder.name} holds no {VOCABULARY_FILE}; name the folder of an XLM-R checkpoint")
        return cls(UnigramModel.from_sentencepiece(path.read_bytes()))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `from_pretrained`, `transformers.AutoTokenizer` and `sentencepiece` read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VOCABULARY_FILE).write_bytes(self.model.to_sentencepiece())
        config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": self.model_max_length}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _pieces(self, text: str) -> list[tuple[str, int]]:
        """(token, id) for each token of a text, special tokens in the text included."""
        if not isinstance(text, str):
            raise TypeError(f"expected a string, got {type(text).__name__}: {text!r:.80}")
        result: list[tuple[str, int]] = []
        position = 0
        for match in [*self._special.finditer(text), None]:
            part = text[position : match.start() if match else len(text)]
            for token, number in self.model.segment_numbers(self.model.normalize(part)):
                result.append((token, number + 4 if number >= 0 else self.unk_token_id))
            if match:
                result.append((match[0], self.ids[match[0]]))
                position = match.end()
        return result

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without `<s>` and `</s>`."""
        return [token for token, _ in self._pieces(text)]

    def encode(self, text: str, pair: str | None = None) -> list[int]:
        """Ids of `<s> text </s>`, or of `<s> text </s></s> pair </s>`."""
        ids = [self.bos_token_id, *(number for _, number in self._pieces(text)), self.eos_token_id]
        if pair is not None:
            ids += [self.eos_token_id, *(number for _, number in self._pieces(pair)), self.eos_token_id]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of some ids; normalisation can't be undone."""
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return "".join(self.tokens[i] for i in map(int, ids) if i not in skipped).replace(SPACE, " ").strip()

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        padding: bool | str = True,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
    ) -> dict:
        """Encode a batch. Returns `input_ids` and `attention_mask`, both (batch, length)."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        pairs = [None] * len(texts) if pairs is None else [pairs] if isinstance(pairs, str) else list(pairs)
        rows = [self.encode(text, pair) for text, pair in zip(texts, pairs, strict=True)]
        limit = max_length or self.model_max_length
        if truncation:
            rows = [row if len(row) <= limit else [*row[: limit - 1], self.eos_token_id] for row in rows]
        width = limit if padding == "max_length" else max(map(len, rows), default=0) if padding else 0
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        rows = [row + [self.pad_token_id] * (width - len(row)) for row in rows]
        if return_tensors == "pt":
            return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
        return {"input_ids": rows, "attention_mask": mask}
