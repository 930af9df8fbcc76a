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
# # 10 · The real model
#
# **You will build** what you need to work with XLM-RoBERTa itself: its size and memory by arithmetic, a loader for its
# file, fill-mask, and a measure of what it associates with whom.
#
# *Needs:* {{needs}}. *Download:* none. With `large` (2,240 MB) or `base` (1,120 MB) on this machine the same cells
# use it, and need more memory.

# %% [markdown]
# Everything so far was small enough for a laptop. The model that this course is named after has 560 million
# parameters. Will your code hold it? Which of its numbers do you have to know, and which can you compute?
#
# Here is what you can do without owning the file: nearly everything.

# %% tags=["setup"]
import math
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from xlmr_course import checkpoints, corpus, plots, sources
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import MaskedLM

# %% [markdown]
# ## Which model is on this machine?
#
# Four checkpoints have a name in the course. Where would each come from, without a download?

# %% tags=["nbval-ignore-output"]
for name in ("large", "base", "small", "tiny"):
    print(f"{name:6} {sources.available(name) or 'not here'}")

# %% [markdown]
# Two names carry the chapter. `NAME` is the largest model here that can guess a hidden word. `FEATURES` is the largest
# pretrained encoder; it needs no head for guessing.

# %% tags=["nbval-ignore-output"]
_ = torch.set_grad_enabled(False)
NAME = next(name for name in ("large", "base", "tiny") if sources.available(name))
FEATURES = next((name for name in ("large", "base", "small") if sources.available(name)), NAME)
print(f"guessing words: {NAME}; features: {FEATURES}")

# %% [markdown]
# The outputs stored in this notebook come from a machine that had `small` and `tiny`. Every comparison with
# transformers holds for `tiny` as for `large`. But its *guesses* are those of a model that has read 6,300 sentences.
# The text says so wherever it matters.

# %% [markdown]
# ## What it is
#
# One encoder for 100 languages, trained by Conneau and others on text from the web, CC-100: one crawl for English,
# twelve for each other language, cleaned and sorted by language. The task was the one of chapter 6, and nothing else.
# No translations, no language labels.
#
# How much text is that?

# %%
gib, tokens = 2_394, 295e9  # the sums of the paper's table of 100 languages
print(f"{gib * 2**30 / 1e12:.2f} TB of text, {tokens / 1e9:.0f} billion tokens")
updates, batch = 1_500_000, 8_192
print(f"{updates * batch / 1e9:.1f} billion sequences seen, on 500 GPUs with 32 GB each")

# %% [markdown]
# The paper doesn't say how long a sequence was, nor its learning rate or warm-up. If every sequence had 512 tokens,
# as many as the model has positions for, how often would it have read its text? Languages are drawn by
# $q \propto p^{0.3}$, as in chapter 1. These shares of the data, $p$, and of the draws, $q$, are in percent:

# %%
passes = updates * batch * 512 / tokens
print(f"{passes:.0f} times on average")
for code, p, q in (("en", 12.56, 2.96), ("hi", 0.84, 1.32), ("ur", 0.238, 0.900), ("sw", 0.067, 0.615)):
    print(f"{code}: {passes * q / p:4.0f} times")

# %% [markdown]
# English five times, Swahili nearly two hundred times, over and over the same 1.6 GiB.
#
# Four sizes were published:
#
# | | layers | width | heads | parameters | norm |
# |---|---|---|---|---|---|
# | base | 12 | 768 | 12 | 278 M | after (post-LN) |
# | large | 24 | 1024 | 16 | 560 M | after |
# | XL | 36 | 2560 | 32 | 3.5 billion | before (pre-LN) |
# | XXL | 48 | 4096 | | 10.7 billion | before |
#
# Your encoder of chapter 5 is post-LN. It fits base and large. It does not fit XL and XXL.

# %% [markdown]
# ## Where do 560 million parameters sit?
#
# You counted a layer in chapter 5. Here is the rest of the sum, with width $H$, feed-forward width $F$, $L$ layers,
# $V$ words and $P$ rows of positions:
#
# - tables: $V \cdot H$ words, $P \cdot H$ positions, one row of $H$ for the single token type, and a LayerNorm, $2H$;
# - layers: $L$ times $4H^2 + 2HF + 9H + F$;
# - the head that guesses: $H^2 + H$, a LayerNorm, $2H$, and a bias for each word, $V$.
#
# Where in this list is the matrix that turns a vector into 250,002 scores?

# %% [markdown]
# Nowhere: it *is* the word table, used a second time. In memory it exists once, so it counts once.
#
# ### Exercise: parameters
#
# Count all parameters of an encoder with its masked-LM head.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Add up three numbers: tables, layers, head. The fields are `config.hidden_size`, `config.intermediate_size`,
# `config.num_hidden_layers`, `config.vocab_size`, `config.max_position_embeddings`, `config.type_vocab_size`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `tables = (vocab + positions + types) * H + 2 * H`
#
# </details>
# <details><summary>Hint 3</summary>
#
# `head = H * H + H + 2 * H + vocab`; a layer is `4 * H * H + 2 * H * F + 9 * H + F`.
#
# </details>


# %% exercise={"name": "parameters", "role": "answer", "points": 2}
def parameters(config: XLMRConfig) -> int:
    """All parameters of the encoder and its masked-LM head; what is tied counts once."""
    ### BEGIN SOLUTION
    H, ffn, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    tables = (vocab + config.max_position_embeddings + config.type_vocab_size) * H + 2 * H
    layer = 4 * H * H + 2 * H * ffn + 9 * H + ffn
    head = H * H + H + 2 * H + vocab
    return tables + config.num_hidden_layers * layer + head
    ### END SOLUTION


# %% exercise={"name": "parameters", "role": "check"}
base = parameters(XLMRConfig.base())
assert base != 278_295_186 + 250_002 * 768, "parameters: the word table is in your sum twice; the decoder is tied to it"
assert base != 277_453_056, "parameters: this is the encoder alone; the head has a dense layer, a norm and a bias"
assert base != 278_295_186 - 515 * 768, "parameters: positions and token type are missing; they are tables too"
assert base != 278_295_186 - 2 * 768, "parameters: one LayerNorm is missing, the one behind the embeddings"
assert base == 278_295_186, f"parameters: expected 278,295,186 for base, yours {base:,}; off by {base - 278_295_186:,}"
print(base, parameters(XLMRConfig.large()))

# %% exercise={"name": "parameters", "role": "hidden"}
for hidden_shape in (
    XLMRConfig.large(),
    XLMRConfig.tiny(),
    XLMRConfig.small(vocab_size=901, num_hidden_layers=3, intermediate_size=77, type_vocab_size=2),
):
    hidden_count = sum(p.numel() for p in MaskedLM(Encoder(hidden_shape, device="meta")).parameters())
    assert parameters(hidden_shape) == hidden_count, f"parameters: {hidden_shape} has {hidden_count:,} parameters"
print("three other shapes")


# %% exercise={"name": "parameters", "role": "mistake", "expect": "in your sum twice"}
def parameters(config: XLMRConfig) -> int:
    H, ffn, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    tables = (vocab + config.max_position_embeddings + config.type_vocab_size) * H + 2 * H
    layer = 4 * H * H + 2 * H * ffn + 9 * H + ffn
    return tables + config.num_hidden_layers * layer + H * H + H + 2 * H + vocab * H + vocab


# %% exercise={"name": "parameters", "role": "mistake", "expect": "this is the encoder alone"}
def parameters(config: XLMRConfig) -> int:
    H, ffn, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    tables = (vocab + config.max_position_embeddings + config.type_vocab_size) * H + 2 * H
    return tables + config.num_hidden_layers * (4 * H * H + 2 * H * ffn + 9 * H + ffn)


# %% exercise={"name": "parameters", "role": "mistake", "expect": "positions and token type are missing"}
def parameters(config: XLMRConfig) -> int:
    H, ffn, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = 4 * H * H + 2 * H * ffn + 9 * H + ffn
    return vocab * H + 2 * H + config.num_hidden_layers * layer + H * H + H + 2 * H + vocab


# %% [markdown]
# ## The sum against the model
#
# PyTorch can build a model on the *meta* device: every tensor has a shape and no numbers, so even `large` costs
# nothing. What does it count?

# %%
shapes = {name: getattr(XLMRConfig, name)() for name in ("tiny", "small", "base", "large")}
models = {name: MaskedLM(Encoder(config, device="meta")) for name, config in shapes.items()}
for name, model in models.items():
    print(f"{name:6} {sum(p.numel() for p in model.parameters()):11,}")

# %% [markdown]
# The last two are the published counts, 278,295,186 and 560,142,482. (`small` is drawn here with a head to be
# comparable; its checkpoint has none.)
#
# Now the question of the title: where do they sit?

# %%
parts = {
    "word table": [m.encoder.embeddings.word.weight.numel() for m in models.values()],
    "layers": [sum(p.numel() for p in m.encoder.layers.parameters()) for m in models.values()],
}
totals = [sum(p.numel() for p in m.parameters()) for m in models.values()]
parts["rest"] = [t - w - r for t, w, r in zip(totals, *parts.values(), strict=True)]

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 2.4))
    left = torch.zeros(4)
    for (part, counts), colour in zip(parts.items(), (plots.ORANGE, plots.BLUE, plots.QUIET), strict=True):
        axes.barh(list(models), [c / 1e6 for c in counts], left=left, color=colour, label=part)
        left = left + torch.tensor([c / 1e6 for c in counts])
    axes.set_xlabel("million parameters")
    axes.legend()
plots.show(
    figure, alt="Stacked bars: word table and layers of tiny, small, base and large; large has 256 and 302 million."
)

# %% [markdown]
# In `small` and `base` most of the model is the word table. In `large` the layers have overtaken it, but the table
# alone is still 256 million.

# %% [markdown]
# ## What a parameter costs
#
# To *run* a model you need its weights: 4 bytes a parameter in float32, 2 in half precision. How large are the files?

# %%
for name, total in zip(models, totals, strict=True):
    print(f"{name:6} float32 {4 * total / 1e6:5,.0f} MB, half precision {2 * total / 1e6:5,.0f} MB")

# %% [markdown]
# The hub's file of `large` weighs 2.24 GB. So it is float32, and the word table is in it once.
#
# To *train* it you need more. For each parameter that is trained:
#
# | | bytes |
# |---|---|
# | the weight, float32 | 4 |
# | its gradient | 4 |
# | Adam's two running means | 8 |
# | a copy in half precision, if you train in mixed precision | 2 |
#
# A frozen parameter costs 4 bytes: its weight. It has no gradient, and Adam doesn't know it.

# %% [markdown]
# ### Exercise: memory for training
#
# Add it up, in GB of $10^9$ bytes.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# 16 bytes for a trained parameter, 18 in mixed precision. Adam keeps *two* means, each in float32.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `((18 if mixed else 16) * trained + 4 * frozen) / 1e9`
#
# </details>


# %% exercise={"name": "training-memory", "role": "answer", "points": 2}
def training_memory(trained: int, frozen: int = 0, mixed: bool = True) -> float:
    """GB for weights, gradients and Adam, without activations."""
    ### BEGIN SOLUTION
    return ((18 if mixed else 16) * trained + 4 * frozen) / 1e9
    ### END SOLUTION


# %% exercise={"name": "training-memory", "role": "check"}
plain, mixed = training_memory(559_893_507, 0, mixed=False), training_memory(559_893_507)
half = training_memory(303_891_459, 256_002_048)
assert round(plain, 2) != 6.72, "training-memory: 12 bytes a parameter; Adam keeps two means, not one"
assert round(plain, 2) != 8.34, "training-memory: this is in GiB, 1024 to the third; GB are 10 to the ninth here"
assert round(plain, 3) == 8.958, f"training-memory: 16 bytes × 559,893,507 is 8.958 GB; yours {plain:.3f}"
assert round(mixed, 3) == 10.078, f"training-memory: mixed precision adds 2 bytes, 10.078 GB in all; yours {mixed:.3f}"
assert round(half, 2) != 10.08, "training-memory: freezing saved nothing; a frozen parameter has no gradient, no Adam"
assert round(half, 2) != 5.47, "training-memory: the frozen weights are gone; they still have to be in memory"
assert round(half, 3) == 6.494, f"training-memory: with the word table frozen expected 6.494 GB; yours {half:.3f}"
print(round(plain, 3), round(mixed, 3), round(half, 3))

# %% exercise={"name": "training-memory", "role": "hidden"}
for hidden_case, hidden_gb in (((10**6, 0, False), 0.016), ((0, 250_000_000), 1.0), ((10**8, 10**8, False), 2.0)):
    assert math.isclose(training_memory(*hidden_case), hidden_gb), (
        f"training-memory: {hidden_case} needs {hidden_gb} GB"
    )
print("three other models")


# %% exercise={"name": "training-memory", "role": "mistake", "expect": "Adam keeps two means, not one"}
def training_memory(trained: int, frozen: int = 0, mixed: bool = True) -> float:
    return ((14 if mixed else 12) * trained + 4 * frozen) / 1e9


# %% exercise={"name": "training-memory", "role": "mistake", "expect": "freezing saved nothing"}
def training_memory(trained: int, frozen: int = 0, mixed: bool = True) -> float:
    return (18 if mixed else 16) * (trained + frozen) / 1e9


# %% exercise={"name": "training-memory", "role": "mistake", "expect": "the frozen weights are gone"}
def training_memory(trained: int, frozen: int = 0, mixed: bool = True) -> float:
    return (18 if mixed else 16) * trained / 1e9


# %% [markdown]
# ## What a sentence costs
#
# The backward pass needs what the forward pass computed: the *activations*. For $b$ sentences of $s$ tokens, $a$ heads
# and $L$ layers in half precision, Korthikanti et al. (2022) count
#
# $$L \,(34\, s\, b\, H + 5\, a\, s^2\, b) \text{ bytes.}$$
#
# The second part is the attention scores, one for each pair of tokens. Which part is larger for 128 tokens?


# %%
def activations(config: XLMRConfig, batch: int, length: int) -> tuple[float, float]:
    """GB of activations in half precision: everything but the scores, and the scores."""
    each = config.num_hidden_layers * length * batch
    return 34 * each * config.hidden_size / 1e9, 5 * each * config.num_attention_heads * length / 1e9


for length, batch in ((128, 32), (512, 8)):
    rest, scores = activations(XLMRConfig.large(), batch, length)
    print(f"{batch:2} sentences of {length} tokens: {rest:.2f} GB and {scores:.2f} GB of scores")

# %% [markdown]
# The same 4,096 tokens both times. Long sentences pay for their pairs. (PyTorch's fused attention doesn't keep the
# scores. Then the second number falls away.)
#
# Is that formula true for your encoder? PyTorch can tell: a hook sees every tensor that is kept for the backward pass.


# %%
def kept(encoder: Encoder, ids: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, the weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    tensors = []
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: tensors.append(t) or t, lambda t: t):
        encoder(ids)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(size for place, size in storages.items() if place not in weights)


# %%
shape = XLMRConfig.small(vocab_size=1000, num_hidden_layers=4)
encoder = Encoder(shape, torch.Generator().manual_seed(0)).train()
encoder.embeddings.requires_grad_(False)
ids = torch.full((8, 128), 7)
counted, formula = kept(encoder, ids), sum(activations(shape, 8, 128)) * 1e9
print(f"kept {counted / formula:.2f} times what the formula says")

# %% [markdown]
# The formula is for half precision, this ran in float32. Twice as much was to be expected, and a little more is what
# came out. The formula holds.
#
# *Gradient checkpointing* keeps only what enters each layer, and computes the rest again when the backward pass gets
# there. What is left of the sum?

# %%
encoder.gradient_checkpointing = True
checkpointed = kept(encoder, ids)
inputs = 4 * 8 * 128 * shape.hidden_size * shape.num_hidden_layers  # float32, one vector a token and layer
print(f"{counted / checkpointed:.0f} times less; exactly the inputs of the layers: {checkpointed == inputs}")

# %% [markdown]
# The price is time: each layer runs forward twice, about a third more work.

# %% [markdown]
# ## Does it fit?
#
# Colab's free GPU is a T4. It offers 14.73 GiB, which is 15.8 GB. Batches of 4,096 tokens, three ways to train
# `large`:

# %%
N, TABLE, T4 = 559_893_507, 256_002_048, 14.73 * 2**30 / 1e9  # a classifier of three classes
large = XLMRConfig.large()


def recipe(batch: int, length: int, frozen: bool, again: bool) -> tuple[float, float]:
    """GB for weights with optimiser, and for activations; `again` is gradient checkpointing."""
    states = (18 * (N - TABLE) + 4 * TABLE if frozen else 18 * N) / 1e9
    each = sum(activations(large, batch, length))
    inputs = 2 * large.num_hidden_layers * batch * length * large.hidden_size / 1e9
    return states, inputs + each / large.num_hidden_layers if again else each


# %%
ways = {"all of it": (False, False), "table frozen": (True, False), "frozen + checkpointing": (True, True)}
rows = [(f"{how}, {b} × {s}", *recipe(b, s, *ways[how])) for b, s in ((32, 128), (8, 512)) for how in ways]
for how, states, moving in rows:
    print(f"{how:32} {states:5.2f} + {moving:4.2f} = {states + moving:5.2f} GB")

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 2.9))
    names, states, moving = zip(*rows[::-1], strict=True)
    axes.barh(names, states, color=plots.BLUE, label="weights, gradients, Adam")
    axes.barh(names, moving, left=states, color=plots.ORANGE, label="activations")
    axes.axvline(T4, color=plots.RED, linestyle=":")
    axes.text(T4 + 0.1, 5.3, "T4", color=plots.RED)
    axes.set(xlabel="GB", xlim=(0, 20))
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
plots.show(figure, alt="Six bars of GB against the T4's 15.8: only training everything on 512 tokens crosses the line.")

# %% [markdown]
# Read the bars with care. They are arithmetic: no word of libraries, of buffers, of memory in pieces. A bar that ends
# at 14.5 of 15.8 GB will hardly fit: with fairseq, somebody ran out of a T4's memory at a single sentence (its issue
# 1749). With the word table frozen and checkpointing there is room to spare. That is the recipe of chapter 11.
#
# The package does the same sum before it trains, and when a GPU runs out of memory it says what to lower and by how
# much. Its version, and what it gives for the last of the short batches:

# %%
from xlmr_course import memory
from xlmr_course.classroom import show_source

show_source(memory.of_step)

# %%
step = memory.of_step(large, 32, 128, half=True, freeze_embeddings=True, gradient_checkpointing=True)
print(f"{step.total / 1e9:.2f} GB, of which {step.activations / 1e9:.2f} are activations")

# %% [markdown]
# A little less than ours: it leaves out the scores, which the GPU's kernels don't keep, and it freezes the other tables
# along with the words.
#
# One more trap, for pretraining: the scores of all 4,096 tokens over the whole vocabulary.

# %%
for what, share in (("every token", 1), ("the 15 % that are chosen", 0.15)):
    print(f"{what:25} {4 * 4096 * share * 250_002 / 1e9:.2f} GB")

# %% [markdown]
# ## What is in the file?
#
# The layout follows from the shape. This is the list of tensors in `xlm-roberta-large`, made here on the meta device:
# names and shapes as in the hub's file, without its numbers.

# %%
layout = {name: tuple(t.shape) for name, t in checkpoints.to_hugging_face(models["large"]).items()}
print(len(layout), "tensors")
for name, size in layout.items():
    if ".layer." not in name or "layer.23.attention" in name:
        print(f"{name:62} {size}")

# %% [markdown]
# You know these names from chapter 5. Four things have tripped people up, and each fails without a word:
#
# - **The prefix.** Every encoder tensor begins with `roberta.`. A bare encoder's file has no prefix.
# - **The tied matrix.** Newer files hold no `lm_head.decoder.weight`; older ones hold a second copy.
# - **Positions** begin in row 2 of 514.
# - **The pooler.** Older files carry one. XLM-R never trained it.
#
# And the constants: transformers' class has other defaults than XLM-R (an eps of 1e-12, 512 positions). Only
# `config.json` says 1e-5 and 514.

# %% [markdown]
# PyTorch's `load_state_dict(strict=False)` accepts anything. A layer whose name doesn't match keeps its random
# numbers, and the model runs. So a loader has to look.
#
# ### Exercise: load
#
# `file` holds names and tensors, `wanted` names (without prefix) and shapes. Return two things: the wanted tensors that
# fit, under their wanted names, and a list of the wanted names that are missing or have another shape.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `name.removeprefix("roberta.")` leaves a name without the prefix as it is.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Make one dictionary of renamed tensors. Then go through `wanted`, not through the file: what the file has beyond it,
# such as a pooler, is left out by itself.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `if name in tensors and tuple(tensors[name].shape) == tuple(shape):` it fits; else its name goes into the list.
#
# </details>


# %% exercise={"name": "load", "role": "answer", "points": 3}
def fit(file: dict[str, torch.Tensor], wanted: dict[str, tuple]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The wanted tensors of a file, and the wanted names that the file lacks or has in another shape."""
    ### BEGIN SOLUTION
    tensors = {name.removeprefix("roberta."): tensor for name, tensor in file.items()}
    found = {
        name: tensors[name]
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) == tuple(shape)
    }
    return found, [name for name in wanted if name not in found]
    ### END SOLUTION


# %% exercise={"name": "load", "role": "check"}
SHAPES = {"embeddings.word_embeddings.weight": (7, 4), "encoder.layer.0.output.dense.bias": (4,)}
bare = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
whole = {f"roberta.{name}": tensor for name, tensor in bare.items()} | {"roberta.pooler.dense.bias": torch.zeros(4)}
lacking = {name: tensor for name, tensor in whole.items() if "layer.0" not in name}
turned = whole | {"roberta.embeddings.word_embeddings.weight": torch.zeros(4, 7)}
names = [sorted(fit(file, SHAPES)[0]) for file in (whole, bare)]
problems = [fit(file, SHAPES)[1] for file in (whole, lacking, turned)]
assert "pooler.dense.bias" not in names[0], "load: you return the pooler too; only the wanted names belong there"
assert names[0] == sorted(SHAPES), f"load: expected the two wanted names without prefix, yours {names[0]}"
assert names[1] == sorted(SHAPES), f"load: a file without the prefix must load as well; yours gives {names[1]}"
assert problems[1], "load: a tensor is missing and nothing was said; that layer would stay random"
assert problems[2], "load: a table of shape (4, 7) went in where (7, 4) belongs; compare the shapes"
assert problems[0] == [], f"load: the whole file has no problems, yours says {problems[0]}"
assert problems[1] == ["encoder.layer.0.output.dense.bias"], f"load: name what is missing; yours says {problems[1]}"
print(len(names[0]), problems)

# %% exercise={"name": "load", "role": "hidden"}
hidden_needs = {"encoder.layer.1.attention.self.key.weight": (3, 3), "lm_head.bias": (5,)}
hidden_file = {"roberta.encoder.layer.1.attention.self.key.weight": torch.eye(3), "lm_head.bias": torch.arange(5.0)}
hidden_found, hidden_lacks = fit(hidden_file | {"lm_head.decoder.bias": torch.zeros(5)}, hidden_needs)
assert set(hidden_found) == set(hidden_needs), f"load: expected {sorted(hidden_needs)}, yours {sorted(hidden_found)}"
assert torch.equal(hidden_found["lm_head.bias"], torch.arange(5.0)), "load: the tensors must be those of the file"
assert not hidden_lacks, f"load: nothing is missing, yours says {hidden_lacks}"
hidden_lacks = fit(hidden_file | {"lm_head.bias": torch.zeros(6)}, hidden_needs)[1]
assert hidden_lacks == ["lm_head.bias"], f"load: lm_head.bias has 6 entries instead of 5, yours says {hidden_lacks}"
print(sorted(hidden_found))


# %% exercise={"name": "load", "role": "mistake", "expect": "a file without the prefix must load as well"}
def fit(file: dict[str, torch.Tensor], wanted: dict[str, tuple]) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = {name[len("roberta.") :]: tensor for name, tensor in file.items()}
    found = {n: tensors[n] for n, shape in wanted.items() if n in tensors and tuple(tensors[n].shape) == shape}
    return found, [name for name in wanted if name not in found]


# %% exercise={"name": "load", "role": "mistake", "expect": "that layer would stay random"}
def fit(file: dict[str, torch.Tensor], wanted: dict[str, tuple]) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = {name.removeprefix("roberta."): tensor for name, tensor in file.items()}
    found = {name: tensors[name] for name in wanted if name in tensors}
    return found, [name for name in found if tuple(found[name].shape) != wanted[name]]


# %% exercise={"name": "load", "role": "mistake", "expect": "a table of shape (4, 7) went in"}
def fit(file: dict[str, torch.Tensor], wanted: dict[str, tuple]) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = {name.removeprefix("roberta."): tensor for name, tensor in file.items()}
    found = {name: tensors[name] for name in wanted if name in tensors}
    return found, [name for name in wanted if name not in found]


# %% exercise={"name": "load", "role": "mistake", "expect": "you return the pooler too"}
def fit(file: dict[str, torch.Tensor], wanted: dict[str, tuple]) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = {name.removeprefix("roberta."): tensor for name, tensor in file.items()}
    return tensors, [n for n, shape in wanted.items() if n not in tensors or tuple(tensors[n].shape) != shape]


# %% [markdown]
# ## A file in the old layout
#
# transformers itself writes us one: the true names, the true constants, but three layers of 64 with random numbers in
# them. Then we add what old files carry: a pooler, and the decoder a second time.

# %%
from safetensors.torch import load_file, save_file
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
toy = XLMRConfig.tiny(vocab_size=1000, hidden_size=64, num_hidden_layers=3, intermediate_size=256)
folder = Path(tempfile.mkdtemp())
XLMRobertaForMaskedLM(XLMRobertaConfig(**vars(toy))).save_pretrained(folder)
tensors = load_file(folder / "model.safetensors")
print("a second copy of the word table in the file:", "lm_head.decoder.weight" in tensors)

# %%
tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"].clone()
tensors["roberta.pooler.dense.weight"] = torch.zeros(64, 64)
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
for note in checkpoints.load_weights(MaskedLM(Encoder(toy, device="meta")), folder):
    print(note)

# %% [markdown]
# The package checked that the second decoder equals the word table before it dropped it. What if it were another
# one?

# %%
save_file(tensors | {"lm_head.decoder.weight": torch.ones(1000, 64)}, folder / "model.safetensors")
try:
    checkpoints.load_masked_lm(folder)
except checkpoints.CheckpointError as error:
    print(str(error).split(":")[-1].strip())

# %% [markdown]
# ## Into the encoder that you wrote
#
# Chapter 5's functions took their numbers from `small`: 12 layers, 12 heads of 32, eps 1e-12. For `large` it is 24
# layers, 16 heads of 64 and eps 1e-5. Nothing else changes. So let the configuration say it.


# %%
def linear(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(weights, name, x, config):
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.layer_norm(x, x.shape[-1:], scale, shift, config.layer_norm_eps)


# %%
def attend(weights, name, x, mask, config):
    heads = (config.num_attention_heads, -1)
    q, k, v = (linear(weights, f"{name}.self.{part}", x).unflatten(-1, heads) for part in ("query", "key", "value"))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)  # (B, T, H)
    return linear(weights, f"{name}.output.dense", mixed)


# %%
def layer(weights, name, x, mask, config):
    mixed = attend(weights, f"{name}.attention", x, mask, config)
    x = norm(weights, f"{name}.attention.output.LayerNorm", x + mixed, config)
    wide = F.gelu(linear(weights, f"{name}.intermediate.dense", x))
    return norm(weights, f"{name}.output.LayerNorm", x + linear(weights, f"{name}.output.dense", wide), config)


# %%
def encode(weights, ids, mask, config):
    places = torch.arange(ids.shape[1]) + 2
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][places]
    states = [norm(weights, "embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0], config)]
    for number in range(config.num_hidden_layers):
        states.append(layer(weights, f"encoder.layer.{number}", states[-1], mask, config))
    return states


# %% [markdown]
# Now the file of the model that is here. Its shape comes from its `config.json`, its tensors lose the prefix.

# %% tags=["nbval-ignore-output"]
folder = sources.locate(NAME)
config = checkpoints.read_config(folder)
weights = {name.removeprefix("roberta."): tensor for name, tensor in checkpoints.read_tensors(folder).items()}
print(f"{NAME}: {config.num_hidden_layers} layers, {config.num_attention_heads} heads, width {config.hidden_size}")

# %% [markdown]
# And transformers beside it, on the same file. Five sentences in five scripts: does every state agree?

# %%
tokenizer = checkpoints.load_tokenizer(NAME)
batch = tokenizer(["Hello world!", "नमस्ते दुनिया", "مرحبا بالعالم", "你好，世界", "Καλημέρα κόσμε, τι κάνεις σήμερα;"])
ids, mask = batch["input_ids"], batch["attention_mask"]
real = mask.bool()
ours = encode(weights, ids, mask, config)

# %%
reference = XLMRobertaForMaskedLM.from_pretrained(folder).eval()
theirs = reference(ids, attention_mask=mask, output_hidden_states=True)
gaps = [(a[real] - b[real]).abs().max().item() for a, b in zip(ours, theirs.hidden_states, strict=True)]
print("a state for the embeddings and each layer, all within 1e-4:", max(gaps) < 1e-4)

# %% [markdown]
# The head is two lines more: dense, GELU, norm, and the word table as decoder.

# %%
x = norm(weights, "lm_head.layer_norm", F.gelu(linear(weights, "lm_head.dense", ours[-1])), config)
scores = x @ weights["embeddings.word_embeddings.weight"].T + weights["lm_head.bias"]
print("scores within 1e-3 of transformers:", ((scores - theirs.logits)[real].abs().max() < 1e-3).item())

# %% [markdown]
# That is XLM-R, whole, in the functions of your chapters. On `large` the same cells run 24 layers of 1,024.
#
# And does the file fit into memory twice, once read and once in the model? It need not. The package maps the file, so
# that the model's tensors *are* the file's bytes. A file of the size of `large`, with random numbers, took 1.04 times
# its 2.24 GB (measured in `benchmarks/large.py`).

# %% [markdown]
# ## Fill in the blank
#
# The model card on the hub shows one sentence: *Hello I'm a &lt;mask&gt; model.* In XLM-R's ids:

# %%
sentence = "Hello I'm a <mask> model."
xlmr = checkpoints.load_tokenizer(FEATURES)
print(xlmr.tokenize(sentence))
print(xlmr.encode(sentence))

# %% [markdown]
# The encoder gives a vector for each of the ten ids, the head a score for each of 250,002 words. Which of the ten rows
# holds the answer?

# %% [markdown]
# The row where `<mask>`, 250,001, stands: counted from 0, the seventh. The other rows score words that are there to be
# read.
#
# ### Exercise: fill-mask
#
# From the ids of one sentence and its scores `(T, V)`, return the `k` most likely words with their probabilities, the
# likeliest first. A piece that begins with `▁` begins a word; a reader wants it without.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `ids.index(mask_id)` finds the row.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Softmax over the *whole* row first, then `topk`. The other way round the probabilities add up to 1 among the few.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `best = scores[ids.index(mask_id)].softmax(-1).topk(k)`, then pair `best.indices` with `best.values`, and take the
# sign off with `tokens[i].removeprefix("▁")`.
#
# </details>


# %% exercise={"name": "fill-mask", "role": "answer", "points": 3}
def fill(ids: list[int], scores: torch.Tensor, tokens: list[str], mask_id: int, k: int = 5) -> list[tuple[str, float]]:
    """The k most likely words for the mask; `scores` `(T, V)`, `tokens[i]` is the piece with id i."""
    ### BEGIN SOLUTION
    best = scores[ids.index(mask_id)].softmax(-1).topk(k)
    return [(tokens[i].removeprefix("▁"), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    ### END SOLUTION


# %% exercise={"name": "fill-mask", "role": "check"}
tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁σπίτι", "▁σχολείο", "▁βιβλίο", "α", "<mask>"]
scores = torch.zeros(5, 9)
scores[0, 4], scores[2, 5], scores[2, 6], scores[4, 7] = 5.0, 3.0, 2.0, 5.0
words = fill([0, 4, 8, 7, 2], scores, tokens, 8, k=2)
assert len(words) == 2, f"fill-mask: two words were asked for, you return {len(words)}"
first, p = words[0]
assert "σπίτι" not in first, "fill-mask: this is the answer of row 0, of <s>; take the row where <mask> stands"
assert first != "α", "fill-mask: this is the answer of the last row, of </s>; take the row where <mask> stands"
assert "▁" not in first, f"fill-mask: {first!r} still has its ▁; it says that a word begins, the reader needs no sign"
assert first == "σχολείο", f"fill-mask: expected σχολείο, yours {first!r}"
assert round(p, 3) != 0.731, (
    "fill-mask: your probabilities add up to 1 among the best two; softmax first, over all words"
)
assert round(p, 3) != 3.0, "fill-mask: 3.0 is the raw score; softmax makes it a probability"
assert round(p, 3) == 0.583, f"fill-mask: expected 0.583, yours {p:.3f}; softmax runs over the last dimension"
print(words[0][0], round(p, 3), words[1][0], round(words[1][1], 3))

# %% exercise={"name": "fill-mask", "role": "hidden"}
hidden_tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁کتاب", "▁گھر", "وں", "<mask>"]
hidden_scores = torch.zeros(3, 8)
hidden_scores[0, 0], hidden_scores[1, 4], hidden_scores[1, 6], hidden_scores[2, 1] = 9.0, 1.0, 4.0, 9.0
hidden_words = fill([0, 7, 2], hidden_scores, hidden_tokens, 7, k=3)
hidden_p = hidden_scores[1].softmax(-1)[6].item()
assert len(hidden_words) == 3, f"fill-mask: k=3 gave {len(hidden_words)} words"
assert [word for word, _ in hidden_words[:2]] == ["وں", "کتاب"], f"fill-mask: wrong words or order: {hidden_words}"
assert math.isclose(hidden_words[0][1], hidden_p, abs_tol=1e-5), f"fill-mask: expected {hidden_p:.3f} for the first"
print(len(hidden_words))


# %% exercise={"name": "fill-mask", "role": "mistake", "expect": "this is the answer of row 0"}
def fill(ids: list[int], scores: torch.Tensor, tokens: list[str], mask_id: int, k: int = 5) -> list[tuple[str, float]]:
    best = scores[0].softmax(-1).topk(k)
    return [(tokens[i].removeprefix("▁"), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


# %% exercise={"name": "fill-mask", "role": "mistake", "expect": "still has its ▁"}
def fill(ids: list[int], scores: torch.Tensor, tokens: list[str], mask_id: int, k: int = 5) -> list[tuple[str, float]]:
    best = scores[ids.index(mask_id)].softmax(-1).topk(k)
    return [(tokens[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


# %% exercise={"name": "fill-mask", "role": "mistake", "expect": "add up to 1 among the best two"}
def fill(ids: list[int], scores: torch.Tensor, tokens: list[str], mask_id: int, k: int = 5) -> list[tuple[str, float]]:
    best = scores[ids.index(mask_id)].topk(k)
    shares = best.values.softmax(-1).tolist()
    return [(tokens[i].removeprefix("▁"), p) for i, p in zip(best.indices.tolist(), shares, strict=True)]


# %% exercise={"name": "fill-mask", "role": "mistake", "expect": "is the raw score"}
def fill(ids: list[int], scores: torch.Tensor, tokens: list[str], mask_id: int, k: int = 5) -> list[tuple[str, float]]:
    best = scores[ids.index(mask_id)].topk(k)
    return [(tokens[i].removeprefix("▁"), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


# %% [markdown]
# ## Ours beside transformers', and the card's
#
# `transformers.pipeline("fill-mask")` on the same file, on the card's sentence. The same words, the same
# probabilities?

# %%
model = checkpoints.load_masked_lm(NAME)


def guess(text: str, k: int = 5) -> list[tuple[str, float]]:
    """The k best words for the first <mask> of a text, by the package's model."""
    ids = tokenizer.encode(text)
    row = model(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)].softmax(-1)
    best = row.topk(k)
    return [(tokenizer.tokens[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


# %%
from transformers import pipeline

theirs = pipeline("fill-mask", model=reference, tokenizer=str(folder))(sentence, top_k=5)
ours = guess(sentence)
print("same words:", [tokenizer.ids[word] for word, _ in ours] == [answer["token"] for answer in theirs])
gaps = [abs(p - answer["score"]) for (_, p), answer in zip(ours, theirs, strict=True)]
print("probabilities within 1e-4:", max(gaps) < 1e-4)
del reference

# %% tags=["nbval-ignore-output"]
rows = [("en", word, f"{p:.4f}", f"{t['score']:.4f}") for (word, p), t in zip(ours, theirs, strict=True)]
plots.show_sentences(rows, ("", f"guess of {NAME}", "ours", "transformers"))

# %% [markdown]
# The card prints *fashion*, 0.1056, as the first answer. That number is the card's, not ours. It stands in the cards
# of both base and large, so it can be true of one of them at most. With `large` here, the table above tells you.
#
# What you see in the stored output are guesses of `tiny`: endings of words, and it has never heard of fashion. That
# ours and transformers' agree is worth something all the same: it holds for any weights.

# %% [markdown]
# ## In nine languages
#
# One sentence, nine times. Would you expect the same guess in all of them?

# %% tags=["nbval-ignore-output"]
capital = {
    "en": "Paris is the capital of <mask>.",
    "de": "Paris ist die Hauptstadt von <mask>.",
    "el": "Το Παρίσι είναι η πρωτεύουσα της <mask>.",
    "ar": "باريس عاصمة <mask>.",
    "ur": "پیرس <mask> کا دارالحکومت ہے۔",
    "hi": "पेरिस <mask> की राजधानी है।",
    "th": "ปารีสเป็นเมืองหลวงของ<mask>",
    "zh": "巴黎是<mask>的首都。",
    "sw": "Paris ni mji mkuu wa <mask>.",
}
rows = [(code, text, "   ".join(word for word, _ in guess(text, 3))) for code, text in capital.items()]
plots.show_sentences(rows, ("", "sentence", f"first three guesses of {NAME}"))

# %% [markdown]
# With `large`, look for France in nine languages. And ask yourself what it would prove: that the model knows a
# capital, or that two words stand together often?
#
# `tiny` does not find France. But one sentence can't say what a model is worth. So hide a piece in every dev sentence,
# the fifth, and count how often the first guess is right.


# %% tags=["nbval-ignore-output"]
def hits(language: str) -> float:
    """Share of the dev sentences whose fifth piece is the model's first guess when it is hidden."""
    batch = tokenizer(list(corpus.load(language, "dev")["text"]))
    truth = batch["input_ids"][:, 5].clone()
    batch["input_ids"][:, 5] = tokenizer.mask_token_id
    states = model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state[:, 5]
    guesses = model.lm_head(states, model.encoder.embeddings.word.weight).argmax(-1)
    return guesses.eq(truth).float().mean().item()


languages = ("en", "de", "el", "ar", "th", "sw")
print(NAME, {language: round(hits(language), 2) for language in languages})

# %% [markdown]
# ## Features
#
# Most people never look at the head. They want the encoder's vectors: *features* of a text, for a classifier of their
# own. fairseq's README gives a check for `large` on a Chinese sentence: ids 0 6 124084 4 3221 2, features of shape
# (1, 6, 1024), 25 states.

# %%
extractor = checkpoints.load_encoder(FEATURES)
chinese = xlmr("你好，世界")
output = extractor(chinese["input_ids"], output_hidden_states=True)
print(chinese["input_ids"].tolist()[0])

# %% tags=["nbval-ignore-output"]
print(FEATURES, tuple(output.last_hidden_state.shape), len(output.hidden_states), "states")

# %% [markdown]
# `small` has the same vocabulary, so the ids are those of `large`. Its vectors are 384 wide, its states 13.
#
# One vector a token is too many for a sentence. The usual way out is their mean, padding left out. Are these means
# good enough to find the translation of a sentence among 70? Chance is 1 in 70.


# %%
def mean_vectors(encoder: Encoder, tokenizer, texts: list[str]) -> torch.Tensor:
    """One vector of length 1 a text `(B, H)`: the mean of its tokens' last states."""
    batch = tokenizer(texts)
    states = encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state  # zeros at padding
    return F.normalize(states.sum(1), dim=-1)


def found(encoder: Encoder, tokenizer, language: str) -> float:
    """Share of the English dev sentences whose nearest vector in `language` is their translation's."""
    texts = {code: list(corpus.load(code, "dev")["text"]) for code in ("en", language)}
    english, other = (mean_vectors(encoder, tokenizer, rows) for rows in texts.values())
    return (english @ other.T).argmax(1).eq(torch.arange(len(english))).float().mean().item()


# %% tags=["nbval-ignore-output"]
for language in ("de", "el", "ar", "th", "sw"):
    shares = found(extractor, xlmr, language), found(model.encoder, tokenizer, language)
    print(f"{language}: {FEATURES} {shares[0]:.2f}, {NAME} {shares[1]:.2f}")

# %% [markdown]
# In the stored output, `small` finds nearly all. It was trained for just that, after its pretraining.
#
# And `tiny`? It finds a little in German and Swahili, and next to nothing in Greek, Arabic and Thai. Names are spelled
# alike in German and English, and equal pieces have equal vectors. In other letters that help is gone. So a score well
# above chance need not mean that anything was understood.
#
# Where is `large` between the two? It was never trained to compare sentences either. Measure before you build a
# search on it.

# %% [markdown]
# ## What it is for, and what not
#
# | for | not for |
# |---|---|
# | fine-tuning: classes, names, answers (chapters 11 and 12) | writing text; the card says so |
# | features for a classifier of your own | searching by meaning as it is; use a model trained for that |
# | text in many languages, and mixed | languages outside its 100 |
# | up to 512 tokens at a time | long documents, unless you split them |
# | | facts: it fills a gap with what is likely, not with what is true |
#
# Why not writing? Ask it for two words at once. Each gap is filled as if the other were still open.

# %% tags=["nbval-ignore-output"]
ids = tokenizer.encode("Hello I'm a <mask> <mask>.")
logits = model(torch.tensor([ids])).logits[0]
for row in (i for i, token in enumerate(ids) if token == tokenizer.mask_token_id):
    print([tokenizer.tokens[i] for i in logits[row].topk(3).indices.tolist()])

# %% [markdown]
# Each column is a guess of its own. Nothing makes the first word of one fit the second of the other.
#
# The other limits are hard ones. Too long:

# %%
try:
    extractor(torch.full((1, 600), 5))
except ValueError as error:
    print(error)

# %% [markdown]
# And unreadable. XLM-R has no bytes to fall back on (chapter 3). Dzongkha, N'Ko and Tamazight are not among its 100
# languages, and its vocabulary hardly knows their scripts. How much of these words reaches the model?

# %%
words = [("dz", "བཀྲ་ཤིས་བདེ་ལེགས།"), ("nqo", "ߒߞߏ"), ("zgh", "ⵜⴰⵎⴰⵣⵉⵖⵜ"), ("am", "ሰላም"), ("sw", "habari")]
rows = [(code, word, " ".join(xlmr.tokens[i] for i in xlmr.encode(word)[1:-1])) for code, word in words]
plots.show_sentences(rows, ("", "text", "what the model gets"))

# %% [markdown]
# `<unk>` says *something was here*. No fine-tuning brings back what.
#
# Amharic and Swahili are among the 100. But what does *among* mean, with 0.8 and 1.6 GiB of text against 300.8 of
# English? Chapter 11 measures it.

# %% [markdown]
# ## What the web taught it
#
# XLM-R learned from what people had put on the web by 2018. It learned their habits too. The card has no section on
# that. So you measure it yourself, on *your* task and in *your* languages.
#
# First with the features. Is *This person is a nurse* nearer to *This person is a woman* or to *This person is a man*?
# And is the answer the same in six languages?

# %%
JOBS = {
    "en": "nurse, secretary, doctor, engineer, pilot, judge",
    "zh": "护士, 秘书, 医生, 工程师, 飞行员, 法官",
    "tr": "hemşire, sekreter, doktor, mühendis, pilot, hâkim",
    "hi": "नर्स, सेक्रेटरी, डॉक्टर, इंजीनियर, पायलट, जज",
    "ur": "نرس, سیکرٹری, ڈاکٹر, انجینئر, پائلٹ, جج",
    "sw": "muuguzi, katibu, daktari, mhandisi, rubani, hakimu",
}
JOBS = {language: jobs.split(", ") for language, jobs in JOBS.items()}

# %%
PERSON = {
    "en": ("This person is a {}.", "woman", "man"),
    "zh": ("这个人是{}。", "女人", "男人"),
    "tr": ("Bu kişi bir {}.", "kadın", "erkek"),
    "hi": ("यह व्यक्ति एक {} है।", "महिला", "पुरुष"),
    "ur": (
        "یہ شخص ایک {} ہے۔",
        "عورت",
        "مرد",
    ),
    "sw": ("Mtu huyu ni {}.", "mwanamke", "mwanaume"),
}

# %% [markdown]
# These languages were chosen because the sentence need not change with the person. Spanish or Arabic would have to
# say *enfermera* or *enfermero*, and give the answer away.
#
# The measure: cosine with the woman's sentence minus cosine with the man's. A language may lean to one side as a whole,
# for reasons that have nothing to do with jobs. So its mean is taken off.


# %% tags=["nbval-ignore-output"]
def lean(language: str) -> torch.Tensor:
    """For each job: how much nearer to "woman" than to "man", against the mean of the jobs."""
    frame, woman, man = PERSON[language]
    jobs = mean_vectors(extractor, xlmr, [frame.format(job) for job in JOBS[language]])
    women, men = mean_vectors(extractor, xlmr, [frame.format(woman), frame.format(man)])
    difference = jobs @ women - jobs @ men
    return difference - difference.mean()


table = torch.stack([lean(language) for language in JOBS]).numpy() * 100
figure = plots.heatmap(table, list(JOBS), JOBS["en"], limits=(-2, 2), annotate=True, label="cosine × 100")
plots.show(
    figure, alt=f"Six languages by six jobs: how much nearer each job's sentence is to woman than man, {FEATURES}."
)

# %% [markdown]
# Read the stored picture, of `small`, row by row. English, Chinese and Hindi put the nurse nearest to the woman, and
# the engineer and the pilot nearer to the man. Turkish hardly does. In Urdu and Swahili the nurse leans the other way.
#
# Look at Hindi and Urdu again: नर्स and نرس are the same word, said the same way, in two scripts. So the leaning is no
# property of nurses, nor of a culture. It comes from the text a script brought along, and from how a word is cut.
#
# How far does this carry? Six words, one frame, one measure, differences of a hundredth of a cosine. It is enough to
# ask questions, and far too little for a verdict. Kurita et al. (2019) found cosines the weaker measure: asking a model
# to fill a gap gave more consistent results.

# %% [markdown]
# ## Log-odds
#
# So ask for a gap: *&lt;mask&gt; is a nurse.* Compare the probability of *She* and of *He*:
#
# $$\log \frac{p(\text{She} \mid \text{nurse})}{p(\text{He} \mid \text{nurse})}$$
#
# Suppose it is −0.5: *He* is likelier. Does the model then think of nurses as men?

# %% [markdown]
# Not yet. Perhaps *He* begins far more sentences than *She* does, whatever follows. So hide the job too, and take what
# remains as the starting point:
#
# $$\text{association} = \log \frac{p(\text{She} \mid \text{nurse})}{p(\text{He} \mid \text{nurse})} -
# \log \frac{p(\text{She} \mid \text{mask})}{p(\text{He} \mid \text{mask})}$$
#
# ### Exercise: association

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two logarithms of a ratio, one minus the other. `math.log` is the natural one.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `math.log(she / he) - math.log(she_before / he_before)`
#
# </details>


# %% exercise={"name": "association", "role": "answer", "points": 2}
def association(she: float, he: float, she_before: float, he_before: float) -> float:
    """How much a job moves the odds of the first word against the second; `…_before`: with the job hidden."""
    ### BEGIN SOLUTION
    return math.log(she / he) - math.log(she_before / he_before)
    ### END SOLUTION


# %% exercise={"name": "association", "role": "check"}
moved, still = association(0.02, 0.04, 0.01, 0.08), association(0.1, 0.3, 0.1, 0.3)
assert moved != 4.0, "association: 4.0 is the ratio of the odds; take its logarithm, so that both sides count alike"
assert round(moved, 3) != -0.693, "association: this is the job's own odds; subtract what held before the job was known"
assert round(moved, 3) != -1.386, "association: the sign is turned; more of the first word must come out positive"
assert round(moved, 3) != 2.0, "association: this is the logarithm to base 2; natural logarithms are meant"
assert round(still, 3) == 0, f"association: a job that moves nothing gives 0, yours {still:.3f}"
assert round(moved, 3) == 1.386, f"association: odds from 1/8 to 1/2 give log 4 = 1.386, yours {moved:.3f}"
print(round(moved, 3), round(still, 3) + 0.0)

# %% exercise={"name": "association", "role": "hidden"}
hidden_one, hidden_two = association(0.3, 0.1, 0.2, 0.2), association(0.1, 0.3, 0.2, 0.2)
assert math.isclose(hidden_one, math.log(3)), f"association: expected log 3, yours {hidden_one:.3f}"
assert math.isclose(hidden_one, -hidden_two), "association: swapping the two words must turn the sign"
assert math.isclose(association(0.3, 0.1, 0.3, 0.1), 0, abs_tol=1e-9), "association: nothing moved, so 0"
print(round(hidden_one, 3))


# %% exercise={"name": "association", "role": "mistake", "expect": "subtract what held before"}
def association(she: float, he: float, she_before: float, he_before: float) -> float:
    return math.log(she / he)


# %% exercise={"name": "association", "role": "mistake", "expect": "take its logarithm"}
def association(she: float, he: float, she_before: float, he_before: float) -> float:
    return (she / he) / (she_before / he_before)


# %% exercise={"name": "association", "role": "mistake", "expect": "the sign is turned"}
def association(she: float, he: float, she_before: float, he_before: float) -> float:
    return math.log(she_before / he_before) - math.log(she / he)


# %% [markdown]
# ## Jobs in six languages
#
# Each frame has a place for the word to guess, and one for the job.

# %%
GENDER = {
    "en": ("{word} is a {fill}.", "She", "He"),
    "zh": ("{word}是{fill}。", "她", "他"),
    "tr": ("Bu {word} bir {fill}.", "kadın", "adam"),
    "hi": ("यह {word} एक {fill} है।", "महिला", "पुरुष"),
    "ur": (
        "یہ {word} ایک {fill} ہے۔",
        "عورت",
        "مرد",
    ),
    "sw": ("Yule {word} ni {fill}.", "mwanamke", "mwanaume"),
}

# %% [markdown]
# Is each of these words one piece, so that one gap is enough?

# %% tags=["nbval-ignore-output"]
for language, (_, first, second) in GENDER.items():
    print(language, *(" ".join(own.tokenize(f"{first} {second}")) for own in (xlmr, tokenizer)), sep="   ")

# %% [markdown]
# In XLM-R's vocabulary each is one. In `tiny`'s, of 4,000 pieces, most are cut. Then a word gets as many gaps as it
# has pieces, and their log-probabilities are added. That favours the shorter word. But it does so with the job and
# without it, and the difference cancels it.


# %%
def log_p(model: MaskedLM, frame: str, fill: str, word: str) -> float:
    """log p of a word in the place of {word}, with {fill} filled in; one gap for each of its pieces."""
    pieces = torch.tensor([tokenizer.ids.get(piece, tokenizer.unk_token_id) for piece in tokenizer.tokenize(word)])
    ids = torch.tensor(tokenizer.encode(frame.format(word=" <mask>" * len(pieces), fill=fill)))
    gaps = (ids == tokenizer.mask_token_id).nonzero().flatten()
    places = gaps[: len(pieces)] if frame.index("{word}") < frame.index("{fill}") else gaps[-len(pieces) :]
    rows = model(ids[None]).logits[0, places].log_softmax(-1)
    return rows[torch.arange(len(pieces)), pieces].sum().item()


# %%
def moved(model: MaskedLM, frame: str, fill: str, word: str) -> float:
    """How much {fill} moves log p of a word, against a {fill} whose pieces are all hidden."""
    hidden = " ".join(["<mask>"] * len(tokenizer.tokenize(fill)))
    return log_p(model, frame, fill, word) - log_p(model, frame, hidden, word)


def associations(model: MaskedLM, frames: dict, fills: dict[str, list[str]]) -> dict[str, list[float]]:
    """For each language one association for each fill; positive: towards the frame's first word."""
    return {
        language: [moved(model, frame, fill, first) - moved(model, frame, fill, second) for fill in fills[language]]
        for language, (frame, first, second) in frames.items()
    }


# %% [markdown]
# That is the exercise's formula, sorted by word instead of by job. Here are the six languages:

# %% tags=["nbval-ignore-output"]
measured = associations(model, GENDER, JOBS)
print(f"measured with {NAME}: {', '.join(measured)}")

# %% [markdown]
# What would a model say that has learned nothing? The same shape with fresh random weights gives the yardstick.

# %% tags=["nbval-ignore-output"]
generator = torch.Generator().manual_seed(1)
fresh = MaskedLM(Encoder(config, generator), generator).eval()
yardstick = associations(fresh, GENDER, JOBS)
rows = [(language, torch.tensor(measured[language]), torch.tensor(yardstick[language])) for language in measured]
for language, trained, untrained in rows:
    print(f"{language}: moved by {trained.abs().mean():.3f} on average, untrained by {untrained.abs().mean():.3f}")

# %% tags=["nbval-ignore-output"]
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 0.5 * len(rows) + 1.3))
    for y, (_, trained, untrained) in enumerate(rows):
        axes.plot(untrained, [y + 0.15] * 6, "|", color=plots.QUIET, label="untrained" if y == 0 else None)
        axes.plot(trained, [y - 0.15] * 6, "o", color=plots.BLUE, label=NAME if y == 0 else None)
    axes.axvline(0, color=plots.QUIET, linewidth=0.8)
    axes.set(
        yticks=range(len(rows)),
        yticklabels=[row[0] for row in rows],
        xlabel="man  ←  log-odds  →  woman",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plots.show(
    figure, alt=f"Six dots for each language: how far {NAME} moves towards woman or man, beside an untrained model."
)

# %% [markdown]
# The dots differ, and differ by language. Beside an untrained model they look large. Is there anything behind them? How
# often has `tiny` seen these words at all, in 420 training sentences a language?

# %%
for language, jobs in JOBS.items():
    texts = " ".join(corpus.load(language, "train")["text"]).lower()
    print(language, {english: texts.count(job) for english, job in zip(JOBS["en"], jobs, strict=True)})

# %% [markdown]
# ## Countries
#
# The same code takes any frame. *People from Kenya are rich* or *poor*? Here the country moves the odds of an
# adjective, in three languages.

# %%
WEALTH = {
    "en": ("People from {fill} are {word}.", "rich", "poor"),
    "hi": ("{fill} के लोग {word} हैं।", "अमीर", "गरीब"),
    "ur": (
        "{fill} کے لوگ {word} ہیں۔",
        "امیر",
        "غریب",
    ),
}
COUNTRIES = {
    "en": ["Germany", "India", "Kenya", "Brazil"],
    "hi": ["जर्मनी", "भारत", "केन्या", "ब्राज़ील"],
    "ur": [
        "جرمنی",
        "بھارت",
        "کینیا",
        "برازیل",
    ],
}

# %% tags=["nbval-ignore-output"]
by_country = associations(model, WEALTH, COUNTRIES)
for language, values in by_country.items():
    print(language, {c: round(v, 1) for c, v in zip(COUNTRIES["en"], values, strict=True)})

# %% [markdown]
# Of `tiny` this says next to nothing. With `large` the cell says what the web wrote about these countries, in three
# languages that agree or don't. Add frames, countries and pairs of your own before you believe a row. Then ask what
# your application would do with it.
#
# Three habits for a measure like this one:
#
# - **More than one frame.** If another wording turns the sign, you have measured the wording.
# - **A yardstick.** An untrained model, or words that can't be biased, show what noise looks like.
# - **The people concerned.** Frames in a language that you don't speak are guesses. These were written without a native
#   reader.

# %% [markdown] exercise={"name": "before-release", "role": "manual", "points": 3, "rubric": "1 point: says what the numbers can and cannot show (a few frames, one model, an association and no harm yet). 1 point: a test on the product's own task and languages, with enough cases and a yardstick. 1 point: what follows from a bad result, such as not using it there, a person who decides, or telling the users."}
# ### Question: before it is released
#
# A company wants to sort job applications in Urdu and English with a fine-tuned XLM-R. You have the two pictures above.
# What do they tell the company, what don't they, and what would you test before the model sees a real application?
#
# ### BEGIN SOLUTION
# They show that this model ties some jobs to a gender, differently in different languages. They don't show that a
# fine-tuned classifier treats applicants differently, nor by how much. So I would test the classifier itself: the same
# application with a man's and a woman's name, and in both languages, many hundreds of them, and count how often the
# answer changes. Pairs that differ in a harmless detail give the yardstick. If names or language move the answer more
# than that, the model must not sort applications; at most it may order them for a person who reads them all.
# ### END SOLUTION

# %% [markdown]
# ## Run it on `large`
#
# Everything above runs on the real model as it stands. In Colab, with the course installed, two cells are enough
# (2,240 MB of download; a CPU runtime will do, a GPU isn't used here):
#
# ```
# !xlmr-course fetch large
# ```
#
# Then *Runtime → Restart and run all*. The first table then names `large`, and every cell uses it. In a terminal:
#
# ```
# xlmr-course fetch large
# xlmr-course run 10
# ```
#
# **Not run here.** The machine that made this notebook doesn't reach the hub. What was proved is that the layout is
# the hub's, that our encoder at the size of `large` equals transformers' on random weights (the package's tests), and
# that every cell runs on a smaller file of the same layout. What to look for when you run it:
#
# | what | expected | from |
# |---|---|---|
# | features of 你好，世界 | (1, 6, 1024), 25 states | fairseq's README |
# | perplexity of hidden words, WikiText-2 | 5.36 (base 6.85) | torchtext's test |
# | first guess on the card's sentence | *fashion*, 0.1056 — for base or for large | the card |
#
# ## What you saw
#
# - A model's size, its file and its memory in training follow from six numbers in `config.json`.
# - Adam, not the weights, fills the GPU. Freezing the word table and checkpointing bring `large` far below a T4's
#   limit, by arithmetic.
# - A loader has to check every name and shape. What it skips in silence stays random.
# - The functions of your chapters, given the right constants, are XLM-R.
# - It fills gaps and gives features. It doesn't write, doesn't know, and doesn't read every script.
# - What it associates can be measured, and the measure needs a starting point, a yardstick and more than one wording.
#
# ## Further reading
#
# - Conneau et al. (2020), *Unsupervised Cross-lingual Representation Learning at Scale*, arXiv 1911.02116.
# - Goyal et al. (2021), *Larger-Scale Transformers for Multilingual Masked Language Modeling*, for XL and XXL.
# - Korthikanti et al. (2022), arXiv 2205.05198, for the sum of activations.
# - Kurita et al. (2019), *Measuring Bias in Contextualized Word Representations*, arXiv 1906.07337.
