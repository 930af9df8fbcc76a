"""BertViz's head view and model view, in JupyterLab, in Colab and on an exported page, with or without a network.

BertViz (Vig 2019) draws in the browser, and fetches three script libraries from the internet to do so. Here its own
script runs on stand-ins for the few calls that it makes of them (`attention_view.js`), so a view is one piece of HTML
that loads nothing. Where no script may run, as in a notebook that is not trusted yet, a still picture stays in its
place and says so.

A view of the same weights is the same text, byte for byte: what must differ between two views on a page, the id, is
given out by the page.
"""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xlmr_course.encoder import Encoder

MOST_WEIGHTS = 600_000  # about 2 MB of page; BertViz becomes slow beyond it
FAINTEST = 0.05  # the still picture leaves out weights below this
# BertViz's colours, d3's `schemeCategory10`.
COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
# A light card, as under the course's figures: BertViz writes in black. Left to right, whatever the page around it is.
CARD = (
    "background:#fbfaf7;color:#26303d;color-scheme:light;border-radius:6px;padding:12px 16px;overflow-x:auto;"
    "direction:ltr;text-align:left;font:15px system-ui,sans-serif"
)
NOTE = "A still picture. BertViz takes its place where scripts may run: in a trusted notebook, once the cell has run."
NO_BERTVIZ = "A still picture, because bertviz is not installed here."
OTHER_BERTVIZ = "A still picture, because this version of bertviz is not the one that the course knows."
RIGHT_TO_LEFT_MARK = "\u200f"


@dataclass(frozen=True)
class View:
    """A drawing of attention weights: shown when it stands last in a cell, or written to a page with `save`."""

    html: str
    alt: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.alt}

    def save(self, path: str | Path) -> Path:
        """Write the view as a page of its own, which needs no network."""
        title = html.escape(self.alt)
        head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        Path(path).write_text(f"{head}<body>{self.html}</body></html>\n", encoding="utf-8")
        return Path(path)


def show(model, tokenizer, text: str, pair: str | None = None, *, view: str = "head", **options) -> View:
    """Run a model on a text and view its attention.

    Args:
        model: an `Encoder` or a model that has one, or a model of transformers with `attn_implementation="eager"`.
        tokenizer: the course's or transformers'.
        pair: a second text; BertViz then offers the attention within and between the two.
        view: `"head"` for one layer at a time, `"model"` for all heads of all layers as thumbnails.
        options: as for `head_view` or `model_view`.

    Raises:
        ValueError: an unknown view, a model that gives no weights, or as `head_view`.
    """
    if view not in ("head", "model"):
        raise ValueError(f"view={view!r}; there are 'head', one layer at a time, and 'model', all of them small")
    tokens, attentions, second = attend(model, tokenizer, text, pair)
    return (head_view if view == "head" else model_view)(tokens, attentions, second=second, **options)


@torch.no_grad()
def attend(model, tokenizer, text: str, pair: str | None = None) -> tuple[list[str], tuple[Tensor, ...], int | None]:
    """The pieces of a text, each layer's weights `(1, h, T, T)`, and where the second text begins (None without one).

    Raises:
        ValueError: the model gives no weights.
    """
    ours = next((part for part in (model, getattr(model, "encoder", None)) if isinstance(part, Encoder)), None)
    batch = tokenizer([text], None if pair is None else [pair], return_tensors="pt")
    ids = batch["input_ids"].to(next(model.parameters()).device)
    trained, _ = model.training, model.eval()  # dropout would thin the weights out
    attentions = (ours or model)(ids, output_attentions=True).attentions
    model.train(trained)
    ids = ids[0].tolist()
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    tokens = convert(ids) if convert else [tokenizer.tokens[number] for number in ids]
    # <s> A </s></s> B </s>: the second text begins with the second </s>.
    second = None if pair is None else ids.index(tokenizer.eos_token_id) + 1
    return tokens, _given(attentions), second


def _given(attentions: Sequence[Tensor] | Tensor | None) -> tuple[Tensor, ...]:
    """The weights as a tuple over layers, or an error that says why there are none."""
    layers = () if attentions is None else tuple(attentions)
    if not layers or any(layer is None for layer in layers):
        raise ValueError(
            "the model gave no attention weights: ask for output_attentions=True, and load a model of transformers "
            'with attn_implementation="eager", because its default (sdpa) never holds them'
        )
    return layers


def head_view(
    tokens: Sequence[str],
    attentions: Sequence[Tensor] | Tensor,
    *,
    layers: Sequence[int] | None = None,
    layer: int | None = None,
    heads: Sequence[int] | None = None,
    second: int | None = None,
) -> View:
    """BertViz's head view: who looks at whom in one layer, a colour for each head, a menu for the layer.

    Args:
        tokens: the T pieces.
        attentions: for each layer the weights `(1, h, T, T)` or `(h, T, T)`, as `output_attentions=True` gives them.
        layers: the layers to put into the view; None for all. Fewer make it smaller.
        layer: the one shown at first; None for the first.
        heads: those switched on at first; None for all. A double click on a coloured square shows that head alone.
        second: where the second of two texts begins among the tokens.

    Raises:
        ValueError: no weights, a batch of several texts, another number of tokens, a layer or head that is not there,
            or more weights than a page should hold.
    """
    weights, layers = _checked(tokens, attentions, layers, second)
    shown = layers[0] if layer is None else layer
    if shown not in layers:
        raise ValueError(f"layer={layer} is not in the view, which holds {', '.join(map(str, layers))}")
    heads = _heads(heads, weights)
    alt = (
        f"Head view of layer {shown}, {len(heads)} of {weights.shape[1]} heads: lines from each of {len(tokens)} "
        "tokens to the tokens it looks at."
    )
    still = _still_head(tokens, weights[layers.index(shown)], heads)
    numbering = {"include_layers": layers, "layer": shown}
    return _view("head_view", tokens, weights, second, alt, still, {"heads": heads}, numbering)


def model_view(
    tokens: Sequence[str],
    attentions: Sequence[Tensor] | Tensor,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    second: int | None = None,
) -> View:
    """BertViz's model view: a thumbnail for each head of each layer; a click opens it. Arguments as `head_view`."""
    weights, layers = _checked(tokens, attentions, layers, second)
    heads = _heads(heads, weights)
    alt = (
        f"Model view of {len(layers)} layers by {len(heads)} heads: in each thumbnail lines from {len(tokens)} tokens "
        "to the tokens they look at."
    )
    still = _still_model(weights[:, heads], layers, heads)
    options = {"include_heads": heads, "display_mode": "light"}
    return _view("model_view", tokens, weights, second, alt, still, options, {"include_layers": layers})


def _checked(
    tokens: Sequence[str], attentions: Sequence[Tensor] | Tensor, layers: Sequence[int] | None, second: int | None
) -> tuple[Tensor, list[int]]:
    """The weights of the chosen layers `(layers, h, T, T)`, and the numbers of those layers."""
    stacked = []
    for layer in _given(attentions):
        if layer.dim() == 4 and len(layer) > 1:
            raise ValueError(f"the attentions hold {len(layer)} texts; a view shows one: layer[:1] for the first")
        layer = (layer[0] if layer.dim() == 4 else layer).detach().float().cpu()
        if layer.dim() != 3 or layer.shape[1:] != (len(tokens), len(tokens)):
            raise ValueError(
                f"{len(tokens)} tokens need weights of shape (heads, {len(tokens)}, {len(tokens)}), and these are "
                f"{tuple(layer.shape)}: were padding or special tokens left out on one side?"
            )
        if not (layer.isfinite().all() and layer.min() >= 0 and layer.max() <= 1.001):
            raise ValueError(
                "attention weights lie between 0 and 1, and these do not: pass them as they are after softmax"
            )
        stacked.append(layer)
    chosen = list(range(len(stacked)) if layers is None else layers)
    if not chosen or min(chosen) < 0 or max(chosen) >= len(stacked):
        raise ValueError(f"layers={chosen}: the model has the layers 0 to {len(stacked) - 1}")
    if second is not None and not 0 < second < len(tokens):
        raise ValueError(f"second={second} is not the place of one of {len(tokens)} tokens behind the first")
    weights = torch.stack([stacked[number] for number in chosen])  # (layers, h, T, T)
    if weights.numel() > MOST_WEIGHTS:
        raise ValueError(
            f"{len(chosen)} layers of {weights.shape[1]} heads on {len(tokens)} tokens are {weights.numel():,} "
            f"weights, and a page can show {MOST_WEIGHTS:,}: take a shorter text, or a few layers (layers=[0, 5])"
        )
    return weights, chosen


def _heads(heads: Sequence[int] | None, weights: Tensor) -> list[int]:
    """The chosen heads, all of them for None."""
    chosen = list(range(weights.shape[1]) if heads is None else heads)
    if not chosen or min(chosen) < 0 or max(chosen) >= weights.shape[1]:
        raise ValueError(f"heads={chosen}: a layer has the heads 0 to {weights.shape[1] - 1}")
    return chosen


def _readable(token: str) -> str:
    """A piece of a right-to-left script with its ▁ on the right, where the word begins."""
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in token):
        return f"{RIGHT_TO_LEFT_MARK}{token}{RIGHT_TO_LEFT_MARK}"
    return token


def _view(
    name: str,
    tokens: Sequence[str],
    weights: Tensor,
    second: int | None,
    alt: str,
    still: str,
    options: dict,
    numbering: dict,
) -> View:
    """Put BertViz's drawing and the still picture into one box.

    `numbering` holds what must be put right in BertViz's data, because it was given a few of a model's layers only.
    """
    try:
        live, note = _bertviz(name, [_readable(token) for token in tokens], weights, second, options, numbering), NOTE
    except ImportError:
        live, note = "", NO_BERTVIZ
    except UnknownBertViz:
        live, note = "", OTHER_BERTVIZ
    picture, quoted = base64.b64encode(still.encode()).decode(), html.escape(alt)
    return View(
        f'<div style="{CARD}" role="figure" aria-label="{quoted}">'
        f'<div class="still"><img alt="{quoted}" src="data:image/svg+xml;base64,{picture}">'
        f'<p style="margin:6px 0 0;font-size:13px;color:#6b7686">{note}</p></div>{live}</div>',
        alt,
    )


class UnknownBertViz(Exception):
    """BertViz's page does not look as expected, so its script cannot be taken out of it."""


def _bertviz(name: str, tokens: list[str], weights: Tensor, second: int | None, options: dict, numbering: dict) -> str:
    """BertViz's page without its loaders, and a script that runs its drawing on our stand-ins."""
    import bertviz

    # Whole thousandths: a third of the room that floats take.
    thousandths = [layer[None] for layer in (weights * 1000).round().int()]  # (1, h, T, T) each
    page = getattr(bertviz, name)(
        thousandths, tokens, second, prettify_tokens=False, html_action="return", **options
    ).data
    found = re.search(
        r"</script>(?P<body>.*?)<script type=\"text/javascript\">"
        r"(?P<loaders>.*?)requirejs\((?P<before>.*?)const params = (?P<rest>.*)</script>",
        page,
        re.DOTALL,
    )
    if found is None:
        raise UnknownBertViz
    params, end = json.JSONDecoder().raw_decode(found["rest"])
    # Behind the data stands a comment, which repeats them.
    drawing = f"requirejs({found['before']}const params = given;\n" + found["rest"][end:].split("\n", 1)[1]
    body = re.sub(r'id="bertviz-\w+"', "", found["body"]).strip()
    # A piece such as </script> must not end the script, so "<" is written as an escape.
    data = json.dumps(params | numbering | {"root_div_id": ""}, ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    stand_ins = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return (
        f'<div class="live" style="display:none">{body}</div>\n<script>\n(() => {{\n{stand_ins}\n'
        f"draw(document.currentScript, {data}, given => {{\n{drawing}}});\n}})();\n</script>"
    )


def _still_head(tokens: Sequence[str], weights: Tensor, heads: Sequence[int]) -> str:
    """One layer as SVG, the way BertViz's head view begins: weights `(h, T, T)`, a colour for each head."""
    step, left, right = 22.5, 150, 265
    height = step * len(tokens) + 8
    lines = [
        _lines(weights[head], left, right, step, COLOURS[head % len(COLOURS)], share=1 / len(heads)) for head in heads
    ]
    words = [
        f'<text x="{x}" y="{step * row + 16:g}" text-anchor="{anchor}">{html.escape(_readable(token))}</text>'
        for row, token in enumerate(tokens)
        for x, anchor in ((left - 8, "end"), (right + 8, "start"))
    ]
    return _svg(left + right, height, "".join(lines + words))


def _still_model(weights: Tensor, layers: Sequence[int], heads: Sequence[int]) -> str:
    """All heads as SVG: weights `(layers, heads, T, T)`, a row for each layer, a thumbnail for each head."""
    step, width, margin = 6, 60, 24
    tall = step * weights.shape[-1] + 10
    parts = []
    for column, head in enumerate(heads):
        parts.append(f'<text x="{margin + (column + 0.5) * width:g}" y="14" text-anchor="middle">{head}</text>')
    for row, layer in enumerate(layers):
        parts.append(f'<text x="0" y="{margin + (row + 0.5) * tall:g}">{layer}</text>')
        for column in range(len(heads)):
            drawn = _lines(weights[row, column], 0, width - 14, step, COLOURS[layer % len(COLOURS)])
            x, y = margin + column * width + 7, margin + row * tall
            parts.append(f'<g transform="translate({x} {y})">{drawn}</g>')
    return _svg(margin + width * len(heads), margin + tall * len(layers), "".join(parts))


def _lines(weights: Tensor, x1: float, x2: float, step: float, colour: str, share: float = 1.0) -> str:
    """Lines from row i on the left to row j on the right, in ten strengths: weights `(T, T)`."""
    levels: dict[int, str] = {}
    for (i, j), weight in zip(
        (weights > FAINTEST).nonzero().tolist(), weights[weights > FAINTEST].tolist(), strict=True
    ):
        y1, y2 = step * (i + 0.5), step * (j + 0.5)
        level = max(1, round(weight * 10))
        levels[level] = levels.get(level, "") + f"M{x1} {y1:g}L{x2} {y2:g}"
    return "".join(
        f'<path d="{path}" stroke="{colour}" stroke-width="2" stroke-opacity="{level / 10 * share:.3g}"/>'
        for level, path in sorted(levels.items())
    )


def _svg(width: float, height: float, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'font-family="system-ui, sans-serif" font-size="15" fill="#26303d">{content}</svg>'
    )
