"""The three editions of a small chapter made up for the test."""

import nbformat
import pytest

from xlmr_course.classroom import build, proof
from xlmr_course.classroom.chapters import Chapter, CourseError

SOURCE = """\
# %% [markdown]
# # 01 · A chapter
#
# **You will build** a sum. {{needs}}

# %% tags=["setup"]
one = 1

# %% exercise={"name": "add", "role": "answer", "points": 2}
def add(a, b):
    ### BEGIN SOLUTION
    return a + b
    ### END SOLUTION

# %% exercise={"name": "add", "role": "check"}
assert add(one, 2) != 2, "add: you multiplied"
assert add(one, 2) == 3, f"add: expected 3, yours {add(one, 2)}"
print(add(one, 2))

# %% exercise={"name": "add", "role": "hidden"}
assert add(5, 5) == 10, "add: not for other numbers"

# %% exercise={"name": "add", "role": "mistake", "expect": "multiplied"}
def add(a, b):
    return a * b

# %% exercise={"name": "add", "role": "mistake", "expect": "expected 3"}
def add(a, b):
    return b - a

# %%
print("first"); print("second")
"""


@pytest.fixture
def chapter(tmp_path):
    chapter = Chapter("01_a_chapter", tmp_path)
    chapter.source.parent.mkdir(parents=True)
    chapter.source.write_text(SOURCE)
    (tmp_path / "pyproject.toml").write_text('[tool.xlmr_course]\nrepository = ""\n')
    return chapter


def ids(notebook):
    return [cell.id for cell in notebook.cells]


def test_ids_follow_from_the_source(chapter):
    solution = ["cell-01", "install-course", "cell-02", "add-answer", "add-check", "cell-03"]
    assert ids(build.solution_notebook(chapter)) == solution
    assert ids(build.blank_notebook(chapter)) == [*solution, "check-notebook"]


def test_hidden_checks_stand_only_in_the_grading_edition_and_mistakes_in_none(chapter):
    grading = build.grading_notebook(chapter)
    assert "add-hidden-1" in ids(grading)
    assert not any("mistake" in name or "hidden" in name for name in ids(build.solution_notebook(chapter)))
    assert not any("mistake" in name for name in ids(grading))


def test_two_executed_builds_give_the_same_bytes(chapter):
    build.build(chapter)
    first = chapter.solution.read_bytes(), chapter.student.read_bytes()
    build.build(chapter)
    assert (chapter.solution.read_bytes(), chapter.student.read_bytes()) == first


def test_the_student_edition_is_blank_where_the_solution_answers(chapter):
    build.build(chapter)
    cells = {cell.id: cell for cell in nbformat.read(chapter.student, as_version=4).cells}
    assert cells["add-answer"].source == (
        'def add(a, b):\n    # YOUR CODE HERE\n    raise NotImplementedError("add: not written yet")'
    )
    assert cells["add-check"].outputs[0].text == "3\n"
    assert cells["cell-03"].outputs == []
    solved = {cell.id: cell for cell in nbformat.read(chapter.solution, as_version=4).cells}
    assert "BEGIN SOLUTION" not in solved["add-answer"].source
    assert solved["cell-03"].outputs[0].text == "first\nsecond\n"


def test_a_changed_cell_is_not_given_old_outputs(chapter):
    build.build(chapter)
    chapter.source.write_text(SOURCE.replace('print("first")', 'print("other")'))
    with pytest.raises(CourseError, match="cell-03 is new or changed"):
        build.build(chapter, run=False)


def test_a_failing_cell_is_named_with_its_error(chapter):
    chapter.source.write_text(SOURCE.replace('print("first")', "1 / 0"))
    with pytest.raises(CourseError, match="cell cell-03 failed: ZeroDivisionError: division by zero"):
        build.build(chapter)


def test_proof_accepts_a_sound_exercise(chapter):
    [exercise] = proof.exercises(chapter)
    assert list(proof.prove(exercise, proof.setup_code(chapter))) == []


@pytest.mark.parametrize(
    ("old", "new", "case"),
    [
        ("a + b", "a - b", "solution"),
        ('"expect": "multiplied"', '"expect": "divided"', "mistake 1"),
        ("return b - a", "return b + a", "mistake 2"),
        ("    ### BEGIN SOLUTION\n    return a + b", "    return 3\n    ### BEGIN SOLUTION", "blank"),
    ],
)
def test_proof_finds_what_is_wrong_with_an_exercise(chapter, old, new, case):
    chapter.source.write_text(SOURCE.replace(old, new))
    [exercise] = proof.exercises(chapter)
    assert case in [found for found, _ in proof.prove(exercise, proof.setup_code(chapter))]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"role": "check"', '"role": "chekc"', "role 'chekc'"),
        ("    ### BEGIN SOLUTION\n", "", "no ### BEGIN SOLUTION"),
        (', "expect": "multiplied"', "", "needs expect="),
    ],
)
def test_a_wrong_mark_is_named(chapter, old, new, message):
    chapter.source.write_text(SOURCE.replace(old, new))
    with pytest.raises(CourseError, match=message):
        build.read_source(chapter)


QUESTION = """
# %% [markdown] exercise={"name": "why", "role": "manual", "points": 2, "rubric": "1 point: names a reason"}
# Why add?
#
# ### BEGIN SOLUTION
# Because **sums** are useful.
# ### END SOLUTION
"""


def test_an_open_question_is_answered_asked_and_judged_in_the_edition_for_it(chapter):
    chapter.source.write_text(SOURCE + QUESTION)
    editions = (build.solution_notebook(chapter), build.blank_notebook(chapter), build.grading_notebook(chapter))
    solution, student, grading = (next(c for c in edition.cells if c.id == "why-manual") for edition in editions)
    assert solution.source == "Why add?\n\nBecause **sums** are useful."
    assert student.source == f"Why add?\n\n{build.YOUR_ANSWER}"
    assert "rubric" not in student.metadata.exercise
    assert "rubric" not in solution.metadata.exercise
    assert grading.metadata.exercise["rubric"] == "1 point: names a reason"
    assert [exercise.name for exercise in proof.exercises(chapter)] == ["add"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (', "rubric": "1 point: names a reason"', "", "with rubric="),
        ("# %% [markdown] exercise", "# %% exercise", "is a Markdown cell"),
        ("# ### BEGIN SOLUTION\n", "", "no ### BEGIN SOLUTION"),
    ],
)
def test_a_wrong_open_question_is_named(chapter, old, new, message):
    chapter.source.write_text(SOURCE + QUESTION.replace(old, new))
    with pytest.raises(CourseError, match=message):
        build.read_source(chapter)


def test_a_reference_that_was_never_executed_is_named(chapter):
    solved = build.solution_notebook(chapter)
    solved.cells = [cell for cell in solved.cells if cell.id != "add-check"]
    with pytest.raises(CourseError, match="add-check is not in the solution notebook yet"):
        build.student_notebook(chapter, solved)


def test_the_badge_appears_with_the_repository(chapter):
    assert "colab" not in build.solution_notebook(chapter).cells[0].source
    (chapter.root / "pyproject.toml").write_text('[tool.xlmr_course]\nrepository = "https://github.com/a/b"\n')
    head = build.solution_notebook(chapter).cells[0].source
    assert "colab.research.google.com/github/a/b/blob/main/notebooks/01_a_chapter.ipynb" in head
