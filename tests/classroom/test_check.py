"""What a learner sees: the report, which notebook is meant, and that the file is only read."""

import os
import sys
import time
import types

import nbformat
import pytest
from made_up import cell, make, save, solved, student, written

from xlmr_course import classroom
from xlmr_course.classroom import chapters, check
from xlmr_course.classroom.chapters import CourseError
from xlmr_course.classroom.marking import ExerciseResult, Marking

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    return make(tmp_path_factory.mktemp("course"), NAMES)


@pytest.fixture
def course(chapter, tmp_path, monkeypatch):
    """The made-up chapter is the course; the learner works in an empty folder."""
    monkeypatch.setattr(check, "released_chapters", lambda: [chapter])
    monkeypatch.setattr(check, "find_released", lambda names: chapters._chosen(names, [chapter]))
    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    return chapter


RESULTS = [
    ExerciseResult("first", 2, "right"),
    ExerciseResult("second", 1, "wrong", "its check failed", "expected <3>", "3", "4 & 5", "look at `b`"),
    ExerciseResult("third", 1, "not written yet", next_step="write it"),
    ExerciseResult("why", 2, "look", "an open question", manual=True),
]


def report(chapter, results=RESULTS):
    return check.Report(Marking(chapter.name, results, ["the cells stand in another order"]), chapter, "x.ipynb")


def test_the_text_has_a_line_for_each_exercise_and_never_says_all(chapter):
    text = report(chapter).text()
    assert text.splitlines()[0] == "01 Sums · x.ipynb"
    assert "✓ first   2/2  right\n" in text
    assert (
        "✗ second  0/1  wrong: its check failed\n    hint     expected <3>\n    expected 3\n    yours    4 & 5\n"
        in text
    )
    assert "· third   0/1  not written yet\n    try      write it\n" in text
    assert "note: the cells stand in another order" in text
    assert "visible checks passed: 1 of 3 (2 of 4 points); open questions answered: 1 of 1" in text
    complete = report(chapter, RESULTS[:1])
    assert complete.complete
    assert complete.summary == "visible checks passed: 1 of 1 (2 of 2 points)"
    assert not report(chapter).complete
    assert "\033[" in report(chapter).text(colour=True)


def test_the_table_escapes_what_learners_wrote_and_brings_its_own_colours(chapter):
    page = report(chapter)._repr_html_()
    assert "expected &lt;3&gt;" in page
    assert "4 &amp; 5" in page
    assert "<code" in page
    assert page.count("<tr") == 5
    assert "background:#1a7f42;color:#fff" in page
    assert "visible checks passed: 1 of 3" in page


def test_a_saved_notebook_is_checked_and_only_read(course, tmp_path):
    path = save(solved(course, first=written("first", "return a * b")), tmp_path / "anything.ipynb")
    before = path.read_bytes()
    found = check.check(path)
    assert [result.verdict for result in found.marking.results] == ["wrong", "right", "right", "not written yet"]
    assert "anything.ipynb, saved just now" in found.text()
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.ipynb")) == [path]
    assert len(list((tmp_path / "cache" / "progress").iterdir())) == 1


def test_a_notebook_tells_its_chapter_by_heading_exercises_or_name(course, chapter):
    notebook = student(chapter)
    assert check.identify(notebook, "untitled.ipynb") == chapter
    notebook.cells = [other for other in notebook.cells if other.cell_type == "code"]
    assert check.identify(notebook, "untitled.ipynb") == chapter
    strange = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    with pytest.raises(CourseError, match=r"^01_untitled.ipynb is no chapter of this course"):
        check.identify(strange, "01_untitled.ipynb")


def test_the_real_chapters_are_told_apart():
    for chapter in chapters.released_chapters():
        if chapter.student.is_file():
            notebook = nbformat.read(chapter.student, as_version=4)
            assert check.identify(notebook, "notebook.ipynb") == chapter


def test_while_a_notebook_is_marked_it_does_not_mark_itself(course, monkeypatch, capsys):
    monkeypatch.setenv("XLMR_COURSE_MARKING", "1")
    classroom.check_notebook()
    assert capsys.readouterr().out == ""


def test_the_last_cell_says_so_when_there_is_no_notebook(course, capsys):
    classroom.check_notebook()
    assert capsys.readouterr().out.startswith("No saved notebook of the course was found in this folder")


def test_the_running_notebook_is_the_one_that_its_server_names_else_the_newest(course, chapter, tmp_path, monkeypatch):
    old, new = (save(student(chapter), tmp_path / name) for name in ("old.ipynb", "new.ipynb"))
    save(nbformat.v4.new_notebook(), tmp_path / "other.ipynb")
    now = time.time()
    os.utime(old, (now - 7_200, now - 7_200))
    os.utime(new, (now - 60, now - 60))
    assert check.running_notebook() == (new, False)
    monkeypatch.setenv("JPY_SESSION_NAME", str(old))
    assert check.running_notebook() == (old, True)
    monkeypatch.setattr(check, "_user_namespace", lambda: {"__vsc_ipynb_file__": str(new)})
    assert check.running_notebook() == (new, True)


def test_a_file_that_lacks_what_was_run_must_be_saved_first(course, chapter, tmp_path, monkeypatch):
    path = save(solved(chapter), tmp_path / "01_sums.ipynb")
    entered = ["", written("first", "return 7"), written("first"), "print(1)", "check_notebook()"]
    monkeypatch.setattr(check, "_user_namespace", lambda: {"In": entered})
    assert check._stale(path, True) == ""
    entered.insert(3, written("second", "return 8"))
    assert "Save first (Ctrl+S)" in check._stale(path, True)
    assert check._stale(path, True).endswith("lacks your latest second.")
    entered.pop(3)
    assert "newest notebook here" in check._stale(path, False)
    os.utime(path, (0, time.time() - 600))
    assert "saved 10 minutes ago" in check._stale(path, True)


def test_in_colab_the_open_notebook_is_checked(course, chapter, tmp_path, monkeypatch, capsys):
    open_notebook = solved(chapter, second=None)
    asked = []

    def blocking_request(kind, request="", timeout_sec=5):
        asked.append(kind)
        return {"ipynb": dict(open_notebook)}

    colab = types.ModuleType("google.colab")
    colab._message = types.SimpleNamespace(blocking_request=blocking_request)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    sys.modules["google"].colab = colab
    classroom.check_notebook()
    printed = capsys.readouterr().out
    assert asked == ["get_ipynb"]
    assert "01 Sums · the open notebook" in printed
    assert "visible checks passed: 2 of 3" in printed
    assert "· second  0/1  not written yet" in printed


def test_every_student_notebook_ends_with_the_check_and_no_solution_does(chapter):
    notebook = student(chapter)
    assert "check_notebook()" in notebook.cells[-1].source
    assert notebook.cells[-1].metadata.tags == ["nbval-skip", "check-notebook"]
    assert not any("check_notebook" in other.source for other in nbformat.read(chapter.solution, 4).cells)


def test_a_notebook_runs_its_own_check_in_a_kernel(chapter, tmp_path, monkeypatch):
    """As JupyterLab does it: the saved file is named by the environment, the cell shows a table."""
    from nbclient import NotebookClient

    path = save(solved(chapter, third=None), tmp_path / "01_sums.ipynb")
    code = (
        "from xlmr_course.classroom import chapters, check, check_notebook, progress\n"
        f"course = [chapters.Chapter('01_sums', chapters.Path({str(chapter.root)!r}))]\n"
        "check.released_chapters = progress.released_chapters = lambda: course\n"
        "check_notebook()"
    )
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, id="run")])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    page = "".join(out.data.get("text/html", "") for out in cell(notebook, "run").outputs if "data" in out)
    assert "visible checks passed: 2 of 3" in page
