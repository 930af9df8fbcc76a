"""One source, three editions: percent script → solution (executed), student and grading notebooks.

A source cell may carry `exercise={"name": "viterbi", "role": "answer", "points": 2}`. The roles:

- `answer`: what the learner writes, between `### BEGIN SOLUTION` and `### END SOLUTION`;
- `check`: asserts with hints, then prints a few facts; locked;
- `hidden`: a check on other inputs, only in the grading edition;
- `mistake`: a typical wrong answer with `expect`, a part of the hint it must meet; in no edition, only for the tests;
- `manual`: an open question, a Markdown cell. The question comes first, a model answer between the same two marks.
  It needs `rubric`, what a teacher looks for; only the grading edition carries it. Nothing is run for it: whoever
  grades sees the learner's text beside rubric and points.

      # %% [markdown] exercise={"name": "why-root-d", "role": "manual", "points": 2, "rubric": "1: names …; 1: says …"}
      # Why divide by √d, and not by d?
      #
      # ### BEGIN SOLUTION
      # The deviation of a sum of d terms grows with √d.
      # ### END SOLUTION

The student and grading editions end with a cell that calls `check_notebook()`.

Cell ids follow from the source, outputs carry no times, so a rebuild gives the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from xlmr_course.classroom.chapters import Chapter, CourseError, measured, repository

ROLES = ("answer", "check", "hidden", "mistake", "manual")
ROLES_OF_STUDENTS = ("answer", "check", "manual")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SOLUTION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}\n.*?^[ \t]*{END}[ \t]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)
YOUR_ANSWER = "*Your answer here, in your own words.*"
CELL_TIMEOUT = 1_800  # seconds
KERNEL_ENVIRONMENT = {
    # Progress bars belong on a learner's screen, not into a stored output.
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers asks it, too
    # Waiting threads sleep rather than spin. On a busy machine spinning made a chapter several times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}

INSTALL = """\
# Makes the course available here. Nothing happens when it is installed already.
import importlib.util, pathlib, subprocess, sys

if importlib.util.find_spec("xlmr_course") is None:
    wheels = sorted(str(path) for path in pathlib.Path().glob("xlmr_course-*.whl"))
    source = wheels[-1:] or {fallback}
    if not source:
        raise SystemExit("Put the file xlmr_course-….whl beside this notebook, then run this cell again.")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *source], check=True)"""

CHECK_ID = "check-notebook"  # both the cell's id and the tag by which marking leaves it out
CHECK_NOTEBOOK = """\
# Every check of this notebook, in a fresh kernel. Save first; it reads the saved file (in Colab the open one).
from xlmr_course.classroom import check_notebook

check_notebook()"""


def read_source(chapter: Chapter) -> NotebookNode:
    """The source as a notebook with derived ids and checked exercise marks; every role is still there.

    Raises:
        CourseError: a mark that breaks the rules, named by chapter and exercise.
    """
    notebook = jupytext.read(chapter.source, fmt="py:percent")
    seen: set[str] = set()
    plain = 0
    for cell in notebook.cells:
        exercise = cell.metadata.get("exercise")
        if exercise is None:
            plain += 1
            cell.id = f"cell-{plain:02d}"
            continue
        name, role = exercise.get("name"), exercise.get("role")
        where = f"{chapter.name}, exercise {name!r}"
        if role not in ROLES or not name:
            raise CourseError(f"{where}: the role {role!r} is not one of {', '.join(ROLES)}")
        if role == "manual" and (cell.cell_type != "markdown" or not exercise.get("rubric")):
            raise CourseError(f"{where}: an open question is a Markdown cell with rubric=, what a teacher looks for")
        if role in ("answer", "manual") and not SOLUTION.search(cell.source):
            raise CourseError(f"{where}: the answer has no {BEGIN} … {END}")
        if role == "mistake" and not exercise.get("expect"):
            raise CourseError(f"{where}: a mistake needs expect=, a part of the hint that it must meet")
        cell.id = f"{name}-{role}"
        if role in ("hidden", "mistake"):
            cell.id += f"-{sum(key.startswith(cell.id) for key in seen) + 1}"
        if cell.id in seen:
            raise CourseError(f"{where}: two cells have the role {role!r}")
        seen.add(cell.id)
    return notebook


def solution_notebook(chapter: Chapter) -> NotebookNode:
    """The solution edition, not yet executed: answers without their markers, no hidden checks, no mistakes."""
    return _edition(chapter, solved=True)


def student_notebook(chapter: Chapter, solved: NotebookNode) -> NotebookNode:
    """The student edition: answers blanked; check cells keep the solution's outputs as the reference."""
    return _with_references(_edition(chapter), solved)


def blank_notebook(chapter: Chapter) -> NotebookNode:
    """The student edition without the checks' outputs: what it asks, before anything has been executed."""
    return _edition(chapter)


def grading_notebook(chapter: Chapter, solved: NotebookNode | None = None) -> NotebookNode:
    """The edition a teacher marks with: blanks, checks and the hidden checks; `solved` gives the checks' outputs."""
    notebook = _edition(chapter, hidden=True)
    return _with_references(notebook, solved) if solved is not None else notebook


def _with_references(notebook: NotebookNode, solved: NotebookNode) -> NotebookNode:
    reference = {cell.id: cell for cell in solved.cells}
    for cell in notebook.cells:
        if role_of(cell) == "check":
            if cell.id not in reference:
                raise CourseError(f"the cell {cell.id} is not in the solution notebook yet; run make notebooks")
            cell.outputs = reference[cell.id].outputs
            cell.execution_count = reference[cell.id].execution_count
    return notebook


def execute(
    notebook: NotebookNode, folder: Path, *, progress: Callable[[int, NotebookNode], None] | None = None
) -> int:
    """Run every cell in a fresh kernel that works in `folder`; outputs are stored in `notebook` without times.

    Returns:
        The kernel's peak resident memory in bytes.

    Raises:
        CourseError: a cell failed; the message names the cell and the error.
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        extra_arguments=["--log-level=40"],  # the kernel's own warnings are not the learner's business
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        on_cell_executed=(lambda cell, cell_index, **_: progress(cell_index, cell)) if progress else None,
    )
    with client.setup_kernel(env={**os.environ, **KERNEL_ENVIRONMENT}):
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                raise CourseError(f"cell {cell.id} failed: {error.ename}: {error.evalue}\n\n{cell.source}") from None
        peak = _peak_memory(client)
    _tidy(notebook)
    return peak


def build(chapter: Chapter, *, run: bool = True, progress=None) -> None:
    """Write both editions of a chapter.

    With `run=False` nothing is executed: outputs come from the solution notebook that is there, provided that its
    cells are those of the source.

    Raises:
        CourseError: a cell failed, or `run=False` and a code cell is new or changed.
    """
    solved = solution_notebook(chapter)
    if run:
        chapter.solution.parent.mkdir(parents=True, exist_ok=True)
        execute(solved, chapter.solution.parent, progress=progress)
    else:
        _reuse_outputs(chapter, solved)
    write(solved, chapter.solution)
    write(student_notebook(chapter, solved), chapter.student)


def write(notebook: NotebookNode, path: Path) -> None:
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook, version=4) + "\n", encoding="utf-8", newline="\n")


def _edition(chapter: Chapter, *, solved: bool = False, hidden: bool = False) -> NotebookNode:
    source = read_source(chapter)
    roles = (*ROLES_OF_STUDENTS, "hidden") if hidden else ROLES_OF_STUDENTS
    cells = []
    for cell in source.cells:
        role = role_of(cell)
        if role is not None and role not in roles:
            continue
        cell.source = cell.source.replace("{{needs}}", _needs(chapter))
        if role == "manual" and not hidden:
            del cell.metadata.exercise["rubric"]
        if role in ("answer", "manual"):
            name, markdown = cell.metadata.exercise["name"], role == "manual"
            cell.source = without_markers(cell.source) if solved else blank(cell.source, name, markdown=markdown)
        if role in ("check", "hidden"):
            cell.metadata.update(editable=False, deletable=False, tags=["nbval-check-output"])
        cells.append(cell)
    cells[0].source += _badge(chapter)
    cells.insert(1, _install_cell(chapter))
    if not solved:
        cells.append(
            nbformat.v4.new_code_cell(CHECK_NOTEBOOK, id=CHECK_ID, metadata={"tags": ["nbval-skip", CHECK_ID]})
        )
    notebook = nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
        },
    )
    notebook.nbformat_minor = 5
    return notebook


def _install_cell(chapter: Chapter) -> NotebookNode:
    address = repository(chapter.root)
    fallback = f'["git+{address}"]' if address else "[]"
    cell = nbformat.v4.new_code_cell(INSTALL.replace("{fallback}", fallback), id="install-course")
    cell.metadata["jupyter"] = {"source_hidden": True}
    return cell


def _needs(chapter: Chapter) -> str:
    """What was measured, for `{{needs}}` in a chapter's head."""
    figures = measured(chapter.root).get(chapter.name)
    if figures is None:
        return "not measured yet"
    return f"about {figures['minutes']:.1f} minutes on 2 cores · {figures['memory_gb']:.1f} GB of memory"


def _badge(chapter: Chapter) -> str:
    """The Colab badge below a chapter's head; empty while the course has no public address."""
    if not (address := repository(chapter.root)):
        return ""
    path = address.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{chapter.name}.ipynb"
    return f"\n\n[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


def without_markers(source: str, name: str = "") -> str:
    """An answer as the solution shows it: whole, without the marker lines."""
    return "\n".join(line for line in source.splitlines() if line.strip() not in (BEGIN, END))


def blank(source: str, name: str, *, markdown: bool = False) -> str:
    """An answer as the learner gets it: a gap that raises "<name>: not written yet" when it is called.

    In Markdown, the answer to an open question, it is a line that invites to write.
    """

    def replace(match: re.Match) -> str:
        indent = match["indent"]
        if markdown:
            return f"{YOUR_ANSWER}\n"
        return f'{indent}# YOUR CODE HERE\n{indent}raise NotImplementedError("{name}: not written yet")\n'

    return SOLUTION.sub(replace, source).rstrip("\n")


def role_of(cell: NotebookNode) -> str | None:
    """`answer`, `check`, … as the source marks the cell; None for a cell of no exercise."""
    mark = cell.metadata.get("exercise")
    return mark.get("role") if isinstance(mark, dict) else None


def _reuse_outputs(chapter: Chapter, solved: NotebookNode) -> None:
    if not chapter.solution.is_file():
        raise CourseError(f"{chapter.name} has no solution notebook yet; run make notebooks")
    stored = {cell.id: cell for cell in nbformat.read(chapter.solution, as_version=4).cells}
    for cell in solved.cells:
        if cell.cell_type != "code":
            continue
        old = stored.get(cell.id)
        if old is None or old.source != cell.source:
            raise CourseError(f"{chapter.name}: the cell {cell.id} is new or changed; run make notebooks")
        cell.outputs, cell.execution_count = old.outputs, old.execution_count


def _tidy(notebook: NotebookNode) -> None:
    """Take out what differs from run to run: times, widgets' random ids, and how a stream happened to be cut."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        merged: list[NotebookNode] = []
        for output in cell.outputs:
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                continue
            last = merged[-1] if merged else None
            if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
                last.text += output.text
            else:
                merged.append(output)
        cell.outputs = merged


def _peak_memory(client: NotebookClient) -> int:
    """Peak resident memory of the kernel, in bytes."""
    code = (
        "import psutil, sys\n"
        "try:\n"
        "    import resource\n"
        "    _peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)\n"
        "except ImportError:\n"
        "    _peak = psutil.Process().memory_info().peak_wset\n"
        "print(_peak)"
    )
    cell = nbformat.v4.new_code_cell(code)
    probe = client.nb.cells
    probe.append(cell)
    try:
        client.execute_cell(cell, len(probe) - 1, store_history=False)
    finally:
        probe.pop()
    return int(cell.outputs[0].text)
