"""Mark one notebook: restore its checks, run it in a fresh kernel, one result for each exercise.

The parts: `restore` puts the released checks back; `plugin`, a pytest plugin over nbval, runs the exercises one by one;
`inside` is what runs in the kernel. This module holds what comes out, and the process around it:

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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlmr_course.classroom.chapters import Chapter

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
    raise NotImplementedError("coming in the next commits: the interface stands first")
