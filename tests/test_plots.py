"""Figures: alt text is required and kept, bytes do not change, text says its language."""

import numpy as np
import pytest

from xlmr_course import plots


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda data, **rest: calls.append((data, rest)))
    return calls


def figure():
    with plots.style():
        drawn, axes = plots.plt.subplots()
        axes.plot([1, 2])
    return drawn


def test_show_keeps_the_alt_text(shown):
    plots.show(figure(), alt="A rising line.")
    [(data, rest)] = shown
    assert data["text/plain"] == "A rising line."
    assert rest["metadata"]["image/png"]["alt"] == "A rising line."


def test_a_figure_without_alt_text_is_refused(shown):
    with pytest.raises(ValueError, match="no alt text"):
        plots.show(figure(), alt=" ")
    assert shown == []


def test_the_same_figure_gives_the_same_bytes():
    assert plots.png(figure()) == plots.png(figure())


def test_show_sentences_marks_each_cell_with_its_language(shown):
    plots.show_sentences([("ur", "سلام <b>")])
    html = shown[0][0]["text/html"]
    assert '<td lang="ur" dir="auto"' in html
    assert "&lt;b&gt;" in html


def test_the_heat_map_labels_rows_and_columns():
    drawn = plots.heatmap(np.eye(2), ["a", "b"], ["c", "d"], annotate=True)
    axes = drawn.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert {text.get_text() for text in axes.texts} == {"0.00", "1.00"}
