"""Prove that each check of a chapter can fail, and fails for the right reason.

A check needs nothing but the chapter's `setup` cells and its own answer. So a proof runs those alone: the blank must
fail with "not written yet", the model answer must pass, and each planted mistake must meet the hint that it expects.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from nbformat import NotebookNode

from xlmr_course.classroom.build import blank, read_source, without_markers
from xlmr_course.classroom.chapters import Chapter, CourseError


@dataclass
class Exercise:
    """One exercise of a source: the code of its answer, its checks and its planted mistakes."""

    name: str
    points: int = 0
    answer: str = ""
    checks: list[str] = field(default_factory=list)
    mistakes: list[tuple[str, str]] = field(default_factory=list)  # (code, part of the hint it must meet)


def exercises(chapter: Chapter) -> list[Exercise]:
    """The exercises of a chapter in order.

    Raises:
        CourseError: one without answer, check or two planted mistakes.
    """
    found: dict[str, Exercise] = {}
    for cell in read_source(chapter).cells:
        mark = cell.metadata.get("exercise")
        if mark is None or mark["role"] == "manual":
            continue
        exercise = found.setdefault(mark["name"], Exercise(mark["name"]))
        if mark["role"] == "answer":
            exercise.answer, exercise.points = cell.source, mark.get("points", 1)
        elif mark["role"] == "mistake":
            exercise.mistakes.append((cell.source, mark["expect"]))
        else:
            exercise.checks.append(cell.source)
    for exercise in found.values():
        if not exercise.answer or not exercise.checks or len(exercise.mistakes) < 2:
            raise CourseError(
                f"{chapter.name}, exercise {exercise.name!r}: it needs an answer, a check and at least two mistakes"
            )
    return list(found.values())


def setup_code(chapter: Chapter) -> list[str]:
    """The cells tagged `setup`, which every check may rely on."""
    return [cell.source for cell in read_source(chapter).cells if _is_setup(cell)]


def prove(exercise: Exercise, setup: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (case, problem) for each case that does not end as it must; nothing for a sound exercise."""
    unwritten = outcome(exercise, blank(exercise.answer, exercise.name), setup)
    if f"{exercise.name}: not written yet" not in unwritten:
        yield "blank", f"must fail with 'not written yet', but {unwritten}"
    solved = outcome(exercise, without_markers(exercise.answer, exercise.name), setup)
    if solved != "passed":
        yield "solution", f"must pass, but {solved}"
    for number, (code, expected) in enumerate(exercise.mistakes, start=1):
        wrong = outcome(exercise, code, setup)
        if not wrong.startswith("AssertionError") or expected not in wrong:
            yield f"mistake {number}", f"must meet the hint {expected!r}, but {wrong}"
        elif not wrong.startswith(f"AssertionError: {exercise.name}: "):
            yield f"mistake {number}", f"the hint must begin with the exercise's name, but {wrong}"


def outcome(exercise: Exercise, answer: str, setup: list[str]) -> str:
    """How an answer fares with an exercise's checks: `passed`, or the error's class and text."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    # A chapter may switch gradients off; enable_grad puts things back as they were.
    with contextlib.redirect_stdout(io.StringIO()), torch.enable_grad():
        for code in setup:
            exec(compile(code, "setup", "exec"), namespace)
        try:
            for code in (answer, *exercise.checks):
                exec(compile(code, exercise.name, "exec"), namespace)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "passed"


def _is_setup(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "setup" in cell.metadata.get("tags", [])
