"""What is done: every exercise of every chapter, from the learner's own saved notebooks.

Nothing is run. An exercise counts as right only if a check found it right, in `xlmr-course check` or
`check_notebook()`, and no cell of its notebook has changed since; each check leaves a record under a digest of the
cells. What was written or changed after that is shown as "not checked yet".
"""

from __future__ import annotations

import hashlib
import html
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode

from xlmr_course.classroom import build
from xlmr_course.classroom.chapters import ROOT, Chapter, CourseError, released_chapters
from xlmr_course.classroom.marking import Marking

SIGNS = {"right": "✓", "not right": "✗", "not checked": "○", "not written yet": "·"}
MEANING = {
    "right": "right",
    "not right": "checked, not right yet",
    "not checked": "written, not checked since",
    "not written yet": "not written yet",
}


@dataclass
class ChapterProgress:
    """One chapter: the learner's file, None if there is none here, and (exercise, state) in order."""

    chapter: Chapter
    file: Path | None = None
    states: list[tuple[str, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return sum(state == "right" for _, state in self.states)


def progress(folder: Path | None = None) -> list[ChapterProgress]:
    """Every chapter, in order.

    Args:
        folder: where the learner's notebooks lie; without one the current folder if it holds chapters, else the
            checkout's `notebooks/`.
    """
    chapters = released_chapters()
    found = _learners_files(folder, chapters) if folder else _learners_files(Path(), chapters)
    if not found and folder is None:
        found = _learners_files(ROOT / "notebooks", chapters)
    return [_chapter_progress(chapter, found.get(chapter)) for chapter in chapters]


def remember(notebook: NotebookNode, marking: Marking, chapter: Chapter) -> None:
    """Keep a marking under a digest of the notebook's cells. A folder that can't be written is no reason to fail."""
    try:
        file = _record(notebook, chapter)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(marking.to_json(), encoding="utf-8")
        partial.replace(file)
    except OSError:
        return


def text(chapters: list[ChapterProgress]) -> str:
    """A line for each chapter, a sign for each exercise."""
    titles = [f"{entry.chapter.number} {entry.chapter.title}" for entry in chapters]
    width = max(map(len, titles), default=0)
    lines = []
    for title, entry in zip(titles, chapters, strict=True):
        signs = "".join(SIGNS[state] for _, state in entry.states) if entry.file else "no notebook here"
        lines.append(f"{title:{width}}  {entry.done:2} of {len(entry.states):<2}  {signs}")
    legend = "  ".join(f"{SIGNS[state]} {meaning}" for state, meaning in MEANING.items())
    return "\n".join([*lines, "", legend, *_advice(chapters)])


def show_progress() -> None:
    """Show the progress as a table in a notebook, as text in a terminal."""
    chapters = progress()
    if "IPython" not in __import__("sys").modules or __import__("IPython").get_ipython() is None:
        print(text(chapters))
        return
    from IPython.display import HTML, display

    display({"text/plain": text(chapters), "text/html": HTML(_table(chapters)).data}, raw=True)


def _table(chapters: list[ChapterProgress]) -> str:
    colours = {"right": "#1a7f42", "not right": "#b3261e", "not checked": "#8a5a00", "not written yet": "#5f6368"}
    cell = "border-bottom:1px solid #8886;padding:5px 14px 5px 0;text-align:left"
    rows = []
    for entry in chapters:
        badges = "".join(
            f'<span title="{html.escape(f"{name}: {MEANING[state]}")}" style="background:{colours[state]};color:#fff;'
            f'border-radius:4px;padding:1px 6px;margin-right:3px">{SIGNS[state]}</span>'
            for name, state in entry.states
        )
        rows.append(
            f'<tr style="background:transparent"><td style="{cell}">{entry.chapter.number} '
            f'{html.escape(entry.chapter.title)}</td><td style="{cell};white-space:nowrap">{entry.done} of '
            f'{len(entry.states)}</td><td style="{cell}">{badges if entry.file else "no notebook here"}</td></tr>'
        )
    legend = " &nbsp; ".join(f"{SIGNS[state]} {meaning}" for state, meaning in MEANING.items())
    advice = "".join(f"<p>{html.escape(line)}</p>" for line in _advice(chapters))
    return f'<table style="border-collapse:collapse">{"".join(rows)}</table><p>{legend}</p>{advice}'


def _advice(chapters: list[ChapterProgress]) -> list[str]:
    waiting = [e.chapter.number for e in chapters if any(state == "not checked" for _, state in e.states)]
    if not waiting:
        return []
    return [
        f"To check what you wrote: the last cell of the notebook, or xlmr-course check (chapter {', '.join(waiting)})."
    ]


def _chapter_progress(chapter: Chapter, file: Path | None) -> ChapterProgress:
    from xlmr_course.classroom.restore import read_notebook, released_notebook, restore

    release = build.blank_notebook(chapter) if chapter.source.is_file() else released_notebook(chapter)
    names = [c.metadata.exercise["name"] for c in release.cells if build.role_of(c) == "answer"]
    if file is None:
        return ChapterProgress(chapter, None, [(name, "not written yet") for name in names])
    student, _ = read_notebook(file)
    record = _record(student, chapter)
    verdicts: dict[str, str] = {}
    if record.is_file():
        try:
            verdicts = {r.name: r.verdict for r in Marking.from_json(record.read_text(encoding="utf-8")).results}
        except (OSError, ValueError):
            verdicts = {}
    unwritten = restore(student, release).unwritten
    return ChapterProgress(chapter, file, [(name, _state(name, verdicts, unwritten)) for name in names])


def _state(name: str, verdicts: dict[str, str], unwritten: set[str]) -> str:
    if name in unwritten or verdicts.get(name) == "not written yet":
        return "not written yet"
    if name not in verdicts:
        return "not checked"
    return "right" if verdicts[name] == "right" else "not right"


def _learners_files(folder: Path, chapters: list[Chapter]) -> dict[Chapter, Path]:
    """Chapter → the newest notebook of that chapter in a folder."""
    from xlmr_course.classroom.check import identify
    from xlmr_course.classroom.restore import read_notebook

    found: dict[Chapter, Path] = {}
    for path in sorted(folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime):
        try:
            found[identify(read_notebook(path)[0], path.name, chapters)] = path
        except CourseError:
            continue
    return found


def _record(notebook: NotebookNode, chapter: Chapter) -> Path:
    """Where the marking of exactly these cells against exactly these checks is kept."""
    from xlmr_course.sources import cache_folder

    release = chapter.source if chapter.source.is_file() else chapter.student
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells if cell.get("id") != build.CHECK_ID]
    digest = hashlib.sha256(release.read_bytes() + json.dumps(cells).encode())
    return cache_folder() / "progress" / f"{digest.hexdigest()[:32]}.json"
