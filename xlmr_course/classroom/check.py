"""What a learner sees: `xlmr-course check NOTEBOOK`, and `check_notebook()` as the last cell of every notebook.

Both mark the notebook in a fresh kernel and say one line for each exercise. Neither changes the learner's file.
"""

from __future__ import annotations

import functools
import hashlib
import html
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xlmr_course.classroom.chapters import Chapter, CourseError, find_released, released_chapters
from xlmr_course.classroom.marking import ExerciseResult, Marking, mark

SIGNS = {"right": "✓", "wrong": "✗", "error": "✗", "timeout": "✗", "look": "?"}
COLOURS = {"right": "#1a7f42", "wrong": "#b3261e", "error": "#b3261e", "timeout": "#b3261e", "look": "#8a5a00"}
TERMINAL = {"right": "32", "wrong": "31", "error": "31", "timeout": "31", "look": "33"}
QUIET = "#5f6368"  # not written yet, waits for another
JUST_NOW = 120  # seconds in which JupyterLab saves on its own


def check(notebook: Path, chapter: str | None = None, *, cell_timeout: float = 60) -> Report:
    """Mark a saved notebook by its visible checks, and remember the result for `progress`.

    Args:
        chapter: its number or name, if the notebook doesn't tell.

    Raises:
        CourseError: the file can't be read, or is no chapter of the course.
    """
    from xlmr_course.classroom.progress import remember
    from xlmr_course.classroom.restore import read_notebook

    student, _ = read_notebook(notebook)
    found = find_released([chapter])[0] if chapter else identify(student, notebook.name)
    marking = mark(notebook, found, cell_timeout=cell_timeout)
    remember(student, marking, found)
    return Report(marking, found, f"{notebook.name}, saved {_ago(notebook)}")


def identify(notebook, name: str, chapters: Sequence[Chapter] | None = None) -> Chapter:
    """The chapter that a notebook is: by its heading, its exercises, and the number in its file's name.

    Raises:
        CourseError: it resembles none, or two equally.
    """
    text = "\n".join(f"{cell.get('id')} {json.dumps(cell.metadata)} {cell.source}" for cell in notebook.cells)
    scores: dict[Chapter, int] = {}
    for chapter in chapters or released_chapters():
        heading, exercises = _marks_of(chapter)
        score = 3 * any(heading and heading in cell.source.splitlines()[:1] for cell in notebook.cells)
        score += sum(f"{exercise}-answer" in text or f"{exercise}: not written yet" in text for exercise in exercises)
        score += sum(f'"name": "{exercise}"' in text for exercise in exercises)
        scores[chapter] = 2 * score + name.startswith(chapter.number) if score else 0
    best = max(scores.values(), default=0)
    winners = [chapter for chapter, score in scores.items() if score == best]
    if best < 2 or len(winners) > 1:
        raise CourseError(f"{name} is no chapter of this course; if it is one, name it with --chapter, such as 04")
    return winners[0]


@functools.cache
def _marks_of(chapter: Chapter) -> tuple[str, list[str]]:
    """(the first heading, the exercises' names), read quickly."""
    if chapter.source.is_file():
        text = chapter.source.read_text(encoding="utf-8")
        heading = re.search(r"^# (# \d\d · .*)$", text, re.MULTILINE)
        names = re.findall(r'exercise=\{"name": "([^"]+)", "role": "(?:answer|manual)"', text)
    else:
        text = chapter.student.read_text(encoding="utf-8")
        cells = json.loads(text)["cells"]
        heading = re.search(r"^(# \d\d · .*)$", "".join(cells[0]["source"]), re.MULTILINE)
        marks = [cell["metadata"].get("exercise", {}) for cell in cells]
        names = [mark["name"] for mark in marks if mark.get("role") in ("answer", "manual")]
    return (heading[1].strip() if heading else "", names)


@dataclass
class Report:
    """A marking to be read: as text in a terminal, as a table in a notebook."""

    marking: Marking
    chapter: Chapter
    what: str  # which file, or that it is the open notebook
    notice: str = ""  # what to do first, such as saving

    @property
    def checked(self) -> list[ExerciseResult]:
        return [result for result in self.marking.results if not result.manual]

    @property
    def complete(self) -> bool:
        """Whether every visible check passed."""
        return all(result.verdict == "right" for result in self.checked)

    @property
    def summary(self) -> str:
        passed = sum(result.verdict == "right" for result in self.checked)
        points = sum(result.earned for result in self.checked), sum(result.points for result in self.checked)
        asked = [result for result in self.marking.results if result.manual]
        written = sum(result.verdict == "look" for result in asked)
        questions = f"; open questions answered: {written} of {len(asked)}, a person reads them" if asked else ""
        return f"visible checks passed: {passed} of {len(self.checked)} ({points[0]} of {points[1]} points){questions}"

    def text(self, *, colour: bool = False) -> str:
        """One line for each exercise, below it what helps; `colour` adds a terminal's colours."""
        width = max((len(result.name) for result in self.marking.results), default=0)
        lines = [f"{self.chapter.number} {self.chapter.title} · {self.what}", ""]
        for result in self.marking.results:
            sign = SIGNS.get(result.verdict, "·")
            if colour:
                sign = f"\033[1;{TERMINAL.get(result.verdict, '2')}m{sign}\033[0m"
            points = f"{'?' if result.manual else result.earned}/{result.points}"
            line = f"{sign} {result.name:{width}}  {points}  {_verdict(result)}"
            lines.append(line + (f": {result.message}" if result.message else ""))
            for label, value in _details(result):
                lines.append(f"    {label:8} {_indent(value)}")
        lines += ["", *(f"note: {remark}" for remark in self.marking.remarks)]
        lines += [*([""] if self.marking.remarks else []), self.summary]
        return "\n".join([*lines, *([self.notice] if self.notice else [])])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """A table whose colours carry their own background, so that it reads on light and dark pages."""
        rows = []
        for result in self.marking.results:
            colour = COLOURS.get(result.verdict, QUIET)
            badge = f"{SIGNS.get(result.verdict, '·')} {_verdict(result)}"
            points = f"{'?' if result.manual else result.earned} / {result.points}"
            details = "".join(
                f'<div style="margin-top:4px"><span style="opacity:.7">{label}</span> {_as_html(label, value)}</div>'
                for label, value in _details(result)
            )
            rows.append(
                f'<tr style="background:transparent"><td style="{CELL}"><b>{html.escape(result.name)}</b></td>'
                f'<td style="{CELL};white-space:nowrap">{points}</td><td style="{CELL};white-space:nowrap">'
                f'<span style="background:{colour};color:#fff;border-radius:4px;padding:2px 7px">{badge}</span></td>'
                f'<td style="{CELL};max-width:46em">{html.escape(result.message)}{details}</td></tr>'
            )
        head = "".join(f'<th style="{CELL}">{label}</th>' for label in ("exercise", "points", "verdict", ""))
        notes = "".join(f"<li>{html.escape(remark)}</li>" for remark in self.marking.remarks)
        notice = f'<p><b style="color:#b3261e;background:#fff;padding:2px 6px">{html.escape(self.notice)}</b></p>'
        return (
            f"<div><p>{html.escape(f'{self.chapter.number} {self.chapter.title} · {self.what}')}</p>"
            f'<table style="border-collapse:collapse;text-align:left"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table>{f'<ul>{notes}</ul>' if notes else ''}"
            f"<p><b>{html.escape(self.summary)}</b></p>{notice if self.notice else ''}</div>"
        )


CELL = "border-bottom:1px solid #8886;padding:6px 12px 6px 0;vertical-align:top;text-align:left"


def _verdict(result: ExerciseResult) -> str:
    if result.manual and result.verdict == "look":
        return "written"
    return {"look": "a person must look"}.get(result.verdict, result.verdict)


def _details(result: ExerciseResult) -> list[tuple[str, str]]:
    """What stands below an exercise's line. A reader of their own notebook knows their open answer."""
    if result.manual and result.verdict == "look":
        return []
    found = [("hint", result.hint), ("expected", result.expected), ("yours", result.yours), ("try", result.next_step)]
    return [(label, value) for label, value in found if value]


def _indent(value: str) -> str:
    return value.strip().replace("\n", "\n" + " " * 13)


def _as_html(label: str, value: str) -> str:
    text = html.escape(value.strip())
    if label in ("expected", "yours"):
        return f'<code style="white-space:pre-wrap;background:transparent;color:inherit">{text}</code>'
    return re.sub(r"`([^`]+)`", r'<code style="background:transparent;color:inherit">\1</code>', text)


def _ago(file: Path) -> str:
    seconds = time.time() - file.stat().st_mtime
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' * (count > 1)} ago"
    return "just now"


def check_notebook(cell_timeout: float = 60) -> None:
    """Show how the exercises of the notebook that is running stand, by its saved file; in Colab by the open one.

    The checks run in a fresh kernel, so nothing here is changed, and the file is only read.
    """
    if os.environ.get("XLMR_COURSE_MARKING"):
        return  # the notebook is being marked; it must not mark itself
    try:
        if "google.colab" in sys.modules:
            report = _check_colab(cell_timeout)
        else:
            notebook, sure = running_notebook()
            print(f"Running the checks of {notebook.name} in a fresh kernel; this takes about half a minute …")
            report = check(notebook, cell_timeout=cell_timeout)
            report.notice = _stale(notebook, sure)
    except CourseError as error:
        print(f"{str(error)[:1].upper()}{str(error)[1:]}.")
        return
    _show(report)


def _check_colab(cell_timeout: float) -> Report:
    from google.colab import _message

    reply = _message.blocking_request("get_ipynb", request="", timeout_sec=60)
    if not isinstance(reply, dict) or not isinstance(reply.get("ipynb"), dict):
        raise CourseError("Colab did not hand over the notebook; save it, download it, and use xlmr-course check")
    print("Running the checks of this notebook in a fresh kernel; this takes about half a minute …")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "notebook.ipynb")
        file.write_text(json.dumps(reply["ipynb"]), encoding="utf-8")
        report = check(file, cell_timeout=cell_timeout)
    report.what = "the open notebook"
    return report


def running_notebook() -> tuple[Path, bool]:
    """(the file of the notebook that runs this, whether that is sure).

    Raises:
        CourseError: nothing here looks like a chapter.
    """
    told = [_user_namespace().get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")]
    for name in told:
        if name and Path(name).is_file() and name.endswith(".ipynb"):
            return Path(name), True
    candidates = sorted(Path().glob("*.ipynb"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in candidates:
        try:
            from xlmr_course.classroom.restore import read_notebook

            identify(read_notebook(path)[0], path.name)
        except CourseError:
            continue
        return path.resolve(), False
    raise CourseError(
        "no saved notebook of the course was found in this folder; save it here, or use xlmr-course check NOTEBOOK"
    )


def _stale(notebook: Path, sure: bool) -> str:
    """What to do first if the file on disk isn't what has been run here."""
    from xlmr_course.classroom.inside import bound
    from xlmr_course.classroom.restore import read_notebook

    saved = {_squeezed(cell.source) for cell in read_notebook(notebook)[0].cells}
    seen: set[str] = set()
    behind: set[str] = set()
    for code in reversed(_user_namespace().get("In", [])[1:-1]):
        names = {name for name in bound(code) if re.search(rf"^(?:def|class) {name}\b", code, re.MULTILINE)}
        if names - seen and _squeezed(code) not in saved:
            behind |= names - seen
        seen |= names
    if behind:
        lacking = ", ".join(sorted(behind))
        return f"Save first (Ctrl+S), then run this cell again: the saved file lacks your latest {lacking}."
    if not sure:
        return f"This is the newest notebook here, saved {_ago(notebook)}. Is it the wrong one? Save yours, run again."
    if time.time() - notebook.stat().st_mtime > JUST_NOW:
        return f"The file was saved {_ago(notebook)}. If you changed something since, save it and run this cell again."
    return ""


def _squeezed(code: str) -> str:
    return hashlib.sha256("".join(code.split()).encode()).hexdigest()


def _user_namespace() -> dict:
    from IPython import get_ipython

    shell = get_ipython()
    return shell.user_ns if shell is not None else {}


def _show(report: Report) -> None:
    shell = sys.modules.get("IPython") and __import__("IPython").get_ipython()
    if shell is not None and type(shell).__name__ != "TerminalInteractiveShell":
        from IPython.display import display

        display(report)
    else:
        print(report.text(colour=sys.stdout.isatty()))
