"""The course's figures: one style, readable on light and dark pages, each with a text that says what it shows.

Figures carry their own light card as background, so they look the same everywhere. Languages are named by their codes:
no font on a learner's machine need know every script.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

INK, QUIET, CARD = "#26303d", "#6b7686", "#fbfaf7"
# Distinguishable with the common colour-vision deficiencies (after Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072b2", "#d9730d", "#00795c", "#b8312f", "#8a4f9e"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
DPI = 144

STYLE = {
    "figure.facecolor": CARD,
    "axes.facecolor": CARD,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.grid": False,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "font.size": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "image.cmap": "cividis",
    "svg.hashsalt": "xlmr-course",
}


def style() -> AbstractContextManager:
    """The course's look, for a `with` block around the drawing."""
    return mpl.rc_context(STYLE)


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its alt text, and close it.

    Args:
        alt: what the picture shows, in a sentence or two, for those who don't see it.
    """
    from IPython.display import display

    if not alt.strip():
        raise ValueError("this figure has no alt text; say in a sentence what it shows")
    width = round(figure.get_figwidth() * 96)
    data = {"image/png": base64.b64encode(png(figure)).decode(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt, "width": width}})


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.15)
    plt.close(figure)
    return buffer.getvalue()


def results_by_language(results, path: str | Path | None = None) -> Figure:
    """Accuracy by language as points with their 95 % intervals, the training language marked.

    Args:
        results: a `Results`.
        path: also write the picture there.
    """
    rows = list(reversed(results.languages))
    trained = results.train_language.split(",")
    with style():
        figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 1.2))
        for y, row in enumerate(rows):
            colour = ORANGE if row.language in trained else BLUE
            axes.plot([row.low, row.high], [y, y], color=colour, alpha=0.35, linewidth=6, solid_capstyle="round")
            axes.plot(row.accuracy, y, "o", color=colour, markersize=7)
            axes.text(1.02, y, f"{row.accuracy:.2f}", va="center", transform=axes.get_yaxis_transform())
        labels = [f"{row.language} (trained)" if row.language in trained else row.language for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_xlim(min(0.5, min(row.low for row in rows) - 0.02), 1)
        axes.set_xlabel("accuracy on the test sentences, with 95 % interval")
        axes.grid(axis="x", color=QUIET, alpha=0.2)
        figure.tight_layout()
        if path is not None:
            Path(path).write_bytes(png(figure))
    return figure


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    annotate: bool = False,
    axes: plt.Axes | None = None,
) -> Figure:
    """A table `(len(rows), len(columns))` as colours, light is more; with `annotate` the values stand in the cells."""
    with style():
        if axes is None:
            _, axes = plt.subplots(figsize=(0.55 * len(columns) + 2, 0.42 * len(rows) + 1.2))
        low, high = limits or (float(np.min(values)), float(np.max(values)))
        image = axes.imshow(values, vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=45 if max(map(len, columns)) > 3 else 0, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(title)
        if annotate:
            for (y, x), value in np.ndenumerate(values):
                dark = (value - low) < 0.65 * (high - low)
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if dark else INK, fontsize=8.5)
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, label=label)
        bar.outline.set_visible(False)
        return axes.figure


def show_sentences(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Display a table whose first column is a language code and whose other cells are text in that language.

    Each cell says which language it is in, so that browsers pick the font and the writing direction.
    """
    from html import escape

    from IPython.display import display

    head = "".join(f'<th style="text-align:left">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f"<tr><td><code>{escape(code)}</code></td>"
        + "".join(f'<td lang="{code}" dir="auto" style="text-align:start">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for code, *cells in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    html = f"<table>{head}<tbody>{body}</tbody></table>"
    plain = "\n".join("  ".join(row) for row in rows)
    display({"text/html": html, "text/plain": plain}, raw=True)


def label_ends(axes: plt.Axes, curves: dict[str, Sequence[float]], colours: dict[str, str], gap: float = 0.06) -> None:
    """Write each curve's name at its right end, moved apart so that no two lie on each other.

    Args:
        curves: name → y values; x is 0, 1, 2, …
        colours: name → the colour of its text.
        gap: the least distance between two names, as a share of the axes' height.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    ends = sorted((to_share.transform((len(ys) - 1, ys[-1]))[1], name) for name, ys in curves.items())
    x = max(len(ys) for ys in curves.values()) - 1
    low = -gap
    for share, name in ends:
        low = max(share, low + gap)
        axes.annotate(
            name, (x, curves[name][-1]), (1.02, low), textcoords="axes fraction", color=colours[name], va="center",
            fontsize=9, arrowprops={"arrowstyle": "-", "color": colours[name], "alpha": 0.4, "linewidth": 0.8},
        )  # fmt: skip


def lattice(nodes: Sequence, text: str, path: Sequence = ()) -> Figure:
    """Draw the ways to cut a text: positions between the characters, an arc for each piece, `path` in colour.

    Args:
        nodes: the `Node`s of a `Lattice`; pieces of one character lie flat, longer ones arch higher.
        text: the text they cut; it must be in a script that the figure's font has.
    """
    with style():
        figure, axes = plt.subplots(figsize=(0.75 * len(text) + 1, 3.4))
        chosen = {(node.start, node.end) for node in path}
        for node in nodes:
            start, width = node.start, node.end - node.start
            on = (node.start, node.end) in chosen
            xs = np.linspace(0, 1, 40)
            height = 0.0 if width == 1 else 0.42 * width
            colour = ORANGE if on else QUIET
            axes.plot(start + xs * width, height * 4 * xs * (1 - xs), color=colour, alpha=1 if on else 0.45,
                      linewidth=2.6 if on else 1.2, zorder=3 if on else 1)  # fmt: skip
            label = f"{node.piece}  {node.score:.1f}"
            axes.text(start + width / 2, height + 0.06, label, ha="center", va="bottom", fontsize=8.5, zorder=4,
                      color=colour if on else INK, bbox={"color": CARD, "pad": 0.6})  # fmt: skip
        axes.plot(range(len(text) + 1), [0] * (len(text) + 1), "o", color=INK, markersize=5, zorder=5)
        for position in range(len(text) + 1):
            axes.text(position, -0.14, str(position), ha="center", va="top", fontsize=8.5, color=QUIET)
        axes.set_axis_off()
        axes.set_ylim(-0.5, None)
        return figure


def attention_grid(patterns: dict[str, np.ndarray], tokens: Sequence[str]) -> Figure:
    """Attention weights as squares side by side: a row looks, a column is looked at, dark is more.

    Args:
        patterns: title → weights `(T, T)`.
        tokens: the T pieces; in a script that the figure's font may lack they are numbered instead.
    """
    latin = all(ord(character) < 0x250 or character == "▁" for token in tokens for character in token)
    names = list(tokens) if latin else [str(number) for number in range(len(tokens))]
    with style():
        size = max(2.4, 0.24 * len(tokens))
        figure, panels = plt.subplots(
            1, len(patterns), figsize=((size + 0.9) * len(patterns), size + 0.9), squeeze=False
        )
        for axes, (title, weights) in zip(panels[0], patterns.items(), strict=True):
            axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
            axes.set_xticks(range(len(names)), names, rotation=90 if latin else 0, fontsize=8)
            axes.set_yticks(range(len(names)), names, fontsize=8)
            axes.tick_params(length=0)
            axes.set_title(title, fontsize=10.5)
        figure.tight_layout()
        return figure


def state_map(points: np.ndarray, languages: Sequence[str], groups: Sequence[int], axes: plt.Axes) -> None:
    """Vectors as points in the plane, each written as its language's code, coloured by its group (a sentence, a topic).

    Args:
        points: `(n, 2)`, from a PCA or the like.
        languages, groups: n of each.
    """
    shades = (*COLOURS, "#8c6d1f", "#c0578f", INK)
    for (x, y), language, group in zip(points, languages, groups, strict=True):
        axes.text(
            x, y, language, color=shades[group % len(shades)], fontsize=8, ha="center", va="center", weight="bold"
        )
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    axes.set_xlim(low[0] - 0.06 * (high - low)[0], high[0] + 0.06 * (high - low)[0])
    axes.set_ylim(low[1] - 0.06 * (high - low)[1], high[1] + 0.06 * (high - low)[1])
    axes.set_xticks([])
    axes.set_yticks([])


def training_curves(history: Sequence[dict], path: str | Path | None = None) -> Figure:
    """The training loss and each language's held-out loss over the steps.

    Args:
        history: `Run.history`: `step`, `loss` and at times `held_out`, language → loss.
        path: also write the picture there.
    """
    measured = [entry for entry in history if "held_out" in entry]
    with style():
        figure, axes = plt.subplots(figsize=(7, 4))
        axes.plot(
            [e["step"] for e in history], [e["loss"] for e in history], color=QUIET, label="training", linewidth=1
        )
        for language in measured[-1]["held_out"] if measured else ():
            losses = [entry["held_out"][language] for entry in measured]
            axes.plot([entry["step"] for entry in measured], losses, color=BLUE, alpha=0.35, linewidth=1)
        if measured:
            means = [sum(entry["held_out"].values()) / len(entry["held_out"]) for entry in measured]
            axes.plot(
                [entry["step"] for entry in measured], means, color=BLUE, label="held out, each language and mean"
            )
        axes.set_xlabel("steps")
        axes.set_ylabel("loss, nats per hidden token")
        axes.legend()
        figure.tight_layout()
        if path is not None:
            Path(path).write_bytes(png(figure))
    return figure
