"""The grader's own work, with a stand-in for the marking: who is run, what is kept, what a kill leaves."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from xlmr_course.classroom import grading
from xlmr_course.classroom.chapters import Chapter, CourseError, find
from xlmr_course.classroom.gradebook import page_name
from xlmr_course.classroom.grading import Record, Settings
from xlmr_course.classroom.guard import Limits

# Marks a file such as {"verdicts": ["right", "wrong"], "sleep": 0.1, "do": "raise SystemExit(3)"}.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
notebook, fd, solution = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["--solution"]
seen = Path(SEEN).open("a").write(notebook.read_text() + "\\n") if not solution else 0
work = json.loads(notebook.read_text()) if not solution else {"verdicts": json.loads(notebook.read_text())["solution"]}
time.sleep(work.get("sleep", 0))
exec(work.get("do", ""))
results = [{"name": f"part-{n}", "points": n, "verdict": v, "message": "", "hint": "", "expected": "", "yours": "",
            "next_step": "", "manual": v == "look"} for n, v in enumerate(work["verdicts"], start=1)]
os.write(fd, json.dumps({"chapter": "01_one", "results": results, "remarks": []}).encode())
"""
SETTINGS = Settings(limits=Limits(seconds=20, memory_gb=1), namespace=False)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A chapter, and a marking that takes its verdicts from the file."""
    chapter = Chapter("01_one", tmp_path / "course")
    for path, text in (
        (chapter.source, "# %% [markdown]\n# # 01 · One\n"),
        (chapter.solution, json.dumps({"solution": ["right", "right"]})),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script = tmp_path / "stand_in.py"
    script.write_text(f"SEEN = {str(tmp_path / 'seen')!r}\n{STAND_IN}")

    def command(chapter, notebook, settings, *more):
        return [sys.executable, str(script), str(notebook), "{fd}", *more]

    monkeypatch.setattr(grading, "marking_command", command)
    return chapter


@pytest.fixture
def hand_in(tmp_path):
    def write(**students):
        for name, (*verdicts, more) in students.items():
            file = tmp_path / "in" / f"{name}.ipynb"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"student": name, "verdicts": verdicts, **more}))
        return tmp_path / "in"

    return write


def read(out):
    return {row["student"]: row for row in csv.DictReader(out.read_text("utf-8-sig").splitlines())}


def runs(tmp_path):
    """Who was run, in order."""
    file = tmp_path / "seen"
    return [json.loads(line)["student"] for line in file.read_text().splitlines()] if file.is_file() else []


def without_minutes(out):
    return [{key: value for key, value in row.items() if key != "minutes"} for row in read(out).values()]


CLASS = {
    "anna": ("right", "right", {}),
    "bo": ("right", "wrong", {}),
    "cem": ("right", "right", {"do": "raise SystemExit(3)"}),
    "dora": ("right", "right", {"do": "os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)"}),
    "eve": ("right", "right", {}),
}


def test_a_class_is_graded_and_one_s_end_is_not_another_s(course, hand_in, tmp_path):
    book = grading.grade(hand_in(**CLASS), course, tmp_path / "grades.csv", SETTINGS)
    table = read(tmp_path / "grades.csv")
    assert {name: row["points"] for name, row in table.items()} == {
        **{"anna": "3", "bo": "1", "cem": "0", "dora": "0", "eve": "3"}
    }
    assert table["cem"]["look"] == "ended its marking with exit code 3 and without a result"
    assert table["dora"]["look"] == "lost the process that watched over it (killed: SIGKILL)"
    assert (tmp_path / "grades.csv").read_bytes().startswith(b"\xef\xbb\xbf"), "Excel needs the mark"
    assert len(list((tmp_path / "grades").glob("*.html"))) == 6
    assert (tmp_path / "grades" / "junit.xml").is_file()
    assert book.points == 3


def test_nobody_is_graded_when_the_solution_has_less_than_full_marks(course, hand_in, tmp_path):
    course.solution.write_text(json.dumps({"solution": ["right", "wrong"]}))
    with pytest.raises(CourseError, match=r"nothing was graded: .* gets 1 of 3 points \(part-2: wrong\)"):
        grading.grade(hand_in(**CLASS), course, tmp_path / "grades.csv", SETTINGS)
    assert not runs(tmp_path)
    assert not (tmp_path / "grades.csv").exists()


def test_an_open_question_in_the_solution_is_no_missing_point(course, hand_in, tmp_path):
    course.solution.write_text(json.dumps({"solution": ["right", "look"]}))
    book = grading.grade(hand_in(anna=("right", "look", {})), course, tmp_path / "grades.csv", SETTINGS)
    assert read(tmp_path / "grades.csv")["anna"]["look"] == "to be marked by hand: part-2"
    assert book.points == 3


def test_a_second_run_grades_only_what_is_new_or_changed(course, hand_in, tmp_path):
    out = tmp_path / "grades.csv"
    grading.grade(hand_in(**CLASS), course, out, SETTINGS)
    assert sorted(runs(tmp_path)) == sorted(CLASS)
    (tmp_path / "seen").unlink()
    grading.grade(hand_in(bo=("right", "right", {}), fred=("wrong", "right", {})), course, out, SETTINGS)
    assert sorted(runs(tmp_path)) == ["bo", "fred"]
    assert {name: row["points"] for name, row in read(out).items()} == {
        **{"anna": "3", "bo": "3", "cem": "0", "dora": "0", "eve": "3", "fred": "2"}
    }


def test_rows_of_an_earlier_folder_stay(course, hand_in, tmp_path):
    out = tmp_path / "grades.csv"
    grading.grade(hand_in(anna=CLASS["anna"]), course, out, SETTINGS)
    (tmp_path / "in" / "anna.ipynb").unlink()
    grading.grade(hand_in(bo=CLASS["bo"]), course, out, SETTINGS)
    assert list(read(out)) == ["anna", "bo"]


def test_a_changed_chapter_is_graded_again(course, hand_in, tmp_path):
    grading.grade(hand_in(anna=CLASS["anna"]), course, tmp_path / "grades.csv", SETTINGS)
    course.source.write_text(course.source.read_text() + "# more\n")
    grading.grade(tmp_path / "in", course, tmp_path / "grades.csv", SETTINGS)
    assert runs(tmp_path) == ["anna", "anna"]


def test_other_limits_run_again_only_what_was_stopped(course, hand_in, tmp_path):
    grading.grade(hand_in(**CLASS), course, tmp_path / "grades.csv", SETTINGS)
    (tmp_path / "seen").unlink()
    longer = Settings(limits=Limits(seconds=25, memory_gb=1), namespace=False)
    grading.grade(tmp_path / "in", course, tmp_path / "grades.csv", longer)
    assert sorted(runs(tmp_path)) == ["cem", "dora"]


def test_submissions_are_never_written(course, hand_in, tmp_path):
    folder = hand_in(**CLASS, eva=("right", "right", {"do": "notebook.write_text('gone')"}))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    grading.grade(folder, course, tmp_path / "grades.csv", SETTINGS)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before


def test_a_file_that_changes_while_the_class_is_graded_is_not_taken(course, hand_in, tmp_path):
    hand_in(zoe=("wrong", "wrong", {}))
    forged = json.dumps({"student": "zoe", "verdicts": ["right", "right"]})
    attack = f"Path({str(tmp_path / 'in' / 'zoe.ipynb')!r}).write_text({forged!r})"
    grading.grade(
        hand_in(anna=("right", "right", {"do": attack})),
        course,
        tmp_path / "grades.csv",
        Settings(limits=SETTINGS.limits, namespace=False, jobs=1),
    )
    zoe = read(tmp_path / "grades.csv")["zoe"]
    assert (zoe["points"], zoe["look"]) == ("0", "changed while the class was being graded; grade again")


def test_a_table_that_somebody_edited_is_kept(course, hand_in, tmp_path):
    out = tmp_path / "grades.csv"
    grading.grade(hand_in(anna=CLASS["anna"]), course, out, SETTINGS)
    edited = out.read_text("utf-8-sig").replace("right", "right (by hand)")
    out.write_text(edited)
    book = grading.grade(hand_in(bo=CLASS["bo"]), course, out, SETTINGS)
    assert (tmp_path / "grades (edited 1).csv").read_text() == edited
    assert "was edited" in book.notes[0]
    assert list(read(out)) == ["anna", "bo"]
    assert not grading.grade(tmp_path / "in", course, out, SETTINGS).notes


GRADE = """
import sys
from pathlib import Path
from xlmr_course.classroom import grading
from xlmr_course.classroom.chapters import Chapter
from xlmr_course.classroom.guard import Limits
folder, root = Path(sys.argv[1]), Path(sys.argv[2])
grading.marking_command = lambda chapter, notebook, settings, *more: [
    sys.executable, str(root.parent / "stand_in.py"), str(notebook), "{fd}", *more]
grading.grade(folder, Chapter("01_one", root), root.parent / "grades.csv",
              grading.Settings(limits=Limits(seconds=20, memory_gb=1), namespace=False))
"""


def start_grader(course, tmp_path):
    return subprocess.Popen([sys.executable, "-c", GRADE, str(tmp_path / "in"), str(course.root)])


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_killed_in_the_middle_and_run_again_gives_the_undisturbed_table(course, hand_in, tmp_path, how):
    students = {f"s{n}": ("right", "wrong" if n % 3 else "right", {"sleep": 0.4}) for n in range(6)}
    folder = hand_in(**students, hang=("right", "right", {"sleep": 3}))
    grading.grade(folder, course, tmp_path / "undisturbed.csv", SETTINGS)
    (tmp_path / "seen").unlink()
    grader = start_grader(course, tmp_path)
    record = tmp_path / "grades" / "record.jsonl"
    deadline = time.monotonic() + 60
    while not (record.is_file() and record.read_text().count('"graded"') >= 2):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    grader.send_signal(how)
    grader.wait(30)
    done = [json.loads(line)["student"] for line in record.read_text().splitlines() if '"graded"' in line]
    assert 2 <= len(done) < 7
    with record.open("ab") as file:
        file.write(b'{"event": "graded", "student": "s5", "dig')  # what a power cut leaves
    (tmp_path / "seen").unlink()
    assert start_grader(course, tmp_path).wait(60) == 0
    assert not set(runs(tmp_path)) & set(done), "nobody is run twice"
    assert without_minutes(tmp_path / "grades.csv") == without_minutes(tmp_path / "undisturbed.csv")


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_what_kills_the_grader_twice_is_left_to_a_person_and_harms_nobody_else(course, hand_in, tmp_path):
    killer = "os.kill(int(open(f'/proc/{os.getppid()}/stat').read().split()[3]), signal.SIGKILL); time.sleep(9)"
    hand_in(**{f"s{n}": ("right", "right", {}) for n in range(3)}, killer=("right", "right", {"do": killer}))
    codes = [start_grader(course, tmp_path).wait(60) for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    table = read(tmp_path / "grades.csv")
    assert table["killer"]["look"] == "was running 2 times when the grader was killed; open it with care"
    assert [table[f"s{n}"]["points"] for n in range(3)] == ["3", "3", "3"]


def test_the_record_mends_a_cut_line_and_forgets_nothing(tmp_path):
    path = tmp_path / "record.jsonl"
    record = Record(path, "edition", [1.0])
    record.add("begun", "anna", "d")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "gra')
    record = Record(path, "edition", [1.0])
    assert path.read_bytes() == whole
    assert record.unfinished("anna", "d") == 1
    record.add("stopped", "anna", "d")
    assert Record(path, "edition", [1.0]).unfinished("anna", "d") == 0


@pytest.mark.slow
def test_the_real_solution_of_chapter_04_gets_full_marks(tmp_path):
    [chapter] = find(["04"])
    (tmp_path / "in").mkdir()
    shutil.copy(chapter.solution, tmp_path / "in" / "anna.ipynb")
    shutil.copy(chapter.student, tmp_path / "in" / "blank.ipynb")
    book = grading.grade(tmp_path / "in", chapter, tmp_path / "grades.csv", Settings())
    anna, empty = book.grades
    assert [result.verdict for result in anna.results] == ["right"] * 5 + ["look"]
    assert anna.earned == sum(item.points for item in book.items[:-1])
    assert anna.look == ["to be marked by hand: trust-a-head"]
    assert {result.verdict for result in empty.results} == {"not written yet"}
    page = (tmp_path / "grades" / page_name("anna")).read_text(encoding="utf-8")
    assert "names a test" in page, "the rubric"
    assert "switch the head off and measure" in page, "beside the answer"
