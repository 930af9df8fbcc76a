"""From what happened in the kernel to a verdict, in words that a learner can use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from xlmr_course.classroom.marking import ExerciseResult


@dataclass
class Exercise:
    """One exercise as it will be run. `binds`: what the answer must define. `model` is empty where there is none."""

    name: str
    points: int
    answer: str
    binds: list[str]
    checks: list[tuple[str, str]] = field(default_factory=list)  # (name, code)
    reference: str = ""  # what the checks print in the release
    model: str = ""
    blank: bool = False


UNWRITTEN = re.compile(r"^(?P<name>[\w-]+): not written yet$")
ENDED = "the kernel ended while this ran: os._exit, too much memory, or a crash"
VALUES = re.compile(r"expected (?P<expected>.+?)[,;] (?:yours|you)(?: gives| gave| is|:)? (?P<yours>.+)$", re.DOTALL)


def not_written(exercise: Exercise) -> dict:
    return {"kind": "failed", "error": "NotImplementedError", "text": f"{exercise.name}: not written yet"}


def judge(exercise: Exercise, outcome: dict, *, differs: bool = False) -> ExerciseResult:
    """The verdict on an outcome of `inside.conduct`, in words a learner can use. `differs`: nbval saw other output."""
    name = exercise.name

    def result(verdict: str, **words: str) -> ExerciseResult:
        return ExerciseResult(name, exercise.points, verdict, **words)

    kind, error, text = outcome["kind"], outcome.get("error", ""), outcome.get("text", "")
    if kind == "timeout":
        return result(
            "timeout",
            message=f"it ran longer than {outcome['seconds']:g} seconds and was stopped",
            next_step="look for a loop that never ends, then for work that is done again and again",
        )
    if kind == "ended":
        return result(
            "error",
            message=ENDED,
            next_step="run this exercise alone in a fresh kernel and look at what it allocates",
        )
    if kind == "passed" and outcome.get("during"):
        return result(
            "look",
            message=f"the check passed, but the answer changed {', '.join(outcome['during'][:3])} while it ran",
            next_step="a person must read this answer",
        )
    if kind == "passed" and differs:
        return result(
            "wrong",
            message="the check passed, but the values it prints are not the reference's",
            expected=exercise.reference.strip(),
            yours=outcome["printed"].strip(),
            next_step="compare the two lines; the first difference says where to look",
        )
    if kind == "passed":
        return result("right")
    unwritten = UNWRITTEN.match(text)
    if error == "NotImplementedError" and unwritten and unwritten["name"] != name:
        other = unwritten["name"]
        return result(
            "waits for another", message=f"it uses {other}, which is not written yet", next_step=f"write {other} first"
        )
    if error == "NotImplementedError" and unwritten:
        step = "write it where it says # YOUR CODE HERE"
        if not exercise.blank and len(exercise.answer.strip().splitlines()) > 3:
            step = "delete the line `raise NotImplementedError(…)` when your code is complete"
        return result("not written yet", next_step=step)
    where = outcome.get("where", "")
    if error == "AssertionError" and (text.startswith(f"{name}: ") or where != name):
        hint = text.removeprefix(f"{name}: ") or f"this must hold: {outcome.get('code', '')}"
        values = VALUES.search(hint)
        return result(
            "wrong",
            message="on another input, its hidden check failed" if where.endswith("-hidden") else "its check failed",
            hint=hint,
            expected=values["expected"].strip() if values else "",
            yours=values["yours"].strip() if values else "",
            next_step="change the answer, run the cell and its check; the hints above the exercise open one by one",
        )
    line = f" in line {outcome['line']}, `{outcome['code']}`" if where == name and outcome.get("line") else ""
    message = f"{error}: {text}" if text else error
    step = "run the cell and its check, and read the last line of the error"
    if error == "StdinNotImplementedError":
        message, step = "input() was called, and nobody can answer", "put the value into the code instead of input()"
    elif error in ("SystemExit", "KeyboardInterrupt"):
        message, step = f"the answer ended the program ({error})", "return a value instead of calling exit"
    elif error in ("SyntaxError", "IndentationError", "TabError"):
        step = "Python can't read the cell; look at that line and the one before it"
    elif where != name:
        message = f"the check could not use what the answer gave: {message}"
        step = "look at what the answer returns; a function without return gives None"
    return result("error", message=message + line, next_step=step)
