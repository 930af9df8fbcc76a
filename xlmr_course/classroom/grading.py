"""Grade a whole class: one guarded process for each student, and a record that survives being killed.

    grades.csv             the table; written anew after each student, whole or not at all
    grades/record.jsonl    one line for each student, on disk before the next begins; what a second run goes on from
    grades/index.html      the class; beside it a page for each student, and junit.xml

Started again, students whose file and chapter are unchanged are not run again. One that ended abnormally, or that ran
into the cell timeout, is run again if the limits are others than then. A table that somebody has edited is kept beside
the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from xlmr_course.classroom import confine
from xlmr_course.classroom.chapters import Chapter, CourseError
from xlmr_course.classroom.gradebook import Grade, Gradebook, Item, write_pages
from xlmr_course.classroom.guard import Ended, Limits
from xlmr_course.classroom.marking import CANNOT_MARK, Marking
from xlmr_course.classroom.submissions import Submission, collect
from xlmr_course.classroom.submissions import digest as file_digest

SURE = 2  # runs of the grader that a notebook may end before it is no longer tried


@dataclass(frozen=True)
class Settings:
    """How to grade. `cell_timeout` in seconds; `namespace` as in `confine.run`."""

    cell_timeout: float = 60
    limits: Limits = field(default_factory=Limits)
    jobs: int = 2
    namespace: bool | None = None

    @property
    def patience(self) -> list[float]:
        """What decides whether a notebook that was stopped might get further now."""
        return [self.cell_timeout, self.limits.seconds, self.limits.memory_gb, self.limits.disk_gb]


def grade(
    source: Path,
    chapter: Chapter,
    out: Path,
    settings: Settings | None = None,
    *,
    on_grade: Callable[[Grade, int, int], None] | None = None,
) -> Gradebook:
    """Grade the notebooks in a folder or zip; `out` is the CSV.

    Args:
        on_grade: is given each grade, how many are done, and how many there are.

    Raises:
        CourseError: no notebooks, or the model solution does not get full marks here; then nothing is graded.
    """
    settings = settings or Settings()
    with tempfile.TemporaryDirectory(prefix="xlmr-grading-", ignore_cleanup_errors=True) as temporary:
        rooms = Path(temporary)
        submissions = collect(source, chapter.name, rooms / "unpacked")
        book = Gradebook(chapter.name, chapter.title, grade_solution(chapter, rooms, settings))
        pages = out.with_suffix("")
        pages.mkdir(parents=True, exist_ok=True)
        record = Record(pages / "record.jsonl", _edition(chapter), settings.patience)
        for old in record.grades.values():
            book.put(old)
        if kept := keep_edited_table(out, record):
            book.notes.append(f"{out.name} was edited since it was written; that table is now {kept.name}")
        base = rooms / "unpacked" if source.is_file() else source
        todo = []
        for submission in submissions:
            digest = submission.digest
            if record.is_done(submission.student, digest):
                continue
            todo.append((submission, digest, _place(submission, base)))
        try:
            with contextlib.closing(_grade_all(todo, chapter, rooms, settings, record)) as grades:
                for done, finished in enumerate(grades, start=1):
                    book.put(finished)
                    record.add("graded", finished.student, finished.digest, grade=json.loads(finished.to_json()))
                    write_table(book, out, record)
                    if on_grade:
                        on_grade(finished, done, len(todo))
        finally:
            write_table(book, out, record)
            write_pages(book, pages)
    return book


def grade_solution(chapter: Chapter, rooms: Path, settings: Settings) -> list[Item]:
    """The chapter's exercises, from grading its model solution.

    Raises:
        CourseError: it does not get full marks; then the machine or the chapter is at fault, and nobody is graded.
    """
    if not chapter.solution.is_file():
        raise CourseError(f"chapter {chapter.name} has no solution notebook yet; run make notebooks")
    with tempfile.TemporaryDirectory(dir=rooms, ignore_cleanup_errors=True) as room:
        command = marking_command(chapter, chapter.solution, settings, "--solution")
        ended = confine.run(command, Path(room), settings.limits, threads=_threads(settings))
    marking, reason = _read(ended)
    if marking is None:
        said = f"\n{ended.log.strip()[-1000:]}" if ended.log.strip() else ""
        raise CourseError(f"nothing was graded: the model solution of {chapter.name} {reason}{said}")
    missed = [f"{r.name}: {r.message or r.verdict}" for r in marking.results if r.verdict != "right" and not r.manual]
    if missed or not marking.results:
        raise CourseError(
            f"nothing was graded: on this machine the model solution of {chapter.name} gets {marking.earned} of "
            f"{marking.points} points ({'; '.join(missed) or 'no exercises'}); xlmr-course doctor may say why"
        )
    return [Item(result.name, result.points, result.manual) for result in marking.results]


def marking_command(chapter: Chapter, notebook: Path, settings: Settings, *more: str) -> list[str]:
    """What marks one notebook; `{fd}` is where it reports."""
    return [
        *(sys.executable, "-m", "xlmr_course.classroom.marking", str(notebook), "--chapter", chapter.name),
        *("--root", str(chapter.root), "--hidden", "--cell-timeout", f"{settings.cell_timeout:g}", "--fd", "{fd}"),
        *more,
    ]


# --- the record -----------------------------------------------------------------------------------------------------


class Record:
    """`record.jsonl`: what has happened, one event a line; a last line that was cut off is taken out.

    Events: `begun`, `graded` (with the grade), `stopped` (the teacher interrupted), `table` (with the CSV's hash).
    """

    def __init__(self, path: Path, edition: str, patience: list[float]):
        self.path, self.edition, self.patience = path, edition, patience
        self.grades: dict[str, Grade] = {}
        self.tables: set[str] = set()
        self._settings: dict[str, tuple[str, list[float]]] = {}
        self._open: Counter[tuple[str, str]] = Counter()
        whole = path.read_bytes() if path.is_file() else b""
        if (end := whole.rfind(b"\n") + 1) < len(whole):
            os.truncate(path, end)
        for line in whole[:end].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._take(json.loads(line))

    def add(self, event: str, student: str, digest: str, **more: object) -> None:
        """Append an event; it is on disk when this returns."""
        entry = {"event": event, "student": student, "digest": digest, "edition": self.edition}
        entry |= {"patience": self.patience, **more}
        with self.path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(entry)

    def is_done(self, student: str, digest: str) -> bool:
        """Whether this very file was graded, by the chapter as it is, and more patience could change nothing."""
        old = self.grades.get(student)
        if old is None or old.digest != digest:
            return False
        edition, patience = self._settings[student]
        stopped = old.reason or any(result.verdict == "timeout" for result in old.results)
        return edition == self.edition and (not stopped or patience == self.patience)

    def unfinished(self, student: str, digest: str) -> int:
        """How often the grader was killed while it ran this file."""
        return self._open[student, digest]

    def _take(self, entry: dict) -> None:
        key = entry["student"], entry["digest"]
        match entry["event"]:
            case "begun":
                self._open[key] += 1
            case "graded":
                self.grades[entry["student"]] = Grade.from_json(dict(entry["grade"]))
                self._settings[entry["student"]] = entry["edition"], entry["patience"]
                self._open[key] = 0
            case "stopped":
                self._open[key] = max(0, self._open[key] - 1)
            case "table":
                self.tables.add(entry["digest"])


def write_table(book: Gradebook, out: Path, record: Record) -> None:
    """Replace the CSV, whole; with a byte order mark, without which Excel takes UTF-8 for something else."""
    content = book.table().encode("utf-8-sig", "replace")
    record.add("table", "", hashlib.sha256(content).hexdigest())
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.chmod(file.name, 0o644)
        os.replace(file.name, out)
    except PermissionError:  # open in Excel on Windows: keep what there is, the record has it all
        os.replace(file.name, out.with_name(f"{out.stem} (new){out.suffix}"))


def keep_edited_table(out: Path, record: Record) -> Path | None:
    """Keep a copy of a table that is not as the grader left it: somebody's work may be in it."""
    if not out.is_file() or hashlib.sha256(out.read_bytes()).hexdigest() in record.tables:
        return None
    number = 1
    while (kept := out.with_name(f"{out.stem} (edited {number}){out.suffix}")).exists():
        number += 1
    shutil.copy2(out, kept)
    return kept


# --- running --------------------------------------------------------------------------------------------------------


def _grade_all(
    todo: Sequence[tuple[Submission, str, str]], chapter: Chapter, rooms: Path, settings: Settings, record: Record
) -> Iterator[Grade]:
    """Grades as they come. What once brought the grader down is run last, and alone."""
    first, last = [], []
    for job in todo:
        (last if record.unfinished(job[0].student, job[1]) else first).append(job)
    yield from _side_by_side(first, settings.jobs, chapter, rooms, settings, record)
    yield from _side_by_side(last, 1, chapter, rooms, settings, record)


def _side_by_side(
    todo: Sequence[tuple[Submission, str, str]],
    jobs: int,
    chapter: Chapter,
    rooms: Path,
    settings: Settings,
    record: Record,
) -> Iterator[Grade]:
    waiting = list(reversed(todo))
    running: dict[Future[Grade], tuple[str, str]] = {}
    guards: list[subprocess.Popen] = []
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    submission, digest, place = waiting.pop()
                    if record.unfinished(submission.student, digest) >= SURE:
                        reason = f"was running {SURE} times when the grader was killed; open it with care"
                        yield Grade(submission.student, place, digest, reason=reason)
                        continue
                    record.add("begun", submission.student, digest)
                    future = pool.submit(_grade_one, submission, digest, place, chapter, rooms, settings, guards.append)
                    running[future] = submission.student, digest
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    yield future.result()
        except BaseException:
            for guard in guards:  # they end their students' processes and then themselves
                with contextlib.suppress(OSError, ValueError):
                    guard.stdin.close()
            for student, digest in running.values():
                record.add("stopped", student, digest)
            raise


def _grade_one(
    submission: Submission,
    digest: str,
    place: str,
    chapter: Chapter,
    rooms: Path,
    settings: Settings,
    on_start: Callable[[subprocess.Popen], None],
) -> Grade:
    row = Grade(submission.student, place, digest, remarks=list(submission.remarks), unsure=submission.look)
    if submission.file is None:
        row.reason = submission.remarks[-1]
        row.remarks.pop()
        return row
    start = time.monotonic()
    room = Path(tempfile.mkdtemp(dir=rooms))
    try:
        notebook = room / "work" / f"{chapter.name}.ipynb"
        notebook.parent.mkdir()
        shutil.copyfile(submission.file, notebook)
        if file_digest(notebook) != digest:
            row.reason = "changed while the class was being graded; grade again"
            return row
        ended = confine.run(
            marking_command(chapter, notebook, settings),
            room,
            settings.limits,
            threads=_threads(settings),
            namespace=settings.namespace,
            on_start=on_start,
        )
    except OSError as error:
        row.reason = f"could not be read: {error.strerror or error}"
        return row
    finally:
        _remove(room)
    row.marking, row.reason = _read(ended)
    row.memory, row.seconds = ended.memory, round(time.monotonic() - start, 1)
    if row.reason:
        row.log = ended.log
    elif ended.strays:
        what = "a process" if ended.strays == 1 else f"{ended.strays} processes"
        row.remarks.append(f"left {what} running, which the grader ended")
    return row


def _read(ended: Ended) -> tuple[Marking | None, str]:
    """The marking, or why there is none."""
    if ended.code == CANNOT_MARK:
        return None, f"could not be marked: {ended.log.strip().splitlines()[-1]}"
    if ended.reason:
        return None, ended.reason
    try:
        return Marking.from_json(ended.result), ""
    except ValueError:
        return None, "ended without a result"


def _edition(chapter: Chapter) -> str:
    """The chapter's exercises and checks, as a hash: when they change, everybody is graded again."""
    return hashlib.sha256(chapter.source.read_bytes()).hexdigest()


def _place(submission: Submission, base: Path) -> str:
    if submission.file is None:
        return ""
    try:
        return submission.file.relative_to(base).as_posix()
    except ValueError:
        return submission.file.name


def _threads(settings: Settings) -> int:
    return max(1, (os.cpu_count() or 1) // settings.jobs)


def _remove(folder: Path) -> None:
    """Remove a folder, also one whose permissions a notebook has taken away."""

    def allow(function: Callable, path: str, error: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(Path(path).parent, 0o700)
            os.chmod(path, 0o700)
            function(path)

    shutil.rmtree(folder, onerror=allow)
