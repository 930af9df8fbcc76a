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


def test_the_attention_grid_numbers_pieces_that_the_font_may_lack():
    weights = np.eye(2)
    grid = plots.attention_grid({"one": weights, "two": weights}, ["▁für", "</s>"])
    assert [axes.get_title(loc="left") for axes in grid.axes] == ["one", "two"]
    assert [label.get_text() for label in grid.axes[1].get_xticklabels()] == ["▁für", "</s>"]
    numbered = plots.attention_grid({"one": weights}, ["▁پانی", "</s>"])
    assert [label.get_text() for label in numbered.axes[0].get_yticklabels()] == ["0", "1"]


def test_the_state_map_writes_each_point_as_its_language_inside_the_frame():
    drawn, axes = plots.plt.subplots()
    points = np.array([[0.0, 5.0], [2.0, -1.0], [1.0, 1.0]])
    plots.state_map(points, ["sw", "th", "sw"], [0, 0, 1], axes)
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [
        ("sw", (0.0, 5.0)), ("th", (2.0, -1.0)), ("sw", (1.0, 1.0)),
    ]  # fmt: skip
    assert axes.texts[0].get_color() == axes.texts[1].get_color() != axes.texts[2].get_color()
    assert axes.get_xlim()[0] < 0 < 2 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < -1 < 5 < axes.get_ylim()[1]
    plots.plt.close(drawn)
