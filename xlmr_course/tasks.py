"""What to learn, and where its sentences come from: the corpus, a folder in its layout, or a data set on the hub.

A source answers three questions: which languages it has, which labels there are, and what one split of one language
holds. The rest of fine-tuning does not know where a sentence was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import datasets

from xlmr_course import corpus, sources
from xlmr_course.corpus import CorpusError


@dataclass(frozen=True)
class Task:
    """Something to fine-tune for. `head` says what stands on the encoder."""

    name: str
    description: str
    head: str = "sequence"


TASKS = {"topics": Task("topics", "what a sentence, or a pair of sentences, is about: one label each")}


@dataclass(frozen=True)
class Labelled:
    """One split of one language. `pairs` holds second sentences, where there are any."""

    texts: list[str]
    labels: list[str]
    pairs: list[str] | None = None
    file: str = ""
    lines: list[int] = field(default_factory=list)  # where each row stands in `file`

    def where(self, row: int) -> str:
        """`"sw.tsv, line 7"`."""
        return f"{self.file}, line {self.lines[row]}" if self.lines else f"{self.file}, row {row}"

    def numbers(self, names: Sequence[str]) -> list[int]:
        """The labels as class numbers.

        Raises:
            CorpusError: a label that is not among `names`; where it stands is said.
        """
        known = {name: number for number, name in enumerate(names)}
        for row, label in enumerate(self.labels):
            if label not in known:
                raise CorpusError(
                    f"{self.where(row)}: the label {label!r} does not occur in the training data, which has "
                    f"{', '.join(names)}; correct it, remove the row, or add such sentences to train"
                )
        return [known[label] for label in self.labels]


class Source(Protocol):
    """Where sentences come from."""

    name: str

    def languages(self) -> list[str]: ...

    def read(self, language: str, split: str) -> Labelled: ...

    def labels(self, languages: Sequence[str]) -> list[str]: ...


def open_source(data: str | Path | None = None, dataset: str | None = None) -> Source:
    """The source that was asked for: a folder in the corpus's layout, a data set, or the classroom corpus.

    Raises:
        CorpusError: both at once, or a folder that isn't one.
    """
    if data is not None and dataset is not None:
        raise CorpusError(f"data={str(data)!r} and dataset={dataset!r} were both given; give one")
    return CorpusFolder(data) if dataset is None else HubDataset(dataset)


class CorpusFolder:
    """`sentences/<language>.tsv`: the classroom corpus, or a folder of one's own with any languages and labels."""

    def __init__(self, folder: str | Path | None = None):
        self.folder = folder
        self.name = "the classroom corpus" if folder is None else Path(folder).name
        if not self.languages():
            raise CorpusError(f"the folder {str(folder)!r} holds no sentences/<language>.tsv; see data/README.md")

    def languages(self) -> list[str]:
        return corpus.languages_in(self.folder)

    def read(self, language: str, split: str) -> Labelled:
        rows = corpus.load(language, split, folder=self.folder, topics=None)
        file = Path(self.folder or corpus.corpus_folder()) / "sentences" / f"{language}.tsv"
        # Every row is one line, the header is the first.
        lines = [n for n, row in enumerate(corpus.read_sentences(file, None), start=2) if row.split == split]
        return Labelled(list(rows["text"]), list(rows["topic"]), None, file.name, lines)

    def labels(self, languages: Sequence[str]) -> list[str]:
        return list(corpus.TOPICS) if self.folder is None else _labels_of(self, languages)


# The course's languages as FLORES, and so SIB-200, names them.
FLORES = {
    "en": "eng_Latn", "fr": "fra_Latn", "es": "spa_Latn", "de": "deu_Latn", "el": "ell_Grek", "bg": "bul_Cyrl",
    "ru": "rus_Cyrl", "tr": "tur_Latn", "ar": "arb_Arab", "vi": "vie_Latn", "th": "tha_Thai", "zh": "zho_Hans",
    "hi": "hin_Deva", "sw": "swh_Latn", "ur": "urd_Arab",
}  # fmt: skip
REVISIONS = {"facebook/xnli": "b8dd5d7af51114dbda02c0e3f6133f332186418e"}  # the one that became parquet
SPLITS = {"train": ("train",), "dev": ("validation", "dev"), "test": ("test",)}
TEXTS, PAIRS, LABELS = ("premise", "text", "sentence"), ("hypothesis",), ("label", "category", "topic")


class HubDataset:
    """A data set on the Hugging Face hub, or a copy of one in a folder, with one configuration a language.

    Made for facebook/xnli (premise, hypothesis, label; configurations `en`, `sw`, …) and Davlan/sib200 (text,
    category; `eng_Latn`, `swh_Latn`, …). Any other whose columns have these names works too.
    """

    def __init__(self, name: str):
        self.name = name
        self._options = {} if Path(name).is_dir() else {"revision": REVISIONS.get(name)}
        with self._told("configurations"):
            self.configurations = datasets.get_dataset_config_names(name, **self._options)

    def languages(self) -> list[str]:
        """The course's fifteen, as far as they are there; without any of them, every configuration."""
        ours = [code for code in corpus.LANGUAGES if self._configuration(code)]
        return ours or list(self.configurations)

    def read(self, language: str, split: str) -> Labelled:
        configuration = self._configuration(language)
        if configuration is None:
            some = ", ".join(self.languages()[:20])
            raise CorpusError(f"{self.name} has no language {language!r}; there are {some}")
        with self._told(language):
            found = self._load(configuration, split)
        if found is None or not len(found):
            raise CorpusError(f"{self.name}, {configuration}: there are no {split} rows; it must have some")
        text, pair, label = (_column(found, names) for names in (TEXTS, PAIRS, LABELS))
        if text is None or label is None:
            raise CorpusError(
                f"{self.name}, {configuration}: the columns are {', '.join(found.column_names)}; one of "
                f"{', '.join(TEXTS if text is None else LABELS)} is needed"
            )
        file = f"{self.name}, {configuration}, {split}"
        names = _names(found, label, file)
        return Labelled(list(found[text]), names, None if pair is None else list(found[pair]), file)

    def labels(self, languages: Sequence[str]) -> list[str]:
        return _labels_of(self, languages)

    def _load(self, configuration: str, split: str) -> datasets.Dataset | None:
        """One split, and no file of the others: XNLI's training sentences are 57 MB a language, its test ones 0.4."""
        files = datasets.load_dataset_builder(self.name, configuration, **self._options).config.data_files
        name = next((name for name in SPLITS[split] if files is None or name in files), None)
        if name is None:
            return None
        chosen = {} if files is None else {"data_files": {name: list(files[name])}}
        # The README's counts are those of all splits.
        options = self._options | chosen | {"verification_mode": "no_checks"}
        return datasets.load_dataset(self.name, configuration, split=name, **options)

    def _configuration(self, language: str) -> str | None:
        return next((name for name in (language, FLORES.get(language)) if name in self.configurations), None)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the download as one sentence; without a network what is in the cache still works."""
        local = Path(self.name).is_dir()
        with contextlib.nullcontext() if local or sources.hub_reachable() else _offline():
            try:
                yield
            except CorpusError:
                raise
            except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                where = "in this folder" if local else "on the Hugging Face hub or in its cache on this machine"
                raise CorpusError(
                    f"the data set {self.name!r} ({what}) could not be read {where}: {first.rstrip('.')}; "
                    + ("see its README.md" if local else "connect to the hub, or pass a folder that holds a copy")
                ) from error


def _labels_of(source: Source, languages: Sequence[str]) -> list[str]:
    """The labels that training has, in alphabetical order."""
    found = {label for language in languages for label in source.read(language, "train").labels}
    if len(found) < 2:
        raise CorpusError(f"the training data has one label, {found.pop()!r}; a classifier needs at least two")
    return sorted(found)


def _column(found: datasets.Dataset, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in found.column_names), None)


def _names(found: datasets.Dataset, label: str, file: str) -> list[str]:
    """Labels as words: a `ClassLabel` knows them, other numbers are their own names."""
    values = list(found[label])
    for row, value in enumerate(values):
        if value is None or value == -1:
            raise CorpusError(f"{file}, row {row}: it has no label; such rows can be neither trained on nor tested")
    kind = found.features[label]
    return kind.int2str(values) if isinstance(kind, datasets.ClassLabel) else [str(value) for value in values]


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Tell datasets and the hub's library not to try: an unreachable hub is retried for minutes."""
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
