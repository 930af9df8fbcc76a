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
# # 05 · The encoder
#
# **You will build** XLM-R's whole encoder from functions of a few lines, put real pretrained weights into it, and
# prove that every layer gives the same numbers as transformers.
#
# *Needs:* {{needs}}. *Download:* none; the checkpoint `small` comes with the course's `offline` extra.

# %% [markdown]
# A layer mixes information between words, then thinks about each word alone. XLM-R base does that twelve times, large
# twenty-four times. That is nearly all there is.
#
# Nearly. A wrong constant in one place, and the model still runs, still gives vectors, and is quietly worse. At the
# end of the chapter you see what seven such slips cost.

# %% tags=["setup"]
import torch
import torch.nn.functional as F

from xlmr_course import checkpoints, plots, sources
from xlmr_course.classroom import show_source
from xlmr_course.encoder import Encoder, XLMRConfig

_ = torch.set_grad_enabled(False)

# %% [markdown]
# ## What is in the file?
#
# A checkpoint is a dictionary: names and tensors. Here is the one you are going to run. Before you look: how many
# tensors will one of the twelve layers have?

# %%
folder = sources.locate("small")
weights = {name.removeprefix("roberta."): tensor for name, tensor in checkpoints.read_tensors(folder).items()}
for name in sorted(weights):
    if name.startswith("embeddings.") or "layer.0." in name:
        print(f"{name:54} {tuple(weights[name].shape)}")

# %% [markdown]
# Sixteen a layer: a weight and a bias each for query, key, value and output, for the two linear maps of the
# feed-forward part, and for two LayerNorms. The numbers 384 and 1536 are the width of the model and of its
# feed-forward part.

# %% [markdown]
# ## LayerNorm
#
# Stack twelve layers and numbers drift: a little larger in each, until nothing works. LayerNorm stops that. It takes
# the vector of *one token*, shifts it to mean 0, scales it to variance 1, and then lets the model choose a scale and
# a shift of its own, $\gamma$ and $\beta$:
#
# $$\mathrm{LN}(x) = \gamma \cdot \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta$$
#
# What does it do to the first token's vector? Width before, width after:

# %%
words = weights["embeddings.word_embeddings.weight"]
vector = words[35378]  # ▁Hello
print(f"before: mean {vector.mean():.3f}, deviation {vector.std(correction=0):.3f}")
after = F.layer_norm(vector, (384,))
print(f"after:  mean {after.mean().abs():.3f}, deviation {after.std(correction=0):.3f}")

# %% [markdown]
# Why 0.999 and not 1? That is $\varepsilon$. The vector's variance is so small that the $10^{-5}$ beneath the root
# shows.

# %% [markdown]
# ### Exercise: LayerNorm
#
# `x` has the shape `(..., H)`. Normalise over the last dimension only. The variance is the mean of the squared
# deviations, divided by `H`, not by `H - 1`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `x.mean(-1, keepdim=True)` keeps a last dimension of size 1, so that you can subtract it from `x`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `((x - mean) ** 2).mean(-1, keepdim=True)` is the variance that is divided by `H`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `gamma * (x - mean) / torch.sqrt(variance + eps) + beta`
#
# </details>


# %% exercise={"name": "layer-norm", "role": "answer", "points": 2}
def layer_norm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise each vector of `x` `(..., H)` over its last dimension."""
    ### BEGIN SOLUTION
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return gamma * (x - mean) / torch.sqrt(variance + eps) + beta
    ### END SOLUTION


# %% exercise={"name": "layer-norm", "role": "check"}
x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 4.0]])
gamma, beta = torch.tensor([1.0, 1.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
yours, wanted = layer_norm(x, gamma, beta, 1e-5), F.layer_norm(x, (4,), gamma, beta, 1e-5)
unbiased = gamma * (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) + beta
undone = gamma * (x - x.mean(-1, keepdim=True)) / x.var(-1, correction=0, keepdim=True) + beta
rows = gamma * (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5) + beta
assert yours.shape == x.shape, f"layer-norm: expected shape (2, 4), yours {tuple(yours.shape)}; use keepdim=True"
assert not torch.allclose(yours, unbiased, atol=1e-4), "layer-norm: torch.std divides by H − 1; LayerNorm divides by H"
assert not torch.allclose(yours, undone, atol=1e-4), "layer-norm: divided by the variance; the root is missing"
assert not torch.allclose(yours, rows, atol=1e-4), "layer-norm: you normalised across tokens (dim 0); use dim −1"
mine, right = ([round(number, 3) for number in table[0].tolist()] for table in (yours, wanted))
assert torch.allclose(yours, wanted, atol=1e-5), f"layer-norm: expected {right} for the first row, yours {mine}"
broad = layer_norm(x, gamma, beta, 0.5) - F.layer_norm(x, (4,), gamma, beta, 0.5)
assert broad.abs().max() < 1e-5, (
    "layer-norm: right for a tiny eps alone; eps belongs under the root, beside the variance"
)
print([round(v, 3) + 0.0 for v in yours[0].tolist()])

# %% exercise={"name": "layer-norm", "role": "hidden"}
deep = torch.linspace(-2, 5, 30).view(2, 3, 5).sin() * 3 + 1
scale, shift = torch.tensor([0.5, 1.0, 2.0, -1.0, 3.0]), torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0])
for eps in (1e-12, 0.3):
    deep_norm, exact = layer_norm(deep.clone(), scale, shift, eps), F.layer_norm(deep, (5,), scale, shift, eps)
    assert deep_norm.shape == (2, 3, 5), f"layer-norm: (2, 3, 5) went in, {tuple(deep_norm.shape)} came out"
    assert torch.allclose(deep_norm, exact, atol=1e-4), (
        f"layer-norm: on a batch (2, 3, 5) with eps {eps:g} yours is off by {(deep_norm - exact).abs().max():.4f}; "
        "each vector of 5 has its own mean and variance"
    )
flat = layer_norm(torch.full((1, 5), 7.0), scale, shift, 1e-5)
assert torch.allclose(flat[0], shift), f"layer-norm: a vector of equal numbers becomes beta; yours {flat[0].tolist()}"


# %% exercise={"name": "layer-norm", "role": "mistake", "expect": "torch.std divides by H − 1"}
def layer_norm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    return gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) + beta


# %% exercise={"name": "layer-norm", "role": "mistake", "expect": "you normalised across tokens"}
def layer_norm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    return gamma * (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + eps) + beta


# %% exercise={"name": "layer-norm", "role": "mistake", "expect": "use keepdim=True"}
def layer_norm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    return x.mean(-1)


# %% exercise={"name": "layer-norm", "role": "mistake", "expect": "belongs under the root"}
def layer_norm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return gamma * (x - mean) / (torch.sqrt(variance) + eps) + beta


# %% exercise={"name": "layer-norm", "role": "mistake", "expect": "the root is missing"}
def layer_norm(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return gamma * (x - mean) / (variance + eps) + beta


# %% [markdown]
# ## Where the norm stands
#
# Each half of a layer *adds* to what came in, so that the input is never lost. That is the residual connection. The
# question is where the norm goes.
#
# - **Post-LN**, the original Transformer, BERT, XLM-R base and large: `LN(x + f(x))`
# - **Pre-LN**, XLM-R XL and XXL: `x + f(LN(x))`
#
# Same parts, same parameters, other numbers. Weights trained with one are useless in the other.

# %% [markdown]
# ### Exercise: add and norm
#
# Write one post-LN half layer. `f` is attention or the feed-forward part, `norm` a function.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `f` gets `x` as it came in. The norm comes last, over the sum.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `norm(x + f(x))`
#
# </details>


# %% exercise={"name": "add-and-norm", "role": "answer", "points": 1}
def add_and_norm(x: torch.Tensor, f, norm) -> torch.Tensor:
    """A post-LN residual step."""
    ### BEGIN SOLUTION
    return norm(x + f(x))
    ### END SOLUTION


# %% exercise={"name": "add-and-norm", "role": "check"}
out = add_and_norm(torch.tensor([1.0, 2.0]), lambda v: 10 * v, lambda v: v * v).tolist()
assert out != [11.0, 42.0], "add-and-norm: that is pre-LN, x + f(LN(x)); XLM-R normalises the sum"
assert out != [11.0, 22.0], "add-and-norm: nothing was normalised; call norm on the sum"
assert out != [100.0, 400.0], "add-and-norm: the input x is lost; add it to what f gives"
assert out != [101.0, 402.0], "add-and-norm: you normalised f(x) alone, then added x; the norm comes last"
assert out == [121.0, 484.0], f"add-and-norm: expected [121.0, 484.0], yours {out}"
print(out)

# %% exercise={"name": "add-and-norm", "role": "hidden"}
seen_by_norm = []


def remember(v):
    seen_by_norm.append(v.tolist())
    return v - v.mean()


stepped = add_and_norm(torch.tensor([1.0, 2.0, 6.0]), lambda v: v.flip(0), remember).tolist()
assert seen_by_norm == [[7.0, 4.0, 7.0]], (
    f"add-and-norm: when f turns 1, 2, 6 round, the norm must see x + f(x) = [7, 4, 7], and once; it saw {seen_by_norm}"
)
assert stepped == [1.0, -2.0, 1.0], f"add-and-norm: return what the norm gives, [1, -2, 1]; yours {stepped}"


# %% exercise={"name": "add-and-norm", "role": "mistake", "expect": "that is pre-LN"}
def add_and_norm(x: torch.Tensor, f, norm) -> torch.Tensor:
    return x + f(norm(x))


# %% exercise={"name": "add-and-norm", "role": "mistake", "expect": "the input x is lost"}
def add_and_norm(x: torch.Tensor, f, norm) -> torch.Tensor:
    return norm(f(x))


# %% exercise={"name": "add-and-norm", "role": "mistake", "expect": "the norm comes last"}
def add_and_norm(x: torch.Tensor, f, norm) -> torch.Tensor:
    return x + norm(f(x))


# %% exercise={"name": "add-and-norm", "role": "mistake", "expect": "nothing was normalised"}
def add_and_norm(x: torch.Tensor, f, norm) -> torch.Tensor:
    return x + f(x)


# %% [markdown]
# ## The pieces, on real weights
#
# Now the whole encoder as functions of the dictionary `weights`. First two helpers that look up a matrix or a norm by
# name. `HOW` holds every choice that could go wrong, so that we can break them one by one later.

# %%
HOW = {"first": 2, "eps": 1e-12, "scale": 32**-0.5, "gelu": "none", "masked": True, "post": True}


def linear(name, x):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(name, x, how):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], how["eps"])


# %% [markdown]
# **Embeddings.** Word, position and type are added, then normalised. The first token has position 2, not 0: fairseq
# gave padding the row 1 and counts on from there (chapter 4).


# %%
def embed(ids, how):
    positions = torch.arange(ids.shape[1]) + how["first"]
    summed = words[ids] + weights["embeddings.position_embeddings.weight"][positions]
    return norm("embeddings.LayerNorm", summed + weights["embeddings.token_type_embeddings.weight"][0], how)


# %% [markdown]
# **Attention.** Twelve heads of 32 numbers each. Scores are divided by $\sqrt{32}$, and scores to padding become
# $-\infty$, so that their weights are 0.


# %%
def attention(name, x, mask, how):
    q, k, v = (linear(f"{name}.self.{part}", x).unflatten(-1, (12, 32)) for part in ("query", "key", "value"))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * how["scale"]  # (B, 12, T, T)
    if how["masked"]:
        scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)  # (B, T, 12, 32)
    return linear(f"{name}.output.dense", mixed.flatten(2))


# %% [markdown]
# **The feed-forward part** works on each token alone: four times wider, a GELU, and back.


# %%
def feed_forward(name, x, how):
    return linear(f"{name}.output.dense", F.gelu(linear(f"{name}.intermediate.dense", x), approximate=how["gelu"]))


# %% [markdown]
# **The layer** is those two, each with its residual and norm.


# %%
def layer(name, x, mask, how):
    first, second = f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"
    if how["post"]:
        x = norm(first, x + attention(f"{name}.attention", x, mask, how), how)
        return norm(second, x + feed_forward(name, x, how), how)
    x = x + attention(f"{name}.attention", norm(first, x, how), mask, how)
    return x + feed_forward(name, norm(second, x, how), how)


# %% [markdown]
# **The encoder** is twelve layers in a row. It hands back every state on the way, the embeddings first: thirteen in
# all.


# %%
def encode(ids, mask, **slips):
    how = HOW | slips
    states = [embed(ids, how)]
    for number in range(12):
        states.append(layer(f"encoder.layer.{number}", states[-1], mask, how))
    return states


# %% [markdown]
# ## The proof
#
# Five sentences in five scripts, of different lengths, so that there is padding. Your encoder here, transformers
# there, the same weights in both. How far apart are they at the worst number of each layer?

# %%
tokenizer = checkpoints.load_tokenizer("small")
texts = ["Hello world!", "नमस्ते दुनिया", "مرحبا بالعالم", "你好，世界", "Καλημέρα κόσμε, τι κάνεις σήμερα;"]
batch = tokenizer(texts)
ids, mask = batch["input_ids"], batch["attention_mask"]
real = mask.bool()
ids.shape

# %%
from transformers import XLMRobertaModel

reference = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()
theirs = reference(ids, attention_mask=mask, output_hidden_states=True).hidden_states
ours = encode(ids, mask)
errors = [(a[real] - b[real]).abs().max().item() for a, b in zip(ours, theirs, strict=True)]
print(len(errors), "states; every one within 1e-4:", max(errors) < 1e-4)

# %% [markdown]
# You wrote a model that computes what the reference computes, to the fifth digit and beyond. What is left is the
# order in which floating-point numbers are added.

# %% [markdown]
# ## Seven slips
#
# Each of these is a mistake that somebody has made, and each leaves a model that runs without a word. How large is
# the error, layer by layer, on real weights?
#
# The last of them is the honest one: nothing wrong, only rounding.

# %%
slips = {
    "pre-norm instead of post-norm": {"post": False},
    "no division by √d": {"scale": 1.0},
    "positions from 0": {"first": 0},
    "positions from 1": {"first": 1},
    "padding mask forgotten": {"masked": False},
    "GELU by tanh": {"gelu": "tanh"},
    "LayerNorm eps 1e-5 for 1e-12": {"eps": 1e-5},
    "none of these": {},
}

# %%
curves = {
    name: [(a[real] - b[real]).abs().max().item() for a, b in zip(encode(ids, mask, **slip), theirs, strict=True)]
    for name, slip in slips.items()
}

# %%
shades = dict(zip(curves, (*plots.COLOURS, "#8c6d1f", "#c0578f", plots.QUIET), strict=True))
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.2, 4.2))
    for name, curve in curves.items():
        axes.semilogy([y or float("nan") for y in curve], color=shades[name], marker="o", markersize=3)
    axes.set(xticks=range(0, 13, 2), xlabel="layer (0 is the embeddings)", ylabel="largest error")
    plots.label_ends(axes, curves, shades)
plots.show(figure, alt="Largest error by layer, log scale: pre-norm above 100, GELU and eps near 0.001, rounding 1e-6.")

# %% [markdown]
# Read the picture from the bottom. Rounding alone stays near $10^{-6}$. The tanh form of GELU and a wrong `eps` are
# small slips that no one would notice in the output, yet they stand clearly above rounding. The rest changes what the
# model says.
#
# Where does each error begin? Wrong positions are there from the embeddings on. A forgotten mask costs nothing in the
# embeddings, because they look at no neighbour.

# %%
for name in list(slips)[:-1]:
    print(f"{name:32} {curves[name][12]:.0e}")

# %% [markdown]
# ### Exercise: find the first wrong layer
#
# This is how you find such a slip in a model of your own: compare state by state, and stop at the first that is off.
# Given two lists of states, return the index of the first whose largest difference exceeds `tolerance`, or `None`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `(a - b).abs().max()` is the largest difference. A mean would hide a single wrong token.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Go through `enumerate(zip(ours, theirs))` and return from inside the loop.
#
# </details>


# %% exercise={"name": "first-wrong", "role": "answer", "points": 2}
def first_wrong(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> int | None:
    """Index of the first state that differs by more than `tolerance` anywhere; None if none does."""
    ### BEGIN SOLUTION
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if (a - b).abs().max() > tolerance:
            return index
    return None
    ### END SOLUTION


# %% exercise={"name": "first-wrong", "role": "check"}
states = [torch.zeros(50, 40) for _ in range(6)]
bent = [state.clone() for state in states]
bent[2][3, 1] = bent[5][3, 1] = -0.001
found = first_wrong(bent, states)
assert first_wrong(states, states) is None, "first-wrong: equal states have no wrong layer; return None for them"
assert found is not None, "first-wrong: missed −0.001 at one place; use the largest *absolute* difference, not a mean"
assert found != 5, "first-wrong: state 5 differs too, but state 2 comes before it; stop at the first"
assert found == 2, f"first-wrong: state 2 is the first to differ, yours says {found}; does the count begin at 0?"
print(found)

# %% exercise={"name": "first-wrong", "role": "hidden"}
same_states = [torch.ones(2, 3, 4) for _ in range(5)]
near_states = [state.clone() for state in same_states]
near_states[0][1, 2, 3] += 0.005
near_states[4] -= 5
at = [first_wrong(near_states, same_states, tolerance) for tolerance in (1e-3, 0.01, 10.0)]
assert at == [0, 4, None], (
    f"first-wrong: state 0 is off by 0.005 and state 4 by 5; tolerances 0.001, 0.01, 10 give [0, 4, None], yours {at}"
)
assert first_wrong(same_states, near_states) == 0, "first-wrong: the two lists may change places; take abs()"


# %% exercise={"name": "first-wrong", "role": "mistake", "expect": "missed −0.001"}
def first_wrong(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> int | None:
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if (a - b).mean().abs() > tolerance]
    return wrong[0] if wrong else None


# %% exercise={"name": "first-wrong", "role": "mistake", "expect": "does the count begin at 0?"}
def first_wrong(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> int | None:
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True), 1) if (a - b).abs().max() > tolerance]
    return wrong[0] if wrong else None


# %% exercise={"name": "first-wrong", "role": "mistake", "expect": "stop at the first"}
def first_wrong(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> int | None:
    index = None
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if (a - b).abs().max() > tolerance:
            index = number
    return index


# %% exercise={"name": "first-wrong", "role": "mistake", "expect": "largest *absolute* difference"}
def first_wrong(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> int | None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if (a - b).max() > tolerance:
            return index
    return None


# %% [markdown] exercise={"name": "small-slips", "role": "manual", "points": 2, "rubric": "1 point: when they hurt (comparing numbers, hiding further errors, weights trained with the other setting). 1 point: a comparison state by state with a tight tolerance, not a look at the output."}
# ### In your own words: do small slips matter?
#
# GELU by tanh and a wrong `eps` change the last state by far less than the other slips. Would you leave them in? When
# would they hurt, and how would you find them if nobody had told you?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# For trying things out they may do no harm. They hurt when numbers are compared with those of others, and they hide
# other mistakes: once the states differ by 0.001, a new error of that size can't be seen. Looking at the output finds
# neither. Compare every state with the reference on real weights, with a tolerance just above rounding.
# ### END SOLUTION

# %% [markdown]
# ## How many parameters?
#
# You have seen every tensor of a layer, so you can count them on paper. A layer of width $H$ with a feed-forward part
# of width $F$ has four $H \times H$ matrices, two of $H \times F$, their biases, and two LayerNorms.

# %% [markdown]
# ### Exercise: count a layer

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Attention: query, key, value and output, each `H * H + H`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Feed-forward: `H * F + F` up, `F * H + H` down. A LayerNorm: `2 * H`, and there are two.
#
# </details>


# %% exercise={"name": "count", "role": "answer", "points": 2}
def layer_parameters(hidden: int, ffn: int) -> int:
    """The number of parameters in one layer of width `hidden` with a feed-forward part of width `ffn`."""
    ### BEGIN SOLUTION
    attention = 4 * (hidden * hidden + hidden)
    feed_forward = hidden * ffn + ffn + ffn * hidden + hidden
    norms = 2 * 2 * hidden
    return attention + feed_forward + norms
    ### END SOLUTION


# %% exercise={"name": "count", "role": "check"}
base = layer_parameters(768, 3072)
assert base != 7_077_888, "count: the biases and norms are missing; a LayerNorm has two vectors"
assert base != 7_084_800, "count: the norms are missing; each has a scale and a shift"
assert base != 7_086_336, "count: there are two norms, one after attention and one after the feed-forward part"
assert base != 6_497_280, "count: query, key and value are three maps; the fourth is the output"
assert base == 7_087_872, f"count: expected 7,087,872 for a layer of base, yours gives {base:,}"
print(base, layer_parameters(1024, 4096))

# %% exercise={"name": "count", "role": "hidden"}
for width, wide, exact in ((1024, 4096, 12_596_224), (384, 1536, 1_774_464), (10, 30, 1120)):
    mine = layer_parameters(width, wide)
    assert mine == exact, f"count: for H = {width} and F = {wide} expected {exact:,}, yours {mine:,}; F need not be 4 H"


# %% exercise={"name": "count", "role": "mistake", "expect": "the biases and norms are missing"}
def layer_parameters(hidden: int, ffn: int) -> int:
    return 4 * hidden * hidden + 2 * hidden * ffn


# %% exercise={"name": "count", "role": "mistake", "expect": "the fourth is the output"}
def layer_parameters(hidden: int, ffn: int) -> int:
    return 3 * (hidden * hidden + hidden) + 2 * hidden * ffn + ffn + hidden + 4 * hidden


# %% exercise={"name": "count", "role": "mistake", "expect": "the norms are missing"}
def layer_parameters(hidden: int, ffn: int) -> int:
    return 4 * (hidden * hidden + hidden) + 2 * hidden * ffn + ffn + hidden


# %% exercise={"name": "count", "role": "mistake", "expect": "there are two norms"}
def layer_parameters(hidden: int, ffn: int) -> int:
    return 4 * (hidden * hidden + hidden) + 2 * hidden * ffn + ffn + hidden + 2 * hidden


# %% [markdown]
# And the whole model? Where do the parameters of base and large sit?

# %%
for name, config in (("base", XLMRConfig.base()), ("large", XLMRConfig.large())):
    model = Encoder(config, device="meta")  # shapes without memory
    layers = sum(p.numel() for p in model.layers.parameters())
    table = model.embeddings.word.weight.numel()
    print(f"{name:6} layers {layers:11,}   word embeddings {table:11,}")

# %% [markdown]
# In base, more than two thirds are the table of words. A vocabulary for a hundred languages is dear.

# %% [markdown]
# ## The package's encoder
#
# The package does the same, with two changes for speed: it computes no padding, and it uses PyTorch's fused kernel
# for attention. This is its attention, from the installed file:

# %%
from xlmr_course import encoder as package

show_source(package.SelfAttention)

# %% [markdown]
# Do your functions and the package agree?

# %%
encoder = checkpoints.load_encoder("small")
states = encoder(ids, mask, output_hidden_states=True).hidden_states
gaps = [(a[real] - b[real]).abs().max().item() for a, b in zip(states, ours, strict=True)]
print("within 1e-4 in every state:", max(gaps) < 1e-4)

# %% [markdown]
# ## What speed comes from
#
# Take 32 sentences in eight languages. As a rectangle, the batch is as wide as its longest sentence. How much of it
# is real?

# %%
from xlmr_course import corpus

mixed = [
    corpus.load(code, "dev")["text"][i] for code in ("en", "el", "th", "sw", "ur", "zh", "de", "vi") for i in range(4)
]
lengths = tokenizer(mixed)["attention_mask"].sum(dim=1)
rectangle = len(lengths) * int(lengths.max())
print(f"{int(lengths.sum())} real tokens in a rectangle of {rectangle}: {int(lengths.sum()) / rectangle:.2f}")

# %% [markdown]
# Linear maps, norms and GELUs don't care which sentence a token belongs to. So the package gathers the real tokens
# into one long matrix and runs them on that. Only attention needs the sentences apart, and it takes those of equal
# length together.

# %% [markdown]
# And how does the cost grow with length? By arithmetic: a layer multiplies each token with about $4H^2 + 2HF$
# weights, two operations each. Attention adds $4TH$ operations a token, $T$ being the length: each token looks at
# every other.

# %%
H, FFN = 384, 1536


def operations(length: int) -> float:
    """Floating-point operations of the twelve layers for one sentence."""
    return 12 * length * (2 * (4 * H * H + 2 * H * FFN) + 4 * length * H)


# %% [markdown]
# The dots are measured on this machine, the line is the arithmetic, scaled to meet the last dot. Left: one sentence
# that grows. Right: more and more sentences of 32 tokens.

# %% tags=["nbval-ignore-output"]
import time


def seconds(batch: int, length: int) -> float:
    """The faster of two runs of the package's encoder."""
    tokens = torch.full((batch, length), 35378)
    runs = []
    for _ in range(2):
        start = time.perf_counter()
        encoder(tokens)
        runs.append(time.perf_counter() - start)
    return min(runs)


sizes, batches = (32, 64, 128, 256, 512), (1, 2, 4, 8, 16, 32, 64)
by_length = [seconds(1, length) for length in sizes]
by_batch = [seconds(batch, 32) for batch in batches]

# %% tags=["nbval-ignore-output"]
with plots.style():
    figure, (left, right) = plots.plt.subplots(1, 2, figsize=(8, 3))
    left.loglog(sizes, by_length, "o", color=plots.BLUE)
    left.loglog(sizes, [operations(n) / operations(512) * by_length[-1] for n in sizes], color=plots.QUIET)
    right.loglog(batches, by_batch, "o", color=plots.BLUE)
    right.loglog(batches, [b / 64 * by_batch[-1] for b in batches], color=plots.QUIET)
    left.set(xlabel="tokens in one sentence", ylabel="seconds")
    right.set(xlabel="sentences of 32 tokens")
    for axes, ticks in ((left, sizes), (right, batches)):
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
plots.show(figure, alt="Two log-log plots: time against length and against batch size; dots near the arithmetic line.")

# %% [markdown]
# Short sentences lie above the line: starting a layer costs something, however little it has to do. That is why
# batches help.
#
# And memory? A score for each pair of tokens, in each head, is what grows fastest. One layer of `small` at 512
# tokens, a batch of 64:

# %%
print(f"{4 * 64 * 12 * 512 * 512 / 1e9:.2f} GB of attention weights, if you keep them")

# %% [markdown]
# The fused kernel never holds them. It works through the scores in blocks.

# %% [markdown]
# ## What you saw
#
# - A layer is attention and a feed-forward part, each with a residual and a norm *after* the sum.
# - The same weights in your functions, in transformers and in the package give the same thirteen states.
# - A slip of one constant is invisible in the output and plain in a comparison layer by layer.
# - Most of base is its vocabulary.
#
# ## Further reading
#
# - Vaswani et al. (2017), *Attention Is All You Need*, section 3, for the layer.
# - Ba, Kiros and Hinton (2016), *Layer Normalization*.
# - Xiong et al. (2020), *On Layer Normalization in the Transformer Architecture*, for pre- and post-LN.
#
# Go on with `06_masked_language_modelling`.
