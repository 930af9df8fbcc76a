"""What a teacher gets: a table (CSV), JUnit XML, a page for each student and one for the class.

All of it shows text that students wrote: names of files, values, error messages. So cells that a spreadsheet would take
for a formula are quoted, characters that XML forbids are taken out, pages are escaped by Jinja, and their content
security policy lets no script run and nothing load.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader

from xlmr_course.classroom.marking import ExerciseResult, Marking

SIGNS = {
    "right": "✓",
    "wrong": "✗",
    "not written yet": "○",
    "waits for another": "…",
    "error": "!",
    "timeout": "⧖",
    "look": "?",
}
FORMULA = re.compile(r"^[=+\-@\t\r\n＝＋－＠]")
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0
LONGEST = 32_000  # characters that a spreadsheet takes in one cell


@dataclass(frozen=True)
class Item:
    """One exercise of the chapter, as the model solution gave it. An open question is marked by hand."""

    name: str
    points: int
    open: bool = False


@dataclass
class Grade:
    """One student's row. `reason` says how the run ended if not by itself: then nothing counts as right.

    `memory` is in bytes; `digest` is the SHA-256 of the file; `log` the end of what the run printed.
    """

    student: str
    file: str
    digest: str
    marking: Marking | None = None
    reason: str = ""
    remarks: list[str] = field(default_factory=list)
    unsure: bool = False
    seconds: float = 0.0
    memory: int = 0
    log: str = ""

    @property
    def earned(self) -> int:
        return 0 if self.reason or self.marking is None else self.marking.earned

    @property
    def odd(self) -> list[str]:
        """Why a person must look at this row, open questions apart."""
        if self.reason:
            return [self.reason]
        unclear = [f"{r.name}: {r.message}" for r in self.results if r.verdict == "look" and not r.manual]
        return unclear + self.remarks * self.unsure

    @property
    def look(self) -> list[str]:
        """Why a person must look at this row; empty if nobody must."""
        open_ones = [result.name for result in self.results if result.verdict == "look" and result.manual]
        return self.odd + [f"to be marked by hand: {', '.join(open_ones)}"] * bool(open_ones)

    @property
    def results(self) -> list[ExerciseResult]:
        return [] if self.reason or self.marking is None else self.marking.results

    def result(self, item: Item) -> ExerciseResult:
        """The result of one exercise; `look` where the run gave none."""
        found = next((result for result in self.results if result.name == item.name), None)
        return found or ExerciseResult(item.name, item.points, "look", self.reason or "the run gave no result for this")

    def line(self) -> str:
        """`anna-ito  9 of 11  look: …` for a terminal, which control characters in a name must not reach."""
        points = f"{self.earned} of {self.marking.points}" if self.marking else "no points"
        return " ".join(plain(f"{self.student}  {points}  {'look: ' * bool(self.odd)}{'; '.join(self.odd)}").split())

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, stored: dict) -> Grade:
        marking = stored.pop("marking")
        return cls(**stored, marking=Marking.from_json(json.dumps(marking)) if marking else None)


@dataclass
class Gradebook:
    """All rows of one chapter."""

    chapter: str
    title: str
    items: list[Item]
    grades: list[Grade] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the teacher should know about this run

    @property
    def points(self) -> int:
        return sum(item.points for item in self.items)

    def summary(self) -> str:
        """How many there are, and how many a person must look at."""
        odd = sum(bool(grade.odd) for grade in self.grades)
        questions = ", ".join(item.name for item in self.items if item.open)
        by_hand = f" Open questions to mark by hand: {questions}." if questions else ""
        return f"{len(self.grades)} students, {odd} to look at.{by_hand}"

    def put(self, grade: Grade) -> None:
        """Add a row, in place of the student's earlier one; rows are sorted by name."""
        self.grades = [other for other in self.grades if other.student != grade.student] + [grade]
        self.grades.sort(key=lambda row: (row.student.casefold(), row.student))

    def table(self) -> str:
        """The CSV: points and verdict of each exercise; an exercise that must be looked at has no points yet."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\r\n")
        head = ["student", "file", "points", "of", "look"]
        for item in self.items:
            head += [f"{item.name} ({item.points})", f"{item.name}: verdict"]
        writer.writerow([cell(entry) for entry in (*head, "remarks", "minutes", "sha256")])
        for grade in self.grades:
            row: list[object] = [grade.student, grade.file, grade.earned, self.points, "; ".join(grade.look)]
            for item in self.items:
                result = grade.result(item)
                row += ["" if result.verdict == "look" and not grade.reason else result.earned, result.verdict]
            remarks = [*grade.remarks, *(grade.marking.remarks if grade.marking else [])]
            row += ["; ".join(remarks), f"{grade.seconds / 60:.2f}", grade.digest]
            writer.writerow([cell(entry) for entry in row])
        return lines.getvalue()

    def junit(self) -> str:
        """JUnit XML: a suite for each student, a case for each exercise."""
        root = ElementTree.Element("testsuites", name=plain(f"{self.chapter}"))
        for grade in self.grades:
            results = [grade.result(item) for item in self.items]
            count = Counter(_JUNIT.get(result.verdict, "skipped") for result in results)
            suite = ElementTree.SubElement(
                root,
                "testsuite",
                name=plain(grade.student),
                tests=str(len(results)),
                failures=str(count["failure"]),
                errors=str(count["error"]),
                skipped=str(count["skipped"]),
                time=f"{grade.seconds:.1f}",
            )
            for result in results:
                case = ElementTree.SubElement(
                    suite, "testcase", classname=plain(f"{self.chapter}.{grade.student}"), name=plain(result.name)
                )
                if (kind := _JUNIT.get(result.verdict, "skipped")) != "right":
                    said = ElementTree.SubElement(case, kind, message=plain(f"{result.verdict}: {result.message}"))
                    said.text = plain("\n".join(part for part in (result.hint, result.next_step) if part))
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def difficulty(self) -> list[tuple[Item, Counter]]:
        """Each exercise with the count of its verdicts, the hardest first; rows without a result do not count."""
        items = [item for item in self.items if not item.open]
        counted = [(item, Counter(g.result(item).verdict for g in self.grades if g.results)) for item in items]
        return sorted(counted, key=lambda entry: entry[1]["right"] / (sum(entry[1].values()) or 1))

    def by_hand(self) -> list[tuple[Item, str, list[tuple[Grade, str]]]]:
        """Each open question with its rubric and what the students wrote."""
        found = []
        for item in self.items:
            results = ((grade, grade.result(item)) for grade in self.grades)
            answers = [(grade, result) for grade, result in results if result.verdict == "look" and result.yours]
            if item.open and answers:
                rubric = answers[0][1].expected
                found.append((item, rubric, [(grade, result.yours) for grade, result in answers]))
        return found

    def common_wrong(self, least: int = 2) -> list[tuple[Item, list[tuple[str, str, int]]]]:
        """For each exercise what several students got wrong in the same way: (hint, their value, how many)."""
        found = []
        for item in self.items:
            results = (grade.result(item) for grade in self.grades)
            count = Counter(
                (_short(r.hint or r.message), _short(r.yours)) for r in results if r.verdict in ("wrong", "error")
            )
            common = [(hint, yours, times) for (hint, yours), times in count.most_common(8) if times >= least]
            if common:
                found.append((item, common))
        return found

    def pages(self) -> dict[str, str]:
        """File name → HTML: `index.html` for the class, and a page for each student."""
        templates = Environment(loader=PackageLoader("xlmr_course.classroom"), autoescape=True, trim_blocks=True)
        shared = {"book": self, "signs": SIGNS, "page": page_name}
        pages = {"index.html": templates.get_template("class.html").render(**shared)}
        if self.by_hand():
            pages["by-hand.html"] = templates.get_template("by-hand.html").render(**shared)
        for grade in self.grades:
            pages[page_name(grade.student)] = templates.get_template("student.html").render(**shared, grade=grade)
        return pages


_JUNIT = {"right": "right", "wrong": "failure", "error": "error", "timeout": "error"}


def cell(value: object) -> object:
    """A value as a spreadsheet may have it: text that would be a formula begins with an apostrophe instead."""
    if not isinstance(value, str):
        return value
    text = FORBIDDEN.sub("\ufffd", value)[:LONGEST]
    return f"'{text}" if FORMULA.match(text.lstrip(" ")) else text


def plain(text: str) -> str:
    """Text without the characters that XML can't hold."""
    return FORBIDDEN.sub("\ufffd", text)


def page_name(student: str) -> str:
    """`Anna Ito` → `anna-ito-3f9a1c.html`: letters and digits alone, and different for different names."""
    letters = re.sub(r"[^a-z0-9]+", "-", student.casefold()).strip("-")[:40]
    digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{letters or 'student'}-{digest}.html"


def write_pages(book: Gradebook, folder: Path) -> None:
    """Write the pages and `junit.xml` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in book.pages().items():
        (folder / name).write_text(plain(text), encoding="utf-8")
    (folder / "junit.xml").write_text(book.junit(), encoding="utf-8")


def _short(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]} …"
