"""The README's course map is the one that was measured."""

import pytest

from xlmr_course.classroom import readme
from xlmr_course.classroom.chapters import ROOT


def test_the_course_map_is_up_to_date():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.between(text, "map", readme.course_map()) == text, "run python -m xlmr_course.classroom.readme"


def test_missing_marks_are_named():
    with pytest.raises(ValueError, match="no marks <!-- map -->"):
        readme.between("nothing here", "map", "x")
