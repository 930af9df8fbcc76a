"""What counts as done: only what a check found right, in cells that haven't changed since."""

import pytest
from made_up import make, save, solved, student, written

from xlmr_course.classroom import build, check, progress
from xlmr_course.classroom.marking import ExerciseResult, Marking
from xlmr_course.classroom.restore import read_notebook

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    return make(tmp_path_factory.mktemp("course"), NAMES)


@pytest.fixture
def course(chapter, tmp_path, monkeypatch):
    for module in (progress, check):
        monkeypatch.setattr(module, "released_chapters", lambda: [chapter])
    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    return chapter


def states(folder):
    [entry] = progress.progress(folder)
    return [state for _, state in entry.states]


def test_without_a_notebook_nothing_is_done(course, tmp_path):
    [entry] = progress.progress(tmp_path / "mine")
    assert (entry.file, entry.done) == (None, 0)
    assert "no notebook here" in progress.text([entry])


def test_only_what_a_check_found_right_counts_until_a_cell_changes(course, tmp_path):
    folder = tmp_path / "mine"
    path = save(solved(course, second=written("second", "return 0"), third=None), folder / "01_sums.ipynb")
    assert states(folder) == ["not checked", "not checked", "not written yet"]
    results = [ExerciseResult(n, 1, v) for n, v in zip(NAMES, ("right", "wrong", "not written yet"), strict=True)]
    progress.remember(read_notebook(path)[0], Marking(course.name, results), course)
    assert states(folder) == ["right", "not right", "not written yet"]
    [entry] = progress.progress(folder)
    assert progress.text([entry]).startswith("01 Sums   1 of 3   ✓✗·\n")
    save(solved(course, second=written("second"), third=None), path)
    assert states(folder) == ["not checked", "not checked", "not written yet"]
    assert "xlmr-course check (chapter 01)" in progress.text(progress.progress(folder))


def test_running_a_notebook_again_keeps_the_record_and_a_new_check_does_not(course, tmp_path):
    folder = tmp_path / "mine"
    notebook = solved(course)
    path = save(notebook, folder / "01_sums.ipynb")
    marking = Marking(course.name, [ExerciseResult(name, 1, "right") for name in NAMES])
    progress.remember(read_notebook(path)[0], marking, course)
    for other in notebook.cells:
        if other.cell_type == "code":
            other.outputs, other.execution_count = [], None
    save(notebook, path)
    assert states(folder) == ["right"] * 3
    source = course.source.read_text()
    try:
        course.source.write_text(source.replace("you multiplied", "you have multiplied"))
        assert states(folder) == ["not checked"] * 3
    finally:
        course.source.write_text(source)


def test_the_newest_of_two_notebooks_of_a_chapter_counts(course, tmp_path):
    import os

    folder = tmp_path / "mine"
    save(student(course), folder / "a.ipynb")
    os.utime(folder / "a.ipynb", (1, 1))
    save(solved(course), folder / "b.ipynb")
    (folder / "broken.ipynb").write_text("{")
    assert states(folder) == ["not checked"] * 3


def test_the_table_names_every_exercise(course, tmp_path):
    save(student(course), tmp_path / "mine" / "01_sums.ipynb")
    table = progress._table(progress.progress(tmp_path / "mine"))
    assert all(f'title="{name}: not written yet"' in table for name in NAMES)
    assert build.CHECK_ID not in table


def test_the_real_course_has_progress(tmp_path):
    entries = progress.progress(tmp_path)
    assert entries[0].chapter.number == "00"
    assert all(entry.states for entry in entries)


def test_show_progress_prints_where_there_is_no_notebook(course, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setattr(progress, "ROOT", tmp_path)
    progress.show_progress()
    assert "01 Sums" in capsys.readouterr().out
