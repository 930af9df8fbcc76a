# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Pretraining
#
# **You will build** the parts of a pretraining run: which language comes next, how sentences fill a row, how fast to
# learn, what to compare with, and what to keep so that a killed run goes on as if nothing had happened. With them you
# pretrain a small XLM-R in fifteen languages, on this machine.
#
# *Needs:* {{needs}}. *Download:* none; the checkpoint `tiny` comes with the course.

# %% [markdown]
# XLM-R read a hundred languages on 500 graphics cards, 1.5 million batches of 8,192 samples. You have a laptop and a
# few minutes. Which part of the work changes with the size?
#
# Almost none. The same loop runs here, with a smaller model and less text. What you won't get is XLM-R's skill. What
# you get is every number along the way.

# %% tags=["setup"]
import copy
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F

from xlmr_course import checkpoints, corpus, perplexity, plots, pretraining, sources, streams, training
from xlmr_course.classroom import show_source
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import MaskedLM
from xlmr_course.pretraining import Settings

# %% [markdown]
# ## What is there to read?
#
# The classroom corpus: 700 sentences, the same in each language. `tiny`, the model that comes with the course, was
# pretrained on the `train` part of it. So was its vocabulary (chapter 2).

# %%
tokenizer = checkpoints.load_tokenizer("tiny")
texts = {code: list(corpus.load(code, "train")["text"]) for code in corpus.LANGUAGES}
held_out = {code: list(corpus.load(code, "dev")["text"]) for code in corpus.LANGUAGES}
encoded = {code: [tokenizer.encode(text)[1:-1] for text in texts[code]] for code in texts}
pieces = sum(len(text) for code in encoded for text in encoded[code])
print(f"{sum(map(len, texts.values())):,} sentences, {pieces:,} pieces, {len(tokenizer):,} ids")

# %% [markdown]
# XLM-R's text had about 295 *billion* pieces. Remember the factor when you meet `tiny`'s mistakes.

# %% [markdown]
# ## Why hold some back?
#
# In chapter 6 a model learned ten sentences by heart. Its loss went to almost nothing, and it had learned nothing
# about language. The loss on what it trains on can't tell the two apart.
#
# So 70 sentences of each language are held back. The model never trains on them. They are only used to measure.
#
# Why in *each* language? Look at two runs. Which one would you rather have?

# %%
runs = {
    "first": {"en": 3.0, "de": 3.0, "fr": 3.0, "ur": 8.0},
    "second": {"en": 4.2, "de": 4.2, "fr": 4.2, "ur": 4.4},
}
for name, losses in runs.items():
    print(f"{name:7} mean {sum(losses.values()) / 4:.2f}  {losses}")

# %% [markdown]
# These numbers are made up, the trouble isn't. The means are equal. Who reads only the mean doesn't see that the
# first model has no Urdu. One number a language, or you are training blind.

# %% [markdown]
# ## Which language comes next?
#
# In the classroom corpus every language says the same, so none is short of text. The web isn't like that: CC-100 has
# 53 times as much English as Urdu (chapter 1).
#
# So make the classroom unequal. Keep all English sentences, and of four others as many bytes as CC-100's sizes leave.

# %% tags=["setup"]
GIB = {"en": 300.8, "vi": 137.3, "el": 46.9, "hi": 20.2, "ur": 5.7}  # of CC-100


def first_bytes(sentences: list[str], most: float) -> list[str]:
    """The first sentences, until they hold `most` bytes of UTF-8."""
    kept, held = [], 0
    while held < most - 0.5:
        kept.append(sentences[len(kept)])
        held += len(kept[-1].encode("utf-8"))
    return kept


# %% [markdown]
# How many Urdu sentences will that be, to 420 English ones?

# %%
english_bytes = sum(len(text.encode("utf-8")) for text in texts["en"])
unequal = {code: first_bytes(texts[code], english_bytes * gib / GIB["en"]) for code, gib in GIB.items()}
print({code: len(sentences) for code, sentences in unequal.items()})

# %% [markdown]
# Five Urdu sentences. (Swahili would be left with two.)
#
# Every row of a batch is drawn anew: first a language, then texts in it. The chances are chapter 1's
# $q_i \propto p_i^\alpha$, where $p_i$ is the share of bytes.
#
# Picture them as slices of a line from 0 to 1. Throw a dart at the line: where it lands, that language comes next.

# %%
shades = dict(zip(GIB, plots.COLOURS, strict=True))
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7.5, 2.2))
    for row, alpha in enumerate((0.3, 1.0)):
        left = 0
        for code, chance in corpus.sampling_probabilities(GIB, alpha).items():
            axes.barh(row, chance, 0.7, left, color=shades[code], edgecolor=plots.CARD)
            name = code if chance > 0.03 else ""
            axes.text(left + chance / 2, row, name, ha="center", va="center", color="white")
            left += chance
    axes.set(yticks=(0, 1), yticklabels=("α = 0.3", "α = 1"), xlim=(0, 1), xlabel="where the dart lands")
plots.show(figure, alt="Two bars in five slices; α = 1: English over half, Urdu a sliver; 0.3: closer.")

# %% [markdown]
# ### Exercise: draw a language
#
# `q` holds each language's chance, in order. `dart` is a number in $[0, 1)$. Return the language in whose slice it
# lies. A slice begins with its left border and ends just before its right one.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The first slice ends at `q` of the first language. The second ends at the sum of the first two.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Walk through `q.items()` and add up. Return at the first border that lies beyond the dart.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `border += chance`, then `if dart < border: return code`.
#
# </details>


# %% exercise={"name": "draw", "role": "answer", "points": 1}
def draw(q: dict[str, float], dart: float) -> str:
    """The language whose slice of [0, 1) holds `dart`."""
    ### BEGIN SOLUTION
    border = 0.0
    for code, chance in q.items():
        border += chance
        if dart < border:
            return code
    return code  # rounding may leave the last border a hair below 1
    ### END SOLUTION


# %% exercise={"name": "draw", "role": "check"}
q = {"en": 0.5, "hi": 0.25, "ur": 0.25}
landed = [draw(q, dart) for dart in (0.0, 0.3, 0.5, 0.7, 0.75, 0.99)]
assert None not in landed, f"draw: some darts hit nothing: {landed}; borders are sums, the last one is 1"
assert landed[2] != "en", "draw: a dart on the border 0.5 belongs to the next slice; compare with <, not <="
assert landed[3] != "ur", "draw: 0.7 lies between 0.5 and 0.75, in Hindi's slice; a slice is as wide as its chance"
assert landed == ["en", "en", "hi", "hi", "ur", "ur"], f"draw: expected en en hi hi ur ur; yours gives {landed}"
print(landed)


# %% exercise={"name": "draw", "role": "hidden"}
other_q = {"sw": 0.125, "th": 0.125, "el": 0.5, "ar": 0.25}
others_landed = [draw(other_q, dart) for dart in (0.0, 0.125, 0.2, 0.25, 0.749, 0.999)]
assert others_landed == ["sw", "th", "th", "el", "el", "ar"], (
    f"draw: with the chances 1/8, 1/8, 1/2, 1/4 expected sw th th el el ar; yours gives {others_landed}"
)


# %% exercise={"name": "draw", "role": "mistake", "expect": "a slice is as wide as its chance"}
def draw(q: dict[str, float], dart: float) -> str:
    return list(q)[int(dart * len(q))]


# %% exercise={"name": "draw", "role": "mistake", "expect": "compare with <, not <="}
def draw(q: dict[str, float], dart: float) -> str:
    border = 0.0
    for code, chance in q.items():
        border += chance
        if dart <= border:
            return code


# %% exercise={"name": "draw", "role": "mistake", "expect": "some darts hit nothing"}
def draw(q: dict[str, float], dart: float) -> str:
    for code, chance in q.items():
        if dart < chance:
            return code


# %% [markdown]
# Now throw 1,000 darts for each α. How often is each language hit?

# %%
for alpha in (1.0, 0.3):
    sampler = streams.LanguageSampler(GIB, alpha, torch.Generator().manual_seed(0))
    hits = Counter(sampler.draw() for _ in range(1000))
    print(f"α = {alpha}:", {code: hits[code] for code in GIB})

# %% [markdown]
# With α = 0.3 Urdu comes up about ten times as often. It is still the same five sentences, so each is read ten times
# as often, too. Does that help, or does the model only learn them by heart? You will see when both runs are done,
# further down.

# %% [markdown]
# ## Filling the rows
#
# A row has room for 128 ids, and most sentences are far shorter. One sentence a row, as in chapter 6, would leave much
# of a batch to `<pad>`. So several sentences share a row:
#
# `<s> first sentence </s> second sentence </s> …`
#
# All of one language, whole sentences, as many as fit. fairseq calls that *complete* sentences. Take five languages,
# and a row of each in both ways.


# %%
def sentence_lengths(rows: list[list[int]]) -> list[list[int]]:
    """How many ids each sentence of each row takes, its `</s>` among them."""
    ends = [[place for place, id in enumerate(row) if id == tokenizer.eos_token_id] for row in rows]
    return [[b - a for a, b in zip([-1, *row], row, strict=False)] for row in ends]


def five_rows(fill) -> list[list[int]]:
    """A row each in five languages, filled by `streams.single` or `streams.packed`."""
    return [fill(streams.Documents(code, texts[code], tokenizer), 128) for code in ("ar", "th", "el", "sw", "zh")]


# %% [markdown]
# Each colour is one sentence, grey is padding.

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 2, figsize=(8, 2.2), sharey=True)
    for axes, fill in zip(panels, (streams.single, streams.packed), strict=True):
        axes.barh(range(5), 128, color="#d8d8d2")
        axes.set_title("one a row" if fill is streams.single else "packed")
        for y, lengths in enumerate(sentence_lengths(five_rows(fill))):
            for number, length in enumerate(lengths):
                axes.barh(y, length - 0.8, left=sum(lengths[:number]), color=plots.COLOURS[number % 5])
        axes.set(yticks=range(5), yticklabels=("ar", "th", "el", "sw", "zh"), xlim=(0, 128), xlabel="ids")
plots.show(figure, alt="Five rows of 128 ids; one sentence fills half of a row, packed ones most of it.")

# %% [markdown]
# What share of a large batch is real?

# %%
for name, fill in (("one sentence a row", streams.single), ("packed", streams.packed)):
    batch, _ = streams.Rows(tokenizer, texts, length=128, pack=fill is streams.packed).batch(256)
    width = 128 * len(batch)
    print(f"{name:18} {batch.ne(tokenizer.pad_token_id).sum() / width:.2f} of 256 rows of 128")

# %% [markdown]
# Twice as much work done in the same rectangle. That counts wherever a model computes the padding along with the rest.
# (The course's own encoder leaves padding out, chapter 5, so it gains less than others.)

# %% [markdown]
# ### Exercise: pack
#
# Given the texts' ids without `<s>` and `</s>`, and in this order, fill rows of at most `length` ids: `<s>` (0), then
# texts, each followed by `</s>` (2). A text that doesn't fit begins the next row. Each text fits a row of its own.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep a row that you are filling, starting with `[0]`, and a list of the rows that are done.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A text takes `len(text) + 1` places. If the row would grow longer than `length`, put it away and begin a new one.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `if len(row) + len(text) + 1 > length:` put the row away and begin with `[0]`; then `row = [*row, *text, 2]`. After
# the loop one row is still in your hand.
#
# </details>


# %% exercise={"name": "pack", "role": "answer", "points": 3}
def pack(texts: list[list[int]], length: int) -> list[list[int]]:
    """Rows `<s> text </s> text </s> …` of at most `length` ids, in the order of the texts."""
    ### BEGIN SOLUTION
    rows, row = [], [0]
    for text in texts:
        if len(row) + len(text) + 1 > length:
            rows.append(row)
            row = [0]
        row = [*row, *text, 2]
    return [*rows, row]
    ### END SOLUTION


# %% exercise={"name": "pack", "role": "check"}
filled = pack([[10, 11], [20], [30, 31], [40, 41, 42], [50]], 8)
kept = [id for row in filled for id in row if id >= 10]
assert kept[-1:] == [50], "pack: the last text is missing; after the loop a row is still being filled"
assert kept == [10, 11, 20, 30, 31, 40, 41, 42, 50], f"pack: every text once and in order, please; yours holds {kept}"
assert sum(row.count(2) for row in filled) == 5, "pack: each of the 5 texts ends with its own </s>, a 2"
assert all(row[0] == 0 and row.count(0) == 1 for row in filled), "pack: a row has one <s>, a 0, and begins with it"
assert max(map(len, filled)) <= 8, "pack: a row is longer than 8; <s> and each </s> take a place, too"
assert len(filled[1]) == 8, f"pack: the second row holds two texts and is exactly full; yours has {filled[1]}"
assert filled == [[0, 10, 11, 2, 20, 2], [0, 30, 31, 2, 40, 41, 42, 2], [0, 50, 2]], f"pack: yours gives {filled}"
print([len(row) for row in filled])


# %% exercise={"name": "pack", "role": "hidden"}
twelve = pack([[60, 61, 62, 63], [70, 71, 72, 73, 74], [80], [90, 91]], 12)
assert twelve == [[0, 60, 61, 62, 63, 2, 70, 71, 72, 73, 74, 2], [0, 80, 2, 90, 91, 2]], (
    f"pack: texts of 4 and 5 ids fill a row of 12 to the brim, then 1 and 2 share one; yours gives {twelve}"
)
alone = pack([[60, 61, 62], [70, 71, 72]], 5)
assert alone == [[0, 60, 61, 62, 2], [0, 70, 71, 72, 2]], f"pack: two texts that each fill a row of 5; yours {alone}"


# %% exercise={"name": "pack", "role": "mistake", "expect": "a row is still being filled"}
def pack(texts: list[list[int]], length: int) -> list[list[int]]:
    rows, row = [], [0]
    for text in texts:
        if len(row) + len(text) + 1 > length:
            rows.append(row)
            row = [0]
        row = [*row, *text, 2]
    return rows


# %% exercise={"name": "pack", "role": "mistake", "expect": "each </s> take a place"}
def pack(texts: list[list[int]], length: int) -> list[list[int]]:
    rows, row = [], [0]
    for text in texts:
        if len(row) + len(text) > length:
            rows.append(row)
            row = [0]
        row = [*row, *text, 2]
    return [*rows, row]


# %% exercise={"name": "pack", "role": "mistake", "expect": "is exactly full"}
def pack(texts: list[list[int]], length: int) -> list[list[int]]:
    rows, row = [], [0]
    for text in texts:
        if len(row) + len(text) + 1 >= length:
            rows.append(row)
            row = [0]
        row = [*row, *text, 2]
    return [*rows, row]


# %% exercise={"name": "pack", "role": "mistake", "expect": "a row has one <s>"}
def pack(texts: list[list[int]], length: int) -> list[list[int]]:
    rows, row = [], []
    for text in texts:
        if len(row) + len(text) + 2 > length:
            rows.append(row)
            row = []
        row = [*row, 0, *text, 2]
    return [*rows, row]


# %% [markdown]
# Every token of a row can look at every other, so a sentence sees its neighbours in the row. They have nothing to do
# with it. fairseq's recipe for RoBERTa lives with that, and so will you.
#
# The masks are drawn when a batch is made, never stored (chapter 6). The same sentence comes back with other gaps.

# %% [markdown]
# ## How fast to learn
#
# At the start, the weights are noise, and so are the first gradients. Large steps along them lead anywhere. At the end,
# large steps jump over what they look for. So the learning rate rises, and then it falls.
#
# The XLM-R paper doesn't print its schedule. RoBERTa's is known: for the base model up to 6e-4 within 24,000 steps,
# then down in a straight line, to 0 at step 500,000.

# %%
every = range(0, 500_000, 1000)
rates = [6e-4 * training.warmup_decay(step, 500_000, 24_000 / 500_000) for step in every]
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.5, 2.4))
    axes.plot(every, rates, color=plots.BLUE)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
plots.show(figure, alt="A steep rise to 0.0006 at step 24,000, then a straight fall to 0.")

# %% [markdown]
# ### Exercise: the learning rate
#
# `step` counts from 0. In the first `warmup` steps the rate grows by `peak / warmup` each step, so that the last of
# them has `peak`. After that it falls in a straight line that would reach 0 at `step == steps`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Step 0 is the first of `warmup` steps: its rate is `peak / warmup`, not 0.
#
# </details>
# <details><summary>Hint 2</summary>
#
# On the way down `steps - step` steps are left, of `steps - warmup` that the whole way down has.
#
# </details>
# <details><summary>Hint 3</summary>
#
# One line rises, one falls. `peak * min((step + 1) / warmup, (steps - step) / (steps - warmup))`
#
# </details>


# %% exercise={"name": "learning-rate", "role": "answer", "points": 2}
def learning_rate(step: int, peak: float, warmup: int, steps: int) -> float:
    """The learning rate of a step: a linear warm-up to `peak`, then a linear decay."""
    ### BEGIN SOLUTION
    return peak * min((step + 1) / warmup, (steps - step) / (steps - warmup))
    ### END SOLUTION


# %% exercise={"name": "learning-rate", "role": "check"}
found = [round(1e4 * learning_rate(step, 6e-4, 24_000, 500_000), 3) for step in (0, 11_999, 23_999, 262_000, 499_999)]
assert learning_rate(0, 6e-4, 24_000, 500_000) > 0, "learning-rate: the first step has the rate 0, so it is wasted"
assert found[2] != 10_000, "learning-rate: that is a factor between 0 and 1; multiply it by `peak`"
assert found[1] == 3, f"learning-rate: after 12,000 of 24,000 warm-up steps expected 3e-4; yours is {found[1]}e-4"
assert found[2] == 6, f"learning-rate: the last warm-up step, 23,999, has the peak, 6e-4; yours has {found[2]}e-4"
assert found[3] != 2.856, "learning-rate: the fall would last 500,000 steps; it begins after the warm-up, at the peak"
assert found[3] == 3, f"learning-rate: halfway down, at step 262,000, expected 3e-4; yours is {found[3]}e-4"
assert found == [0, 3, 6, 3, 0], f"learning-rate: expected 0, 3, 6, 3, 0 times 1e-4; yours gives {found}"
print(found)


# %% exercise={"name": "learning-rate", "role": "hidden"}
large = [round(1e4 * learning_rate(step, 4e-4, 30_000, 500_000), 3) for step in (14_999, 29_999, 265_000, 382_500)]
assert large == [2, 4, 2, 1], f"learning-rate: RoBERTa large has 2, 4, 2, 1 times 1e-4 at four steps; yours {large}"
short = [round(learning_rate(step, 1.0, 2, 6), 3) for step in range(6)]
assert short == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25], f"learning-rate: 6 steps, 2 of them up, peak 1; yours gives {short}"


# %% exercise={"name": "learning-rate", "role": "mistake", "expect": "the first step has the rate 0"}
def learning_rate(step: int, peak: float, warmup: int, steps: int) -> float:
    return peak * min(step / warmup, (steps - step) / (steps - warmup))


# %% exercise={"name": "learning-rate", "role": "mistake", "expect": "the fall would last 500,000 steps"}
def learning_rate(step: int, peak: float, warmup: int, steps: int) -> float:
    return peak * (step + 1) / warmup if step < warmup else peak * (steps - step) / steps


# %% exercise={"name": "learning-rate", "role": "mistake", "expect": "halfway down"}
def learning_rate(step: int, peak: float, warmup: int, steps: int) -> float:
    return peak * min((step + 1) / warmup, 1.0)


# %% exercise={"name": "learning-rate", "role": "mistake", "expect": "multiply it by `peak`"}
def learning_rate(step: int, peak: float, warmup: int, steps: int) -> float:
    return min((step + 1) / warmup, (steps - step) / (steps - warmup))


# %% [markdown]
# ## A hundred and fifty steps
#
# Now all of it together, in one call: draw languages, fill rows, mask, learn, and now and then measure. The shape is
# `tiny`'s: two layers of 128. How many parameters is that?

# %%
config = XLMRConfig.tiny(vocab_size=len(tokenizer))
newborn = MaskedLM(Encoder(config))
size = sum(weight.numel() for weight in newborn.parameters())
print(f"{size:,} parameters; XLM-R large has 560,142,482")

# %% [markdown]
# The weights of such a newborn are random, so all pieces look alike to it: its loss is near $\ln V$, for $V$ ids. The
# first thing that it would learn is which pieces are common. That much can be had for nothing. The head has a bias for
# each piece (chapter 6), and the package starts it at the logarithm of the piece's share of the text.
#
# Three lines to compare a run with. The highest: all pieces equally likely. The second: each as likely as it is common
# in the whole training text. The lowest: the same within each language, on average; who wants to get there must find
# out which language it is reading.


# %%
def entropy(counts: Counter) -> float:
    """The loss, in nats, of one who knows how common each piece is, and nothing else."""
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


by_language = {code: Counter(piece for text in encoded[code] for piece in text) for code in encoded}
lines = {
    "all alike": math.log(len(tokenizer)),
    "common": entropy(sum(by_language.values(), Counter())),
    "common in its language": sum(map(entropy, by_language.values())) / 15,
}

# %% [markdown]
# Where will the run begin? And where will 150 steps take it?

# %% tags=["nbval-ignore-output"]
settings = Settings(steps=150, log_every=10, eval_texts=2)
first_run = pretraining.pretrain(tokenizer, config, texts, held_out, settings)

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 3.4))
    points = [(entry["step"], entry["loss"]) for entry in first_run.history]
    axes.plot(*zip(*points, strict=True), color=plots.BLUE)
    for name, height in lines.items():
        axes.axhline(height, color=plots.QUIET, linestyle=":")
        axes.text(150, height - 0.06, name, ha="right", va="top", color=plots.QUIET, fontsize=9)
    axes.set(xlabel="step", ylabel="training loss (nats)", ylim=(5, None))
plots.show(figure, alt="The loss stays at the middle line for a while, then begins to fall below it.")

# %% [markdown]
# Were your two guesses right?

# %%
start, end = first_run.history[0]["loss"], first_run.history[-1]["loss"]
print("begins within 0.3 of the middle line:", abs(start - lines["common"]) < 0.3)
print("ends between the middle and the lowest:", lines["common in its language"] < end < lines["common"] - 0.1)

# %% [markdown]
# For a third of the way nothing seems to happen. Then the model begins to look around. At what? Ask it how likely Thai
# letters are in a gap, once in a Thai sentence and once in a Swahili one.


# %%
def thai_share(code: str) -> float:
    """The probability of all Thai pieces together, in the middle of a held-out sentence."""
    ids = tokenizer(held_out[code][0])["input_ids"]
    middle = ids.shape[1] // 2
    ids[0, middle] = tokenizer.mask_token_id
    thai = torch.tensor(["ก" <= token[-1:] <= "๛" for token in tokenizer.tokens])
    with torch.no_grad():
        return first_run.model(ids).logits[0, middle].softmax(-1)[thai].sum().item()


# %%
print("likelier in the Thai sentence:", thai_share("th") > thai_share("sw"))

# %% [markdown]
# The scripts come first. A falling loss, then, is not yet grammar. The question is how far it falls below what
# *counting* reaches.

# %% [markdown]
# ## Something to beat
#
# The simplest opponent only counts. In its language's training text, what share of the pieces is this one? It gives a
# gap the same answer whatever stands around it.
#
# One thing needs care. A held-out piece may be missing from the training text. A share of 0 has the logarithm
# $-\infty$, and one such piece makes the perplexity infinite. So a little is given to every piece:
#
# $$p(w) = 0.9 \cdot \frac{c(w)}{N} + 0.1 \cdot \frac{1}{V}$$
#
# Does that happen at all? The vocabulary comes from the same text, so it should be seldom. The share of held-out
# pieces that the language's own training text never has:

# %%
for code in ("en", "tr", "hi", "zh"):
    found = [piece for text in held_out[code] for piece in tokenizer.encode(text)[1:-1]]
    unseen = sum(piece not in by_language[code] for piece in found)
    print(code, round(unseen / len(found), 3))

# %% [markdown]
# ### Exercise: perplexity by counting
#
# `train` and `held_out` are lists of ids, $V$ is `vocab_size`. Return the perplexity on `held_out`: the exponential of
# the mean of $-\log p$, with $p$ as above, counted in `train`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `Counter(train)` counts. It gives 0 for what it hasn't seen.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Every id of `held_out` counts once for each time it occurs, seen before or not.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `losses = [-math.log(0.9 * counts[id] / len(train) + 0.1 / vocab_size) for id in held_out]`
#
# </details>


# %% exercise={"name": "count-perplexity", "role": "answer", "points": 2}
def count_perplexity(train: list[int], held_out: list[int], vocab_size: int) -> float:
    """The perplexity on `held_out` of guessing by frequency in `train`."""
    ### BEGIN SOLUTION
    counts = Counter(train)
    losses = [-math.log(0.9 * counts[id] / len(train) + 0.1 / vocab_size) for id in held_out]
    return math.exp(sum(losses) / len(losses))
    ### END SOLUTION


# %% exercise={"name": "count-perplexity", "role": "check"}
among_ten = round(count_perplexity([5, 5, 5, 7], [5, 7, 9, 5], 10), 3)
assert among_ten != 2.085, (
    "count-perplexity: you left out the 9, which training never saw; it is the hardest, and counts"
)
assert among_ten != 3.041, "count-perplexity: you counted in the held-out text; that is looking at the answers"
assert among_ten != 1.703, "count-perplexity: that is the mean loss; perplexity is its exponential"
assert among_ten == 5.488, f"count-perplexity: p is 0.685, 0.235, 0.01, 0.685, perplexity 5.488; yours {among_ten}"
print(among_ten)


# %% exercise={"name": "count-perplexity", "role": "hidden"}
never = round(count_perplexity([1, 2, 3, 4, 4], [8, 9], 20), 3)
assert never == 200, f"count-perplexity: among 20, two pieces never seen have p = 0.1 / 20 each: 200; yours {never}"
often = round(count_perplexity([3] * 9 + [6], [3, 3, 6], 4), 3)
assert often == 2.319, f"count-perplexity: p = 0.835 twice and 0.115 once make 2.319; yours {often}"


# %% exercise={"name": "count-perplexity", "role": "mistake", "expect": "which training never saw"}
def count_perplexity(train: list[int], held_out: list[int], vocab_size: int) -> float:
    counts = Counter(train)
    seen = [id for id in held_out if id in counts]
    losses = [-math.log(0.9 * counts[id] / len(train) + 0.1 / vocab_size) for id in seen]
    return math.exp(sum(losses) / len(losses))


# %% exercise={"name": "count-perplexity", "role": "mistake", "expect": "looking at the answers"}
def count_perplexity(train: list[int], held_out: list[int], vocab_size: int) -> float:
    counts = Counter(held_out)
    losses = [-math.log(0.9 * counts[id] / len(held_out) + 0.1 / vocab_size) for id in held_out]
    return math.exp(sum(losses) / len(losses))


# %% exercise={"name": "count-perplexity", "role": "mistake", "expect": "perplexity is its exponential"}
def count_perplexity(train: list[int], held_out: list[int], vocab_size: int) -> float:
    counts = Counter(train)
    return sum(-math.log(0.9 * counts[id] / len(train) + 0.1 / vocab_size) for id in held_out) / len(held_out)


# %% [markdown]
# ## Who gains from α?
#
# Back to the unequal classroom. Two runs of 60 steps, the same but for α. Then the held-out loss, language by
# language. Five Urdu sentences are all that either run has. Which languages will be better off with α = 0.3, and which
# worse?

# %% tags=["nbval-ignore-output"]
some = {code: held_out[code] for code in GIB}
by_alpha = {}
for alpha in (1.0, 0.3):
    settings = Settings(steps=60, batch_size=16, pack=True, alpha=alpha)
    run = pretraining.pretrain(tokenizer, config, unequal, some, settings)
    by_alpha[alpha] = run.held_out

# %% [markdown]
# Left is better. From blue to orange is what α = 0.3 changes:

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.5, 2.9))
    axes.hlines(list(GIB), by_alpha[1.0].values(), by_alpha[0.3].values(), color=plots.QUIET)
    for alpha, colour in ((1.0, plots.BLUE), (0.3, plots.ORANGE)):
        losses = by_alpha[alpha].values()
        axes.plot(losses, list(GIB), "o", color=colour, markersize=8, label=f"α = {alpha:g}")
    axes.set(xlabel="held-out loss (nats)", ylim=(4.5, -0.5))
    axes.legend()
plots.show(figure, alt="Held-out loss: with α = 0.3 English is higher, Greek, Hindi and Urdu clearly lower.")

# %% [markdown]
# Which of these differences are larger than 0.3 nats?

# %%
gain = {code: by_alpha[1.0][code] - by_alpha[0.3][code] for code in GIB}
print("better with 0.3:", [code for code in GIB if gain[code] > 0.3])
print("worse with 0.3: ", [code for code in GIB if gain[code] < -0.3])
print("Urdu gains more than English loses:", gain["ur"] > -gain["en"])

# %% [markdown]
# The small languages gain more than the large one loses, even from a handful of sentences read over and over. But look
# how far to the right Urdu still is. α decides who is read. It can't replace text.
#
# XLM-R's authors saw the same at full size. With 0.3 the languages with little data did better than with 1, those with
# much a little worse, and on average 0.3 was the best of the four values they tried (0.01, 0.3, 0.7 and 1).

# %% [markdown]
# ## Kill it
#
# With 500 cards and 1.5 million steps, somewhere a cable, a disk or a person fails. A run must be able to go on, and
# it should go on *as if nothing had happened*: same batches, same masks, same weights at the end.
#
# What does the next step depend on? On the weights, of course. And on what else? Think before you open the list.

# %% [markdown]
# <details><summary>All of it</summary>
#
# The optimiser's two running means for each weight. The number of the step, because the learning rate hangs on it.
# The random generators: of the masks, of dropout, of the languages drawn. And the place in each language's text.
#
# </details>
#
# What happens if one is left out? The run goes on without a word, and ends elsewhere.

# %% [markdown]
# ### Exercise: snapshot
#
# Here is a small run. One step of it needs a model, an optimiser, a generator and the number of the step.


# %% tags=["setup"]
def small_step(model, optimiser, generator, step):
    """Fit the sum of four random numbers; the learning rate falls with the step."""
    x = torch.rand(8, 4, generator=generator)
    optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
    optimiser.zero_grad()
    F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
    optimiser.step()


def small_run(seed):
    """A model, its optimiser and a generator, at step 0."""
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Linear(4, 1)
    torch.nn.init.normal_(model.weight, generator=generator)
    torch.nn.init.zeros_(model.bias)
    return model, torch.optim.AdamW(model.parameters()), generator


# %% [markdown]
# And this is how such a run goes on. It begins with other weights and another generator, so that everything must come
# from what was saved.


# %% tags=["setup"]
def small_resume(saved):
    """A run that goes on from a snapshot, up to step 6; returns its weights."""
    model, optimiser, generator = small_run(seed=99)
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    generator.set_state(saved["generator"])
    for step in range(saved["step"], 6):
        small_step(model, optimiser, generator, step)
    return model.weight.tolist()[0]


# %% [markdown]
# Return a dictionary with the four keys `"model"`, `"optimiser"`, `"generator"` and `"step"`, from which
# `small_resume` can go on. The run itself goes on after you took the snapshot, and must not change what is in it.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Models and optimisers have `.state_dict()`, a generator has `.get_state()`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `state_dict()` doesn't copy. Its tensors *are* the model's, and the next step changes them.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `copy.deepcopy(model.state_dict())`, and the same for the optimiser. (A file is a copy by itself.)
#
# </details>


# %% exercise={"name": "snapshot", "role": "answer", "points": 3}
def snapshot(model, optimiser, generator, step: int) -> dict:
    """All that the next step depends on, by the names that `small_resume` reads."""
    ### BEGIN SOLUTION
    return {
        "model": copy.deepcopy(model.state_dict()),
        "optimiser": copy.deepcopy(optimiser.state_dict()),
        "generator": generator.get_state(),
        "step": step,
    }
    ### END SOLUTION


# %% exercise={"name": "snapshot", "role": "check"}
model, optimiser, generator = small_run(seed=0)
for step in range(3):
    small_step(model, optimiser, generator, step)
saved, then = snapshot(model, optimiser, generator, 3), model.weight.tolist()[0]
missing = [key for key in ("model", "optimiser", "generator", "step") if key not in saved]
assert not missing, f"snapshot: {missing} is missing; without it the run goes on, and ends with other weights"
assert isinstance(saved["generator"], torch.Tensor), "snapshot: that generator goes on drawing; keep its .get_state()"
assert "state" in saved["optimiser"], "snapshot: the optimiser's running means are missing; take its .state_dict()"
for step in range(3, 6):
    small_step(model, optimiser, generator, step)
copied = saved["model"]["weight"].tolist()[0] == then
assert copied, "snapshot: the weights in it changed while the run went on; state_dict() shares them, so copy"
assert float(saved["optimiser"]["state"][0]["step"]) == 3, "snapshot: the optimiser's state went on; copy it, too"
assert saved["step"] == 3, f"snapshot: 3 steps were done, so 3 is the next; yours says {saved['step']}"
undisturbed, resumed = model.weight.tolist()[0], small_resume(saved)
assert resumed == undisturbed, "snapshot: the resumed run ends with other weights; compare what small_resume reads"
print("equal bit for bit:", resumed == undisturbed)


# %% exercise={"name": "snapshot", "role": "hidden"}
late_model, late_optimiser, late_generator = small_run(seed=5)
for late_step in range(6):
    if late_step == 5:
        late = snapshot(late_model, late_optimiser, late_generator, late_step)
    small_step(late_model, late_optimiser, late_generator, late_step)
assert small_resume(late) == late_model.weight.tolist()[0], (
    "snapshot: taken after 5 steps of another run, it leads to other weights than that run; is all of it copied?"
)


# %% exercise={"name": "snapshot", "role": "mistake", "expect": "shares them, so copy"}
def snapshot(model, optimiser, generator, step: int) -> dict:
    return {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
        "step": step,
    }


# %% exercise={"name": "snapshot", "role": "mistake", "expect": "is missing; without it the run goes on"}
def snapshot(model, optimiser, generator, step: int) -> dict:
    return {"model": copy.deepcopy(model.state_dict()), "step": step}


# %% exercise={"name": "snapshot", "role": "mistake", "expect": "keep its .get_state()"}
def snapshot(model, optimiser, generator, step: int) -> dict:
    states = copy.deepcopy([model.state_dict(), optimiser.state_dict()])
    return {"model": states[0], "optimiser": states[1], "generator": generator, "step": step}


# %% exercise={"name": "snapshot", "role": "mistake", "expect": "the optimiser's state went on"}
def snapshot(model, optimiser, generator, step: int) -> dict:
    return {
        "model": copy.deepcopy(model.state_dict()),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
        "step": step,
    }


# %% [markdown]
# ### The real thing
#
# Now with a run of the package, and with no mercy. `xlmr-course pretrain` reads any folder with one text file a
# language. Here are two small files.

# %%
import subprocess
import sys
import time

folder = Path(tempfile.mkdtemp())
(folder / "texts").mkdir()
for code in ("sw", "ur"):
    file = folder / "texts" / f"{code}.txt"
    file.write_text("\n".join(texts[code][:100]), encoding="utf-8")

# %% [markdown]
# Thirty steps on them, with a snapshot every ten:

# %%
command = [sys.executable, "-m", "xlmr_course", "pretrain", "--data", str(folder / "texts")]
command += ["--tokenizer", "tiny", "--steps", "30", "--batch-size", "8", "--save-every", "10"]
command += ["--output"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

# %% [markdown]
# One run is left in peace.

# %%
in_peace = subprocess.Popen([*command, str(folder / "peace")], **quiet)
print("ended well:", in_peace.wait() == 0)

# %% [markdown]
# The other is killed as soon as its first snapshot lies on the disk. `kill` sends SIGKILL: no goodbye, no cleaning up.

# %%
victim = subprocess.Popen([*command, str(folder / "killed")], **quiet)
snapshots = folder / "killed" / "snapshots"
while victim.poll() is None and not list(snapshots.glob("step-*.pt")):
    time.sleep(0.02)
victim.kill()
print("ended well:", victim.wait() == 0)

# %% [markdown]
# What is left of it?

# %%
print("a snapshot:", bool(list(snapshots.glob("step-*.pt"))))
print("a finished model:", (folder / "killed" / "model.safetensors").exists())

# %% [markdown]
# The same command again. It finds the snapshot and goes on. Are the weights at the end those of the run in peace, all
# of them, to the last bit?

# %%
again = subprocess.run([*command, str(folder / "killed")], **quiet)
resumed, undisturbed = (checkpoints.read_tensors(folder / name) for name in ("killed", "peace"))
equal = all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
print("ended well:", again.returncode == 0)
print(len(resumed), "tensors, all equal bit for bit:", equal)

# %% [markdown]
# Two more details make that safe. A snapshot is written under another name, forced to the disk and then renamed, so
# that half a file is never taken for a whole one. And a command with other settings is refused:

# %%
other = [*command, str(folder / "killed"), "--learning-rate", "0.001"]
told = subprocess.run(other, capture_output=True, text=True, encoding="utf-8").stderr
print(told.strip().splitlines()[-1].replace(": ", ":\n", 2))

# %% [markdown]
# ## The long run
#
# `tiny` was made by this very command, with the classroom corpus and more steps. Its history came with it.

# %%
shipped = sources.locate("tiny")
history = [json.loads(line) for line in (shipped / "history.jsonl").open(encoding="utf-8")]
results = json.loads((shipped / "results.json").read_text(encoding="utf-8"))
times = results["tokens"] / pieces
print(f"{results['steps']:,} steps, {results['tokens']:,} tokens, {times:.0f} times through the text")

# %% [markdown]
# It didn't pack: this encoder computes no padding, so one sentence a row costs nothing. And it hid more than 15 %, so
# that its little text gives more to guess:

# %%
chosen = ("batch_size", "pack", "masking", "learning_rate", "alpha", "seed")
print({name: results["settings"][name] for name in chosen})

# %% [markdown]
# One grey line is the held-out loss of one language; a few are in colour. The dotted lines are three opponents that
# only count. One knows how *frequent* a piece is in its language. The bigram also knows the piece on the left of the
# gap. The third, called cloze, knows both neighbours, and mixes all that cleverly. (Means over the languages.)

# %%
tracked = [entry for entry in history if "held_out" in entry]
shown = dict(zip(("en", "sw", "zh", "th", "ur"), plots.COLOURS, strict=True))
steps = [entry["step"] for entry in tracked]
opponents = {name: perplexity.mean(results["losses"]["dev"][name]) for name in ("unigram", "bigram", "cloze")}

# %% [markdown]
# How far down do the lines go?

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 3.8))
    for code in corpus.LANGUAGES:
        curve = [entry["held_out"][code] for entry in tracked]
        axes.plot(steps, curve, color=shown.get(code, "#c9cbd0"), label=code if code in shown else None)
    for name, height in opponents.items():
        axes.axhline(height, color=plots.QUIET, linestyle=":")
        axes.text(steps[-1], height, name, ha="right", va="bottom", color=plots.QUIET, fontsize=9)
    axes.legend(loc="upper right")
    axes.set(xlabel="step", ylabel="held-out loss (nats)")
plots.show(figure, alt="Held-out loss of 15 languages over the steps, and the three opponents.")

# %% [markdown]
# The steep part is over soon: the model finds out which language it reads. Then it goes slowly. What stands beside
# what is a separate thing to learn for each piece, in fifteen languages. At the end the loss falls once more, as the
# learning rate goes to zero. The opponents were told the language from the start.

# %% [markdown]
# ## Better than counting?
#
# Now on the *test* sentences, which were used for nothing so far. Perplexity: among how many equally likely pieces does
# each of the four hesitate?

# %%
losses = results["losses"]["test"]
tables = {name: perplexity.perplexities(losses[name]) for name in ("unigram", "bigram", "cloze", "model")}
print("language  unigram   bigram    cloze     tiny")
for code in corpus.LANGUAGES:
    print(f"{code:8}" + "".join(f"{tables[name][code]:9.1f}" for name in tables))

# %% [markdown]
# In how many languages does `tiny` beat each opponent?

# %%
for name in ("unigram", "bigram", "cloze"):
    better = [code for code in corpus.LANGUAGES if losses["model"][code] < losses[name][code]]
    print(f"{name:8} beaten in {len(better):2} of 15")

# %% [markdown]
# So `tiny` knows more than frequencies, and less than a table of neighbours. Why? The counters are told the language,
# and their free numbers were tuned on dev text of each. Above all, counting learns a pair of neighbours from a single
# sight, where a network needs many, and eight minutes on two cores are twenty sights. With 25,000 pieces a language,
# that counts; with XLM-R's 295 billion in all, nobody could keep the tables.
#
# Whoever shows you a perplexity without such a column shows you little.
#
# The numbers stand in a file. Do they hold? Measure one language again, with the model itself:

# %%
model = checkpoints.load_masked_lm("tiny")
swahili = {"sw": list(corpus.load("sw", "test")["text"])}
again = pretraining.held_out_loss(model, tokenizer, swahili)
print("Swahili within 0.01 nats of the file:", abs(again["sw"] - losses["model"]["sw"]) < 0.01)

# %% [markdown]
# ## Why do the languages differ?
#
# The loss is an average over *pieces*, and a piece is not the same in each language. This vocabulary writes Chinese in
# characters and short words, thousands of them. Other languages come in syllables and endings, many of which are easy
# to guess from the rest of the word.
#
# The test sentences say the same in each language. So count by the sentence instead: the loss of a piece times the
# pieces of a sentence.

# %%
per_sentence = {}
for code in texts:
    counts = [len(tokenizer.encode(text)) - 2 for text in corpus.load(code, "test")["text"]]
    per_sentence[code] = losses["model"][code] * sum(counts) / len(counts)

# %% [markdown]
# Both rankings, side by side. Follow Chinese and Thai.

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 2, figsize=(8, 3.8))
    for axes, values in zip(panels, (losses["model"], per_sentence), strict=True):
        order = sorted(values, key=values.get, reverse=True)
        colours = [shown.get(code, "#c9cbd0") for code in order]
        axes.barh(order, [values[code] for code in order], color=colours)
        axes.set(xlabel="nats a piece" if values is losses["model"] else "nats a sentence")
        axes.tick_params(axis="y", length=0)
plots.show(figure, alt="15 languages by loss a piece and by loss a sentence; the order changes.")

# %%
for name, values in (("a piece", losses["model"]), ("a sentence", per_sentence)):
    order = sorted(values, key=values.get)
    print(f"per {name:11} easiest {' '.join(order[:4])}   hardest {' '.join(order[-4:])}")

# %% [markdown]
# The order changes. (The sum over a sentence is no probability of it: each piece was guessed with all others in sight.)
#
# So never compare two languages by the loss of a piece. Compare two *models* by it, on the same pieces.

# %% [markdown] exercise={"name": "higher-loss", "role": "manual", "points": 2, "rubric": "1 point: a piece differs between languages (length, number of candidates), so losses per piece aren't comparable. 1 point: a fair comparison: the same content per sentence or character, the gain over a baseline in the same language, or a task."}
# ### In your own words: has it learned less Chinese?
#
# The loss of a Chinese piece is higher than that of a Greek one. A friend says: "So the model is worse at Chinese."
# What do you answer? And what would you measure instead?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# A Chinese piece is often a whole word or a character with its own meaning, chosen from thousands; many Greek pieces
# are syllables that follow from the rest of the word. So a higher loss a piece says nothing about who is known better.
# Compare by the sentence, since the sentences say the same, or look how far each language lies below its own counting
# baseline. Best of all, test a task, such as finding translations.
# ### END SOLUTION

# %% [markdown]
# ## What does it write into the gaps?
#
# While `tiny` was trained, it was asked the same questions at steps 0, 100, 1000 and at the end. The sentences are test
# sentences. In each, one frequent word is hidden. Here are its first guesses; ▁ is a space.

# %%
asked = json.loads((shipped / "fill_mask.json").read_text(encoding="utf-8"))
stages, table = list(asked["guesses"]), []
for number, prompt in enumerate(asked["prompts"]):
    if number % 2 and prompt["language"] in ("tr", "ar", "el", "sw", "hi", "vi", "zh"):
        tops = [asked["guesses"][stage][number][0][0] for stage in stages]
        table.append((prompt["language"], prompt["text"], prompt["answer"], *tops))
header = ("", "text", "hidden", *(f"step {int(stage):,}" for stage in stages))
plots.show_sentences(table, header)

# %% [markdown]
# And over all its questions, two in each language (but Thai: it writes no spaces, and the rule that chose
# the words found none): how often is the hidden word its first guess, how often among the first five?

# %%
answers = [prompt["answer"] for prompt in asked["prompts"]]
for stage in stages:
    ranked = [[token for token, _ in guesses] for guesses in asked["guesses"][stage]]
    pairs = list(zip(answers, ranked, strict=True))
    first = sum(answer == tokens[0] for answer, tokens in pairs)
    five = sum(answer in tokens for answer, tokens in pairs)
    print(f"step {int(stage):6,}   first {first:2}   among five {five:2}   of {len(answers)}")

# %% [markdown]
# ## The same model in transformers
#
# The folder has the Hugging Face layout. So `pipeline` can open it, and everything else that knows the format. Does it
# give the same five guesses, from the same scores?

# %% tags=["nbval-ignore-output"]
from transformers import pipeline

unmasker = pipeline("fill-mask", model=str(shipped), device="cpu")

# %% [markdown]
# A Hindi sentence with a gap:

# %%
question = next(prompt["text"] for prompt in asked["prompts"] if prompt["language"] == "hi")
theirs = [guess["token"] for guess in unmasker(question)]
ours = [token for token, _ in pretraining.fill_mask(model, tokenizer, question)]
print("the same five:", [tokenizer.tokens[id] for id in theirs] == ours)

# %% [markdown]
# And all the scores, of every piece at every place?

# %%
ids = tokenizer(question)["input_ids"]
with torch.no_grad():
    gap = (unmasker.model(ids).logits - model(ids).logits).abs().max().item()
print(f"{tuple(unmasker.model(ids).logits.shape)}; logits within 1e-4:", gap < 1e-4)

# %% [markdown]
# ## What more would bring
#
# You have a few hundred sentences a language, and a model that fits into an e-mail. What happens when each of the
# numbers grows? XLM-R's authors tried. What follows is accuracy on XNLI: does one sentence follow from another?
#
# **More text.** Pretrained on CC-100 instead of Wikipedia, a model of seven languages went from 71.8 to 76.2 on
# average: Swahili from 60.8 to 71.2, Urdu from 62.3 to 66.9.
#
# **More time.** Who stops when the held-out perplexity no longer falls stops too early. Longer training alone took an
# older model, XLM, from 71.3 to above 75.
#
# **More languages.** Here it gets interesting. The numbers were read off the paper's chart: trust their order.

# %%
languages = (7, 15, 30, 60, 100)
chart = {
    "large languages": (80, 79, 78, 77, 74),
    "all": (72, 72, 71, 69, 67),
    "small languages": (63, 65, 64, 61, 58),
}
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.5, 3))
    for (name, values), colour in zip(chart.items(), plots.COLOURS, strict=False):
        axes.plot(languages, values, "o-", color=colour)
        axes.text(102, values[-1], name, color=colour, va="center")
    axes.set(xticks=languages, xlabel="languages in pretraining", ylabel="XNLI accuracy (≈)")
plots.show(figure, alt="Accuracy with 7 to 100 languages: the small ones rise to 15, then all fall.")

# %% [markdown]
# From 7 to 15 languages, the small ones gain: company helps. After that all lose. The model's size stays the same, and
# each language has a smaller share of it. The authors call it the *curse of multilinguality*.
#
# **More capacity** lifts it, in part. With 100 languages, a wider model won about two points, and larger vocabularies
# helped as well. (Read from charts, too.)

# %% [markdown]
# How much did XLM-R read? Its paper doesn't say how long a sample was. If all had 512 tokens:

# %%
read = 1_500_000 * 8192 * 512
print(f"XLM-R: {read / 1e12:.1f} trillion tokens, {read / 295e9:.0f} times through CC-100")
print(f"tiny:  {results['tokens'] / 1e6:.1f} million tokens, {times:.0f} times through the classroom")

# %% [markdown]
# ## The same command, larger
#
# One process or many, the command is the same; `accelerate launch` starts it once for each GPU. Every step is still
# *one* batch, cut into parts, and its loss is the mean over all hidden pieces of the batch, as with a single process.
# Data that doesn't fit on a disk is streamed:
#
# ```
# accelerate launch --multi_gpu -m xlmr_course pretrain --config base --pack --output runs/base \
#     --dataset wikimedia/wikipedia --subset 20231101.{language} --languages sw,ur,hi,th
# ```
#
# This is the step that runs everywhere, from the installed file. You know each line of it.

# %%
show_source(pretraining._Pretraining.learn)

# %% [markdown]
# And how it fills a row:

# %%
show_source(streams.packed)

# %% [markdown]
# ## What you saw
#
# - A mean over languages hides a language that was forgotten. Hold text back in each, and look at each.
# - α decides who is read. The smallest languages gain most, the large ones pay a little, and nobody gets new text.
# - A model first learns how frequent pieces are. Only what lies below the counting baselines is language.
# - A killed run ends with the same bits, if a snapshot holds *everything* that the next step depends on.
# - Losses of different languages can't be compared by the piece.
#
# ## Further reading
#
# - Conneau et al. (2020), *Unsupervised Cross-lingual Representation Learning at Scale*, sections 3 and 5.
# - Liu et al. (2019), *RoBERTa*, for the schedule and for packing full sentences.
# - Conneau and Lample (2019), *Cross-lingual Language Model Pretraining*: XLM, the model before XLM-R.
#
# ## What comes next
#
# Nobody told the model that two sentences in two languages mean the same. Yet in a model that has read enough, they end
# up side by side. You will see that when you look inside one: `09_looking_inside`.
