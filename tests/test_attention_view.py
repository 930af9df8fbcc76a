"""Attention views: nothing is fetched, nothing differs from run to run, and a browser without a network draws them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bertviz
import pytest
import torch
from transformers import XLMRobertaModel

from xlmr_course import attention_view, checkpoints
from xlmr_course.encoder import Encoder, XLMRConfig

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKENS = ["<s>", "▁Watoto", "▁پانی", "।", "</s>"]
CONFIG = XLMRConfig(
    vocab_size=20, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=16,
    max_position_embeddings=40, attention_probs_dropout_prob=0.0,
)  # fmt: skip


class Tokenizer:
    """As the course's: a batch of one text, words as pieces."""

    tokens = ("<s>", "<pad>", "</s>", "<unk>", *(f"▁{letter}" for letter in "abcdefghijklmnop"))
    eos_token_id = 2

    def __call__(self, texts, pairs=None, return_tensors=None):
        first, second = (
            [self.tokens.index(f"▁{w}") for w in text[0].split()] if text else [] for text in (texts, pairs)
        )
        ids = [0, *first, 2] + ([2, *second, 2] if pairs else [])
        return {"input_ids": torch.tensor([ids])}


class TheirTokenizer(Tokenizer):
    """As transformers': it turns ids into pieces by a method."""

    tokens = property(lambda self: pytest.fail("transformers' tokenizers have no list of tokens"))

    def __call__(self, *texts, **options):
        return Tokenizer()(*texts, **options)

    def convert_ids_to_tokens(self, ids):
        return [Tokenizer.tokens[number] for number in ids]


def weights(layers=3, heads=4, tokens=5):
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(layers, heads, tokens, tokens, generator=generator)
    return tuple(layer[None] for layer in scores.softmax(dim=-1))


def encoder():
    return Encoder(CONFIG, torch.Generator().manual_seed(0)).eval()


def data(view):
    """What a page hands to BertViz."""
    return json.JSONDecoder().raw_decode(view.html.split("draw(document.currentScript, ")[1])[0]


VIEWS = [attention_view.head_view, attention_view.model_view]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_loads_nothing(view):
    page = view(TOKENS, weights()).html
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert set(re.findall(r"https?://[^\s\"']*", page)) <= {"http://www.w3.org/2000/svg"}
    assert page.count("<script>") == page.count("</script>") == 1


@pytest.mark.parametrize("view", VIEWS)
def test_the_same_weights_give_the_same_bytes(view):
    assert view(TOKENS, weights()) == view(TOKENS, weights())


def test_the_weights_reach_bertviz_as_thousandths():
    given = data(attention_view.head_view(TOKENS, weights()))
    [part] = given["attention"]
    assert (torch.tensor(part["attn"]) / 1000 - torch.cat(weights())).abs().max() <= 0.0005001
    assert part["left_text"][:2] == ["<s>", "▁Watoto"]


def test_pieces_of_right_to_left_scripts_keep_their_beginning_on_the_right():
    [part] = data(attention_view.head_view(TOKENS, weights()))["attention"]
    assert part["right_text"] == ["<s>", "▁Watoto", "\u200f▁پانی\u200f", "।", "</s>"]
    assert "direction:ltr" in attention_view.head_view(TOKENS, weights()).html


def test_a_piece_cannot_end_the_script():
    page = attention_view.head_view(["</script>", "<!--", "&", '"', "'"], weights()).html
    assert page.count("</script>") == 1
    assert "<!--" not in page


def test_layers_keep_their_numbers():
    given = data(attention_view.head_view(TOKENS, weights(), layers=[0, 2], layer=2, heads=[1]))
    assert (given["include_layers"], given["layer"], given["heads"]) == ([0, 2], 2, [1])
    assert torch.equal(torch.tensor(given["attention"][0]["attn"][1]), (weights()[2][0] * 1000).round().int())
    given = data(attention_view.model_view(TOKENS, weights(), layers=[1], heads=[3, 0]))
    assert (given["include_layers"], given["include_heads"], given["total_heads"]) == ([1], [3, 0], 4)
    assert torch.equal(torch.tensor(given["attention"][0]["attn"][0][0]), (weights()[1][0, 3] * 1000).round().int())


@pytest.mark.parametrize("shape", ["a tuple of (1, h, T, T)", "a tuple of (h, T, T)", "one tensor"])
def test_the_weights_may_come_in_any_usual_shape(shape):
    given = {
        "a tuple of (1, h, T, T)": weights(),
        "a tuple of (h, T, T)": tuple(layer[0] for layer in weights()),
        "one tensor": torch.cat(weights()),
    }
    assert attention_view.head_view(TOKENS, given[shape]) == attention_view.head_view(TOKENS, weights())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((TOKENS, None), {}, r"no attention weights.*attn_implementation=\"eager\""),
        ((TOKENS, ()), {}, "no attention weights"),
        ((TOKENS, (None, None)), {}, "no attention weights"),
        ((TOKENS[:4], weights()), {}, r"4 tokens need weights of shape \(heads, 4, 4\), and these are \(4, 5, 5\)"),
        ((TOKENS, [torch.cat([layer, layer]) for layer in weights()]), {}, "hold 2 texts"),
        ((TOKENS, [layer.log() for layer in weights()]), {}, "between 0 and 1"),
        ((TOKENS, [layer * float("nan") for layer in weights()]), {}, "between 0 and 1"),
        ((TOKENS, weights()), {"layers": [3]}, r"layers=\[3\]: the model has the layers 0 to 2"),
        ((TOKENS, weights()), {"layers": []}, r"layers=\[\]"),
        ((TOKENS, weights()), {"layers": [0, 1], "layer": 2}, "layer=2 is not in the view, which holds 0, 1"),
        ((TOKENS, weights()), {"heads": [4]}, r"heads=\[4\]: a layer has the heads 0 to 3"),
        ((TOKENS, weights()), {"heads": []}, r"heads=\[\]"),
        ((TOKENS, weights()), {"second": 5}, "second=5"),
        ((["a"] * 300, weights(3, 4, 300)), {}, "1,080,000 weights, and a page can show 600,000"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        attention_view.head_view(*arguments, **options)


def test_show_runs_our_encoder():
    shown = attention_view.show(encoder(), Tokenizer(), "a b a", layer=1)
    attentions = encoder()(torch.tensor([[0, 4, 5, 4, 2]]), output_attentions=True).attentions
    assert shown == attention_view.head_view(["<s>", "▁a", "▁b", "▁a", "</s>"], attentions, layer=1)


def test_a_model_in_training_is_shown_without_dropout_and_goes_on_training():
    model = encoder()
    for layer in model.layers:
        layer.attention.dropout.p = 0.5
    model.train()
    assert attention_view.show(model, Tokenizer(), "a b") == attention_view.show(encoder(), Tokenizer(), "a b")
    assert model.training


def test_show_finds_the_encoder_inside_a_model():
    model = torch.nn.Module()
    model.encoder = encoder()
    options = {"view": "model", "layers": [2]}
    expected = attention_view.show(encoder(), Tokenizer(), "a b", **options)
    assert attention_view.show(model, Tokenizer(), "a b", **options) == expected


def test_a_model_of_transformers_shows_the_same_and_says_so_when_it_cannot(tmp_path):
    checkpoints.save_pretrained(encoder(), None, tmp_path)
    eager, sdpa = (
        XLMRobertaModel.from_pretrained(tmp_path, add_pooling_layer=False, attn_implementation=how).eval()
        for how in ("eager", "sdpa")
    )
    _, theirs, _ = attention_view.attend(eager, TheirTokenizer(), "a b a")
    tokens, ours, _ = attention_view.attend(encoder(), Tokenizer(), "a b a")
    assert tokens == ["<s>", "▁a", "▁b", "▁a", "</s>"]
    assert max((a - b).abs().max() for a, b in zip(theirs, ours, strict=True)) < 1e-5
    with pytest.raises(ValueError, match="the model gave no attention weights"):
        attention_view.show(sdpa, TheirTokenizer(), "a b a")


def test_a_pair_is_cut_between_its_texts():
    given = data(attention_view.show(encoder(), Tokenizer(), "a b", "c"))
    parts = {part["name"]: part for part in given["attention"]}
    crossing = parts["Sentence A -> Sentence B"]
    assert crossing["left_text"] == ["<s>", "▁a", "▁b", "</s>"]
    assert crossing["right_text"] == ["</s>", "▁c", "</s>"]


def test_an_unknown_view_is_named():
    with pytest.raises(ValueError, match="view='neuron'"):
        attention_view.show(encoder(), Tokenizer(), "a", view="neuron")


def test_without_bertviz_a_still_picture_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "bertviz", None)
    view = attention_view.head_view(TOKENS, weights())
    assert "bertviz is not installed" in view.html
    assert "data:image/svg+xml" in view.html
    assert "<script" not in view.html


def test_another_bertviz_leaves_a_still_picture(monkeypatch):
    monkeypatch.setattr(bertviz, "head_view", lambda *_, **__: type("Page", (), {"data": "<p>a new look</p>"}))
    view = attention_view.head_view(TOKENS, weights())
    assert attention_view.OTHER_BERTVIZ in view.html
    assert "<script" not in view.html


def test_the_still_picture_has_a_line_for_each_strength_and_the_alt_text():
    view = attention_view.head_view(["<s>", "▁a"], (torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),))
    svg = attention_view._still_head(["<s>", "▁a"], torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), [0])
    assert re.findall(r'd="([^"]*)"', svg) == ["M150 11.25L265 11.25M150 33.75L265 33.75"]
    assert f'alt="{view.alt}"' in view.html
    assert view._repr_mimebundle_()["text/plain"] == view.alt


def test_the_stand_ins_offer_what_bertviz_calls():
    """A new BertViz that uses more of d3 or jQuery fails here, by name."""
    stand_ins = Path(attention_view.__file__).with_suffix(".js").read_text(encoding="utf-8")
    d3 = set(re.findall(r"^  (\w+)[:,]", stand_ins.split("const d3 = {")[1].split("};")[0], re.MULTILINE))
    chained = set(re.findall(r"^  (\w+)\(", stand_ins, re.MULTILINE)) | {"enter"}
    jquery = set(re.findall(r"^    (\w+): chain", stand_ins, re.MULTILINE))
    native = {"config", "log", "fill", "forEach", "findIndex", "getAttribute", "map", "max", "reduce"}
    for name in ("head_view", "model_view"):
        script = (Path(bertviz.__file__).parent / f"{name}.js").read_text(encoding="utf-8")
        # d3.scale.category10 is what BertViz tries with a d3 older than ours.
        assert set(re.findall(r"\bd3\.(\w+)", script)) - {"min", "scale"} <= d3
        called = set(re.findall(r"\.(\w+)\(", script)) - {"category10", "requirejs"}
        assert called <= d3 | chained | jquery | native


def opened(path, *options):
    """The page's elements as a browser without a network has them once its scripts have run."""
    blocked = "--host-resolver-rules=MAP * ~NOTFOUND"
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *quiet, blocked, profile, *options, "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to draw the page")


@in_a_browser
def test_a_browser_without_a_network_draws_every_view_on_a_page(tmp_path):
    head, model = attention_view.head_view(TOKENS, weights()), attention_view.model_view(TOKENS, weights())
    pair = attention_view.head_view(TOKENS, weights(), second=2, layers=[1])
    both = attention_view.View("".join(view.html for view in (head, head, model, pair)), "all")
    page = opened(both.save(tmp_path / "page.html"))
    assert page.count("<line") == (3 * 4 + 3 * 4) * 5 * 5
    assert re.findall(r'id="(attention-view-\d)"', page) == [f"attention-view-{n}" for n in (1, 2, 3, 4)]
    assert 'class="still"' not in page
    assert page.count('dx="102.5"') + page.count('dx="7.5"') == 3 * 2 * len(TOKENS)  # pieces, left and right
    opacity = float(re.search(r'stroke-opacity="([\d.]+)"', page)[1])
    assert abs(opacity - round(1000 * weights()[0][0, 0, 0, 0].item()) / 1000 / 4) < 1e-6


POINTING = """<script>
const svg = document.querySelector("svg"), menu = document.querySelector("#layer");
const lit = () => [...document.querySelectorAll("svg #attention line[visibility=visible]")]
  .map(line => line.getAttribute("left-token-index"));
const on = () => [...document.querySelectorAll("svg #attention line")]
  .filter(line => +line.getAttribute("stroke-opacity"));
svg.querySelector("#left text").parentNode.nextSibling.dispatchEvent(new Event("mouseover"));
const pointed = lit();
svg.querySelector("#left").dispatchEvent(new Event("mouseleave"));
const left = lit().length;
svg.lastElementChild.children[2].dispatchEvent(new Event("dblclick"));
const alone = on().map(line => line.parentNode.parentNode.getAttribute("head-index"));
menu.value = 2; menu.dispatchEvent(new Event("change", {bubbles: true}));
document.title = JSON.stringify({pointed, left, alone, layers: menu.textContent, after: on().length});
</script>"""


@in_a_browser
def test_pointing_at_a_piece_and_choosing_heads_and_layers_works(tmp_path):
    """What BertViz does on mouse and menu, on our stand-ins."""
    view = attention_view.head_view(TOKENS, [0.001 + 0.99 * layer for layer in weights()], layers=[0, 2])
    page = opened(attention_view.View(view.html + POINTING, "x").save(tmp_path / "page.html"))
    found = json.loads(re.search("<title>(.*?)</title>", page)[1])
    assert found == {"pointed": ["1"] * 5 * 4, "left": 0, "alone": ["2"] * 25, "layers": "02", "after": 25}


@in_a_browser
def test_a_front_end_may_run_the_scripts_from_elsewhere(tmp_path):
    two = attention_view.head_view(TOKENS, weights()).html + attention_view.head_view(TOKENS, weights(layers=1)).html
    asleep = two.replace("<script>", '<script type="text/plain">')
    wake = '<script>document.querySelectorAll("script[type]").forEach(s => eval(s.textContent));</script>'
    page = opened(attention_view.View(asleep + wake, "x").save(tmp_path / "page.html"))
    assert page.count("<line") == 2 * 4 * 5 * 5
    assert page.index("attention-view-1") < page.index("attention-view-2")


@in_a_browser
def test_a_drawing_that_fails_leaves_the_still_picture(tmp_path):
    view = attention_view.head_view(TOKENS, weights())
    broken = view.html.replace("requirejs(['jquery', 'd3'],", "requirejs(['jquery', 'd3'], 0,")
    assert broken != view.html
    page = opened(attention_view.View(broken, "x").save(tmp_path / "page.html"))
    assert "BertViz could not draw here (use is not a function)" in page
    assert "data:image/svg+xml" in page
    assert "<line" not in page
