"""What every chapter must hold, whatever it teaches."""

import json

import nbformat
import pytest

from xlmr_course.classroom import build, proof
from xlmr_course.classroom.chapters import CourseError, all_chapters, find

CHAPTERS = all_chapters()
names = [chapter.name for chapter in CHAPTERS]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_the_committed_notebooks_equal_a_rebuild_of_their_source(chapter, tmp_path, monkeypatch):
    committed = chapter.solution.read_bytes(), chapter.student.read_bytes()
    written = {}
    monkeypatch.setattr(build, "write", lambda notebook, path: written.__setitem__(path, notebook))
    build.build(chapter, run=False)  # outputs are the stored ones; strict nbval holds them to what the cells give
    for path, before in zip((chapter.solution, chapter.student), committed, strict=True):
        after = (nbformat.writes(written[path], version=4) + "\n").encode()
        assert after == before, f"{path.name} differs from its source; run make notebooks"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_every_check_fails_on_blank_and_mistakes_and_passes_on_the_solution(chapter):
    found = proof.exercises(chapter)
    assert len(found) >= 2, "a chapter has at least two exercises"
    setup = proof.setup_code(chapter)
    problems = [f"{e.name}, {case}: {problem}" for e in found for case, problem in proof.prove(e, setup)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_the_student_edition_shows_no_answer_and_locks_its_checks(chapter):
    student = nbformat.read(chapter.student, as_version=4)
    nbformat.validate(student)
    text = "\n".join(cell.source for cell in student.cells)
    assert build.BEGIN not in text
    for exercise in proof.exercises(chapter):
        for code, _ in exercise.mistakes:
            assert code not in text
    for cell in student.cells:
        role = cell.metadata.get("exercise", {}).get("role")
        assert role in (None, "answer", "check")
        if role == "check":
            assert cell.metadata["editable"] is cell.metadata["deletable"] is False
            assert cell.execution_count
            assert cell.outputs, "a check prints the facts that nbval compares"
        elif cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
        if role == "answer":
            assert "not written yet" in cell.source


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_the_solution_ran_without_errors_and_its_pictures_have_alt_text(chapter):
    for cell in nbformat.read(chapter.solution, as_version=4).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.id
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt", "").strip(), f"no alt text in {cell.id}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_the_notebooks_carry_nothing_that_changes_from_run_to_run(chapter):
    for path in (chapter.solution, chapter.student):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert "version" not in notebook["metadata"]["language_info"]
        assert not any("execution" in cell["metadata"] for cell in notebook["cells"])


def test_an_unknown_chapter_lists_the_valid_ones():
    with pytest.raises(CourseError, match=r"there is no chapter '77'.*00_start_here"):
        find(["77"])


def test_chapters_are_found_by_number_and_name():
    assert [c.name for c in find(["0", "00", "00_start_here"])] == ["00_start_here"] * 3
    assert find([]) == CHAPTERS
