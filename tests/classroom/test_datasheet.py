"""The datasheet's numbers are those of the corpus."""

from xlmr_course.classroom import datasheet


def test_the_numbers_in_the_readme_are_counted():
    text = datasheet.FILE.read_text(encoding="utf-8")
    assert datasheet.with_numbers(text, datasheet.numbers()) == text, "run python -m xlmr_course.classroom.datasheet"


def test_every_language_admits_its_weaknesses():
    text = datasheet.FILE.read_text(encoding="utf-8")
    for name in datasheet.LANGUAGES.values():
        assert f"**{name}.**" in text
