"""The folder that a teacher hands out: the student notebook, the package as a wheel, and one page of instructions.

The wheel carries the classroom corpus, so nothing but Python's packages is downloaded. With nbgrader the notebook gets
its metadata (schema 3), and beside the folder a source assignment is written, with solutions and hidden tests in
nbgrader's own marks, for `nbgrader generate_assignment`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from xlmr_course.classroom import build
from xlmr_course.classroom.chapters import Chapter, CourseError, measured, released_chapters
from xlmr_course.classroom.restore import released_notebook

SCHEMA = 3
HIDDEN_TESTS = "### BEGIN HIDDEN TESTS\n{code}\n### END HIDDEN TESTS"


@dataclass
class Release:
    """What was written: the folder for learners, nbgrader's source notebook if one was wanted, and remarks."""

    folder: Path
    source_assignment: Path | None = None
    remarks: list[str] = field(default_factory=list)


def release(chapter: Chapter, out: Path | None = None, *, nbgrader: bool = False, wheel: bool = True) -> Release:
    """Write the folder to hand out.

    Args:
        out: where; `build/release/<chapter>` in the checkout if None. A folder that holds other files is refused.
        nbgrader: give the notebook nbgrader's metadata, and write nbgrader's source assignment beside `out`.
        wheel: build the package into the folder, for learners without a checkout.

    Raises:
        CourseError: no checkout, a folder that isn't ours to write, or a notebook that isn't what its source builds.
    """
    if not chapter.source.is_file():
        raise CourseError("releasing needs a checkout of the course; here are only the notebooks that learners get")
    out = out or chapter.root / "build" / "release" / chapter.name
    names = {f"{chapter.name}.ipynb", "README.md", "README.html"}
    strange = [path.name for path in out.glob("*") if path.name not in names and path.suffix != ".whl"]
    if strange:
        raise CourseError(
            f"{out} holds other files ({', '.join(sorted(strange)[:3])}); name an empty folder with --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    done = Release(out)
    student = released_notebook(chapter)
    for old in out.glob("*.whl"):
        old.unlink()
    packed = _wheel(chapter, out, done) if wheel else ""
    build.write(for_nbgrader(student) if nbgrader else student, out / f"{chapter.name}.ipynb")
    page = instructions(chapter, student, packed)
    (out / "README.md").write_text(page, encoding="utf-8", newline="\n")
    (out / "README.html").write_text(_as_page(page, chapter), encoding="utf-8", newline="\n")
    if nbgrader:
        done.source_assignment = out.parent / f"{out.name}-nbgrader" / "source" / chapter.name / f"{chapter.name}.ipynb"
        build.write(nbgrader_source(chapter), done.source_assignment)
    return done


def instructions(chapter: Chapter, student: NotebookNode, wheel: str) -> str:
    """One page of Markdown for whoever gets the folder."""
    figures = measured(chapter.root).get(chapter.name)
    marks = [c.metadata.exercise for c in student.cells if build.role_of(c) in ("answer", "manual")]
    points = sum(mark.get("points", 1) for mark in marks)
    minutes = max(1, round(figures["minutes"])) if figures else 0
    needs = f" Its cells run in about {minutes} minute{'s' * (minutes > 1)} on two cores." if figures else ""
    package = f"./{wheel}[lab,offline]" if wheel else "-e PATH-OF-THE-CHECKOUT[lab,offline]"
    install = f'pip install "{package}"' if wheel else f"pip install {package}"
    exercises = "\n".join(
        f"| {mark['name']} | {mark.get('points', 1)} | {'read by a person' if mark['role'] == 'manual' else 'check'} |"
        for mark in marks
    )
    return f"""\
# {chapter.number} · {chapter.title}

You will build {chapter.promise}{needs}

## Start

You need Python 3.11 or newer. In a terminal, in this folder:

    python -m venv .venv
    source .venv/bin/activate          (Windows: .venv\\Scripts\\activate)
    {install}
    jupyter lab {chapter.name}.ipynb

In Colab: upload the notebook{" and the wheel, the file that ends in .whl" if wheel else ""}, then run the first cell.

## Work

- Read from top to bottom and run every cell. An exercise is a cell with `# YOUR CODE HERE`; the next cell checks it.
- A check that fails says what is wrong. The hints above an exercise open one by one.
- Leave the check cells as they are: they are put back before your notebook is marked.
- Save (Ctrl+S), then run the last cell. It runs all checks in a fresh kernel and shows what is left to do. In a
  terminal the same is `xlmr-course check {chapter.name}.ipynb`.

| exercise | points | by |
|---|--:|---|
{exercises}

{points} points in all.

## Hand in

Save, and hand in `{chapter.name}.ipynb` under that name. It doesn't matter whether its cells have been run.
"""


def for_nbgrader(notebook: NotebookNode) -> NotebookNode:
    """A student or grading edition with nbgrader's metadata, schema 3, one kind for each role of the course.

    An answer is an autograded answer, a check or hidden check autograded tests, an open question a manually graded
    answer, set-up and prose read-only. An exercise's points stand on its check.
    """
    notebook = nbformat.from_dict(notebook)
    points = {
        cell.metadata.exercise["name"]: cell.metadata.exercise.get("points", 1)
        for cell in notebook.cells
        if build.role_of(cell) == "answer"
    }
    for cell in notebook.cells:
        role = build.role_of(cell)
        if cell.id in (build.CHECK_ID, "install-course"):
            continue
        kind = {
            "grade": role in ("check", "hidden", "manual"),
            "solution": role in ("answer", "manual"),
            "locked": role not in ("answer", "manual"),
            "task": False,
        }
        mark = {"schema_version": SCHEMA, "grade_id": cell.id, "cell_type": cell.cell_type, **kind}
        if kind["grade"]:
            name = cell.metadata.exercise["name"]
            mark["points"] = {"check": points.get(name, 1), "hidden": 0}.get(
                role, cell.metadata.exercise.get("points", 1)
            )
        cell.metadata["nbgrader"] = mark
    return notebook


def nbgrader_source(chapter: Chapter) -> NotebookNode:
    """The source assignment: answers between BEGIN and END SOLUTION, hidden checks as hidden tests of the check."""
    notebook = build.grading_notebook(chapter)
    answers = {cell.id: cell.source for cell in build.read_source(chapter).cells}
    kept = []
    for cell in notebook.cells:
        if build.role_of(cell) == "hidden":
            check = next(c for c in kept if c.id == f"{cell.metadata.exercise['name']}-check")
            check.source += "\n" + HIDDEN_TESTS.format(code=cell.source)
            continue
        if build.role_of(cell) in ("answer", "manual"):
            cell.source = answers[cell.id]
        kept.append(cell)
    notebook.cells = kept
    return for_nbgrader(notebook)


def _wheel(chapter: Chapter, out: Path, done: Release) -> str:
    """Build the package into the folder; its file name, or "" and a remark if that isn't possible here."""
    changed = [other.name for other in released_chapters(chapter.root) if not _as_built(other)]
    if changed:
        raise CourseError(
            f"the wheel carries the student notebooks, and {', '.join(changed)} was worked in or is out of date; "
            "run make notebooks, or use --no-wheel"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, str(chapter.root)]
        try:
            import hatchling  # noqa: F401

            command.insert(4, "--no-build-isolation")
        except ImportError:
            pass  # pip fetches it
        ended = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if ended.returncode or not wheels:
            reason = ended.stderr.strip().splitlines()[-1:] or ["no wheel came out"]
            done.remarks.append(f"no wheel was built ({reason[0][:120]}); learners need a checkout, or add one by hand")
            return ""
        shutil.copyfile(wheels[0], out / wheels[0].name)
        return wheels[0].name


def _as_built(chapter: Chapter) -> bool:
    """Whether the notebook on disk is the one that its source gives, so that nobody's answers get out."""
    if not (chapter.student.is_file() and chapter.solution.is_file()):
        return False
    try:
        built = released_notebook(chapter)
    except CourseError:
        return False
    return json.loads(chapter.student.read_text(encoding="utf-8")) == json.loads(nbformat.writes(built, version=4))


def _as_page(markdown: str, chapter: Chapter) -> str:
    from nbconvert.filters import markdown2html

    return PAGE.format(title=f"{chapter.number} · {chapter.title}", body=markdown2html(markdown))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.05rem/1.55 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }}
pre {{ background: #8882; padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .3rem 1.5rem .3rem 0; text-align: left; }}
</style></head><body>
{body}
</body></html>
"""
