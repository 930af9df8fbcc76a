"""The folder that is handed out: nothing of the answers in it, and nbgrader's metadata as nbgrader reads it."""

import subprocess
import sys

import nbformat
import pytest
from made_up import cell, make, save, solved

from xlmr_course.classroom import build, release
from xlmr_course.classroom.chapters import ROOT, Chapter, CourseError

NAMES = ("first", "second")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    return make(tmp_path_factory.mktemp("course"), NAMES)


def test_the_folder_holds_notebook_and_instructions_and_no_answer(chapter, tmp_path):
    done = release.release(chapter, tmp_path / "out", wheel=False)
    assert sorted(path.name for path in done.folder.iterdir()) == ["01_sums.ipynb", "README.html", "README.md"]
    for path in done.folder.iterdir():
        assert "return a + b" not in path.read_text(encoding="utf-8")
        assert "names a reason" not in path.read_text(encoding="utf-8")
    page = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "# 01 · Sums" in page
    assert "| first | 2 | check |" in page
    assert "| why | 2 | read by a person |" in page
    assert "5 points in all." in page
    assert "<table>" in (done.folder / "README.html").read_text(encoding="utf-8")


def test_the_notebook_comes_from_the_source_though_somebody_worked_in_the_file(chapter, tmp_path):
    stored = chapter.student.read_bytes()
    try:
        save(solved(chapter), chapter.student)
        done = release.release(chapter, tmp_path / "out", wheel=False)
        assert "return a + b" not in (done.folder / "01_sums.ipynb").read_text()
        with pytest.raises(CourseError, match=r"01_sums was worked in or is out of date"):
            release.release(chapter, tmp_path / "other")
    finally:
        chapter.student.write_bytes(stored)


def test_a_folder_with_other_files_is_refused_and_a_second_release_is_not(chapter, tmp_path):
    release.release(chapter, tmp_path / "out", wheel=False)
    release.release(chapter, tmp_path / "out", wheel=False)
    (tmp_path / "out" / "thesis.docx").write_text("mine")
    with pytest.raises(CourseError, match=r"holds other files \(thesis.docx\)"):
        release.release(chapter, tmp_path / "out", wheel=False)


def test_outside_a_checkout_nothing_is_released(tmp_path):
    with pytest.raises(CourseError, match="needs a checkout"):
        release.release(Chapter("01_sums", tmp_path), tmp_path / "out")


def nbgrader_complaints(notebook):
    """The rules of nbgrader's schema 3 and of its validator, as its documentation states them."""
    needed = {"schema_version": int, "grade": bool, "solution": bool, "locked": bool, "task": bool, "grade_id": str}
    seen = set()
    for other in notebook.cells:
        mark = other.metadata.get("nbgrader")
        if mark is None:
            continue
        for key, kind in needed.items():
            if type(mark.get(key)) is not kind:
                yield f"{other.id}: {key}"
        if mark["schema_version"] != 3 or mark["grade_id"] in seen or mark["cell_type"] != other.cell_type:
            yield f"{other.id}: version, id or type"
        if mark["grade"] and not mark.get("points", -1) >= 0:
            yield f"{other.id}: points"
        if not mark["grade"] and "points" in mark:
            yield f"{other.id}: points without grade"
        if other.cell_type == "markdown" and mark["grade"] != mark["solution"]:
            yield f"{other.id}: Markdown must be both graded and a solution, or neither"
        seen.add(mark["grade_id"])


def test_nbgrader_metadata_is_valid_and_maps_the_roles(chapter, tmp_path):
    done = release.release(chapter, tmp_path / "out", nbgrader=True, wheel=False)
    notebook = nbformat.read(done.folder / "01_sums.ipynb", as_version=4)
    assert list(nbgrader_complaints(notebook)) == []

    def kinds(key):
        mark = cell(notebook, key).metadata.nbgrader
        return mark.grade, mark.solution, mark.locked, mark.get("points")

    assert kinds("first-answer") == (False, True, False, None)
    assert kinds("first-check") == (True, False, True, 2)
    assert kinds("why-manual") == (True, True, False, 2)
    assert kinds("cell-02") == (False, False, True, None)
    assert "nbgrader" not in cell(notebook, build.CHECK_ID).metadata


def test_nbgrader_source_has_solutions_and_hidden_tests_in_nbgrader_s_marks(chapter, tmp_path):
    done = release.release(chapter, tmp_path / "out", nbgrader=True, wheel=False)
    assert done.folder not in done.source_assignment.parents
    assert done.source_assignment.parts[-3:] == ("source", "01_sums", "01_sums.ipynb")
    notebook = nbformat.read(done.source_assignment, as_version=4)
    assert list(nbgrader_complaints(notebook)) == []
    assert "### BEGIN SOLUTION\n    return a + b\n    ### END SOLUTION" in cell(notebook, "first-answer").source
    check = cell(notebook, "first-check").source
    assert "### BEGIN HIDDEN TESTS\nassert first(5, 6) == 11" in check
    assert check.endswith("### END HIDDEN TESTS")
    assert not any(other.id.startswith("first-hidden") for other in notebook.cells)


@pytest.mark.slow
def test_a_wheel_checks_a_notebook_where_there_is_no_checkout(tmp_path):
    """The real wheel, unpacked: chapter 00 is found in it, and a blank notebook is marked without sources."""
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)], check=True)
    packaged = installed / "xlmr_course" / "_data" / "notebooks"
    assert not [path for path in packaged.rglob("*") if path.suffix != ".ipynb"]
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.read(packaged / "00_start_here.ipynb", as_version=4)
    answer = cell(notebook, "code-points-answer")
    answer.source = "def code_points(text):\n    return len(text.encode())"
    save(notebook, work / "mine.ipynb")
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import os; os.environ['PYTHONPATH'] = sys.path[0]\n"
        "import xlmr_course; assert xlmr_course.__file__.startswith(sys.path[0])\n"
        "from pathlib import Path; from xlmr_course.classroom.check import check\n"
        "print(check(Path('mine.ipynb')).text())"
    )
    environment = {**__import__("os").environ, "XLMR_COURSE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], cwd=work, env=environment, capture_output=True, text=True)
    assert "visible checks passed: 0 of 2" in done.stdout, done.stderr
    assert "these are bytes of UTF-8" in done.stdout
