"""Whatever happened to a notebook: the release's checks come back, the student's work is kept, and it is said."""

import json

import nbformat
import pytest
from made_up import cell, make, save, solved, student, written

from xlmr_course.classroom import build
from xlmr_course.classroom.chapters import CourseError
from xlmr_course.classroom.restore import read_notebook, released_notebook, restore

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    return make(tmp_path_factory.mktemp("course"), NAMES)


@pytest.fixture
def release(chapter):
    return released_notebook(chapter)


def through(notebook, release, tmp_path):
    """Restored by way of a file, as a student hands it in."""
    return restore(read_notebook(save(notebook, tmp_path / "01_sums.ipynb"))[0], release)


def answers(restored):
    return [other.source for other in restored.notebook.cells if build.role_of(other) == "answer"]


RIGHT = [written(name) for name in NAMES]


def test_an_untouched_notebook_is_blank_and_without_remarks(chapter, release, tmp_path):
    restored = through(student(chapter), release, tmp_path)
    assert restored.unwritten == set(NAMES)
    assert restored.remarks == []
    assert "check-notebook" not in [other.id for other in restored.notebook.cells]


def test_answers_are_taken_and_named(chapter, release, tmp_path):
    restored = through(solved(chapter, third=None), release, tmp_path)
    assert answers(restored)[:2] == RIGHT[:2]
    assert restored.unwritten == {"third"}
    assert restored.binds["first"] == {"first"}
    assert restored.remarks == []


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (lambda c: c.update(source="print('3 11')"), "the check was edited"),
        (lambda c: c.update(cell_type="markdown"), "no code cell any more"),
        (lambda c: c.update(cell_type="raw"), "no code cell any more"),
        (lambda c: c.update(source=""), "the check was edited"),
    ],
)
def test_a_changed_check_is_replaced(chapter, release, tmp_path, change, remark):
    notebook = solved(chapter)
    change(cell(notebook, "first-check"))
    restored = through(notebook, release, tmp_path)
    assert cell(restored.notebook, "first-check").source == cell(release, "first-check").source
    assert cell(restored.notebook, "first-check").cell_type == "code"
    assert any(remark in line and line.startswith("first:") for line in restored.remarks)


def test_a_deleted_check_comes_back_with_its_reference(chapter, release, tmp_path):
    notebook = solved(chapter)
    notebook.cells = [other for other in notebook.cells if other.id != "second-check"]
    restored = through(notebook, release, tmp_path)
    assert cell(restored.notebook, "second-check").outputs[0].text == "3 11\n"
    assert "second: the check was deleted; the released one was used" in restored.remarks


def test_outputs_come_from_the_release_whatever_was_saved(chapter, release, tmp_path):
    notebook = solved(chapter)
    cell(notebook, "first-check").outputs[0].text = "99\n"
    cell(notebook, "second-check").outputs = []
    restored = through(notebook, release, tmp_path)
    for name in NAMES:
        assert cell(restored.notebook, f"{name}-check").outputs[0].text == "3 11\n"


def strip_ids(notebook):
    for other in notebook.cells:
        other.pop("id", None)
    notebook.nbformat_minor = 4


def strip_metadata(notebook):
    for other in notebook.cells:
        other.metadata = nbformat.from_dict({})


def ids_to_metadata(notebook):
    """As Colab saves a notebook."""
    for other in notebook.cells:
        other.metadata = nbformat.from_dict({"id": other.pop("id")})


@pytest.mark.parametrize(
    "changes",
    [(strip_ids,), (strip_metadata,), (ids_to_metadata,), (strip_metadata, strip_ids)],
    ids=["no ids", "no metadata", "Colab", "neither"],
)
def test_answers_are_found_without_ids_or_metadata(chapter, release, tmp_path, changes):
    notebook = solved(chapter)
    for change in changes:
        change(notebook)
    restored = through(notebook, release, tmp_path)
    assert answers(restored) == RIGHT
    assert not restored.lost
    assert [o.id for o in restored.notebook.cells if build.role_of(o) == "check"] == [f"{n}-check" for n in NAMES]


def test_edited_checks_are_known_without_marks_too(chapter, release, tmp_path):
    notebook = solved(chapter)
    cell(notebook, "first-check").source = 'assert True, "first: you multiplied"'
    strip_metadata(notebook)
    strip_ids(notebook)
    restored = through(notebook, release, tmp_path)
    assert "first: the check was edited; the released one was used" in restored.remarks
    assert not any("assert True" in other.source for other in restored.notebook.cells)


def test_reversed_cells_are_put_in_order(chapter, release, tmp_path):
    notebook = solved(chapter)
    notebook.cells.reverse()
    restored = through(notebook, release, tmp_path)
    assert answers(restored) == RIGHT
    assert any("another order" in remark for remark in restored.remarks)


def test_of_two_answers_the_last_before_the_check_counts(chapter, release, tmp_path):
    notebook = solved(chapter, first=written("first", "return 0"))
    at = notebook.cells.index(cell(notebook, "first-answer"))
    notebook.cells.insert(at + 1, nbformat.from_dict({**notebook.cells[at], "id": "copy", "source": RIGHT[0]}))
    late = {**notebook.cells[at], "id": "late", "source": written("first", "return 1")}
    notebook.cells.insert(at + 3, nbformat.from_dict(late))
    restored = through(notebook, release, tmp_path)
    assert answers(restored)[0] == RIGHT[0]
    assert any("several answers" in remark for remark in restored.remarks)


def test_a_blank_copy_beside_the_answer_does_no_harm(chapter, release, tmp_path):
    notebook = solved(chapter)
    blank = cell(student(chapter), "first-answer")
    notebook.cells.insert(0, nbformat.from_dict({**blank, "id": "copy"}))
    assert answers(through(notebook, release, tmp_path)) == RIGHT


@pytest.mark.parametrize("marked", [True, False], ids=["both parts marked", "second part unmarked"])
def test_a_split_answer_is_joined(chapter, release, tmp_path, marked):
    notebook = solved(chapter)
    at = notebook.cells.index(cell(notebook, "first-answer"))
    head, body = "def first(a, b):", "    return a + b"
    notebook.cells[at].source = head
    metadata = notebook.cells[at].metadata if marked else {}
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(body, id="part", metadata=metadata))
    restored = through(notebook, release, tmp_path)
    assert answers(restored)[0] == f"{head}\n{body}"
    assert any("split into 2 cells" in remark for remark in restored.remarks)
    assert all(other.source != body for other in restored.notebook.cells)


def test_an_answer_in_another_cell_is_found_by_what_it_defines(chapter, release, tmp_path):
    notebook = solved(chapter)
    notebook.cells = [other for other in notebook.cells if other.id != "first-answer"]
    notebook.cells.append(nbformat.v4.new_code_cell(RIGHT[0], id="mine"))
    restored = through(notebook, release, tmp_path)
    assert answers(restored)[0] == RIGHT[0]
    assert any(remark.startswith("first: the answer was found in another cell") for remark in restored.remarks)


def test_a_deleted_answer_is_lost_and_not_called_blank(chapter, release, tmp_path):
    notebook = solved(chapter)
    notebook.cells = [other for other in notebook.cells if other.id != "first-answer"]
    restored = through(notebook, release, tmp_path)
    assert set(restored.lost) == {"first"}


def test_an_answer_turned_into_markdown_still_counts(chapter, release, tmp_path):
    notebook = solved(chapter)
    cell(notebook, "first-answer").cell_type = "markdown"
    for key in ("outputs", "execution_count"):
        cell(notebook, "first-answer").pop(key, None)
    restored = through(notebook, release, tmp_path)
    assert answers(restored) == RIGHT
    assert any("read as code" in remark for remark in restored.remarks)


def test_nbval_markers_of_a_student_are_switched_off(chapter, release, tmp_path):
    notebook = solved(chapter, first="# NBVAL_SKIP\n" + RIGHT[0])
    cell(notebook, "second-answer").metadata["tags"] = ["nbval-skip"]
    restored = through(notebook, release, tmp_path)
    first, second = cell(restored.notebook, "first-answer"), cell(restored.notebook, "second-answer")
    assert "# (NBVAL_SKIP)" in first.source
    assert "nbval-skip" not in second.metadata.get("tags", [])
    assert any("NBVAL_SKIP" in remark for remark in restored.remarks)


def test_own_cells_stay_behind_the_cell_they_followed(chapter, release, tmp_path):
    notebook = solved(chapter)
    at = notebook.cells.index(cell(notebook, "first-check"))
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("helper = 1", id="mine"))
    restored = through(notebook, release, tmp_path)
    ids = [other.id for other in restored.notebook.cells]
    assert ids[ids.index("first-check") + 1] == "own-1"
    assert cell(restored.notebook, "own-1").metadata.tags == ["own"]


def test_a_changed_set_up_runs_after_the_released_one(chapter, release, tmp_path):
    notebook = solved(chapter)
    setup = next(other for other in notebook.cells if "setup" in other.metadata.get("tags", []))
    setup.source = setup.source + "\nimport statistics"
    restored = through(notebook, release, tmp_path)
    kept = next(other for other in restored.notebook.cells if "setup" in other.metadata.get("tags", []))
    assert "statistics" not in kept.source
    assert any("import statistics" in o.source and o.metadata.tags == ["own"] for o in restored.notebook.cells)


def test_an_open_question_keeps_what_was_written(chapter, release, tmp_path):
    notebook = solved(chapter)
    why = cell(notebook, "why-manual")
    why.source = why.source.replace(build.YOUR_ANSWER, "Since it is *useful*.\n\nAnd quick.")
    restored = through(notebook, release, tmp_path)
    assert restored.texts["why"] == "Since it is *useful*.\n\nAnd quick."


def test_the_release_itself_stays_as_it_was(chapter, release, tmp_path):
    before = nbformat.writes(release)
    through(solved(chapter), release, tmp_path)
    assert nbformat.writes(release) == before


def test_a_release_does_not_come_from_the_file_a_learner_works_in(chapter, release):
    stored = chapter.student.read_bytes()
    try:
        save(solved(chapter), chapter.student)
        assert nbformat.writes(released_notebook(chapter)) == nbformat.writes(release)
    finally:
        chapter.student.write_bytes(stored)


def test_an_old_notebook_is_converted(chapter, release, tmp_path):
    notebook = nbformat.convert(solved(chapter), 3)
    path = tmp_path / "old.ipynb"
    path.write_text(nbformat.writes(notebook, version=3))
    read, remarks = read_notebook(path)
    assert remarks == ["the notebook is in the old format 3; it was converted"]
    assert answers(restore(read, release)) == RIGHT


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (b'{"cells": [', "JSON breaks at line 1"),
        (b'{\n<<<<<<< HEAD\n"cells": []\n=======\n}\n>>>>>>> theirs\n', r"unfinished git merge \(line 2\)"),
        (b"[1, 2]", "it has no cells"),
        (b'{"a": 1}', "it has no cells"),
        (b"\xff\xfe\x00\x01", "no text at byte 0"),
        (b"[" * 100_000, "JSON breaks"),
    ],
)
def test_a_file_that_is_no_notebook_gives_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "broken.ipynb"
    path.write_bytes(content)
    with pytest.raises(CourseError, match=sentence) as error:
        read_notebook(path)
    assert "broken.ipynb" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(CourseError, match="there is no file"):
        read_notebook(tmp_path / "none.ipynb")
    with pytest.raises(CourseError, match="is a folder"):
        read_notebook(tmp_path)


def test_odd_cells_are_read_all_the_same(tmp_path):
    cells = [{"cell_type": "code", "source": ["a = ", "1"]}, {"metadata": None, "cell_type": "heading"}, "text", {}]
    path = tmp_path / "odd.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8-sig")
    notebook, _ = read_notebook(path)
    assert [other.source for other in notebook.cells] == ["a = 1", "", ""]
