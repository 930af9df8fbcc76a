"""The numbers in `data/README.md`, counted from the corpus rather than typed.

`python -m xlmr_course.classroom.datasheet` writes them between the marks `<!-- numbers -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from statistics import mean

from xlmr_course.classroom.chapters import ROOT
from xlmr_course.corpus import LANGUAGES, SPLITS, TOPICS, Sentence, read_sentences

BEGIN, END = "<!-- numbers -->", "<!-- end -->"
FILE = ROOT / "data" / "README.md"


def numbers(folder: Path = ROOT / "data") -> str:
    """Counts by topic and split, names, and lengths by language, as Markdown tables."""
    rows = {code: read_sentences(folder / "sentences" / f"{code}.tsv") for code in LANGUAGES}
    english = rows["en"]
    parts = Counter((row.topic, row.split) for row in english)
    topics = [f"| {topic} | " + " | ".join(str(parts[topic, split]) for split in SPLITS) + " |" for topic in TOPICS]
    labels = _labels(english)
    named = sum(any(tag != "O" for tag in row.name_tags) for row in english)
    lengths = [
        f"| {code} | {name} | {mean(len(row.text) for row in rows[code]):.0f} | "
        f"{max(len(row.text) for row in rows[code])} | {mean(len(row.tokens) for row in rows[code]):.1f} | "
        f"{len({character for row in rows[code] for character in row.text})} |"
        for code, name in LANGUAGES.items()
    ]
    questions = sum("?" in row.text for row in english)
    quotations = sum("“" in row.text for row in english)
    digits = sum(bool(re.search(r"\d", row.text)) for row in english)
    return "\n".join(
        [
            f"{len(english)} sentences in each of {len(rows)} languages, {len(english) * len(rows):,} in all.",
            "",
            "| topic | " + " | ".join(SPLITS) + " |",
            "|---|" + "--:|" * len(SPLITS),
            *topics,
            "",
            f"Names in each language: {labels['PER']} people, {labels['LOC']} places, {labels['ORG']} organisations, "
            f"in {named} sentences. In the English, {questions} questions, {quotations} quotations, "
            f"{digits} sentences with digits.",
            "",
            "| code | language | mean characters | longest | mean tokens | distinct characters |",
            "|---|---|--:|--:|--:|--:|",
            *lengths,
        ]
    )


def with_numbers(text: str, counted: str) -> str:
    """A README with the counted part put between its marks."""
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{counted}\n{END}{rest.split(END, 1)[1]}"


def _labels(rows: list[Sentence]) -> Counter:
    return Counter(tag[2:] for row in rows for tag in row.name_tags if tag.startswith("B-"))


if __name__ == "__main__":
    FILE.write_text(with_numbers(FILE.read_text(encoding="utf-8"), numbers()), encoding="utf-8", newline="\n")
