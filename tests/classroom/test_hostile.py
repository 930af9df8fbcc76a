"""The hostile notebooks, graded in one class together with honest ones: each verdict, and nobody else's row changes."""

import os
import re
import sys

import hostile
import psutil
import pytest

from xlmr_course.classroom import build, confine, grading
from xlmr_course.classroom.chapters import Chapter
from xlmr_course.classroom.grading import Settings
from xlmr_course.classroom.guard import Limits

LIMITS = Limits(seconds=90, memory_gb=0.6, disk_gb=0.3, processes=32)
SETTINGS = Settings(cell_timeout=5, limits=LIMITS, namespace=False)
# What only the limit of the whole notebook ends is graded with a shorter one.
IMPATIENT = Settings(cell_timeout=3, limits=Limits(seconds=15, memory_gb=0.6), namespace=False)
HONEST = ("000-honest", "mmm-honest", "zzz-honest")
POSSIBLE = [entry for entry in hostile.HOSTILE if os.name == "posix" or not entry.posix]
pytestmark = pytest.mark.slow


def make_chapter(root, source):
    chapter = Chapter("01_sums", root)
    chapter.source.parent.mkdir(parents=True)
    chapter.source.write_text(source, encoding="utf-8")
    (chapter.root / "pyproject.toml").write_text('[tool.xlmr_course]\nrepository = ""\n')
    build.build(chapter)
    return chapter


@pytest.fixture(scope="session")
def chapter(tmp_path_factory):
    return make_chapter(tmp_path_factory.mktemp("course"), hostile.SOURCE)


def is_slow(entry):
    return "was not done after" in entry.reason


@pytest.fixture(scope="session")
def graded(chapter, tmp_path_factory):
    """Student → grade, of the whole class; and the submissions before and after."""
    folder, results = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("results")
    honest = hostile.honest_notebook(chapter.student)
    grades = {}
    for part, settings in (("patient", SETTINGS), ("impatient", IMPATIENT)):
        submissions = folder / part
        submissions.mkdir()
        for entry in POSSIBLE:
            if is_slow(entry) == (part == "impatient"):
                entry.write(honest, submissions)
        if part == "patient":
            for name in HONEST:
                hostile.Hostile(name, "", lambda notebook: None).write(honest, submissions)
        before = {file: file.read_bytes() for file in submissions.iterdir()}
        book = grading.grade(submissions, chapter, results / f"{part}.csv", settings)
        assert {file: file.read_bytes() for file in submissions.iterdir()} == before, "submissions are only read"
        grades |= {grade.student: grade for grade in book.grades}
    return grades


def verdicts(grade):
    return tuple(result.verdict for result in grade.results)


@pytest.mark.parametrize("entry", POSSIBLE, ids=lambda entry: entry.name)
def test_each_hostile_notebook_gets_its_verdict(entry, graded):
    grade = graded[entry.name]
    if grade.reason:
        assert entry.reason, f"{grade.reason}\n{grade.log}"
        assert re.search(entry.reason, grade.reason)
        assert grade.earned == 0
        assert grade.look
    else:
        assert verdicts(grade) == entry.verdicts, grade.marking
    if entry.remark and not grade.reason:
        assert re.search(entry.remark, "; ".join([*grade.remarks, *grade.marking.remarks]))
    assert grade.seconds < LIMITS.seconds


@pytest.mark.parametrize("name", HONEST)
def test_nobody_else_s_row_changes(name, graded):
    assert (graded[name].reason, graded[name].earned, graded[name].look) == ("", 6, [])
    assert not graded[name].marking.remarks


def test_nothing_stays_behind(graded):
    left = []
    for process in psutil.process_iter():
        try:
            if process.cmdline()[1:] in (["74174"], ["75175"]):
                left.append(process.cmdline())
        except psutil.Error:
            continue
    assert not left


def test_there_are_enough_and_each_is_described():
    assert len(hostile.HOSTILE) >= 35
    assert len({entry.name for entry in hostile.HOSTILE}) == len(hostile.HOSTILE)
    assert all(entry.what for entry in hostile.HOSTILE)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_in_a_namespace_the_runner_can_not_be_killed(chapter, tmp_path):
    if not confine.has_namespaces():
        pytest.skip("this system gives a user no namespaces")
    honest = hostile.honest_notebook(chapter.student)
    (tmp_path / "in").mkdir()
    for entry in hostile.HOSTILE:
        if entry.name in ("kills-the-runner", "kills-all-runners", "stray-daemon"):
            entry.write(honest, tmp_path / "in")
    settings = Settings(cell_timeout=10, limits=LIMITS, namespace=True)
    book = grading.grade(tmp_path / "in", chapter, tmp_path / "grades.csv", settings)
    assert [verdicts(grade) for grade in book.grades] == [("right",) * 3] * 3


def test_a_patched_torch_allclose_passes_nothing(tmp_path):
    chapter = make_chapter(tmp_path / "course", hostile.TORCH_SOURCE)
    (tmp_path / "in").mkdir()
    for entry in (hostile.TORCH_ALLCLOSE, hostile.Hostile("honest", "all right", lambda notebook: None)):
        entry.write(hostile.honest_notebook(chapter.student), tmp_path / "in")
    book = grading.grade(tmp_path / "in", chapter, tmp_path / "grades.csv", Settings(namespace=False))
    honest, patched = book.grades
    assert verdicts(honest) == hostile.ALL
    assert verdicts(patched) == hostile.TORCH_ALLCLOSE.verdicts
    assert re.search("torch.*allclose", "; ".join(patched.marking.remarks))


def test_no_entry_takes_the_machine_down(graded):
    """The hostile class as a whole stays within its memory limit, with what passes between two looks."""
    assert max(grade.memory for grade in graded.values()) < 3e9
