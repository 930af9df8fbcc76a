"""XLM-R's tokenizer: text → pieces → the ids that its embedding matrix is numbered by, and back.

QUIRKS, each with its reason:

- **Ids are SentencePiece's plus one.** SentencePiece's file begins `<unk> <s> </s>`. fairseq, which trained XLM-R, has
  a dictionary that begins `<s> <pad> </s> <unk>`, and appended the pieces. So four special ids stand where three stood:
  `,` is 3 in the one numbering and 4 in the other.
- **`<mask>` is the last id**, 250,001: fairseq added it when the dictionary was complete.
- **Two `</s>` between a pair**, `<s> A </s></s> B </s>`, and no token types: fairseq ends the first text with one and
  begins the second with another. Pretraining has no pairs; only fine-tuning gives this meaning.
- **`<mask>` takes the space on its left, and what follows it begins with ▁**: `a<mask>b` and `a <mask> b` are the same.
  Text is cut at special tokens first, and each part is normalised as a text of its own, which drops spaces at both ends
  and puts ▁ in front. That is also why `<mask>.` becomes `<mask> ▁ .`, with a lone ▁.
- **Special tokens in a text are special**: `</s>` in a user's sentence becomes id 2, as in transformers.
- **Unknown characters in a row are one `<unk>`**, in SentencePiece and in tokenizers. XLM-R has no byte fallback: what
  they were is lost.
- **U+2581 in a text is a space**: the rules of `nmt_nfkc` say so, and no text can forge a piece's beginning.

Against transformers: until version 4 its "slow" tokenizer was SentencePiece and its "fast" one the `tokenizers`
library; version 5 keeps the second. This module is equal to SentencePiece. The second differs where

- normalisation rules overlap: SentencePiece takes the longest rule that matches, `tokenizers` goes by grapheme cluster
  and then by character (half-width katakana with a voicing mark, `ｽﾞ`; stacked marks, `e` + U+0301 + U+0323);
- two segmentations have the same score: sums are rounded to single precision here and to double there, so `isggg` is
  `▁is gg g` here and `▁is g gg` there.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from xlmr_course import sources
from xlmr_course.unigram import SPACE, ModelFileError, UnigramModel

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3
MASK = "<mask>"
VOCABULARY_FILE = "sentencepiece.bpe.model"  # the name says BPE, the file holds a Unigram model
POSITIONS = 512  # tokens that XLM-R has positions for


class XLMRTokenizer:
    """Text to XLM-R's ids and back.

    Args:
        model: the pieces; n of them give n + 5 ids.
        model_max_length: tokens of the longest sequence that the encoder takes.

    Attributes:
        tokens: list[str], id -> token. ids: dict[str, int], token -> id.
        bos_token_id, pad_token_id, eos_token_id, unk_token_id, mask_token_id: 0, 1, 2, 3 and the last.
    """

    def __init__(self, model: UnigramModel, model_max_length: int = POSITIONS) -> None:
        self.model, self.model_max_length = model, model_max_length
        self.tokens = [*SPECIAL, *model.pieces, MASK]
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self.ids) < len(self.tokens):
            twice = next(token for token in (*SPECIAL, MASK) if token in model.log_probs)
            raise ValueError(f"{twice!r} is a piece of the model, but the name of a special token; remove the piece")
        self.bos_token_id, self.pad_token_id, self.eos_token_id, self.unk_token_id = range(4)
        self.mask_token_id = len(self.tokens) - 1
        self._named = {*SPECIAL, MASK}
        self._special = re.compile(f"({'|'.join(map(re.escape, (*SPECIAL, MASK)))})")

    def __len__(self) -> int:
        """The number of ids: the rows of the embedding matrix."""
        return len(self.tokens)

    @property
    def vocab_size(self) -> int:
        """As `len`."""
        return len(self.tokens)

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `<s> <pad> </s> <unk> <mask>`."""
        return [*range(len(SPECIAL)), self.mask_token_id]

    # --- files ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> XLMRTokenizer:
        """Load a vocabulary by a checkpoint's name, or from a folder with sentencepiece.bpe.model or tokenizer.json.

        Raises:
            sources.CheckpointError: no such checkpoint or folder.
            ModelFileError: the folder holds no vocabulary, or it is damaged or of another kind.
        """
        folder = Path(name_or_path)
        if str(name_or_path) in sources.CHECKPOINTS or not folder.is_dir():
            folder = sources.locate(name_or_path, weights=False)
        config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
        length = config.get("model_max_length", POSITIONS)
        length = int(length) if length < 1e6 else POSITIONS  # transformers writes 10^30 where no one set a length
        if (folder / VOCABULARY_FILE).is_file():
            return cls(UnigramModel.from_sentencepiece((folder / VOCABULARY_FILE).read_bytes()), length)
        if (folder / "tokenizer.json").is_file():
            return cls(_from_tokenizer_json(_read_json(folder / "tokenizer.json")), length)
        raise ModelFileError(
            f"the folder {folder.name!r} holds neither {VOCABULARY_FILE} nor tokenizer.json; it is no XLM-R tokenizer"
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `from_pretrained`, `transformers.AutoTokenizer` and `sentencepiece` read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VOCABULARY_FILE).write_bytes(self.model.to_sentencepiece())
        config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": self.model_max_length}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    # --- text to ids ------------------------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without `<s>` and `</s>`: `"Hello world!"` → `["▁Hello", "▁world", "!"]`."""
        found: list[str] = []
        for part in self._parts(text):
            found += [part] if part in self._named else self.model.segment(part)
        return found

    def encode(self, text: str, pair: str | None = None) -> list[int]:
        """Ids of `<s> text </s>`, or of `<s> text </s></s> pair </s>`. Empty or blank text gives `<s> </s>`.

        Raises:
            TypeError: not a string.
            ValueError: a lone surrogate; the message gives its position.
        """
        return self._assemble(self._numbers(text), None if pair is None else self._numbers(pair))

    def __call__(
        self,
        texts: str | Iterable[str],
        pairs: str | Iterable[str] | None = None,
        padding: bool | str = True,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
    ) -> dict[str, torch.Tensor] | dict[str, list[list[int]]]:
        """A batch, ready for the encoder; one text is a batch of one.

        Args:
            texts, pairs: as many pairs as texts.
            padding: True fills up with `<pad>` to the longest row, `"max_length"` to `max_length`, False not at all.
            truncation: cut rows to `max_length`, `</s>` included; of a pair, the longer text is cut first.
            max_length: tokens, special ones included; None for `model_max_length`.
            return_tensors: `"pt"` for torch tensors, None for lists.

        Returns:
            `input_ids` and `attention_mask` (1: token, 0: padding), both (batch, length).

        Raises:
            TypeError: a text that is no string; the message gives its place.
            ValueError: an option that does not exist, rows of different lengths as tensors, too small a `max_length`.
        """
        rows_a = self._batch(texts, "texts")
        rows_b = [None] * len(rows_a) if pairs is None else self._batch(pairs, "pairs")
        if len(rows_a) != len(rows_b):
            raise ValueError(f"{len(rows_a)} texts but {len(rows_b)} pairs; give one pair a text")
        if padding not in (True, False, "longest", "max_length"):
            raise ValueError(f"padding={padding!r}; use True, False or 'max_length'")
        if truncation not in (True, False):
            raise ValueError(f"truncation={truncation!r}; use True (of a pair, the longer text is cut first) or False")
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors={return_tensors!r}; use 'pt' for torch tensors or None for lists")
        limit = self.model_max_length if max_length is None else max_length
        if truncation:
            special = 2 if pairs is None else 4
            if limit < special:
                raise ValueError(f"max_length={limit} leaves no room: the special tokens alone are {special}")
            cut = [_cut(a, b, limit - special) for a, b in zip(rows_a, rows_b, strict=True)]
            rows_a, rows_b = [a for a, _ in cut], [b for _, b in cut]
        rows = [self._assemble(a, b) for a, b in zip(rows_a, rows_b, strict=True)]
        width = max(map(len, rows), default=0)
        if padding == "max_length":
            width = max(width, limit)
        elif not padding:
            if return_tensors and any(len(row) < width for row in rows):
                raise ValueError("rows of different lengths make no tensor; use padding=True or return_tensors=None")
            width = 0
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        rows = [row + [self.pad_token_id] * (width - len(row)) for row in rows]
        if return_tensors is None:
            return {"input_ids": rows, "attention_mask": mask}
        shape = (len(rows), -1 if rows else 0)
        return {
            "input_ids": torch.tensor(rows, dtype=torch.long).reshape(shape),
            "attention_mask": torch.tensor(mask, dtype=torch.long).reshape(shape),
        }

    # --- ids to text ------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int] | torch.Tensor, skip_special_tokens: bool = True) -> str:
        """The text of some ids. What normalisation changed, and what was unknown, does not come back.

        Raises:
            ValueError: an id that the vocabulary does not have, or more than one sequence.
        """
        ids = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        special = set(self.all_special_ids) if skip_special_tokens else set()
        kept: list[str] = []
        for number in ids:
            if isinstance(number, list | tuple) or (isinstance(number, torch.Tensor) and number.dim()):
                raise ValueError("decode takes the ids of one sequence; call it for each row of a batch")
            number = int(number)
            if not 0 <= number < len(self.tokens):
                raise ValueError(f"the id {number} is not in the vocabulary, whose ids run from 0 to {len(self) - 1}")
            if number not in special:
                kept.append(self.tokens[number])
        if kept:
            kept[0] = kept[0].removeprefix(SPACE)
        return "".join(kept).replace(SPACE, " ")

    # --- parts ------------------------------------------------------------------------------------------------------

    def _parts(self, text: str) -> list[str]:
        """A text, cut before and after each special token in it."""
        return self._special.split(text) if isinstance(text, str) else [text]  # no string: `normalize` says so

    def _numbers(self, text: str) -> list[int]:
        """Ids of a text. Each part between special tokens is a text of its own."""
        found: list[int] = []
        for part in self._parts(text):
            if part in self._named:
                found.append(self.ids[part])
            else:
                places = self.model.segment_numbers(self.model.normalize(part))
                found += [place + len(SPECIAL) if place >= 0 else self.unk_token_id for place in places]
        return found

    def _batch(self, texts: str | Iterable[str], name: str) -> list[list[int]]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{name}[{place}] is {type(text).__name__}, {text!r:.60}; each text must be a string")
        return [self._numbers(text) for text in texts]

    def _assemble(self, first: list[int], second: list[int] | None) -> list[int]:
        row = [self.bos_token_id, *first, self.eos_token_id]
        return row if second is None else [*row, self.eos_token_id, *second, self.eos_token_id]


def _cut(first: list[int], second: list[int] | None, room: int) -> tuple[list[int], list[int] | None]:
    """Cut a text, or the longer of a pair, from its end; when both are long, each gets half (`longest_first`)."""
    if second is None:
        return first[:room], None
    if len(first) + len(second) <= room:
        return first, second
    short = min(len(first), len(second), room // 2)
    if len(first) <= len(second):
        return first[:short], second[: room - short]
    return first[: room - short], second[:short]


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        content = None
    if not isinstance(content, dict):
        raise ModelFileError(f"{path.name} is not valid JSON of an object; the file is damaged, fetch it again")
    return content


def _from_tokenizer_json(content: dict) -> UnigramModel:
    """The pieces in a `tokenizer.json` of transformers. Its normaliser is the compiled rules of the original file."""
    from sentencepiece import sentencepiece_model_pb2

    model = content.get("model") or {}
    if model.get("type") != "Unigram":
        raise ModelFileError(f"tokenizer.json holds a model of type {model.get('type')!r}; XLM-R's is 'Unigram'")
    try:
        entries = [(str(piece), float(score)) for piece, score in model["vocab"]]
        rules = content.get("normalizer") or {}
        steps = rules.get("normalizers", [rules])
        compiled = next((step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"), None)
        spec = sentencepiece_model_pb2.NormalizerSpec()
        if compiled is not None:
            spec.precompiled_charsmap = base64.b64decode(compiled, validate=True)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise ModelFileError("the vocabulary in tokenizer.json is damaged; fetch the file again") from None
    if tuple(piece for piece, _ in entries[: len(SPECIAL)]) != SPECIAL:
        first = " ".join(piece for piece, _ in entries[: len(SPECIAL)])
        raise ModelFileError(f"the vocabulary in tokenizer.json begins {first}; XLM-R's begins {' '.join(SPECIAL)}")
    ordinary = [entry for entry in entries[len(SPECIAL) :] if entry[0] != MASK]
    try:
        return UnigramModel.from_pieces(
            [piece for piece, _ in ordinary],
            [score for _, score in ordinary],
            spec.SerializeToString() if compiled is not None else None,
        )
    except ValueError as error:
        raise ModelFileError(f"the vocabulary in tokenizer.json is damaged: {error}") from None
