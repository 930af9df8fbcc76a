"""From texts to rows of ids: which language next, and which of its texts fill a row.

A row is `<s> text </s> text </s> …`: whole texts of one language, as many as fit (fairseq's break mode "complete"). A
batch mixes rows of several languages, each drawn with q ∝ p^α (fairseq's `multilingual_masked_lm`).

Everything here knows where it stands: `state()` is a few numbers, and after `restore(state)` the same rows follow.
"""

from __future__ import annotations

import logging
import zlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import torch
from datasets.distributed import split_dataset_by_node
from torch import Tensor

from xlmr_course import corpus
from xlmr_course.batches import pad
from xlmr_course.training import TrainingError

log = logging.getLogger(__name__)

Texts = Sequence[str] | datasets.IterableDataset


class LanguageSampler:
    """Draws languages with q ∝ p^α.

    Args:
        sizes: how much text each language has, in any unit; p is its share.
        alpha: 1 follows the data, 0 treats all alike.
        generator: draws.

    Raises:
        ValueError: α outside [0, 1], or a language without text.
    """

    def __init__(self, sizes: Mapping[str, float], alpha: float, generator: torch.Generator) -> None:
        self.probabilities = corpus.sampling_probabilities(sizes, alpha)
        self.languages = list(self.probabilities)
        self.generator = generator
        self._weights = torch.tensor(list(self.probabilities.values()), dtype=torch.float64)

    def draw(self) -> str:
        """The language of the next row."""
        return self.languages[int(torch.multinomial(self._weights, 1, generator=self.generator))]


class Documents:
    """One language's texts as ids, over and over; a list is shuffled anew each time round, a stream comes as it comes.

    Args:
        name: the language, for error messages; also part of the seed of its order.
        texts: a list of strings, or a `datasets.IterableDataset` with a column `text`.
        tokenizer: ids come without `<s>` and `</s>`.
        seed: of the order.
        without: texts to leave out of a stream, because they are held out.

    Raises:
        TrainingError: there is no text.
    """

    def __init__(self, name: str, texts: Texts, tokenizer, seed: int = 0, without: Sequence[str] = ()) -> None:
        self.name, self.texts, self.tokenizer, self.seed = name, texts, tokenizer, seed
        self.epoch, self.index, self.used = 0, 0, 0  # `used`: ids of the current text that were taken already
        self.is_stream = isinstance(texts, datasets.IterableDataset)
        self._without = frozenset(without)
        self._head: array | None = None
        if self.is_stream:
            self._start_stream()
        else:
            if not any(text.strip() for text in texts):
                raise TrainingError(f"the language {name!r} is empty; give it some text or leave it out")
            self._ids: list[array | None] = [None] * len(texts)
            self._order = self._shuffled()

    def head(self) -> array:
        """What is left of the current text, at least one id; `take` moves on."""
        if self._head is None:
            self._head = self._current()
        empty = 0
        while self.used >= len(self._head):
            empty += not self._head
            if not self.is_stream and empty > len(self.texts):
                raise TrainingError(f"the language {self.name!r} has no visible character; leave it out")
            self.used, self._head = 0, self._following()
        return self._head[self.used :] if self.used else self._head

    def take(self, count: int) -> array:
        """The next `count` ids of the current text."""
        ids = self.head()[:count]
        self.used += len(ids)
        return ids

    def state(self) -> dict[str, Any]:
        """Where this language stands, in numbers and strings."""
        self.head()
        state = {"epoch": self.epoch, "index": self.index, "used": self.used}
        return state | ({"stream": self._before} if self.is_stream else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state()` was called."""
        self.epoch, self.index, self.used = state["epoch"], state["index"], state["used"]
        if self.is_stream:
            self._start_stream(state["stream"])
            self._head = self._next_of_stream()
        else:
            self._order = self._shuffled()
            self._head = self._current()

    def _current(self) -> array:
        if self.is_stream:
            return self._next_of_stream()
        return self.ids(self._order[self.index])

    def ids(self, place: int) -> array:
        """A text of the list as ids; it is cut into pieces once."""
        if self._ids[place] is None:
            self._ids[place] = array("i", self.tokenizer.encode(self.texts[place])[1:-1])
        return self._ids[place]

    def _following(self) -> array:
        if not self.is_stream:
            self.index += 1
            if self.index == len(self._order):
                self.epoch, self.index = self.epoch + 1, 0
                self._order = self._shuffled()
        return self._current()

    def _shuffled(self) -> list[int]:
        """The order of this epoch. It follows from the seed, the language and the epoch, so it need not be kept."""
        seed = zlib.crc32(f"{self.seed} {self.name} {self.epoch}".encode())
        return torch.randperm(len(self.texts), generator=torch.Generator().manual_seed(seed)).tolist()

    def _start_stream(self, state: dict | None = None) -> None:
        self.texts.set_epoch(self.epoch)
        if state is not None:
            self.texts.load_state_dict(state)
        self._iterator = iter(self.texts)
        self._before, self._seen = state, state is not None

    def _next_of_stream(self) -> array:
        while True:
            self._before = self.texts.state_dict()
            row = next(self._iterator, None)
            if row is None:
                if not self._seen:
                    raise TrainingError(f"the stream of {self.name!r} is empty; give it some text or leave it out")
                self.epoch += 1
                self._start_stream()
                continue
            if "text" not in row:
                raise TrainingError(f"the stream of {self.name!r} has no column 'text'; it has {', '.join(row)}")
            text = row["text"]
            ids = array("i", self.tokenizer.encode(text)[1:-1]) if text not in self._without else ()
            if len(ids):
                self._seen = True
                return ids


def packed(documents: Documents, length: int) -> list[int]:
    """The next row: `<s> text </s> text </s> …`, whole texts, as many as fit into `length` ids.

    A text that doesn't fit waits for the next row. One that is longer than a whole row is cut.
    """
    tokenizer = documents.tokenizer
    row = [tokenizer.bos_token_id]
    while True:
        room = length - len(row) - 1
        waiting = len(documents.head())
        if waiting > room and len(row) > 1:
            return row
        row += [*documents.take(room), tokenizer.eos_token_id]
        if waiting > room:
            return row


def single(documents: Documents, length: int) -> list[int]:
    """The next row with one text in it, cut at `length` ids; what was cut off follows in the next row."""
    tokenizer = documents.tokenizer
    return [tokenizer.bos_token_id, *documents.take(length - 2), tokenizer.eos_token_id]


class Rows:
    """Rows of all languages, in the proportions of α.

    Args:
        tokenizer: gives ids.
        texts: language → its texts.
        length: ids in a row, at most.
        alpha: see `LanguageSampler`; sizes are bytes of UTF-8, as in XLM-R's table of CC-100.
        seed: of the languages drawn and of each language's order.
        pack: fill rows with several texts; else one text a row.
        without: language → texts that a stream must leave out.
        share: (rank, processes): read only this process's part.

    Raises:
        TrainingError: a language has no text. ValueError: α outside [0, 1].
    """

    def __init__(
        self,
        tokenizer,
        texts: Mapping[str, Texts],
        length: int = 128,
        alpha: float = 0.3,
        seed: int = 0,
        *,
        pack: bool = True,
        without: Mapping[str, Sequence[str]] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        rank, processes = share
        sizes = sizes_of(texts)
        self.generator = torch.Generator().manual_seed(seed + rank)
        self.sampler = LanguageSampler(sizes, alpha, self.generator)
        self.padding, self.length, self._next_row = tokenizer.pad_token_id, length, packed if pack else single
        self.documents = {
            language: Documents(language, part, tokenizer, seed, (without or {}).get(language, ()))
            for language, part in ((name, _share(found, rank, processes)) for name, found in texts.items())
        }

    def batch(self, rows: int) -> tuple[Tensor, list[str]]:
        """The next rows, `(rows, longest)` filled up with `<pad>`, and the language of each."""
        languages = [self.sampler.draw() for _ in range(rows)]
        ids = [self._next_row(self.documents[language], self.length) for language in languages]
        return pad(ids, self.padding), languages

    def frequencies(self, size: int, most: int = 1000) -> Tensor:
        """How often each of `size` ids is met, in the proportions of α: shares that add up to 1, none of them zero.

        Counted in the first `most` texts of each language; a stream is not asked.
        """
        shares = torch.zeros(size)
        for language, documents in self.documents.items():
            counts = torch.full((size,), 0.5 / len(self.documents))
            for place in range(0 if documents.is_stream else min(most, len(documents.texts))):
                ids = torch.tensor(documents.ids(place), dtype=torch.long)
                counts.index_add_(0, ids, torch.ones(len(ids)))
            shares += self.sampler.probabilities[language] * counts / counts.sum()
        return shares

    def state(self) -> dict[str, Any]:
        """Where all languages stand, and the sampler's generator."""
        documents = {language: documents.state() for language, documents in self.documents.items()}
        return {"documents": documents, "generator": self.generator.get_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state()` was called."""
        self.generator.set_state(state["generator"])
        for language, documents in self.documents.items():
            documents.restore(state["documents"][language])


def is_streamed(texts: Mapping[str, Texts]) -> bool:
    """Whether any language comes as a stream; then each process reads a part of its own."""
    return any(isinstance(found, datasets.IterableDataset) for found in texts.values())


def sizes_of(texts: Mapping[str, Texts]) -> dict[str, float]:
    """Bytes of text by language. A stream says its own; when one doesn't, all languages count as equal."""
    if not texts:
        raise TrainingError("there is no language to train on; give at least one")
    sizes: dict[str, float] = {}
    for language, found in texts.items():
        if isinstance(found, datasets.IterableDataset):
            split = (found.info.splits or {}).get(str(found.split))
            sizes[language] = split.num_bytes if split is not None and split.num_bytes else 0
        elif not (size := sum(len(text.encode("utf-8", "surrogatepass")) for text in found)):
            raise TrainingError(f"the language {language!r} is empty; give it some text or leave it out")
        else:
            sizes[language] = size
    if not all(sizes.values()):
        log.warning("the size of a stream is unknown, so every language counts as equal and alpha changes nothing")
        return dict.fromkeys(texts, 1.0)
    return sizes


def _share(texts: Texts, rank: int, processes: int) -> Texts:
    if processes == 1:
        return texts
    if isinstance(texts, datasets.IterableDataset):
        return split_dataset_by_node(texts, rank, processes)
    return texts[rank::processes]
