"""The chapters of the course: where they lie, what they are called, what they were measured to need."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[2]


class CourseError(ValueError):
    """A chapter is unknown, or its source breaks a rule of the course. The message says which."""


@dataclass(frozen=True)
class Chapter:
    """One chapter: `name` is the stem of its files, such as `05_the_encoder`."""

    name: str
    root: Path = ROOT

    @property
    def number(self) -> str:
        return self.name.split("_", 1)[0]

    @property
    def source(self) -> Path:
        return self.root / "notebooks" / "source" / f"{self.name}.py"

    @property
    def solution(self) -> Path:
        return self.root / "notebooks" / "solutions" / f"{self.name}.ipynb"

    @property
    def student(self) -> Path:
        return self.root / "notebooks" / f"{self.name}.ipynb"

    @property
    def title(self) -> str:
        """The first heading: `# 05 · The encoder` → `The encoder`."""
        return self._first_cell()[0].split("·", 1)[-1].strip()

    @property
    def promise(self) -> str:
        """The first paragraph after the heading, on one line: what the reader will have built."""
        paragraph = next((block for block in "\n".join(self._first_cell()[1:]).split("\n\n") if block.strip()), "")
        return " ".join(re.sub(r"^\*\*You will build\*\*:?\s*", "", paragraph.strip()).split())

    def _first_cell(self) -> list[str]:
        if self.source.is_file():
            cell = jupytext.read(self.source, fmt="py:percent").cells[0]
        else:
            cell = nbformat.read(self.student, as_version=4).cells[0]
        return cell.source.strip().removeprefix("#").strip().splitlines()


def all_chapters(root: Path = ROOT) -> list[Chapter]:
    """Every chapter that has a source, in order."""
    sources = sorted((root / "notebooks" / "source").glob("[0-9][0-9]_*.py"))
    if not sources:
        raise CourseError("notebooks/source/ holds no chapters; run this inside a checkout of the course")
    return [Chapter(path.stem, root) for path in sources]


def find(names: Sequence[str], root: Path = ROOT) -> list[Chapter]:
    """Chapters by number (`5`, `05`) or name (`05_the_encoder`); all of them for no names.

    Raises:
        CourseError: an unknown chapter; the message lists the valid ones.
    """
    return _chosen(names, all_chapters(root))


def released_chapters(root: Path = ROOT) -> list[Chapter]:
    """The chapters as learners get them: those of the checkout, or the student editions that came with the wheel.

    Outside a checkout there are no sources and no solutions.
    """
    if any((root / "notebooks" / "source").glob("[0-9][0-9]_*.py")):
        return all_chapters(root)
    for folder in (root, Path(__file__).resolve().parents[1] / "_data"):
        if found := sorted(folder.glob("notebooks/[0-9][0-9]_*.ipynb")):
            return [Chapter(path.stem, folder) for path in found]
    raise CourseError("the course's notebooks are not in this installation; install its wheel again")


def find_released(names: Sequence[str], root: Path = ROOT) -> list[Chapter]:
    """As `find`, but works outside a checkout too."""
    return _chosen(names, released_chapters(root))


def _chosen(names: Sequence[str], chapters: list[Chapter]) -> list[Chapter]:
    by_name = {key: chapter for chapter in chapters for key in (chapter.name, chapter.number)}
    chosen = []
    for name in names:
        key = f"{int(name):02d}" if name.isdecimal() else Path(name).stem
        if key not in by_name:
            listed = ", ".join(chapter.name for chapter in chapters)
            raise CourseError(f"there is no chapter {name!r}; the chapters are {listed}")
        chosen.append(by_name[key])
    return chosen or chapters


def measured(root: Path = ROOT) -> dict[str, dict[str, float]]:
    """What `make course` last recorded: chapter name → minutes, peak memory in GB, and on what machine."""
    file = root / "notebooks" / "measured.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def repository(root: Path = ROOT) -> str:
    """The public address of the course, the one setting that Colab badges come from; empty while it has none."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["tool"]["xlmr_course"]["repository"].rstrip("/")
