"""What every chapter must hold, whatever it teaches."""

import ast
import contextlib
import copy
import dis
import io
import itertools
import json
import re

import nbformat
import pytest
import torch

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
def test_every_exercise_has_a_hidden_check_that_stands_alone(chapter):
    """It needs the setup cells and the answer only, and binds no name that the chapter's own cells bind."""
    setup, cells = proof.setup_code(chapter), exercise_cells(chapter)
    for name, roles in cells.items():
        assert "hidden" in roles, f"{name} has no hidden check"
        solution = build.without_markers(*roles["answer"], name)
        assert ended(solution, roles["hidden"], setup) == "passed", name
        assert f"{name}: not written yet" in ended(build.blank(*roles["answer"], name), roles["hidden"], setup)
    chapter_binds = {
        bound
        for cell in build.read_source(chapter).cells
        if cell.cell_type == "code" and "exercise" not in cell.metadata
        for bound in binds(cell.source)
    }
    hidden_binds = {bound for roles in cells.values() for code in roles["hidden"] for bound in binds(code)}
    both = sorted(hidden_binds & chapter_binds)
    assert not both, f"hidden checks rebind {both}, so later cells would meet other values when the chapter is graded"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_an_answer_that_knows_the_visible_check_by_heart_fails_the_hidden_one(chapter):
    setup = proof.setup_code(chapter)
    for name, roles in exercise_cells(chapter).items():
        assert "hidden" in roles, f"{name} has no hidden check"
        solution = build.without_markers(*roles["answer"], name)
        functions = [node.name for node in ast.parse(solution).body if isinstance(node, ast.FunctionDef)]
        assert functions, f"{name}: the answer is no function"
        remembered = Remembered(functions)
        assert ended(solution, [remembered.record, *roles["check"]], setup) == "passed"
        by_heart = ended(solution, [remembered.replay, *roles["check"]], setup)
        assert by_heart == "passed", f"{name}: what was recorded does not pass the visible check itself: {by_heart}"
        hidden = ended(solution, [remembered.replay, *roles["hidden"]], setup)
        assert hidden.startswith(f"AssertionError: {name}: "), f"{name}: an answer known by heart gives {hidden}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_hints_that_open_one_by_one_stand_above_every_answer(chapter):
    cells = build.read_source(chapter).cells
    for above, cell in itertools.pairwise(cells):
        if build.role_of(cell) == "answer":
            opened = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", above.source, re.DOTALL)
            assert len(opened) >= 2, f"{cell.id} has {len(opened)} hints above it"
            assert [title for title, _ in opened] == [f"Hint {number + 1}" for number in range(len(opened))]
            assert "`" in opened[-1][1], f"the last hint above {cell.id} shows no code; it should nearly be the answer"


class Remembered:
    """What some functions were given and what they returned; `replay` answers unknown questions with the last."""

    def __init__(self, functions: list[str]) -> None:
        self.functions, self.known, self.last = functions, {}, {}

    def record(self, namespace: dict) -> None:
        for function in self.functions:
            namespace[function] = self._recorder(function, namespace[function])

    def replay(self, namespace: dict) -> None:
        for function in self.functions:
            namespace[function] = self._player(function)

    def _recorder(self, function, original):
        def wrapped(*args, **options):
            key = function, question(args, options)
            self.last[function] = self.known[key] = original(*args, **options)
            return copied(self.known[key])

        return wrapped

    def _player(self, function):
        def wrapped(*args, **options):
            return copied(self.known.get((function, question(args, options)), self.last[function]))

        return wrapped


def question(*values) -> str:
    """Arguments as text, tensors by all their numbers; functions and modules are all alike."""
    parts = []
    for value in values:
        if isinstance(value, torch.Tensor):
            parts.append(f"{tuple(value.shape)}{value.tolist()}")
        elif isinstance(value, list | tuple):
            parts.append(f"[{question(*value)}]")
        elif isinstance(value, dict):
            parts.append(f"{{{question(*value.items())}}}")
        else:
            parts.append("object" if callable(value) or " at 0x" in repr(value) else repr(value))
    return ", ".join(parts)


def copied(value):
    try:
        return copy.deepcopy(value)
    except TypeError:  # a generator
        return value


def exercise_cells(chapter) -> dict[str, dict[str, list[str]]]:
    """Exercise -> role -> the sources of its cells."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell in build.read_source(chapter).cells:
        mark = cell.metadata.get("exercise")
        if mark and mark["role"] != "manual":
            found.setdefault(mark["name"], {}).setdefault(mark["role"], []).append(cell.source)
    return found


def ended(answer: str, steps: list, setup: list[str]) -> str:
    """Run setup cells, an answer and steps (code, or a function of the namespace): "passed", or the error."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()), torch.enable_grad():
        try:
            for step in (*setup, answer, *steps):
                if callable(step):
                    step(namespace)
                else:
                    exec(compile(step, "cell", "exec"), namespace)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "passed"


def binds(code: str) -> set[str]:
    """The names that a cell binds at its top level."""
    code = compile(code, "cell", "exec")
    return {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=names)
def test_the_student_edition_shows_no_answer_and_locks_its_checks(chapter):
    student = nbformat.read(chapter.student, as_version=4)
    nbformat.validate(student)
    text = "\n".join(cell.source for cell in student.cells)
    assert build.BEGIN not in text
    for exercise in proof.exercises(chapter):
        for code, _ in exercise.mistakes:
            assert code not in text
    for cell in build.read_source(chapter).cells:
        if build.role_of(cell) == "hidden":
            assert cell.source not in text, f"the student edition holds {cell.id}"
        elif build.role_of(cell) == "manual":
            answer = build.SOLUTION.search(cell.source)[0].splitlines()[1]
            assert answer not in text, f"the student edition answers {cell.id}"
    for cell in student.cells:
        role = cell.metadata.get("exercise", {}).get("role")
        assert role in (None, "answer", "check", "manual")
        if role == "manual":
            assert build.YOUR_ANSWER in cell.source
            assert "rubric" not in cell.metadata["exercise"]
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
