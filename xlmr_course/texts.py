"""Where texts come from, by language: the classroom corpus, text files, or a dataset of the Hugging Face hub.

Whatever the source, some texts of each language are held out: nothing that a model is measured on was in its training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets

from xlmr_course import corpus
from xlmr_course.training import TrainingError

HELD_OUT = 200  # texts of each language that are set apart, at most


def classroom(split: str = "train", folder: str | Path | None = None) -> dict[str, list[str]]:
    """The sentences of the classroom corpus, or of a folder in its layout, by language."""
    return {
        language: list(corpus.load(language, split, folder=folder, topics=None)["text"])
        for language in corpus.languages_in(folder)
    }


def text_files(folder: str | Path) -> dict[str, list[str]]:
    """Every `<language>.txt` of a folder: one text a line, blank lines left out.

    Raises:
        TrainingError: no such file, an empty one, or one that is not UTF-8 (file and byte named).
    """
    files = sorted(Path(folder).glob("*.txt"))
    if not files:
        raise TrainingError(f"{Path(folder).name!r} holds no .txt file; put one a language there, such as sw.txt")
    return {file.stem: lines_of(file) for file in files}


def lines_of(file: Path) -> list[str]:
    """The lines of a UTF-8 file that hold something."""
    content = file.read_bytes()
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        # `start` counts in what follows a byte order mark, if there is one.
        place = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        raise TrainingError(
            f"{file.name} is not UTF-8: byte {place + 1:,} (line {content[:place].count(bytes([10])) + 1:,}) is "
            f"0x{content[place]:02x}; save the file as UTF-8"
        ) from None
    if not (found := [line.strip() for line in lines if line.strip()]):
        raise TrainingError(f"{file.name} is empty; write some text into it or remove it")
    return found


def set_apart(texts: Mapping[str, Sequence[str]], most: int = HELD_OUT) -> tuple[dict, dict]:
    """Split each language into training and held-out texts: every n-th is held out, a twentieth of them or `most`.

    Raises:
        TrainingError: a language with a single text.
    """
    train, held_out = {}, {}
    for language, found in texts.items():
        if len(found) < 2:
            raise TrainingError(f"{language!r} has {len(found)} text; two are needed, one of them to be held out")
        distance = min(max(20, -(-len(found) // most)), len(found))
        held_out[language] = list(found[distance - 1 :: distance])
        train[language] = [text for place, text in enumerate(found) if place % distance != distance - 1]
    return train, held_out


def hub(
    dataset: str, languages: Sequence[str], subset: str = "{language}", split: str = "train", column: str = "text"
) -> Iterator[tuple[str, datasets.IterableDataset]]:
    """Streams of a dataset on the Hugging Face hub (or in a local folder), one a language: nothing is downloaded whole.

    Args:
        dataset: such as `"wikimedia/wikipedia"`.
        languages: names that replace `{language}` in `subset`, such as `"sw"` with `"20231101.{language}"`.
        column: the one that holds the text.

    Raises:
        TrainingError: no such dataset, subset, split or column, or the hub can't be reached.
    """
    for language in languages:
        name = subset.format(language=language)
        try:
            stream = datasets.load_dataset(dataset, name, split=split, streaming=True)
        except Exception as error:  # a missing name, a wrong subset and a blocked network each have their own
            raise TrainingError(f"the dataset {dataset!r}, subset {name!r}, can't be read: {error}") from None
        columns = stream.column_names or [column]
        if column not in columns:
            raise TrainingError(f"the dataset {dataset!r} has no column {column!r}; it has {', '.join(columns)}")
        others = [other for other in columns if other != column]
        stream = stream.remove_columns(others) if others else stream
        yield language, stream if column == "text" else stream.rename_column(column, "text")


def first_of(stream: datasets.IterableDataset, most: int = HELD_OUT) -> list[str]:
    """The first texts of a stream, to hold out."""
    found = [row["text"] for row in stream.take(most) if row["text"].strip()]
    if not found:
        raise TrainingError("a stream is empty; give each language some text or leave it out")
    return found
