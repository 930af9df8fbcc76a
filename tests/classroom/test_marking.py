"""Marking: every verdict, one mistake costs one exercise, and tampering doesn't pass."""

import json
import shutil
import subprocess
import sys

import nbformat
import pytest
from made_up import NAMES, cell, make, save, solved, student, written

from xlmr_course.classroom import build, inside, plugin, proof, stage
from xlmr_course.classroom.chapters import Chapter, CourseError, find
from xlmr_course.classroom.marking import ExerciseResult, Marking, mark
from xlmr_course.classroom.restore import released_notebook
from xlmr_course.classroom.verdicts import Exercise, judge

LIMIT = 60  # seconds for one exercise
SHORT = 6  # the same where exercises are stopped, which use it up


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    return make(tmp_path_factory.mktemp("course"))


def marked(notebook, chapter, tmp_path, limit=LIMIT, **options):
    """(name → result, the marking)."""
    path = save(notebook, tmp_path / "01_sums.ipynb")
    before = path.read_bytes()
    marking = mark(path, chapter, cell_timeout=limit, **options)
    assert path.read_bytes() == before
    return {result.name: result for result in marking.results}, marking


def test_the_solution_has_full_marks_and_the_open_question_waits_for_a_person(chapter, tmp_path):
    marking = mark(tmp_path / "no-such-file", chapter, hidden=True, solution=True)
    *checked, question = marking.results
    assert [result.verdict for result in checked] == ["right"] * len(NAMES)
    assert (question.name, question.verdict, question.manual, question.points) == ("why", "look", True, 2)
    assert (question.expected, question.yours) == ("1 point: names a reason", "Because sums are useful.")
    assert (marking.earned, marking.points) == (9, 11)
    assert marking.remarks == []


def test_a_blank_notebook_is_not_written_yet_throughout(chapter, tmp_path):
    results, marking = marked(student(chapter), chapter, tmp_path)
    assert [result.verdict for result in marking.results] == ["not written yet"] * (len(NAMES) + 1)
    assert results["first"].next_step == "write it where it says # YOUR CODE HERE"


def test_each_mistake_gets_its_verdict_and_costs_one_exercise(chapter, tmp_path):
    notebook = solved(
        chapter,
        first=written("first", "return a * b"),
        third=written("third", "return b - a"),
        fourth=written("fourth", "x = 1\nreturn a + b + None"),
        fifth=written("fifth", "return a + b if b < 4 and a < 9 else 0"),
        sixth=written("sixth", "return int(input())"),
        seventh=written("seventh", "print('debugging', a)\nreturn a + b"),
        eighth=written("eighth", "a + b"),
    )
    results, marking = marked(notebook, chapter, tmp_path)
    assert [result.verdict for result in marking.results[:-1]] == [
        *("wrong", "right", "wrong", "error", "wrong", "error", "right", "error")
    ]
    assert results["first"].hint == "you multiplied"
    assert (results["third"].expected, results["third"].yours) == ("[3, 4]", "[1, 0]")
    assert results["fourth"].message.startswith("TypeError: ")
    assert "in line 3, `return a + b + None`" in results["fourth"].message
    assert (results["fifth"].expected, results["fifth"].yours) == ("3 11", "3 0")
    assert "input() was called" in results["sixth"].message
    assert "the check could not use what the answer gave" in results["eighth"].message
    assert marking.earned == 2


def test_what_ends_or_hangs_the_kernel_costs_one_exercise(chapter, tmp_path):
    stubborn = (
        "while True:\n    try:\n        while True:\n            pass\n    except KeyboardInterrupt:\n        pass"
    )
    notebook = solved(
        chapter,
        first="import os\nos._exit(0)\n" + written("first"),
        second=written("second", stubborn),
        third="import sys\nsys.exit()\n" + written("third"),
        fourth=written("fourth", "exit()"),
        fifth=written("fifth", "import os\nwhile True:\n    os.write(1, b'x' * 100_000)"),
        sixth=written("sixth", "while True:\n    print('x' * 100_000)"),
    )
    results, marking = marked(notebook, chapter, tmp_path, SHORT)
    verdicts = [result.verdict for result in marking.results[:-1]]
    assert verdicts == ["error", "timeout", "error", "error", "timeout", "timeout", "right", "right"]
    assert "the kernel ended" in results["first"].message
    assert "SystemExit" in results["third"].message
    assert len(marking.to_json()) < 10_000


STEAL = """\
import sys
from xlmr_course.classroom import inside
frame = sys._getframe()
while frame is not None:
    order = frame.f_locals.get("order")
    if isinstance(order, dict) and "token" in order:
        good = {"kind": "passed", "printed": "3 11\\n", "changed": [], "during": [], "dirty": False}
        inside._report(order["token"], good)
        break
    frame = frame.f_back
"""


def test_tampering_does_not_pass(chapter, tmp_path):
    wrong = "return 3 if a == 1 else 0"  # meets the first assert only
    inside_it = "np.allclose = lambda *a, **k: True\nreturn {1: 3, 10: 11}.get(a, 0)"
    notebook = solved(
        chapter,
        first="np.allclose = lambda *a, **k: True\n" + written("first", wrong),
        second=written("second", inside_it),
        third="def print(*a): pass\nlist = sum = isinstance = lambda *a: True\n" + written("third", "return 3"),
        fourth="import builtins\nbuiltins.print = lambda *a: None\n" + written("fourth", "return 4"),
        fifth="import sys\nsys.settrace(lambda *a: None)\n"
        + written("fifth", "sys.settrace(lambda *a: None)\nreturn a + b"),
        sixth="shell = get_ipython()\nshell.run_cell = shell.run_cell_async = None\n" + written("sixth", "return 5"),
        seventh="np = None\nmath = 3\n" + written("seventh"),
        eighth=STEAL + written("eighth", "return 7"),
    )
    results, marking = marked(notebook, chapter, tmp_path)
    verdicts = [result.verdict for result in marking.results[:-1]]
    assert verdicts == ["wrong", "look", "wrong", "wrong", "look", "wrong", "right", "wrong"]
    assert "eighth changed the report of its own check; it was put back" in marking.remarks
    assert "numpy.allclose" in results["second"].message
    assert "sys.settrace" in results["fifth"].message
    assert any("numpy.allclose" in remark and remark.startswith("first") for remark in marking.remarks)


def test_forged_results_are_ignored(chapter, tmp_path):
    row = Marking(chapter.name, [ExerciseResult("first", 2, "right")]).to_json()
    forge = (
        "import os, sys\nfrom IPython.display import display\n"
        f"display({{{inside.OUTCOME!r}: {{'kind': 'passed', 'printed': '3 11', 'token': ''}}}}, raw=True)\n"
        f"row = {row!r}\nprint(row)\nos.system('echo forged')\n"
        "for descriptor in range(1, 30):\n"
        "    try:\n        os.write(descriptor, row.encode())\n    except OSError:\n        pass\n"
        "os._exit(0)\n"
    )
    path = save(solved(chapter, first=forge + written("first", "return 0")), tmp_path / "01_sums.ipynb")
    command = [sys.executable, "-m", "xlmr_course.classroom.marking", str(path), "--chapter", "01"]
    done = subprocess.run([*command, "--root", str(chapter.root)], capture_output=True, text=True)
    [line] = done.stdout.splitlines()
    results = Marking.from_json(line).results
    assert [result.verdict for result in results[:-1]] == ["error"] + ["right"] * 7


def test_hidden_checks_find_an_answer_known_by_heart(chapter, tmp_path):
    notebook = solved(chapter, first=written("first", "return {(1, 2): 3, (2, 2): 4, (10, 1): 11}.get((a, b), 0)"))
    results, _ = marked(notebook, chapter, tmp_path, hidden=True)
    assert (results["first"].verdict, results["first"].message) == (
        "wrong",
        "on another input, its hidden check failed",
    )
    assert (results["first"].expected, results["first"].yours) == ("11 for 5 and 6", "0")
    assert results["second"].verdict == "right"


def test_answers_may_use_helpers_and_values_of_other_cells(chapter, tmp_path):
    notebook = solved(
        chapter,
        first=written("first", "return helper(a, b)"),
        second=written("second", "return doubled(a) + b - a"),
        third=written("third", "return a + b + scale - 3"),
        fourth=written("fourth", "return fifth(a, b)"),
        sixth=written("sixth", "return nowhere(a, b)"),
        seventh="%%time\n" + written("seventh"),
        eighth="!echo hello\n" + written("eighth"),
    )
    notebook.cells.insert(
        3, nbformat.v4.new_code_cell("def helper(a, b):\n    return a + b\n\nhelper(1, 2)", id="mine")
    )
    results, marking = marked(notebook, chapter, tmp_path)
    verdicts = {name: result.verdict for name, result in results.items() if result.verdict != "right"}
    assert verdicts == {"sixth": "error", "why": "not written yet"}
    assert "NameError" in results["sixth"].message
    assert marking.remarks == []


def test_cells_around_the_exercises_that_end_the_kernel_are_left_out(chapter, tmp_path):
    notebook = solved(chapter)
    cells = ("class Stop:\n    import os\n    os._exit(1)", "while True: pass", "import os; os._exit(1)")
    for number, source in enumerate(cells):
        notebook.cells.insert(3, nbformat.v4.new_code_cell(source, id=f"mine-{number}"))
    _, marking = marked(notebook, chapter, tmp_path)
    assert [result.verdict for result in marking.results[:-1]] == ["right"] * len(NAMES)
    assert any("left out" in remark for remark in marking.remarks)


def test_a_deleted_answer_is_for_a_person_to_look_at(chapter, tmp_path):
    notebook = solved(chapter)
    notebook.cells = [other for other in notebook.cells if other.id not in ("third-answer", "why-manual")]
    results, _ = marked(notebook, chapter, tmp_path)
    assert [results["third"].verdict, results["why"].verdict] == ["look", "look"]
    assert not results["third"].manual
    assert results["why"].manual


def test_without_model_answers_an_exercise_waits_for_the_one_it_calls(chapter, tmp_path):
    root = tmp_path / "wheel"
    (root / "notebooks").mkdir(parents=True)
    shutil.copyfile(chapter.student, root / "notebooks" / chapter.student.name)
    notebook = solved(chapter, first=None, second=written("second", "return first(a, b)"))
    results, _ = marked(notebook, Chapter(chapter.name, root), tmp_path)
    assert results["first"].verdict == "not written yet"
    assert (results["second"].verdict, results["second"].next_step) == ("waits for another", "write first first")
    assert results["third"].verdict == "right"
    with pytest.raises(CourseError, match="hidden checks need the source"):
        mark(tmp_path / "01_sums.ipynb", Chapter(chapter.name, root), hidden=True)


def test_a_failing_set_up_is_the_chapter_s_fault_and_says_so(tmp_path):
    chapter = make(tmp_path / "course", ("first", "second"))
    notebook = solved(chapter)
    for path in (chapter.source, chapter.solution):
        path.write_text(path.read_text().replace("import math", "import no_such_module"))
    with pytest.raises(
        CourseError, match="set-up fails on this machine: ModuleNotFoundError: No module named 'no_such"
    ):
        marked(notebook, chapter, tmp_path)


def test_a_broken_file_is_one_sentence_and_its_own_exit_code(chapter, tmp_path):
    path = tmp_path / "broken.ipynb"
    path.write_text('{"cells": [')
    with pytest.raises(CourseError, match=r"^broken.ipynb is no valid notebook"):
        mark(path, chapter)


def test_a_marking_survives_json():
    marking = Marking("01_sums", [ExerciseResult("ä", 2, "wrong", hint="line 1\nline 2", yours="你好")], ["odd"])
    text = marking.to_json()
    assert "\n" not in text
    assert Marking.from_json(text) == marking
    for broken in ("", "[]", '{"chapter": "x"}', json.dumps({"chapter": "x", "results": [{"a": 1}], "remarks": []})):
        with pytest.raises(ValueError, match="no marking"):
            Marking.from_json(broken)


EXERCISE = Exercise("first", 2, "def first(a):\n    x = a\n    y = x\n    raise NotImplementedError", ["first"])


@pytest.mark.parametrize(
    ("outcome", "verdict", "words"),
    [
        ({"kind": "passed", "printed": ""}, "right", ""),
        ({"kind": "timeout", "seconds": 60}, "timeout", "60 seconds"),
        ({"kind": "ended"}, "error", "the kernel ended"),
        (
            {"kind": "failed", "error": "NotImplementedError", "text": "first: not written yet"},
            "not written yet",
            "delete",
        ),
        (
            {"kind": "failed", "error": "NotImplementedError", "text": "other: not written yet"},
            "waits for another",
            "other",
        ),
        ({"kind": "failed", "error": "NotImplementedError", "text": "later"}, "error", "NotImplementedError"),
        ({"kind": "failed", "error": "AssertionError", "text": "first: look", "where": "first-check"}, "wrong", "look"),
        (
            {"kind": "failed", "error": "AssertionError", "text": "mine", "where": "first"},
            "error",
            "AssertionError: mine",
        ),
        (
            {"kind": "failed", "error": "SyntaxError", "text": "bad", "where": "first", "line": 1, "code": "x"},
            "error",
            "`x`",
        ),
        ({"kind": "passed", "printed": "", "during": ["builtins.len"]}, "look", "builtins.len"),
    ],
)
def test_outcomes_become_verdicts_in_words(outcome, verdict, words):
    result = judge(EXERCISE, outcome)
    assert result.verdict == verdict
    assert words in f"{result.message} {result.hint} {result.next_step}"
    assert result.earned == (2 if verdict == "right" else 0)


def test_a_request_is_one_cell_that_carries_any_text():
    order = {"name": "first", "answer": 'x = \\\'\\\\n\\\'  # 你好\n"""', "checks": [["a", "b"]]}
    code = plugin.code_of("conduct", **order)
    call = code.splitlines()[-1]
    assert call.startswith("xlmr_course.classroom.inside.conduct(")
    assert json.loads(eval(call.split("conduct", 1)[1])) == order


def test_definitions_and_bound_names_of_a_cell():
    code = "import a.b as c\nx = 1\n@wraps\ndef f(): y = 2\nclass G: z = 3\nfor i in x: pass\nprint(f())\n%time 1"
    assert inside.definitions(code) == ["import a.b as c", "@wraps\ndef f():\n    y = 2", "class G:\n    z = 3"]
    assert inside.bound(code) == {"c", "x", "f", "G", "i"}
    assert inside.definitions("def f(:") == []


def test_a_library_s_own_wrapping_is_no_tampering():
    assert not stage._from_a_cell(json.dumps)
    assert stage._from_a_cell(eval("lambda: None"))
    assert stage._from_a_cell(len)
    assert stage._from_a_cell(None)
    decoder = json.JSONDecoder()
    assert decoder.decode is not decoder.decode
    assert stage._same(decoder.decode, decoder.decode)
    assert stage._same((decoder.decode, len), (decoder.decode, len))
    assert not stage._same(decoder.decode, json.JSONDecoder().decode)
    assert not stage._same((len,), (len, len))


def test_what_no_parser_and_no_terminal_takes_does_no_harm():
    for code in ("(" * 50_000, "def f(:", "x = '\0'", "\ud800 = 1", "!!!", "%%time", ""):
        assert inside.bound(code) == set()
        assert inside.definitions(code) == []
    assert inside.attempt("raise ValueError('\\ud800')", "cell", {})["text"] == "?"
    assert inside.attempt("(" * 50_000, "cell", {})["kind"] == "failed"


def test_a_real_chapter_gives_a_mistake_its_hint_and_nothing_else_is_lost(tmp_path):
    [chapter] = find(["04"])
    if not chapter.solution.is_file():
        pytest.skip("the chapter is not built")
    exercises = proof.exercises(chapter)
    spoiled = exercises[1]
    code, hint = spoiled.mistakes[0]
    notebook = released_notebook(chapter)
    for exercise in exercises:
        answer = code if exercise is spoiled else build.without_markers(exercise.answer)
        cell(notebook, f"{exercise.name}-answer").source = answer
    path = save(notebook, tmp_path / "04_attention.ipynb")
    marking = mark(path, chapter, hidden=True)
    results = {result.name: result for result in marking.results if not result.manual}
    assert results[spoiled.name].verdict == "wrong"
    assert hint in f"{spoiled.name}: {results[spoiled.name].hint}"
    assert [r.verdict for r in results.values()].count("right") == len(exercises) - 1
    assert marking.remarks == []
    blank = mark(save(released_notebook(chapter), path), chapter)
    assert {result.verdict for result in blank.results} == {"not written yet"}
