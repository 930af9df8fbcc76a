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
# # 04 · Attention
#
# **You will build** XLM-R's attention, from a table look-up to twelve heads, and the embeddings that feed it. Then you
# prove it on real weights, against PyTorch's own function, and look at what the heads of a real model look at.
#
# *Needs:* {{needs}}. *Download:* none; the checkpoint `small` comes with the course's `offline` extra.

# %% [markdown]
# *Watoto wanacheza mpira.* That is Swahili: the children play ball. The verb begins with *wa-* because *watoto* does.
# Had one child played, it would be *mtoto anacheza*. So whoever reads or writes the verb has to look back at the noun.
#
# Attention is how a model looks. Every word asks every other word a question, and takes something from each answer.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F

from xlmr_course import checkpoints, corpus, plots
from xlmr_course.classroom import show_source

# %% [markdown]
# ## A look-up that becomes soft
#
# A dictionary has keys and values. You come with a query. If it equals a key, you get that key's value.

# %%
table = {"maji": "water", "moto": "fire", "mti": "tree"}
for query in ("maji", "majini"):
    print(query, "→", table.get(query))

# %% [markdown]
# *Majini* means "in the water". It is close to *maji*, but close counts for nothing here. And a model can't learn from
# such a table: move the query a little, and the result stays the same, or jumps.

# %% [markdown]
# So make keys and queries vectors. How well a query fits a key is their dot product, the **score**. Softmax turns the
# scores into **weights**, positive and with the sum 1. The result is the values, mixed by those weights.

# %% [markdown]
# Below, three keys lie on a circle, and each has a colour for its value. A query goes once around. What colour comes
# out, if you take the best key alone? And if you mix?

# %%
turn = torch.linspace(0, 2 * math.pi, 361)
query = torch.stack([turn.cos(), turn.sin()], dim=-1)  # (361, 2)
key = query[[60, 180, 300]]  # (3, 2)
value = torch.tensor([plots.mpl.colors.to_rgb(name) for name in plots.COLOURS[:3]])  # (3, 3)
score = query @ key.T  # (361, 3)

# %%
bands = {
    "hard: the best key alone": F.one_hot(score.argmax(dim=-1), 3).float() @ value,
    "soft: softmax of 6 × score": (6 * score).softmax(dim=-1) @ value,
    "softer: softmax of 2 × score": (2 * score).softmax(dim=-1) @ value,
}

# %%
with plots.style():
    figure, panels = plots.plt.subplots(3, 1, figsize=(7, 3.6), sharex=True)
    for axes, (name, band) in zip(panels, bands.items(), strict=True):
        axes.imshow(band[None], extent=(0, 360, 0, 1), aspect="auto")
        axes.set(title=name, yticks=[], xticks=(60, 180, 300), xticklabels=("key 1", "key 2", "key 3"))
    panels[-1].set_xlabel("where the query points")
    figure.tight_layout()
plots.show(figure, alt="Three bands of colour: hard has three blocks with edges; soft blends them, softer more.")

# %% [markdown]
# The hard table has edges, and between them nothing changes. The soft ones change everywhere, so a small step of the
# query or of a key changes the result a little. That is what gradient descent needs.

# %% [markdown]
# All three bands are the same formula, *weights times values*. Only the weights differ.

# %% [markdown]
# ## Scores by hand
#
# Now three words. Each brings three vectors: a **query**, what it looks for; a **key**, what it offers to be found
# by; a **value**, what it hands over. The numbers here are made up so that you can follow them. In a model they are
# learned.
#
# | | query | key | value |
# |---|---|---|---|
# | watoto | (0, 1) | (2, 0) | (1, 0) |
# | wanacheza | (2, 1) | (0, 1) | (0, 0) |
# | mpira | (1, 0) | (0, 2) | (0, 1) |
#
# Take the verb, *wanacheza*. What are its three scores?

# %% [markdown]
# - with *watoto*: 2 · 2 + 1 · 0 = 4
# - with itself: 2 · 0 + 1 · 1 = 1
# - with *mpira*: 2 · 0 + 1 · 2 = 2
#
# For its weights, take $e$ to the power of each, and divide by the sum of the three.

# %%
powers = [math.exp(score) for score in (4, 1, 2)]
print([round(power, 1) for power in powers], "sum", round(sum(powers), 1))
print([round(power / sum(powers), 2) for power in powers])

# %% [markdown]
# That was one word. Now all three.

# %%
words = ["watoto", "wanacheza", "mpira"]
q = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 0.0]])
k = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
v = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
scores = q @ k.T  # (3 queries, 3 keys)
scores.tolist()

# %% [markdown]
# One product gives all nine scores. Row: who asks. Column: who answers. The verb's row holds your 4, 1, 2. And the
# weights?

# %%
weights = scores.softmax(dim=-1)
picture = plots.heatmap(weights.numpy(), words, words, label="weight", limits=(0, 1), annotate=True)
picture.axes[0].set(xlabel="is looked at", ylabel="looks")
plots.show(picture, alt="A 3 by 3 grid of weights. Each row sums to 1; wanacheza gives 0.84 to watoto.")

# %% [markdown]
# Each *row* is one word's attention, and sums to 1. The verb gives most of its own to the noun that it must agree
# with. What does it get back?

# %%
print([round(number, 3) for number in (weights @ v)[1].tolist()])

# %% [markdown]
# Mostly the value of *watoto*, with a little of *mpira*. Written for all words at once:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}(Q K^\top)\, V$$

# %% [markdown]
# ### Exercise: softmax
#
# `scores` has a row for each query and a column for each key, `(Q, K)`. Return the weights without calling
# `torch.softmax`: $e^{s}$, divided by the sum over the keys.

# %% [markdown]
# One trap: $e^{1000}$ is infinite in float32. Subtract each row's largest score first. That divides numerator and
# denominator by the same number, so the weights stay the same.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The keys are the last dimension, −1. With `keepdim=True` a sum or maximum keeps its dimension, and the shapes fit.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `scores.amax(dim=-1, keepdim=True)` is each row's largest score.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `powers = (scores - scores.amax(-1, keepdim=True)).exp()`, then divide by `powers.sum(-1, keepdim=True)`.
#
# </details>


# %% exercise={"name": "softmax", "role": "answer", "points": 2}
def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Scores `(Q, K)` -> weights `(Q, K)`; each query's weights sum to 1."""
    ### BEGIN SOLUTION
    powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True)
    ### END SOLUTION


# %% exercise={"name": "softmax", "role": "check"}
scores = torch.tensor([[4.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
yours, sharp = softmax(scores), softmax(torch.tensor([[1000.0, 999.0, 0.0]]))
wanted = scores.softmax(dim=-1)
assert yours.shape == (2, 3), f"softmax: expected shape (2, 3), yours {tuple(yours.shape)}; use keepdim=True"
assert not torch.allclose(yours, scores.softmax(dim=0)), "softmax: your columns sum to 1; sum over the keys, dim −1"
assert abs(yours.sum() - 1) > 1e-4, "softmax: the whole table sums to 1; each *row* must, so sum over dim −1 alone"
assert abs(yours[0].sum() - 1) < 1e-4, (
    f"softmax: a row sums to {yours[0].sum():.3f}, not 1; divide by the sum of the powers"
)
yours_rounded, wanted_rounded = ([round(weight, 3) for weight in table[0].tolist()] for table in (yours, wanted))
assert torch.allclose(yours, wanted, atol=1e-6), f"softmax: expected {wanted_rounded}, yours {yours_rounded}"
assert sharp.isfinite().all(), "softmax: a score of 1000 gives nan; subtract each row's largest score before exp"
print([round(weight, 3) for weight in yours[0].tolist()])

# %% exercise={"name": "softmax", "role": "hidden"}
deep = torch.tensor([[-1.0, 0.5, 3.0, 0.0, -2.0], [-1000.0, -1001.0, -1000.0, -999.0, -1003.0], [7.0] * 5])
deep_weights = softmax(deep.clone())
assert deep_weights.shape == (3, 5), f"softmax: scores (3, 5) give weights (3, 5), yours {tuple(deep_weights.shape)}"
assert deep_weights.isfinite().all(), "softmax: scores near −1000 give nan; subtract the row's largest score, any sign"
sums = [round(total, 3) for total in deep_weights.sum(dim=-1).tolist()]
assert sums == [1, 1, 1], f"softmax: three queries with five keys; the rows must sum to 1, yours to {sums}"
for row_of, mine, wanted in zip(deep.tolist(), deep_weights.tolist(), deep.softmax(dim=-1).tolist(), strict=True):
    assert max(abs(a - b) for a, b in zip(mine, wanted, strict=True)) < 1e-3, (
        f"softmax: scores {row_of} have the weights {[round(w, 3) for w in wanted]}; "
        f"yours are {[round(w, 3) for w in mine]}"
    )


# %% exercise={"name": "softmax", "role": "mistake", "expect": "your columns sum to 1"}
def softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.softmax(dim=0)


# %% exercise={"name": "softmax", "role": "mistake", "expect": "the whole table sums to 1"}
def softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.exp() / scores.exp().sum()


# %% exercise={"name": "softmax", "role": "mistake", "expect": "a score of 1000 gives nan"}
def softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)


# %% exercise={"name": "softmax", "role": "mistake", "expect": "divide by the sum of the powers"}
def softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.exp() / scores.exp().amax(dim=-1, keepdim=True)


# %% [markdown]
# ## Why √d?
#
# The vectors above had two numbers. A head of XLM-R has 64, of `small` 32. A dot product of longer vectors is a sum
# of more terms, so it spreads wider. How wide?
#
# Take random vectors of $d$ numbers with deviation 1. Each query meets 32 keys.


# %%
def random_scores(d: int) -> torch.Tensor:
    """Scores of 500 random queries with 32 random keys each, `(500, 32)`."""
    generator = torch.Generator().manual_seed(d)
    q, k = torch.randn(500, 1, d, generator=generator), torch.randn(500, 32, d, generator=generator)
    return (q * k).sum(dim=-1)


# %%
for d in (4, 16, 64, 256):
    print(f"d = {d:3}: the scores' deviation is {random_scores(d).std():4.1f}, √d is {math.sqrt(d):4.1f}")

# %% [markdown]
# The deviation is $\sqrt d$: variances add up, so $d$ terms of variance 1 have variance $d$.

# %% [markdown]
# What does softmax make of wide scores? Two ways to measure it:
#
# - **How many words does a query attend to?** $e^{H}$, where $H$ is the entropy of its weights. Equal weights on 32
#   words give 32. All the weight on one gives 1.
# - **How much do the weights react** when a score moves? $\partial w_i / \partial s_i = w_i (1 - w_i)$, summed over
#   the keys. Near 0, nothing is left for the gradient, and the query can't learn to look elsewhere.


# %%
def words_attended(weights: torch.Tensor) -> torch.Tensor:
    """`(..., K)` weights -> `(...)`: 1 if all the weight is on one key, K if it is spread evenly."""
    return torch.special.entr(weights).sum(dim=-1).exp()


def reaction(weights: torch.Tensor) -> torch.Tensor:
    """`(..., K)` weights -> `(...)`: the sum of the slopes of softmax."""
    return (weights * (1 - weights)).sum(dim=-1)


# %%
sizes = [2**n for n in range(11)]
plain = [random_scores(d).softmax(dim=-1) for d in sizes]
scaled = [(random_scores(d) / math.sqrt(d)).softmax(dim=-1) for d in sizes]

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 2, figsize=(8, 3))
    for axes, measure in zip(panels, (words_attended, reaction), strict=True):
        axes.semilogx(
            sizes, [measure(w).mean() for w in scaled], base=2, marker="o", markersize=3, label="divided by √d"
        )
        axes.semilogx(sizes, [measure(w).mean() for w in plain], base=2, marker="o", markersize=3, label="as they are")
        axes.set(xlabel="d, the length of query and key", ylim=(0, None), xticks=[1, 4, 16, 64, 256, 1024])
        axes.xaxis.set_major_formatter(plots.mpl.ticker.ScalarFormatter())
    panels[0].set(title="words attended to, of 32")
    panels[1].set(title="reaction of the weights")
    panels[1].legend(loc="lower left")
    figure.tight_layout()
plots.show(figure, alt="Against d: divided by √d both measures stay level; as they are, both fall, to 1 word and 0.")

# %% [markdown]
# Without the division softmax turns back into the hard table: one word, no slope. With it, the length of the vectors
# no longer matters. Hence the formula in its full form:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) V$$

# %%
for d in (4, 64, 1024):
    few, many = (words_attended((random_scores(d) / by).softmax(dim=-1)).mean() for by in (1, math.sqrt(d)))
    print(f"d = {d:4}: {few:4.1f} words as they are, {many:4.1f} divided by √d")

# %% [markdown]
# ### Exercise: scaled scores
#
# `q` is `(Q, d)`, `k` is `(K, d)`. Return the scores `(Q, K)`, divided by $\sqrt d$.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Rows are queries, columns are keys. Which of the two has to be transposed?
#
# </details>
# <details><summary>Hint 2</summary>
#
# $d$ is the length of one vector, `q.shape[-1]`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `q @ k.T / math.sqrt(q.shape[-1])`
#
# </details>


# %% exercise={"name": "scaled-scores", "role": "answer", "points": 1}
def scaled_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Queries `(Q, d)` and keys `(K, d)` -> scores `(Q, K)`."""
    ### BEGIN SOLUTION
    return q @ k.T / math.sqrt(q.shape[-1])
    ### END SOLUTION


# %% exercise={"name": "scaled-scores", "role": "check"}
q = torch.tensor([[1.0, 2.0, 0.0, 1.0], [0.0, 4.0, 2.0, 0.0]])
k = torch.tensor([[2.0, 1.0, 0.0, 2.0], [0.0, 2.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
yours, raw = scaled_scores(q, k), q @ k.T
assert yours.shape != (3, 2), "scaled-scores: your rows are keys; queries belong in the rows: q @ k.T"
assert yours.shape == (2, 3), f"scaled-scores: expected a score for each pair, (2, 3); yours {tuple(yours.shape)}"
assert not torch.allclose(yours, raw), "scaled-scores: the division by √d is missing"
assert not torch.allclose(yours, raw / 4), "scaled-scores: you divided by d; divide by its square root"
assert torch.allclose(yours, raw / 2), (
    f"scaled-scores: d is 4, the length of one vector, so {raw[0, 0]:g} becomes {raw[0, 0] / 2:g}; "
    f"yours {yours[0, 0]:.3f}"
)
print(yours.tolist())

# %% exercise={"name": "scaled-scores", "role": "hidden"}
wide_q, wide_k = torch.arange(9.0).view(1, 9), torch.arange(36.0).view(4, 9) % 5
wide = scaled_scores(wide_q, wide_k)
assert wide.shape == (1, 4), f"scaled-scores: one query and four keys make (1, 4), yours {tuple(wide.shape)}"
assert torch.allclose(wide, wide_q @ wide_k.T / 3, atol=1e-5), (
    "scaled-scores: d is 9 here, so the products are divided by 3; "
    f"yours gives {[round(number, 3) for number in wide[0].tolist()]}"
)


# %% exercise={"name": "scaled-scores", "role": "mistake", "expect": "the division by √d is missing"}
def scaled_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.T


# %% exercise={"name": "scaled-scores", "role": "mistake", "expect": "divide by its square root"}
def scaled_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.T / q.shape[-1]


# %% exercise={"name": "scaled-scores", "role": "mistake", "expect": "the length of one vector"}
def scaled_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.T / math.sqrt(q.shape[0])


# %% exercise={"name": "scaled-scores", "role": "mistake", "expect": "your rows are keys"}
def scaled_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return k @ q.T / math.sqrt(q.shape[-1])


# %% [markdown]
# ## Padding masks
#
# Sentences in a batch have different lengths. Short ones are filled up with `<pad>`, id 1. Here is a batch of three
# languages. How long is each really?

# %%
tokenizer = checkpoints.load_tokenizer("small")
encoder = checkpoints.load_encoder("small")
_ = torch.set_grad_enabled(False)  # nothing is trained in this chapter
batch = tokenizer(["Habari ya asubuhi", "καλημέρα", "صبح بخیر، آپ کیسے ہیں؟"])
ids, mask = batch["input_ids"], batch["attention_mask"]
print(ids.tolist())
print(mask.sum(dim=1).tolist(), "real tokens")

# %% [markdown]
# A `<pad>` has a vector like any other token, so it has a key, and scores. Nobody should look at it. What if you let
# softmax run, and set the weights to padding to 0 afterwards? And if you set the *scores* to $-\infty$ before?
#
# Below is the Greek word in one head of the real first layer: its five tokens look, and left of the line stand the
# same five, right of it padding.

# %%
x = encoder.embeddings(ids, encoder.embeddings.positions(ids))  # (B, T, 384)
attention = encoder.layers[0].attention
q, k = attention.query(x)[1, :, 96:128], attention.key(x)[1, :, 96:128]  # head 3 of 12
scores, real = q @ k.T / math.sqrt(32), mask[1].bool()
ways = {
    "no mask": scores.softmax(dim=-1),
    "0 after softmax": scores.softmax(dim=-1) * real,
    "−∞ before softmax": scores.masked_fill(~real, -math.inf).softmax(dim=-1),
}

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 3, figsize=(8.6, 2.2))
    for axes, (name, view) in zip(panels, ways.items(), strict=True):
        axes.imshow(view[real], cmap="Blues", vmin=0, vmax=0.4)
        axes.axvline(real.sum() - 0.5, color=plots.ORANGE, linewidth=1.5)
        axes.set(title=name, xlabel="is looked at", ylabel="looks", xticks=range(10), yticks=range(5))
    figure.tight_layout()
plots.show(figure, alt="Three grids; padding right of a line gets weight without a mask, and none with either mask.")

# %%
for name, view in ways.items():
    print(f"{name:18} sum of the first row {view[0].sum():.2f}, of it to padding {view[0, ~real].sum():.2f}")

# %% [markdown]
# A mask after softmax comes too late. The padding gets nothing, but it has already taken its share: the row no longer
# sums to 1, and the more padding, the weaker the result. So the same sentence would get other vectors in another
# batch.

# %% [markdown]
# A score of $-\infty$ takes part as $e^{-\infty} = 0$, in the sum as well.

# %% [markdown]
# ### Exercise: the padding mask
#
# `scores` is `(B, T, T)`: for each sentence a row for each query, a column for each key. `mask` is `(B, T)`, 1 for
# real tokens and 0 for padding. Return the weights `(B, T, T)`. No query may look at padding.

# %% [markdown]
# Padding asks questions too, in its own rows. Leave those; nobody reads their answers.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `scores.masked_fill(where, -math.inf)` puts $-\infty$ where `where` is true. Then softmax.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `mask` needs a dimension in the middle, `(B, 1, T)`, so that it applies to the keys of every query:
# `mask[:, None, :]`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `scores.masked_fill(mask[:, None, :] == 0, -math.inf).softmax(dim=-1)`
#
# </details>


# %% exercise={"name": "padding-mask", "role": "answer", "points": 2}
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores `(B, T, T)` and a mask `(B, T)` of ones and zeros -> weights `(B, T, T)`."""
    ### BEGIN SOLUTION
    return scores.masked_fill(mask[:, None, :] == 0, -math.inf).softmax(dim=-1)
    ### END SOLUTION


# %% exercise={"name": "padding-mask", "role": "check"}
scores = torch.tensor([[[0.0, 1, 2], [2, 0, 1], [1, 1, 1]], [[0, 1, 5], [2, 0, 5], [1, 1, 5]]])
yours = masked_weights(scores.clone(), torch.tensor([[1, 1, 1], [1, 1, 0]]))
assert yours.shape == (2, 3, 3), f"padding-mask: expected shape (2, 3, 3), yours {tuple(yours.shape)}"
assert not yours[0].isnan().all(), (
    "padding-mask: you masked the real tokens; fill where the mask is 0, not where it is 1"
)
assert not yours.isnan().any(), "padding-mask: a whole row is −∞; mask the keys, mask[:, None, :], not the queries"
assert yours[1, 0, 2] == 0, f"padding-mask: padding gets the weight {yours[1, 0, 2]:.3f}; a *score* of −∞ gives 0"
rows = yours.sum(dim=-1)
assert abs(rows[1, 0] - 1) < 1e-5, f"padding-mask: a row sums to {rows[1, 0]:.3f}; mask the scores *before* softmax"
assert torch.allclose(yours[0], scores[0].softmax(dim=-1)), "padding-mask: the sentence without padding changed"
print([round(weight, 3) for weight in yours[1, 0].tolist()])

# %% exercise={"name": "padding-mask", "role": "hidden"}
tall = torch.linspace(-3, 4, 48).view(3, 4, 4).sin() * 4
sides = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0]])  # no padding, on the left, almost all
tall_weights = masked_weights(tall.clone(), sides)
assert tall_weights.shape == (3, 4, 4), f"padding-mask: (3, 4, 4) went in, {tuple(tall_weights.shape)} came out"
assert tall_weights[1, :, :2].abs().max() == 0, (
    "padding-mask: padding on the left gets weight; use the mask, not lengths"
)
assert torch.allclose(tall_weights[2, 0, 0], torch.tensor(1.0)), (
    f"padding-mask: with one real token all weight is on it; yours puts {tall_weights[2, 0, 0]:.3f} there"
)
tall_wanted = tall.masked_fill(sides[:, None, :] == 0, -math.inf).softmax(dim=-1)
assert torch.allclose(tall_weights[sides.bool()], tall_wanted[sides.bool()], atol=1e-6), (
    "padding-mask: on a batch of three, some weights of real tokens are off; mask the keys, then softmax over the keys"
)


# %% exercise={"name": "padding-mask", "role": "mistake", "expect": "mask the scores *before* softmax"}
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scores.softmax(dim=-1) * mask[:, None, :]


# %% exercise={"name": "padding-mask", "role": "mistake", "expect": "a *score* of −∞ gives 0"}
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (scores * mask[:, None, :]).softmax(dim=-1)


# %% exercise={"name": "padding-mask", "role": "mistake", "expect": "mask the keys"}
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(mask[:, :, None] == 0, -math.inf).softmax(dim=-1)


# %% exercise={"name": "padding-mask", "role": "mistake", "expect": "fill where the mask is 0"}
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(mask[:, None, :] == 1, -math.inf).softmax(dim=-1)


# %% exercise={"name": "padding-mask", "role": "mistake", "expect": "a *score* of −∞ gives 0"}
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (scores + mask[:, None, :]).softmax(dim=-1)


# %% [markdown]
# ## Heads
#
# One softmax gives one pattern of looking. But *wanacheza* needs its noun, its object, and the pieces next to it, all
# at once. So XLM-R looks several times side by side. Each **head** has its own queries, keys and values.

# %% [markdown]
# It costs nothing extra. The vector of $H$ numbers is cut into $h$ parts of $d = H / h$, and each head works on its
# own part: 12 × 32 = 384 in `small`, 12 × 64 = 768 in base, 16 × 64 = 1024 in large.

# %% [markdown]
# In code, a head is a reshape. Three tokens, six numbers each, two heads of three. The numbers count up, so that you
# see where each one goes; the colour says which token it belongs to.

# %%
x = torch.arange(18).view(3, 6)  # (T, H)
owner = x // 6
right = [t.view(3, 2, 3).transpose(0, 1) for t in (x, owner)]  # (T, h, d) -> (h, T, d)
wrong = [t.view(2, 3, 3) for t in (x, owner)]  # (h, T, d) at once

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 5, figsize=(8.6, 2.4), width_ratios=[2, 1, 1, 1, 1])
    shades = plots.mpl.colors.ListedColormap(["#cfe4f3", "#f8ddc2", "#cbe8de"])
    titles = ["x: (T, H)", "right, head 0", "right, head 1", "wrong, head 0", "wrong, head 1"]
    numbers, owners = ([whole, *good, *bad] for whole, good, bad in zip((x, owner), right, wrong, strict=True))
    for axes, title, cells, whose in zip(panels, titles, numbers, owners, strict=True):
        axes.imshow(whose, cmap=shades, vmin=0, vmax=2)
        axes.set(title=title, xticks=[], yticks=range(3), ylabel="token")
        axes.title.set_fontsize(9.5)
        for (row, column), number in plots.np.ndenumerate(cells.numpy()):
            axes.text(column, row, number, ha="center", va="center", fontsize=9)
    figure.tight_layout()
plots.show(
    figure, alt="A 3 by 6 table in heads: split and transposed, a row keeps its token; viewed at once, rows mix."
)

# %% [markdown]
# On the right, row 1 of head 0 says 3 4 5. Those are numbers of token 0. The shapes are the same, so nothing
# complains, and the model looks at the wrong words.

# %% [markdown]
# `view` never moves a number. It cuts the row of numbers in memory anew. So first cut each token's vector, $H$ into
# $(h, d)$. Then let `transpose` bring the heads to the front.

# %% [markdown]
# ### Exercise: split heads
#
# `x` is `(B, T, H)`. Return `(B, h, T, d)` with `d = H / h`. Head 0 takes the first `d` numbers of each token, head 1
# the next `d`, and so on.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two steps: `(B, T, H)` → `(B, T, h, d)` → `(B, h, T, d)`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `x.unflatten(-1, (heads, -1))` cuts the last dimension. `transpose(1, 2)` swaps tokens and heads.
#
# </details>


# %% exercise={"name": "split-heads", "role": "answer", "points": 2}
def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """`(B, T, H)` -> `(B, h, T, d)`."""
    ### BEGIN SOLUTION
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    ### END SOLUTION


# %% exercise={"name": "split-heads", "role": "check"}
x = torch.arange(48).view(2, 3, 8)
yours = split_heads(x, 2)
assert yours.shape != (2, 3, 2, 4), "split-heads: (B, T, h, d) is half the way; heads come before tokens, so transpose"
assert yours.shape == (2, 2, 3, 4), f"split-heads: expected shape (2, 2, 3, 4), yours {tuple(yours.shape)}"
first, second = yours[0, 0, 0].tolist(), yours[0, 0, 1].tolist()
assert second != [4, 5, 6, 7], "split-heads: token 1 got numbers of token 0; first (B, T, h, d), then transpose"
assert first != [0, 2, 4, 6], "split-heads: head 0 took every other number; cut H into (h, d), not (d, h)"
assert second == [8, 9, 10, 11], f"split-heads: head 0 of token 1 is [8, 9, 10, 11], yours {second}"
last = yours[1, 1, 2].tolist()
assert last == [44, 45, 46, 47], f"split-heads: the last head of the last token is [44, 45, 46, 47], yours {last}"
print(tuple(yours.shape), second)

# %% exercise={"name": "split-heads", "role": "hidden"}
long = torch.arange(2 * 5 * 12).view(2, 5, 12)
long_heads = split_heads(long, 3)
assert long_heads.shape == (2, 3, 5, 4), (
    f"split-heads: (2, 5, 12) with 3 heads makes (2, 3, 5, 4), yours {tuple(long_heads.shape)}"
)
for which, place in ((0, 0), (1, 3), (2, 4)):
    part = long[1, place, 4 * which : 4 * which + 4].tolist()
    assert long_heads[1, which, place].tolist() == part, (
        f"split-heads: head {which} of token {place} in sentence 1 is {part}, "
        f"yours {long_heads[1, which, place].tolist()}"
    )


# %% exercise={"name": "split-heads", "role": "mistake", "expect": "token 1 got numbers of token 0"}
def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    batch, tokens, size = x.shape
    return x.view(batch, heads, tokens, size // heads)


# %% exercise={"name": "split-heads", "role": "mistake", "expect": "(h, d), not (d, h)"}
def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)


# %% exercise={"name": "split-heads", "role": "mistake", "expect": "heads come before tokens"}
def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1))


# %% [markdown]
# Afterwards the heads are put side by side again, `(B, h, T, d)` → `(B, T, h, d)` → `(B, T, H)`, and one more linear
# map mixes what they found.

# %% [markdown]
# ## The whole of it
#
# Four linear maps, two reshapes, one softmax. Every shape is written out.


# %%
def multi_head(attention, x, mask, heads=12):
    """`(B, T, H)` -> `(B, T, H)` and the weights `(B, h, T, T)`."""
    projected = (attention.query(x), attention.key(x), attention.value(x))  # (B, T, H) each
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected)  # (B, h, T, d)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, h, T, T)
    scores = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf)
    weights = scores.softmax(dim=-1)
    mixed = (weights @ v).transpose(1, 2).flatten(2)  # (B, h, T, d) -> (B, T, h, d) -> (B, T, H)
    return attention.output(mixed), weights


# %% [markdown]
# The mask has the shape `(B, 1, 1, T)`: the same for every head and every query of a sentence.

# %% [markdown]
# ## The proof
#
# PyTorch has all this as one function. Real weights, a batch with padding, in three scripts: does it say the same?

# %%
attention = encoder.layers[0].attention
x = encoder.embeddings(ids, encoder.embeddings.positions(ids))
ours, weights = multi_head(attention, x, mask)
projected = (attention.query(x), attention.key(x), attention.value(x))
q, k, v = (part.unflatten(-1, (12, 32)).transpose(1, 2) for part in projected)
theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
theirs = attention.output(theirs.transpose(1, 2).flatten(2))
print("within 1e-5 of PyTorch's:", torch.allclose(ours, theirs, atol=1e-5))

# %% [markdown]
# And the package? It has two ways. One calls PyTorch's function, which is fast and keeps no weights. The other is
# written out, for those who want to look at the weights:

# %%
show_source(type(attention).written_out)

# %% [markdown]
# It differs from yours in one thing: rows of padding become zeros. So compare the rows of real tokens, in all twelve
# layers, each fed with what the layer before it gave.

# %%
result = encoder(ids, mask, output_hidden_states=True, output_attentions=True)
real = mask.bool()
gaps = []
for layer, state, given in zip(encoder.layers, result.hidden_states, result.attentions, strict=False):
    yours = multi_head(layer.attention, state, mask)[1]
    gaps.append((yours - given).transpose(1, 2)[real].abs().max().item())
print(len(gaps), "layers of weights; every one within 1e-5:", max(gaps) < 1e-5)

# %% [markdown]
# Now the mask: does a sentence get the same vectors alone as it does beside longer ones?

# %%
alone = multi_head(attention, x[1:2, : mask[1].sum()], torch.ones(1, int(mask[1].sum())))[0]
print("the same alone and padded:", torch.allclose(alone[0], ours[1][real[1]], atol=1e-5))

# %% [markdown]
# ## Attention knows no order
#
# *Juma anampenda Asha*: Juma loves Asha. *Asha anampenda Juma*: Asha loves Juma. The same pieces, in another order.
# Feed attention with word vectors alone. Does Juma's vector tell who loves whom?

# %%
pair = tokenizer(["Juma anampenda Asha", "Asha anampenda Juma"])
juma, where = pair["input_ids"][0, 1], pair["input_ids"]
words = encoder.embeddings.word.weight
mixed, _ = multi_head(attention, words[where], pair["attention_mask"])
one, other = mixed[where == juma]
print("Juma's vector is the same in both:", torch.allclose(one, other, atol=1e-5))

# %% [markdown]
# It does not. Scores depend on *which* words stand there, never on *where*. So the place must be in the vector. XLM-R
# learns one vector for each position, in a table like that of the words, and adds the two:
#
# $$x_t = \mathrm{LN}\big(\mathrm{word}[\mathrm{id}_t] + \mathrm{position}[p_t] + \mathrm{type}[0]\big)$$

# %% [markdown]
# The type says "first or second sentence" in BERT. XLM-R has one type only, so the same row is added to every token.
# LN is LayerNorm, from the next chapter.

# %%
placed = encoder.embeddings(where, encoder.embeddings.positions(where))
mixed, _ = multi_head(attention, placed, pair["attention_mask"])
one, other = mixed[where == juma]
print("Juma's vector is the same in both:", torch.allclose(one, other, atol=1e-5))

# %% [markdown]
# What does such a table learn? Below: how alike the vectors of two positions are, in `small`. Before you look: where
# will it be bright?

# %%
table = F.normalize(encoder.embeddings.position.weight[2:66], dim=-1)
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(4.6, 3.8))
    image = axes.imshow(table @ table.T, extent=(2, 66, 66, 2), vmin=0)
    axes.set(xlabel="position", ylabel="position", xticks=range(2, 67, 16), yticks=range(2, 67, 16))
    figure.colorbar(image, label="cosine").outline.set_visible(False)
plots.show(figure, alt="A 64 by 64 grid of stripes along the diagonal; the diagonal is brightest.")

# %% [markdown]
# Stripes along the diagonal. How alike two positions are depends on how far apart they lie, and hardly on where: 10 is
# to 13 as 40 is to 43. That makes it easy for a head to ask for "the next one" anywhere. Nobody told the model to do
# that. Position 2, where `<s>` always stands, is like no other.

# %% [markdown]
# ## Positions from 2
#
# The table has 514 rows, and a sentence at most 512 tokens. Where does the count begin?
#
# XLM-R was trained with fairseq. There, the position table has a row for padding, and it is the row with padding's
# id, 1. It is the row of tokens that stand nowhere. The count of real tokens begins behind it: the first one, `<s>`,
# has position **2**. Row 0 is never used.

# %%
rows = encoder.embeddings.position.weight
print("rows", len(rows), "· rows of zeros in small:", (rows == 0).all(dim=1).nonzero().flatten().tolist())

# %% [markdown]
# And what is counted? Tokens that are not padding: `<s>` is 2, the next 3, and so on. Padding is 1 wherever it
# stands.

# %%
for row, places in zip(ids.tolist(), encoder.embeddings.positions(ids).tolist(), strict=True):
    print("ids      ", "".join(f"{number:7}" for number in row))
    print("positions", "".join(f"{number:7}" for number in places), "\n")

# %% [markdown]
# Begin at 0 instead, and every token takes the vector of another place. The model runs without a word. Chapter 5
# measures what that costs.

# %% [markdown]
# ### Exercise: position ids
#
# Given `ids` `(B, T)`, return the positions `(B, T)`: 2, 3, 4, … for tokens that are not padding, 1 for padding,
# which has id 1. Padding may stand on the left, too.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `real = ids.ne(1).long()` has a 1 for each real token. How many real tokens stand up to a place?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `real.cumsum(dim=1)` counts 1, 2, 3, … Times `real`, padding becomes 0.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `real.cumsum(dim=1) * real + 1`
#
# </details>


# %% exercise={"name": "positions", "role": "answer", "points": 2}
def position_ids(ids: torch.Tensor) -> torch.Tensor:
    """Ids `(B, T)` -> rows of the position table `(B, T)`."""
    ### BEGIN SOLUTION
    real = ids.ne(1).long()
    return real.cumsum(dim=1) * real + 1
    ### END SOLUTION


# %% exercise={"name": "positions", "role": "check"}
sample = torch.tensor([[0, 665, 193478, 2, 1, 1], [0, 6, 124084, 4, 3221, 2], [1, 1, 0, 68700, 97883, 2]])
yours = position_ids(sample).tolist()
assert yours[1][0] != 0, "positions: your first token has position 0; rows 0 and 1 are not for tokens, so it has 2"
assert yours[1][0] != 1, "positions: off by one; row 1 is the row of padding, so the first token has 2"
assert yours[0][4:] == [1, 1], f"positions: padding has no place; its row is 1, yours {yours[0][4:]}"
assert yours[2][2] == 2, f"positions: `<s>` behind padding got {yours[2][2]}; count real tokens (cumsum), not places"
assert yours[0][:4] == [2, 3, 4, 5], f"positions: expected 2, 3, 4, 5 in the first row, yours {yours[0][:4]}"
assert yours[1:] == [[2, 3, 4, 5, 6, 7], [1, 1, 2, 3, 4, 5]], f"positions: the last two rows are wrong: {yours[1:]}"
print(yours[0], yours[2])

# %% exercise={"name": "positions", "role": "hidden"}
rows_of_ids = torch.tensor([[0, 9, 2], [1, 1, 1], [0, 2, 1], [1, 0, 2]])
rows_of_places = position_ids(rows_of_ids).tolist()
assert rows_of_places == [[2, 3, 4], [1, 1, 1], [2, 3, 1], [1, 2, 3]], (
    f"positions: for {rows_of_ids.tolist()} expected [[2, 3, 4], [1, 1, 1], [2, 3, 1], [1, 2, 3]], "
    f"yours {rows_of_places}"
)
assert position_ids(torch.full((1, 512), 7))[0, -1] == 513, "positions: the last of 512 tokens has position 513"


# %% exercise={"name": "positions", "role": "mistake", "expect": "your first token has position 0"}
def position_ids(ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1]).expand(ids.shape)


# %% exercise={"name": "positions", "role": "mistake", "expect": "off by one"}
def position_ids(ids: torch.Tensor) -> torch.Tensor:
    real = ids.ne(1).long()
    return real.cumsum(dim=1) * real


# %% exercise={"name": "positions", "role": "mistake", "expect": "padding has no place"}
def position_ids(ids: torch.Tensor) -> torch.Tensor:
    return ids.ne(1).long().cumsum(dim=1) + 1


# %% exercise={"name": "positions", "role": "mistake", "expect": "count real tokens (cumsum), not places"}
def position_ids(ids: torch.Tensor) -> torch.Tensor:
    return (torch.arange(ids.shape[1]) + 2).expand(ids.shape).masked_fill(ids == 1, 1)


# %% [markdown]
# This is the package's version, with the sum of the three. Do its positions equal those of transformers?

# %%
show_source(type(encoder.embeddings))

# %%
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

theirs = XLMRobertaEmbeddings.create_position_ids_from_input_ids(ids, padding_idx=1)
print("the same positions:", torch.equal(encoder.embeddings.positions(ids), theirs))

# %% [markdown]
# ## What real heads look at
#
# A sentence of the course's corpus: more people live on the island of Java than on all the other islands of Indonesia
# together. Watch for the pieces that occur twice.

# %%
rows = corpus.load("sw")
text = dict(zip(rows["id"], rows["text"], strict=True))["geography-008"]
sentence = tokenizer([text])
pieces = [tokenizer.tokens[number] for number in sentence["input_ids"][0].tolist()]
seen = encoder(**sentence, output_attentions=True).attentions  # 12 layers of (1, 12, T, T)
print(text)
print("more than once:", *sorted({piece for piece in pieces if pieces.count(piece) > 1}))

# %% [markdown]
# Two of the 144 heads, counted from 0. Row: who looks. Column: who is looked at. What does each head do?

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 2, figsize=(10, 5.4))
    for axes, (layer, head) in zip(panels, ((2, 6), (5, 5)), strict=True):
        axes.imshow(seen[layer][0, head], cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=8)
        axes.set_yticks(range(len(pieces)), pieces, fontsize=8)
        axes.set_title(f"layer {layer}, head {head}")
    figure.tight_layout()
plots.show(figure, alt="Left: dark cells beside the diagonal, the next piece. Right: dark where a piece returns.")

# %% [markdown]
# The head on the left looks at the next piece, whatever it is. That is a pattern of positions alone. The head on the
# right finds a piece's double: *katika* looks at the other *katika*, and back. Words without one rest on the first and
# last token, `<s>` and `</s>`.

# %% [markdown]
# And look at *cha* and *vya*. They share one letter, yet find each other. Both mean "of": *cha* goes with *kisiwa*,
# one island, *vya* with *visiwa*, islands. It is the kind of agreement that this chapter began with. Here, at least,
# the head is after more than form.

# %% [markdown]
# ## The same heads in other languages?
#
# One Swahili sentence is no evidence. So take 20 others in each of eight languages and six scripts. Three heads, three
# guesses:
#
# - layer 2, head 6: the next piece;
# - layer 0, head 2: the piece before;
# - layer 5, head 5: the same piece elsewhere, for pieces that occur more than once. Beside it stands what the mean of
#   all 144 heads gives to such doubles.


# %%
def habits(language: str) -> list[float]:
    """The mean weight that the three heads give to what they are said to look for, and all heads to doubles."""
    batch = tokenizer(list(corpus.load(language, "test")["text"][:20]))
    ids, real = batch["input_ids"], batch["attention_mask"].bool()
    layers = encoder(**batch, output_attentions=True).attentions
    later = layers[2][:, 6].diagonal(1, 1, 2)[real[:, 1:]]
    before = layers[0][:, 2].diagonal(-1, 1, 2)[real[:, 1:]]
    twins = (ids[:, :, None] == ids[:, None, :]) & real[:, None, :] & ~torch.eye(ids.shape[1], dtype=torch.bool)
    doubles = torch.stack([(given * twins[:, None]).sum(dim=-1) for given in layers])  # (layers, B, h, T)
    doubles = doubles.permute(1, 3, 0, 2)[twins.any(dim=-1) & real]  # (tokens with a double, layers, h)
    return [found.mean().item() for found in (later, before, doubles[:, 5, 5], doubles)]


# %%
print("    next  before  double  (all heads)")
for language in ("sw", "ar", "el", "en", "hi", "th", "ur", "zh"):
    print(language, "  {:.2f}    {:.2f}    {:.2f}     {:.2f}".format(*habits(language)))

# %% [markdown]
# The heads that look by position do the same in every language: a place has no script. The head for doubles is
# less sure, and not equally so: look at the row of English. Yet everywhere it gives them more than the mean head does.

# %% [markdown]
# Nobody gave this model a language label. It reads all of them with the same 144 heads.

# %% [markdown]
# A warning. Weights say where a head looks, not what the model does with it. Eleven other heads look elsewhere, and
# the residual connection (chapter 5) carries every word past all of them. Chapter 9 looks deeper.

# %% [markdown] exercise={"name": "trust-a-head", "role": "manual", "points": 2, "rubric": "1 point: a claim that the evidence carries, from many sentences and languages rather than one picture. 1 point: weights show where a head looks, not what the model does with it; names a test, such as other sentences, other heads, or switching the head off."}
# ### In your own words: which head would you trust?
#
# You may show one head in a talk, as evidence of something the model does. Which one do you choose, what do you claim,
# and what would you do first, so that you can believe it yourself?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# Layer 2, head 6: it looks at the next piece. Its weights do so in eight languages and six scripts, on 20 sentences
# each. The agreement of cha and vya rests on one sentence, so first I would collect many and compare with the other
# heads. Even then it says where the head looks; to claim that the model needs it, switch the head off and measure
# what gets worse.
# ### END SOLUTION

# %% [markdown]
# ## Does real attention need √d?
#
# Random vectors made the case above. What happens to the real heads if you leave the division out? Words attended to,
# in 20 Swahili sentences:

# %%
batch = tokenizer(list(corpus.load("sw", "test")["text"][:20]))
states = encoder(**batch, output_hidden_states=True).hidden_states
mask, real = batch["attention_mask"], batch["attention_mask"].bool()
for number in (0, 3, 6, 11):
    weights = multi_head(encoder.layers[number].attention, states[number], mask)[1]
    power = weights.pow(math.sqrt(32))  # softmax of scores that are √32 times larger, before its division
    with_it, without = (words_attended(w).transpose(1, 2)[real].mean() for w in (weights, power / power.sum(-1, True)))
    print(f"layer {number:2}: {with_it:4.1f} words with √d, {without:3.1f} without")

# %% [markdown]
# The heads were trained *with* the division. Without it, they see one to three words of a sentence. What they had
# learned to weigh against each other is gone.

# %% [markdown]
# ## What you saw
#
# - Attention is a table look-up with soft edges: weights times values, and the weights are a softmax over the keys.
# - Dot products of $d$ numbers spread by $\sqrt d$; undivided, softmax goes hard and its slope goes to zero.
# - Padding is masked before softmax, by a score of $-\infty$; a mask after it leaves rows that don't sum to 1.
# - Heads are a cut and a transpose; a `view` alone gives the right shape with the wrong words in it.
# - Attention has no order of its own. Positions bring it, and they begin at 2, because row 1 is padding's.
# - On real weights your twelve heads equal PyTorch's function and the package's, layer by layer.
#
# ## Further reading
#
# - Vaswani et al. (2017), *Attention Is All You Need*, section 3.2, for the formula and its heads.
# - Bahdanau, Cho and Bengio (2015), *Neural Machine Translation by Jointly Learning to Align and Translate*, where the
#   soft look-up began.
# - Clark et al. (2019), *What Does BERT Look At?*, for heads that look at the next word, and at the separator.
# - Jain and Wallace (2019), *Attention is not Explanation*, for the warning.
#
# Go on with `05_the_encoder`.
