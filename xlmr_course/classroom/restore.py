"""A student's notebook, whatever happened to it, put back into the shape of the released edition.

Checks and their reference outputs come from the release, always. Answers come from the student's copy: found by cell
id, then by the id in the metadata (where Colab keeps it), then by the exercise's name, then by what a cell defines.
Whatever else the student wrote stays as cells of their own. Every surprise becomes a remark in words.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from xlmr_course.classroom import build
from xlmr_course.classroom.build import ROLES_OF_STUDENTS, role_of
from xlmr_course.classroom.chapters import Chapter, CourseError
from xlmr_course.classroom.inside import bound, readable

OWN = "own"  # the tag of cells that are the student's, in a restored notebook
MARKER = re.compile(r"^(\s*#+\s*)(NBVAL_\w+|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$", re.MULTILINE)


@dataclass
class Restored:
    """A notebook to run: the released cells with the student's answers in them."""

    notebook: NotebookNode
    remarks: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)  # exercise → why no answer was found
    unwritten: set[str] = field(default_factory=set)  # exercises whose answer is the released blank
    binds: dict[str, set[str]] = field(default_factory=dict)  # exercise → the names that its answer must define
    texts: dict[str, str] = field(default_factory=dict)  # open question → what the student wrote below it


def read_notebook(path: Path) -> tuple[NotebookNode, list[str]]:
    """Any student's file as a notebook of format 4, and remarks on its shape.

    Raises:
        CourseError: it can't be read; one sentence says why and what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise CourseError(f"{path.name} is a folder; name a notebook, a file that ends in .ipynb")
    if not path.is_file():
        raise CourseError(f"there is no file {path}")
    raw = path.read_bytes()
    if not raw.strip():
        raise CourseError(f"{path.name} is empty; save the notebook again, or hand in the right file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CourseError(f"{path.name} is no text at byte {error.start}; a notebook is a text file in UTF-8") from None
    marks = re.search(r"^(<{7}|>{7}) .*$", text, re.MULTILINE)
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        if marks:
            line = text.count("\n", 0, marks.start()) + 1
            raise CourseError(
                f"{path.name} holds the marks of an unfinished git merge (line {line}); keep one side, save again"
            ) from None
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deep a nesting"
        raise CourseError(f"{path.name} is no valid notebook: its JSON breaks at {where}; save it again") from None
    if not isinstance(stored, dict) or not (isinstance(stored.get("cells"), list) or "worksheets" in stored):
        raise CourseError(f"{path.name} is JSON, but no notebook: it has no cells")
    remarks = []
    if "cells" not in stored or stored.get("nbformat", 4) < 4:
        remarks.append(f"the notebook is in the old format {stored.get('nbformat', 3)}; it was converted")
        try:
            stored = nbformat.convert(nbformat.reader.reads(text), 4)
        except Exception as error:
            raise CourseError(f"{path.name} is in an old notebook format that can't be read ({error})") from None
    cells = [_tidy_cell(cell) for cell in stored["cells"] if isinstance(cell, dict)]
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}), remarks


def released_notebook(chapter: Chapter, *, hidden: bool = False) -> NotebookNode:
    """The student edition as it is handed out, with the checks' reference outputs; with `hidden` the grading edition.

    In a checkout it is made from the source, because a learner may work in the very file that a build writes.

    Raises:
        CourseError: hidden checks are wanted where there is no source.
    """
    if chapter.source.is_file():
        solved = nbformat.read(chapter.solution, as_version=4) if chapter.solution.is_file() else None
        if solved is None:
            raise CourseError(f"{chapter.name} has no solution notebook yet; run make notebooks")
        return build.grading_notebook(chapter, solved) if hidden else build.student_notebook(chapter, solved)
    if hidden:
        raise CourseError(f"hidden checks need the source of {chapter.name}; grade in a checkout of the course")
    return nbformat.read(chapter.student, as_version=4)


def restore(student: NotebookNode, release: NotebookNode) -> Restored:
    """Put the student's answers and own cells into the released notebook.

    Args:
        student: as `read_notebook` gives it.
        release: as `released_notebook` gives it; it is not changed.
    """
    release = nbformat.from_dict(release)
    claims, own = _claim(student.cells, release)
    restored = Restored(release)
    _remark_on_order(student.cells, claims, restored)
    positions = {index: key for key, indexes in claims.items() for index in indexes}
    for cell in release.cells:
        mine = [student.cells[index] for index in claims[cell.id]]
        role, name = role_of(cell), cell.metadata.get("exercise", {}).get("name")
        if role == "answer":
            blank, restored.binds[name] = _text(cell), bound(cell.source)
            _put_answer(cell, name, student.cells, claims, own, restored)
            if _text(cell) == blank:
                restored.unwritten.add(name)
        elif role == "manual":
            asked = set(_text(cell).splitlines())
            written = [other for other in mine if _text(other) != _text(cell)]
            lines = [line for other in written for line in other.source.splitlines()]
            restored.texts[name] = "\n".join(line for line in lines if not line.strip() or line.rstrip() not in asked)
            restored.texts[name] = restored.texts[name].strip()
            if written:
                cell.source = "\n".join(lines)
            elif not mine:
                restored.lost[name] = "the cell for the answer is gone"
        elif role == "check":
            _remark_on_check(cell, name, mine, restored)
        elif cell.cell_type == "code" and mine and _text(mine[-1]) != _text(cell) and cell.id != "install-course":
            if "setup" in cell.metadata.get("tags", []):
                own[claims[cell.id][-1]] = mine[-1]
                restored.remarks.append("a set-up cell was changed; the released one ran first, then the change")
            else:
                cell.source = mine[-1].source
                cell.metadata["tags"] = [OWN]
    _insert_own_cells(release, own, positions)
    release.cells = [cell for cell in release.cells if "check-notebook" not in cell.metadata.get("tags", [])]
    for cell in release.cells:
        if role_of(cell) not in ("check", "hidden") and MARKER.search(cell.source):
            cell.source = MARKER.sub(r"\1(\2)", cell.source)
    return restored


def _claim(cells: list[NotebookNode], release: NotebookNode) -> tuple[dict[str, list[int]], dict[int, NotebookNode]]:
    """(released id → the student's cells that stand for it, the cells that stand for none)."""
    ids = {cell.id: cell for cell in release.cells}
    texts = {_text(cell): cell.id for cell in release.cells if cell.source.strip()}
    claims: dict[str, list[int]] = defaultdict(list)
    own: dict[int, NotebookNode] = {}
    hints = {
        cell.metadata.exercise["name"]: cell.id
        for cell in release.cells
        if role_of(cell) == "check"
    }  # fmt: skip
    for index, cell in enumerate(cells):
        mark = cell.metadata.get("exercise")
        mark = mark if isinstance(mark, dict) else {}
        candidates = (
            cell.get("id"),
            cell.metadata.get("id"),
            f"{mark.get('name')}-{mark.get('role')}" if mark.get("role") in ROLES_OF_STUDENTS else None,
            texts.get(_text(cell)),
        )
        key = next((key for key in candidates if isinstance(key, str) and key in ids), None)
        if key is None:
            # An edited check without its marks still speaks with the exercise's name.
            key = next((hints[n] for n in hints if re.search(rf"assert\b.*[\"']{re.escape(n)}: ", cell.source)), None)
        if key is None:
            own[index] = cell
        else:
            claims[key].append(index)
    return claims, own


def _put_answer(
    cell: NotebookNode,
    name: str,
    cells: list[NotebookNode],
    claims: dict[str, list[int]],
    own: dict[int, NotebookNode],
    restored: Restored,
) -> None:
    blank, wanted = _text(cell), bound(cell.source)
    strong = claims[cell.id]
    written = [index for index in strong if _text(cells[index]) not in (blank, "")]
    if not written:
        written = [index for index, other in own.items() if wanted and wanted & bound(other.source)]
        if written:
            restored.remarks.append(f"{name}: the answer was found in another cell, by what it defines")
    if not written:
        if not strong:
            restored.lost[name] = "the answer's cell is gone, and no other cell defines it"
        return
    if any(cells[index].cell_type != "code" for index in written):
        restored.remarks.append(f"{name}: the answer's cell was no code cell any more; it was read as code")
    whole = [index for index in written if _complete(cells[index].source, wanted)]
    if whole:
        check = min(claims.get(f"{name}-check", [len(cells)]))
        chosen = max((index for index in whole if index < check), default=max(whole))
        if len({_text(cells[index]) for index in whole}) > 1:
            restored.remarks.append(f"{name}: there are several answers; the last one before the check was taken")
        cell.source = cells[chosen].source
    else:
        cell.source = _joined(name, written, cells, own, wanted, restored)
    for index in written:
        own.pop(index, None)


def _joined(
    name: str,
    written: list[int],
    cells: list[NotebookNode],
    own: dict[int, NotebookNode],
    wanted: set[str],
    restored: Restored,
) -> str:
    """An answer in several cells as one: the marked ones, then up to three unmarked ones that follow."""
    following = [index for index in range(written[-1] + 1, min(written[-1] + 4, len(cells))) if index in own]
    for extra in range(len(following) + 1):
        parts = sorted({*written, *following[:extra]})
        code = "\n".join(cells[index].source for index in parts)
        if len(parts) > 1 and _complete(code, wanted):
            restored.remarks.append(f"{name}: the answer was split into {len(parts)} cells; they were joined")
            for index in parts:
                own.pop(index, None)
            return code
    return "\n".join(cells[index].source for index in written)


def _remark_on_check(cell: NotebookNode, name: str, mine: list[NotebookNode], restored: Restored) -> None:
    if not mine:
        restored.remarks.append(f"{name}: the check was deleted; the released one was used")
    elif any(other.cell_type != "code" for other in mine):
        restored.remarks.append(f"{name}: the check was no code cell any more; the released one was used")
    elif any(_text(other) != _text(cell) for other in mine):
        restored.remarks.append(f"{name}: the check was edited; the released one was used")


def _remark_on_order(cells: list[NotebookNode], claims: dict[str, list[int]], restored: Restored) -> None:
    ids = [cell.id for cell in restored.notebook.cells]
    first = [min(claims[key]) for key in ids if claims.get(key)]
    if first != sorted(first):
        restored.remarks.append("the cells stand in another order than in the released notebook")
    twice = sorted({key.rsplit("-", 1)[0] for key, found in claims.items() if len(found) > 1 and "-answer" in key})
    if twice:
        restored.remarks.append(f"cells stand there twice: {', '.join(twice)}")
    known = {cell.get("id") for cell in cells} & set(ids)
    if claims and not known:
        restored.remarks.append("the notebook has lost its cell ids; cells were found by other marks")
    if any(MARKER.search(cell.source) or _nbval_tags(cell) for index, cell in enumerate(cells)
           if not any(key.endswith("-check") and index in found for key, found in claims.items())
           and cell.cell_type == "code" and "check-notebook" not in cell.metadata.get("tags", [])
           and not _released_tags(cell, restored.notebook)):  # fmt: skip
        restored.remarks.append("nbval markers such as NBVAL_SKIP were found in student cells and ignored")


def _released_tags(cell: NotebookNode, release: NotebookNode) -> bool:
    same = next((other for other in release.cells if other.id == cell.get("id")), None)
    return same is not None and _nbval_tags(same) == _nbval_tags(cell) and not MARKER.search(cell.source)


def _nbval_tags(cell: NotebookNode) -> set[str]:
    tags = cell.metadata.get("tags", [])
    tags = tags if isinstance(tags, list) else []
    return {
        tag for tag in tags if isinstance(tag, str) and (tag.startswith("nbval") or tag in ("skip", "raises-exception"))
    }


def _insert_own_cells(release: NotebookNode, own: dict[int, NotebookNode], positions: dict[int, str]) -> None:
    """Each of the student's cells behind the released one that it followed."""
    for number, index in enumerate(sorted(own, reverse=True)):
        anchor = next((positions[before] for before in range(index, -1, -1) if before in positions), None)
        at = next((i for i, cell in enumerate(release.cells) if cell.id == anchor), -1) + 1
        cell = own[index]
        new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        release.cells.insert(at, new(cell.source, id=f"own-{len(own) - number}", metadata={"tags": [OWN]}))


def _complete(code: str, wanted: set[str]) -> bool:
    """It is Python, and defines what the exercise wants."""
    found = bound(code)
    return wanted <= found if wanted else _parses(code)


def _parses(code: str) -> bool:
    try:
        compile(code, "cell", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _tidy_cell(cell: dict) -> NotebookNode:
    """A cell with the fields that later code relies on, whatever a tool or a hand made of it."""
    source = cell.get("source", "")
    source = "".join(map(str, source)) if isinstance(source, list) else str(source)
    source = readable(source)
    metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    if not isinstance(metadata.get("tags", []), list):
        metadata = {key: value for key, value in metadata.items() if key != "tags"}
    kind = cell.get("cell_type") if cell.get("cell_type") in ("code", "raw") else "markdown"
    tidy = {"cell_type": kind, "source": source, "metadata": metadata, "outputs": cell.get("outputs", [])}
    if isinstance(cell.get("id"), str):
        tidy["id"] = cell["id"]
    return nbformat.from_dict(tidy)


def _text(cell: NotebookNode) -> str:
    """A cell's text without what editors change on their own."""
    return "\n".join(line.rstrip() for line in cell.source.strip().splitlines())
