"""A class of 30 graded by one command, and the hostile notebooks with what each of them got.

    python benchmarks/grading.py [--chapter 04] [--students 30] [--only class|hostile] [--write]

The class is made from the chapter itself: for each student and exercise the model answer, the blank, or one of the
planted mistakes, by a fixed seed. So each verdict is known beforehand, and the verdicts that differ are counted.
`--write` replaces results/grading.json and results/grading.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import nbformat

from xlmr_course.classroom import build, confine, grading, proof
from xlmr_course.classroom.chapters import ROOT, Chapter, find
from xlmr_course.classroom.gradebook import Grade
from xlmr_course.classroom.grading import Settings
from xlmr_course.classroom.guard import Limits

sys.path.insert(0, str(ROOT / "tests" / "classroom"))
import hostile

RESULTS = Path(__file__).parent / "results" / "grading.json"
TARGET_MINUTES = 4.0


def make_class(chapter: Chapter, students: int, folder: Path) -> dict[str, dict[str, str]]:
    """Write the notebooks; returns student → exercise → the verdict that it must get."""
    chooser = random.Random(0)
    released = nbformat.read(chapter.student, as_version=4)
    wanted = {}
    for number in range(1, students + 1):
        notebook = nbformat.from_dict(released)
        verdicts = {}
        for exercise in proof.exercises(chapter):
            kind = chooser.choices(("right", "wrong", "not written yet"), (55, 35, 10))[0]
            cell = next(cell for cell in notebook.cells if cell.id == f"{exercise.name}-answer")
            if kind == "right":
                cell.source = build.without_markers(exercise.answer)
            elif kind == "wrong":
                cell.source = chooser.choice(exercise.mistakes)[0]
            verdicts[exercise.name] = kind
        wanted[f"student-{number:02d}"] = verdicts
        nbformat.write(notebook, folder / f"student-{number:02d}.ipynb")
    return wanted


def grade_class(chapter: Chapter, students: int, jobs: int) -> dict[str, object]:
    """Grade a class of known answers."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "in")
        folder.mkdir()
        wanted = make_class(chapter, students, folder)
        start = time.perf_counter()
        book = grading.grade(folder, chapter, Path(temporary, "grades.csv"), Settings(jobs=jobs), on_grade=show)
        minutes = (time.perf_counter() - start) / 60
        pages = len(list(Path(temporary, "grades").glob("*.html")))
    given = {grade.student: {result.name: result.verdict for result in grade.results} for grade in book.grades}
    other = [
        f"{student}, {name}: {given[student].get(name)} instead of {verdict}"
        for student, verdicts in wanted.items()
        for name, verdict in verdicts.items()
        if given[student].get(name) != verdict
    ]
    return {
        "chapter": chapter.name,
        "students": students,
        "jobs": jobs,
        "minutes": round(minutes, 2),
        "seconds_of_one": round(sum(grade.seconds for grade in book.grades) / students, 1),
        "peak_gb_of_one": round(max(grade.memory for grade in book.grades) / 1e9, 2),
        "verdicts": dict(Counter(verdict for verdicts in wanted.values() for verdict in verdicts.values())),
        "other_verdicts": other,
        "pages": pages,
    }


def grade_hostile() -> dict[str, object]:
    """Grade the hostile notebooks together with three honest ones."""
    with tempfile.TemporaryDirectory() as temporary:
        chapter = Chapter("01_sums", Path(temporary, "course"))
        chapter.source.parent.mkdir(parents=True)
        chapter.source.write_text(hostile.SOURCE, encoding="utf-8")
        (chapter.root / "pyproject.toml").write_text('[tool.xlmr_course]\nrepository = ""\n')
        build.build(chapter)
        honest, folder = hostile.honest_notebook(chapter.student), Path(temporary, "in")
        folder.mkdir()
        class_ = [*hostile.HOSTILE, *(hostile.Hostile(f"honest-{n}", "all right", lambda book: None) for n in "amz")]
        for entry in class_:
            entry.write(honest, folder)
        limits = Limits(seconds=60, memory_gb=0.6, disk_gb=0.3, processes=32)
        settings = Settings(cell_timeout=5, limits=limits, namespace=False)
        start = time.perf_counter()
        book = grading.grade(folder, chapter, Path(temporary, "grades.csv"), settings, on_grade=show)
        minutes = (time.perf_counter() - start) / 60
    grades = {grade.student: grade for grade in book.grades}
    rows = [
        {
            "name": entry.name,
            "what": entry.what,
            # without this machine's folders
            "got": re.sub(r"'/\S+'", "…", grades[entry.name].reason)
            or ", ".join(r.verdict for r in grades[entry.name].results),
            "as_it_must": as_it_must(entry, grades[entry.name]),
            "seconds": grades[entry.name].seconds,
        }
        for entry in class_
    ]
    return {"minutes": round(minutes, 2), "cell_timeout_s": 5, "limit_s": 60, "memory_gb": 0.6, "rows": rows}


def as_it_must(entry: hostile.Hostile, grade: Grade) -> bool:
    if grade.reason:
        return bool(entry.reason and re.search(entry.reason, grade.reason)) and grade.earned == 0
    return tuple(result.verdict for result in grade.results) == entry.verdicts


def show(grade: Grade, done: int, total: int) -> None:
    print(f"{done}/{total} {grade.seconds:5.1f} s  {grade.line()}", flush=True)


def setting() -> dict[str, object]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "cores": os.cpu_count(),
        "load_average": round(load, 2),
        "namespaces": confine.has_namespaces(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("nbval", "pytest", "torch", "transformers")},
    }


def markdown(results: dict[str, dict]) -> str:
    lines = ["# Grading, measured", "", "Written by `benchmarks/grading.py --write`.", ""]
    if found := results.get("class"):
        given = ", ".join(f"{count} {verdict}" for verdict, count in found["verdicts"].items())
        wrong = len(found["other_verdicts"])
        lines += [
            f"**A class of {found['students']}**, chapter {found['chapter']}, hidden checks included, {found['jobs']} "
            f"at a time: **{found['minutes']} minutes** (wanted: {TARGET_MINUTES:g}). One notebook takes "
            f"{found['seconds_of_one']} s and at most {found['peak_gb_of_one']} GB. Of "
            f"{sum(found['verdicts'].values())} known verdicts ({given}), {wrong} came out otherwise.",
            "",
            circumstances(found["setting"]),
            "",
        ]
    if found := results.get("hostile"):
        right = sum(row["as_it_must"] for row in found["rows"])
        lines += [
            f"**{len(found['rows'])} notebooks**, {len(found['rows']) - 3} of them broken or hostile, graded together "
            f"in {found['minutes']} minutes: {right} got what they must. Each has three right answers but for what is "
            f"said. Limits: {found['cell_timeout_s']} s for an exercise, {found['limit_s']} s for a notebook, "
            f"{found['memory_gb']} GB.",
            "",
            circumstances(found["setting"]),
            "",
            "| notebook | what it does | what it got | as it must | seconds |",
            "|---|---|---|---|--:|",
        ]
        for row in found["rows"]:
            got, sign = row["got"].replace("|", "\\|"), "yes" if row["as_it_must"] else "**no**"
            lines.append(f"| {row['name']} | {row['what']} | {got} | {sign} | {row['seconds']:.1f} |")
    return "\n".join(lines).rstrip() + "\n"


def circumstances(found: dict[str, object]) -> str:
    return (
        f"Measured on {found['cores']} cores, load average {found['load_average']} at the start; "
        f"Python {found['python']}, nbval {found['nbval']}, pytest {found['pytest']}, torch {found['torch']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapter", default="04")
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=("class", "hostile"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if options.only != "hostile":
        at_start = setting()
        results["class"] = {
            **grade_class(find([options.chapter])[0], options.students, options.jobs),
            "setting": at_start,
        }
    if options.only != "class":
        at_start = setting()
        results["hostile"] = {**grade_hostile(), "setting": at_start}
    print(markdown(results))
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8", newline="\n")
        RESULTS.with_suffix(".md").write_text(markdown(results), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
