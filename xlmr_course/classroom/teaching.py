"""What the teaching guide takes from the sources: minutes, points, the hints of the checks, the rubrics.

`python -m xlmr_course.classroom.teaching` writes them into `docs/README.md` and `docs/chapters/NN.md`, between marks:

    <!-- map -->                  a row for each chapter that has a page (docs/README.md)
    <!-- figures -->              measured minutes and memory, points
    <!-- exercise viterbi -->     points, and what the check says to each planted mistake
    <!-- question fair-share -->  an open question with its model answer and its rubric

What stands outside the marks is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from xlmr_course.classroom import proof
from xlmr_course.classroom.build import BEGIN, END, read_source
from xlmr_course.classroom.chapters import ROOT, Chapter, CourseError, all_chapters, measured

LONG_FLOATS = re.compile(r"\d+\.\d{4,}")
BARE_TAGS = re.compile(r"(?<![`\w])(?:</?\w+>)+(?![`\w])")  # <s> and its like, which Markdown would take for HTML


def page(chapter: Chapter) -> Path:
    """Where a chapter's page lies, whether or not it is there."""
    return chapter.root / "docs" / "chapters" / f"{chapter.number}.md"


def course_map(root: Path = ROOT) -> str:
    """One row for each chapter with a page: machine minutes, memory, exercises, points."""
    rows = []
    for chapter in all_chapters(root):
        if page(chapter).is_file():
            exercises, questions = proof.exercises(chapter), open_questions(chapter)
            points = sum(e.points for e in exercises) + sum(_points(q) for q in questions)
            rows.append(
                f"| [{chapter.number} {chapter.title}](chapters/{page(chapter).name}) | {_minutes(chapter)} | "
                f"{len(exercises)} | {len(questions)} | {points} |"
            )
    return "\n".join(["| page | machine | exercises | open questions | points |", "|---|---|--:|--:|--:|", *rows])


def filled(chapter: Chapter, text: str) -> str:
    """A chapter's page with everything between its marks as the source has it.

    Raises:
        CourseError: a mark is missing, or names what the chapter hasn't got.
    """
    exercises, questions = proof.exercises(chapter), open_questions(chapter)
    points = sum(exercise.points for exercise in exercises) + sum(_points(question) for question in questions)
    wanted = {"figures": f"Machine: {_minutes(chapter)}. Points: {points}."}
    setup = proof.setup_code(chapter)
    wanted |= {f"exercise {exercise.name}": _exercise(exercise, setup) for exercise in exercises}
    wanted |= {f"question {question.metadata.exercise['name']}": _question(question) for question in questions}
    for mark in re.findall(r"<!-- ((?:exercise|question) [^ ]+) -->", text):
        if mark not in wanted:
            raise CourseError(f"docs/chapters/{page(chapter).name}: {chapter.name} has no {mark}; take out its marks")
    for mark, content in wanted.items():
        text = between(text, mark, content, f"docs/chapters/{page(chapter).name}")
    return text


def between(text: str, mark: str, content: str, where: str) -> str:
    """`text` with `content` between `<!-- mark -->` and `<!-- /mark -->`."""
    pattern = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- /{re.escape(mark)} -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise CourseError(f"{where}: put the marks <!-- {mark} --> and <!-- /{mark} --> in once, each on its own line")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def open_questions(chapter: Chapter) -> list[NotebookNode]:
    """The cells with the role `manual`, in order."""
    cells = read_source(chapter).cells
    return [cell for cell in cells if cell.metadata.get("exercise", {}).get("role") == "manual"]


def write(root: Path = ROOT) -> None:
    """Bring the teaching guide up to date."""
    for chapter in all_chapters(root):
        if page(chapter).is_file():
            _replace(page(chapter), filled(chapter, page(chapter).read_text(encoding="utf-8")))
    index = root / "docs" / "README.md"
    _replace(index, between(index.read_text(encoding="utf-8"), "map", course_map(root), "docs/README.md"))


def _exercise(exercise: proof.Exercise, setup: list[str]) -> str:
    said = []
    for code, _ in exercise.mistakes:
        hint = proof.outcome(exercise, code, setup).removeprefix(f"AssertionError: {exercise.name}: ")
        if hint not in said:
            said.append(hint)
    quoted = [f"- “{_shown(hint)}”" for hint in said]
    return "\n".join([f"### {exercise.name}, {_counted(exercise.points)}", "", *quoted])


def _question(cell: NotebookNode) -> str:
    asked, rest = cell.source.split(BEGIN, 1)
    mark = cell.metadata.exercise
    parts = [
        _joined(line for line in asked.splitlines() if not line.startswith("#")),
        f"An answer: {_joined(rest.split(END, 1)[0].splitlines())}",
        f"Rubric: {mark['rubric']}",
    ]
    return "\n\n".join([f"### {mark['name']}, {_counted(_points(cell))}", *map(_shown, parts)])


def _minutes(chapter: Chapter) -> str:
    figures = measured(chapter.root).get(chapter.name)
    if figures is None:
        return "not measured yet"
    return f"{figures['minutes']:.1f} minutes on {figures['cores']} cores, {figures['memory_gb']:.1f} GB"


def _points(cell: NotebookNode) -> int:
    return cell.metadata.exercise.get("points", 1)


def _counted(points: int) -> str:
    return f"{points} point" if points == 1 else f"{points} points"


def _joined(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())


def _shown(text: str) -> str:
    """Fit for a page: tags as code, and no more than three decimals, since further ones differ by machine."""
    rounded = LONG_FLOATS.sub(lambda match: f"{float(match[0]):.3f}", text)
    return BARE_TAGS.sub(r"`\g<0>`", rounded)


def _replace(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
