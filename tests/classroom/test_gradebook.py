"""The table, the XML and the pages: the right numbers, and nothing that a student wrote is ever run."""

import csv
import io
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from xlmr_course.classroom import gradebook
from xlmr_course.classroom.gradebook import Grade, Gradebook, Item
from xlmr_course.classroom.marking import ExerciseResult, Marking

SCRIPT = '<script>alert("x")</script>'
EVIL = f"{SCRIPT}<img src=x onerror=alert(1)>\"'><a href='javascript:alert(2)'>\x00\x1b[31m\ud800"


def grade(student, *verdicts, yours="", **more):
    results = [
        ExerciseResult(f"part {n}", n, verdict, f"{verdict}: told", yours=yours if verdict == "wrong" else "")
        for n, verdict in enumerate(verdicts, start=1)
    ]
    return Grade(student, f"{student}.ipynb", "ab" * 32, Marking("04_attention", results), **more)


@pytest.fixture
def book():
    book = Gradebook("04_attention", "Attention", [Item("part 1", 1), Item("part 2", 2)])
    book.put(grade("Bo", "right", "wrong", yours="[1, 2]"))
    book.put(grade("anna", "right", "right"))
    book.put(grade("Cem", "not written yet", "wrong", yours="[1, 2]"))
    book.put(grade("dora", "right", "right", reason="used more than 4 GB of memory and was ended", log=EVIL))
    book.put(grade("Eve", "right", "look"))
    book.grades[-1].marking.results[1].manual = True
    book.grades[-1].marking.results[1].expected, book.grades[-1].marking.results[1].yours = "a rubric", EVIL
    return book


def rows(book):
    return {row["student"]: row for row in csv.DictReader(io.StringIO(book.table()))}


def test_rows_are_sorted_and_hold_points_and_verdicts(book):
    table = rows(book)
    assert list(table) == ["anna", "Bo", "Cem", "dora", "Eve"]
    bo = table["Bo"]
    assert (bo["points"], bo["of"], bo["part 1 (1)"], bo["part 2 (2)"]) == ("1", "3", "1", "0")
    assert (bo["part 2: verdict"], bo["look"]) == ("wrong", "")


def test_an_abnormal_end_counts_nothing_as_right_and_is_to_be_looked_at(book):
    dora = rows(book)["dora"]
    assert (dora["points"], dora["part 1 (1)"], dora["part 1: verdict"]) == ("0", "0", "look")
    assert dora["look"] == "used more than 4 GB of memory and was ended"


def test_an_open_question_has_no_points_until_a_person_gives_them(book):
    eve = rows(book)["Eve"]
    assert (eve["points"], eve["part 2 (2)"], eve["part 2: verdict"]) == ("1", "", "look")
    assert eve["look"] == "to be marked by hand: part 2"


def test_a_changed_grade_takes_the_place_of_the_old_one(book):
    book.put(grade("Bo", "right", "right"))
    assert len(book.grades) == 5
    assert rows(book)["Bo"]["points"] == "3"


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", '=HYPERLINK("http://x")', "＝1", "\x00=1"]
)
def test_no_cell_is_a_formula(book, text):
    book.put(grade(text, "right", "right", remarks=[text]))
    [row] = [row for row in rows(book).values() if row["points"] == "3" and row["student"] != "anna"]
    for value in (row["student"], row["remarks"]):
        assert value.startswith(("'", "\ufffd")), value


def test_the_xml_can_be_read_and_counts(book):
    book.put(grade(EVIL, "error", "timeout"))
    root = ElementTree.fromstring(book.junit().encode("utf-8", "xmlcharrefreplace"))
    suites = {suite.get("name"): suite for suite in root}
    assert (suites["Bo"].get("tests"), suites["Bo"].get("failures")) == ("2", "1")
    assert suites["dora"].get("skipped") == "2"
    evil = next(suite for name, suite in suites.items() if name.startswith("<script>"))
    assert evil.get("errors") == "2"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += f"{data} "


def test_nothing_that_a_student_wrote_is_run(book, tmp_path):
    for place in (1, 0):  # as a value, and as a name with a hint
        evil = grade(EVIL + str(place), "wrong", "wrong", yours=EVIL, remarks=[EVIL])
        evil.marking.results[0].hint = evil.marking.results[0].message = evil.marking.results[0].next_step = EVIL
        evil.marking.remarks, evil.file = [EVIL], EVIL
        book.put(evil)
    gradebook.write_pages(book, tmp_path)
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) == 8
    for page in pages:
        parser = Tags()
        parser.feed(page.read_text(encoding="utf-8"))
        policy = [a["content"] for tag, a in parser.seen if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
        for tag, attributes in parser.seen:
            assert tag not in ("script", "img", "iframe", "link", "object"), page.name
            assert not any(name.startswith("on") for name in attributes)
            assert (tmp_path / attributes.get("href", "index.html")).is_file()
    everything = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert "&lt;script&gt;" in everything, "it is shown, as text"


def test_the_class_page_tells_what_was_hard_and_what_was_wrong_alike(book):
    assert [(item.name, count["right"]) for item, count in book.difficulty()] == [("part 2", 1), ("part 1", 3)]
    assert book.common_wrong() == [(Item("part 2", 2), [("wrong: told", "[1, 2]", 2)])]
    parser = Tags()
    parser.feed(book.pages()["index.html"])
    text = " ".join(parser.text.split())
    assert "by-hand.html" not in str(parser.seen), "there is no open question"
    assert "1 of 4" in text
    assert "2 × wrong: told" in text
    assert "dora used more than 4 GB" in text, "what must be looked at stands on top"


def test_open_questions_have_a_page_of_their_own_and_are_not_hard(book):
    book.items[1] = Item("part 2", 2, open=True)
    assert [item.name for item, _ in book.difficulty()] == ["part 1"]
    assert [grade.student for grade in book.grades if grade.odd] == ["dora"], (
        "Eve's row waits for nothing but the open question"
    )
    page = book.pages()["by-hand.html"]
    assert page.index("a rubric") < page.index("Eve") < page.index("&lt;script&gt;")
    assert 'href="by-hand.html"' in book.pages()["index.html"]


def test_a_rubric_stands_beside_the_student_s_text(book):
    page = book.pages()[gradebook.page_name("Eve")]
    assert page.index("a rubric") < page.index("What was handed in") < page.index("&lt;script&gt;")
    assert "2 points to give" in page


def test_page_names_stay_in_their_folder_and_apart():
    names = ["../../x", "Zoë", "Zoe", "安娜", "安妮", "a/b", "a\\b", "CON", "x" * 500]
    pages = [gradebook.page_name(name) for name in names]
    assert len(set(pages)) == len(names)
    assert all(set(page) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for page in pages)
    assert max(map(len, pages)) < 60


def test_a_grade_survives_the_record():
    import json

    before = grade("anna", "right", "wrong", remarks=["late"], seconds=2.5)
    assert Grade.from_json(json.loads(before.to_json())) == before


def test_a_line_for_the_terminal_carries_no_control_characters(book):
    assert grade("\x1b[2Janna\r\n", "right", "right").line() == "\ufffd[2Janna 3 of 3"
    assert book.grades[3].line() == "dora 0 of 3 look: used more than 4 GB of memory and was ended"
    assert book.summary() == "5 students, 1 to look at."
    book.items[1] = Item("part 2", 2, open=True)
    assert book.summary() == "5 students, 1 to look at. Open questions to mark by hand: part 2."
