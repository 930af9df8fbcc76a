"""Mark one notebook: restore its checks, run it in a fresh kernel, one result for each exercise.

The parts: `restore` puts the released checks back; `plugin`, a pytest plugin over nbval, runs the exercises one by one;
`inside` and its `stage` run in the kernel; `verdicts` finds the words. This module holds what comes out, and the
process around it:

    python -m xlmr_course.classroom.marking NOTEBOOK --chapter 04 --hidden --cell-timeout 60

writes one line of JSON, a `Marking`, to the standard output (or `--fd N`). The kernel inherits neither.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nbformat import NotebookNode

from xlmr_course.classroom import build
from xlmr_course.classroom.chapters import ROOT, Chapter, CourseError, find_released

if TYPE_CHECKING:
    from xlmr_course.classroom.plugin import Plan
    from xlmr_course.classroom.restore import Restored

CANNOT_MARK = 2  # the exit code when the notebook or the chapter can't be used; standard error says why
VERDICTS = ("right", "wrong", "not written yet", "waits for another", "error", "timeout", "look")


@dataclass
class ExerciseResult:
    """What became of one exercise.

    `verdict` is one of `VERDICTS`; `message` says what happened, `hint` is what the check said, `expected` and `yours`
    are the two values where they are known, `next_step` is what to try now.
    """

    name: str
    points: int
    verdict: str
    message: str = ""
    hint: str = ""
    expected: str = ""
    yours: str = ""
    next_step: str = ""
    manual: bool = False  # an open question: nothing was run, a person must read it

    @property
    def earned(self) -> int:
        return self.points if self.verdict == "right" else 0


@dataclass
class Marking:
    """One notebook, marked: a result for each exercise in the chapter's order, and what was odd about the notebook."""

    chapter: str
    results: list[ExerciseResult] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def earned(self) -> int:
        return sum(result.earned for result in self.results)

    @property
    def points(self) -> int:
        return sum(result.points for result in self.results)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Marking:
        """The inverse of `to_json`.

        Raises:
            ValueError: not a line that `to_json` wrote.
        """
        try:
            stored = json.loads(text)
            results = [ExerciseResult(**result) for result in stored["results"]]
            return cls(stored["chapter"], results, list(stored["remarks"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no marking: {text[:80]!r}") from error


def mark(
    notebook: Path, chapter: Chapter, *, hidden: bool = False, cell_timeout: float = 60, solution: bool = False
) -> Marking:
    """Mark a student's notebook; it is read, never written.

    Runs in a process of its own, so that it may be called from a notebook or a test.

    Args:
        notebook: the student's file.
        hidden: run the hidden checks too; they need the chapter's source.
        cell_timeout: seconds that one exercise may take, answer and checks together.
        solution: mark the model solution instead; `notebook` is not read.

    Raises:
        CourseError: the file can't be read as a notebook, or the chapter's own set-up fails here.
    """
    command = [
        sys.executable,
        "-m",
        "xlmr_course.classroom.marking",
        str(notebook),
        "--chapter",
        chapter.name,
        "--root",
        str(chapter.root),
    ]
    command += ["--cell-timeout", str(cell_timeout), *["--hidden"] * hidden, *["--solution"] * solution]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace")
    said = done.stderr.strip()
    if done.returncode == CANNOT_MARK:
        raise CourseError(said.splitlines()[-1] if said else "the notebook can't be marked")
    if done.returncode:
        raise RuntimeError(f"marking {notebook} ended with code {done.returncode}:\n{said[-2_000:]}")
    return Marking.from_json(done.stdout)


def mark_here(
    student: NotebookNode,
    chapter: Chapter,
    *,
    hidden: bool = False,
    cell_timeout: float = 60,
    remarks: Sequence[str] = (),
) -> Marking:
    """As `mark`, in this process, with a notebook that has been read; prints what pytest prints."""
    import pytest

    from xlmr_course.classroom.plugin import Plugin
    from xlmr_course.classroom.restore import released_notebook, restore

    restored = restore(student, released_notebook(chapter, hidden=hidden))
    with tempfile.TemporaryDirectory(prefix="xlmr-") as folder:
        plan = _plan(restored, chapter, folder)
        plugin = Plugin(plan, cell_timeout)
        notebook = Path(folder, f"{chapter.name}.ipynb")
        build.write(restored.notebook, notebook)
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n")
        options = ("-q", "-s", "--tb=short", "--color=no", "-p", "no:cacheprovider", "-p", "nbval.plugin")
        pytest.main([*options, "-c", str(settings), "--rootdir", folder, str(notebook)], plugins=[plugin])
    if plugin.problem:
        raise CourseError(plugin.problem)
    by_name = {result.name: result for result in plugin.results}
    results = [by_name.get(name) or _not_run(name, points, restored) for name, points in _exercises(restored)]
    return Marking(chapter.name, results, [*remarks, *restored.remarks, *plugin.remarks])


def _exercises(restored: Restored) -> list[tuple[str, int]]:
    marks = [c.metadata.exercise for c in restored.notebook.cells if build.role_of(c) in ("answer", "manual")]
    return [(mark["name"], mark.get("points", 1)) for mark in marks]


def _not_run(name: str, points: int, restored: Restored) -> ExerciseResult:
    """What isn't run: an open question, which a person must read, and an answer that can't be found."""
    if name in restored.lost:
        manual = name in restored.texts
        step = "put it back from the released notebook"
        return ExerciseResult(name, points, "look", restored.lost[name], next_step=step, manual=manual)
    cell = next((cell for cell in restored.notebook.cells if cell.get("id") == f"{name}-manual"), None)
    if cell is None:
        return ExerciseResult(name, points, "look", "it could not be run", next_step="mark this notebook again")
    if not restored.texts[name]:
        step = "write a few sentences in your own words"
        return ExerciseResult(name, points, "not written yet", next_step=step, manual=True)
    rubric, question = cell.metadata.exercise.get("rubric", ""), "an open question, which a person reads"
    return ExerciseResult(name, points, "look", question, "", rubric, restored.texts[name], manual=True)


def _plan(restored: Restored, chapter: Chapter, folder: str) -> Plan:
    from xlmr_course.classroom.inside import bound
    from xlmr_course.classroom.plugin import Plan
    from xlmr_course.classroom.restore import OWN
    from xlmr_course.classroom.verdicts import Exercise

    models = {}
    if chapter.source.is_file():
        for cell in build.read_source(chapter).cells:
            if build.role_of(cell) == "answer":
                models[cell.metadata.exercise["name"]] = build.without_markers(cell.source)
    setup, own, around, exercises = [], [], [], {}
    for cell in restored.notebook.cells:
        if cell.cell_type != "code" or cell.get("id") == "install-course":
            continue
        role, mark = build.role_of(cell), cell.metadata.get("exercise", {})
        name = mark.get("name", "")
        if role == "answer" and name not in restored.lost:
            exercises[name] = Exercise(
                name,
                mark.get("points", 1),
                cell.source,
                binds=sorted(bound(models[name]) if name in models else restored.binds[name]),
                model=models.get(name, ""),
                blank=name in restored.unwritten,
            )
        elif role in ("check", "hidden") and name in exercises:
            exercises[name].checks.append((f"{name}-{role}", cell.source))
            texts = [o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"]
            exercises[name].reference += "".join(texts)
        elif role is None:
            tags = cell.metadata.get("tags", [])
            for kind, chosen in ((setup, "setup" in tags), (own, OWN in tags), (around, "setup" not in tags)):
                if chosen:
                    kind.append((cell.id, cell.source))
    return Plan(setup, own, around, list(exercises.values()), folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Mark one notebook and write the marking as one line of JSON; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m xlmr_course.classroom.marking", description=main.__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--chapter", required=True, help="number or name")
    parser.add_argument("--hidden", action="store_true", help="run the hidden checks too")
    parser.add_argument("--solution", action="store_true", help="mark the model solution; NOTEBOOK is not read")
    parser.add_argument("--cell-timeout", type=float, default=60, help="seconds for one exercise")
    parser.add_argument("--fd", type=int, default=1, help="the file descriptor that the JSON goes to")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout that holds the chapter")
    options = parser.parse_args(arguments)
    report = _private_copy(options.fd)
    try:
        from xlmr_course.classroom.restore import read_notebook

        [chapter] = find_released([options.chapter], options.root)
        if options.solution:
            student, remarks = build.solution_notebook(chapter), []
        else:
            student, remarks = read_notebook(options.notebook)
        marking = mark_here(student, chapter, hidden=options.hidden, cell_timeout=options.cell_timeout, remarks=remarks)
    except CourseError as error:
        print(error, file=sys.stderr)
        return CANNOT_MARK
    with os.fdopen(report, "w", encoding="utf-8") as file:
        file.write(marking.to_json() + "\n")
    return 0


def _private_copy(descriptor: int) -> int:
    """A copy of a descriptor that no child inherits; the standard output leads nowhere from here on.

    On Linux no other process of the same user can open it through /proc either.
    """
    copy = os.dup(descriptor)  # not inheritable
    if descriptor > 2:
        os.close(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    # Other pytest plugins on this machine have no part in marking.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    return copy


if __name__ == "__main__":
    # The plugin imports this module by its name; its classes must be the same ones.
    from xlmr_course.classroom.marking import main as run

    sys.exit(run())
