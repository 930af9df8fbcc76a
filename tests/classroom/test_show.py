"""Source is shown from the installed file, as highlighted Markdown."""

from xlmr_course.classroom import show
from xlmr_course.results import LanguageResult, wilson


def test_functions_and_methods_are_shown_with_their_place(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing: shown.append(thing.data))
    show.show_source(wilson, LanguageResult.of)
    assert shown[0].startswith("`xlmr_course/results.py` · `wilson`\n\n```python\ndef wilson(")
    assert "\n    @classmethod" not in shown[1], "a method is shown without the class's indentation"
    assert "\n@classmethod" in shown[1]
    assert all(text.endswith("\n```") for text in shown)
