"""The classroom corpus: 700 sentences, the same in 15 languages, as `datasets.Dataset`.

One file a language, `sentences/<language>.tsv`, with four columns: id, split, topic, text. Names of people, places and
organisations are marked inside the text, `[Marie Curie|PER]`. Your own data in this layout loads the same way.

Nothing is dropped in silence: a row that breaks the layout stops the loading with its file and line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import regex

# XNLI's fifteen, in the order of the XLM-R paper's tables.
LANGUAGES = {
    "en": "English", "fr": "French", "es": "Spanish", "de": "German", "el": "Greek", "bg": "Bulgarian",
    "ru": "Russian", "tr": "Turkish", "ar": "Arabic", "vi": "Vietnamese", "th": "Thai", "zh": "Chinese",
    "hi": "Hindi", "sw": "Swahili", "ur": "Urdu",
}  # fmt: skip
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")  # SIB-200's
SPLITS = ("train", "dev", "test")
COLUMNS = ("id", "split", "topic", "text")
NAME_TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")

MENTION = regex.compile(r"\[([^\[\]|]+)\|(PER|LOC|ORG)\]")
# A word is a run of letters, marks and digits. Chinese characters and Thai clusters stand alone: neither script puts
# spaces between words, and this is how WikiANN splits them too. What remains is punctuation, one sign a token.
TOKEN = regex.compile(
    r"\p{Han}|(?=\p{Thai})\X|[[\p{L}\p{M}\p{N}\u200c\u200d]--[\p{Han}\p{Thai}]]+"
    r"(?:['’\-.][[\p{L}\p{M}\p{N}]--[\p{Han}\p{Thai}]]+)*|\S",
    regex.V1,
)


class CorpusError(ValueError):
    """A file of the corpus does not have the layout. The message names the file, the line and what to do."""


@dataclass(frozen=True)
class Sentence:
    """One row: plain text, its tokens, and a BIO name tag for each token."""

    id: str
    split: str
    topic: str
    text: str
    tokens: list[str]
    name_tags: list[str]


def corpus_folder() -> Path:
    """The folder that holds `sentences/`: the checkout's `data/`, or the copy inside an installed wheel."""
    package = Path(__file__).parent
    checkout = package.parent / "data"
    return checkout if (checkout / "sentences").is_dir() else package / "_data"


def load(
    language: str,
    split: str | None = None,
    *,
    folder: str | Path | None = None,
    topics: Sequence[str] | None = TOPICS,
) -> datasets.Dataset:
    """One language as a dataset with the columns id, split, topic, text, tokens, name_tags, in the order of the file.

    Args:
        language: the name of the file without `.tsv`, such as `"sw"`.
        split: `"train"`, `"dev"` or `"test"`; None for all.
        folder: a folder of your own that holds `sentences/<language>.tsv`; None for the classroom corpus.
        topics: the topics that may occur; None accepts any.

    Raises:
        CorpusError: no such language or split, or a row that breaks the layout (file and line named).
    """
    rows = _select(read_sentences(_path(language, folder), topics), split, language)
    columns = {field: [getattr(row, field) for row in rows] for field in Sentence.__dataclass_fields__}
    return datasets.Dataset.from_dict(columns)


def load_parallel(
    languages: Sequence[str] = tuple(LANGUAGES),
    split: str | None = None,
    *,
    folder: str | Path | None = None,
    topics: Sequence[str] | None = TOPICS,
) -> datasets.Dataset:
    """Several languages in one dataset, with a `language` column; the translations of a sentence stand together.

    The rows follow the first language's file; within an id they follow `languages`.

    Raises:
        CorpusError: as `load`; also when two languages do not hold the same ids.
    """
    if isinstance(languages, str):
        raise CorpusError(f"languages={languages!r} is one string; pass a list, such as ['en', {languages!r}]")
    if not languages:
        raise CorpusError("languages is empty; name at least one, such as ['en', 'sw']")
    by_language = {
        language: {row.id: row for row in _select(read_sentences(_path(language, folder), topics), split, language)}
        for language in languages
    }
    first = languages[0]
    for language, rows in by_language.items():
        if difference := sorted(set(by_language[first]) ^ set(rows)):
            where = first if difference[0] not in by_language[first] else language
            raise CorpusError(
                f"{_path(where, folder).name} has no row {difference[0]!r}, which its translation has "
                f"({len(difference)} such rows); give both files the same ids"
            )
    columns: dict[str, list] = {"language": [], **{field: [] for field in Sentence.__dataclass_fields__}}
    for key in by_language[first]:
        for language in languages:
            row = by_language[language][key]
            columns["language"].append(language)
            for field in Sentence.__dataclass_fields__:
                columns[field].append(getattr(row, field))
    return datasets.Dataset.from_dict(columns)


def languages_in(folder: str | Path | None = None) -> list[str]:
    """The languages that a folder in the corpus's layout holds: the classroom's order first, then by name."""
    found = {path.stem for path in (Path(folder or corpus_folder()) / "sentences").glob("*.tsv")}
    return [name for name in LANGUAGES if name in found] + sorted(found - set(LANGUAGES))


def read_sentences(path: Path, topics: Sequence[str] | None = TOPICS) -> list[Sentence]:
    """Read one file of the corpus, checking each row.

    Raises:
        CorpusError: bad UTF-8, a wrong header, column count, split or topic, a repeated id, text that is empty or not
            NFC, or a name whose brackets do not match. The message names file and line.
    """
    rows: list[Sentence] = []
    seen: dict[str, int] = {}
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, raw in enumerate(lines, start=1):
        where = f"{path.name}, line {number}"
        try:
            cells = raw.removesuffix(b"\r").decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{where}: byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8"
            ) from None
        if number == 1:
            if tuple(cells) != COLUMNS:
                raise CorpusError(f"{where}: the header is {cells}; it must be {list(COLUMNS)}, split by tabs")
            continue
        if len(cells) != len(COLUMNS):
            raise CorpusError(
                f"{where}: {len(cells)} columns instead of {len(COLUMNS)} ({', '.join(COLUMNS)}), split by tabs"
            )
        key, split, topic, marked = cells
        if key in seen:
            raise CorpusError(f"{where}: the id {key!r} stands in line {seen[key]} already; ids are unique")
        if split not in SPLITS:
            raise CorpusError(f"{where}: the split {split!r} is not one of {', '.join(SPLITS)}")
        if not topic or (topics is not None and topic not in topics):
            raise CorpusError(f"{where}: the topic {topic!r} is not one of {', '.join(topics or ['any word'])}")
        seen[key] = number
        rows.append(Sentence(key, split, topic, *parse(marked, where)))
    if not rows:
        raise CorpusError(f"{path.name} holds no sentences; write a header line and one row a sentence")
    return rows


def parse(marked: str, where: str = "text") -> tuple[str, list[str], list[str]]:
    """Take the name marks out of a sentence: `"[Ana|PER] ran."` → `("Ana ran.", ["Ana", "ran", "."], ["B-PER", "O", "O"])`.

    Raises:
        CorpusError: empty, not NFC, or a bracket that belongs to no `[name|PER]`, `[name|LOC]`, `[name|ORG]`.
    """  # noqa: E501
    plain, tokens, tags, position = "", [], [], 0
    pieces: list[tuple[str, str | None]] = []
    for match in MENTION.finditer(marked):
        pieces += [(marked[position : match.start()], None), (match[1], match[2])]
        position = match.end()
    pieces.append((marked[position:], None))
    for text, label in pieces:
        if label is None and (stray := regex.search(r"[\[\]|]", text)):
            raise CorpusError(
                f"{where}: a {stray[0]!r} that belongs to no name in {marked!r}; write names as [name|PER], "
                "[name|LOC] or [name|ORG], one closing bracket for each opening one"
            )
        found = TOKEN.findall(text)
        plain += text
        tokens += found
        tags += ["O"] * len(found) if label is None else [f"B-{label}"] + [f"I-{label}"] * (len(found) - 1)
    if not plain.strip():
        raise CorpusError(f"{where}: the text is empty; write a sentence or remove the row")
    if plain != unicodedata.normalize("NFC", plain):
        raise CorpusError(f"{where}: the text is not in Unicode normal form C; pass it through NFC")
    return plain, tokens, tags


def sampling_probabilities(sizes: Mapping[str, float], alpha: float = 0.3) -> dict[str, float]:
    """How often each language is drawn: q_i ∝ p_i^α, where p_i is its share of the data.

    α = 1 follows the data, α = 0 treats all languages alike; XLM-R uses 0.3 (Conneau et al. 2020, §3.1).

    Raises:
        ValueError: α outside [0, 1], no languages, or a size that is not positive.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} lies outside [0, 1]; 1 follows the data, 0 treats all languages alike")
    if not sizes:
        raise ValueError("no languages to sample from; give a size for at least one")
    for language, size in sizes.items():
        if not size > 0:
            raise ValueError(f"the size of {language!r} is {size}; leave an empty language out or give it some text")
    total = sum(sizes.values())
    weights = {language: (size / total) ** alpha for language, size in sizes.items()}
    scale = sum(weights.values())
    return {language: weight / scale for language, weight in weights.items()}


def _path(language: str, folder: str | Path | None) -> Path:
    root = Path(folder) if folder is not None else corpus_folder()
    path = root / "sentences" / f"{language}.tsv"
    if not path.is_file():
        there = ", ".join(languages_in(root)) or "none"
        raise CorpusError(f"no language {language!r}: sentences/ holds {there}")
    return path


def _select(rows: list[Sentence], split: str | None, language: str) -> list[Sentence]:
    if split is None:
        return rows
    if split not in SPLITS:
        raise CorpusError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    if not (chosen := [row for row in rows if row.split == split]):
        raise CorpusError(f"{language}.tsv has no {split} rows; mark some with the split {split!r}")
    return chosen
