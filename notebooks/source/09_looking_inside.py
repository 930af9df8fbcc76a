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
# # 09 · Looking inside
#
# **You will build** the tools to look into a pretrained encoder: what its 144 heads look at and how little that
# proves, in which layer fifteen languages meet, and a classifier taught in English alone.
#
# *Needs:* {{needs}}. *Download:* none; the checkpoint `small` comes with the course's `offline` extra.

# %% [markdown]
# A Thai sentence goes in, and its Greek translation. They share no letter and hardly a piece of the vocabulary. Twelve
# layers later, the model can tell that they say the same.
#
# Where does that happen, in the third layer or in the last? And could you have seen it by looking at attention? Write
# your guesses down.

# %% tags=["setup"]
import torch
import torch.nn.functional as F

from xlmr_course import attention_view, checkpoints, corpus, features, plots
from xlmr_course.classroom import show_source

LANGUAGES = list(corpus.LANGUAGES)

# %%
tokenizer = checkpoints.load_tokenizer("small")
encoder = checkpoints.load_encoder("small")
_ = torch.set_grad_enabled(False)  # nothing is trained in this chapter but a classifier of vectors

# %% [markdown]
# ## Who looks at whom?
#
# BertViz draws attention as lines: on the left the pieces that look, on the right what they look at. This sentence
# asks, in Urdu, by what month ice usually closes the river Lena at Yakutsk. You see head 7 of layer 1. Point at a
# piece. What does this head do?

# %%
sentence = corpus.load("ur", "test")["text"][181]
plots.show_sentences([("ur", sentence)])

# %% tags=["nbval-ignore-output"]
attention_view.show(encoder, tokenizer, sentence, layers=[0, 1, 2, 4, 7], layer=1, heads=[7])

# %% [markdown]
# Nearly every piece looks at the one after it, whatever it is. The coloured squares switch heads on and off; a double
# click leaves one alone. Take layer 2: a single head there does the same. Which?

# %% [markdown]
# Now all 144 heads at once, on *Watoto wanacheza mpira*, the children play ball. A row is a layer; a click opens a
# head. How many seem to do something you could put a name to?

# %% tags=["nbval-ignore-output"]
attention_view.show(encoder, tokenizer, "Watoto wanacheza mpira.", view="model")

# %% [markdown]
# A few do. But most thumbnails are fans that close in the corners: nearly every piece looks at the first token, or at
# the first and the last. Those two are `<s>` and `</s>`. They stand for no word.
#
# Here are four heads as squares. A row looks, a column is looked at.

# %%
tokens, attentions, _ = attention_view.attend(encoder, tokenizer, "watoto wanacheza, watoto wanaimba")
chosen = {"2, 6: the next": (2, 6), "0, 2: the one before": (0, 2), "5, 5: its double": (5, 5), "4, 5: <s>": (4, 5)}
patterns = {title: attentions[layer][0, head] for title, (layer, head) in chosen.items()}
alt = "Four squares: dark beside the diagonal, above it; below it; where pieces have a double; and in the first column."
plots.show(plots.attention_grid(patterns, tokens), alt=alt)

# %% [markdown]
# ## Count, don't look
#
# One sentence is an anecdote. So take sixty, four in each of fifteen languages, and let the weights be counted.

# %%
texts = [text for language in LANGUAGES for text in corpus.load(language, "dev")["text"][:4]]
batch = tokenizer(texts)
ids, real = batch["input_ids"], batch["attention_mask"].bool()
seen = encoder(**batch, output_hidden_states=True, output_attentions=True)
len(texts), ids.shape

# %% [markdown]
# ### Exercise: the weight on a neighbour
#
# `weights` `(h, T, T)` holds one sentence's heads: a row for each token that looks, a column for each that is looked
# at. Return for each head the mean weight on the token `offset` places further on: 1 is the next, −1 the one before.
#
# The last token has no next one. Leave out tokens that have no such neighbour.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The weights on the next token stand beside the diagonal, one to its right.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `weights.diagonal(1, dim1=-2, dim2=-1)` takes them: `(h, T - 1)`. The first argument may be negative.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `weights.diagonal(offset, dim1=-2, dim2=-1).mean(dim=-1)`
#
# </details>


# %% exercise={"name": "neighbour", "role": "answer", "points": 2}
def neighbour_weight(weights: torch.Tensor, offset: int) -> torch.Tensor:
    """Weights `(h, T, T)` -> `(h,)`: each head's mean weight on the token `offset` places further on."""
    ### BEGIN SOLUTION
    return weights.diagonal(offset, dim1=-2, dim2=-1).mean(dim=-1)
    ### END SOLUTION


# %% exercise={"name": "neighbour", "role": "check"}
looks_next = torch.tensor([[0.1, 0.9, 0.0], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
spread = torch.full((3, 3), 1 / 3)
both = torch.stack([looks_next, spread])
yours = [round(x, 3) for x in neighbour_weight(both, 1).flatten().tolist()]
assert len(yours) == 2, f"neighbour: expected one number for each of 2 heads, yours has {len(yours)}"
assert yours[0] != 0.2, "neighbour: that is the weight on the token before; with offset 1 look right of the diagonal"
assert yours[0] != 0.533, "neighbour: you divided by all 3 tokens; the last has no next one, so it does not count"
assert yours == [0.8, 0.333], f"neighbour: expected [0.8, 0.333], yours {yours}"
print(yours, [round(x, 3) for x in neighbour_weight(both, -1).tolist()])

# %% exercise={"name": "neighbour", "role": "hidden"}
four = torch.linspace(0.5, 3, 48).view(3, 4, 4).sin().softmax(dim=-1)
for far in (-3, -2, -1, 0, 2):
    exact = torch.stack([four[:, i, i + far] for i in range(4) if 0 <= i + far < 4]).mean(dim=0)
    found_weights = neighbour_weight(four.clone(), far)
    assert found_weights.shape == (3,), f"neighbour: 3 heads give 3 numbers; yours is {tuple(found_weights.shape)}"
    exact_rounded, rounded = ([round(w, 3) for w in weights.tolist()] for weights in (exact, found_weights))
    assert torch.allclose(found_weights, exact, atol=1e-5), (
        f"neighbour: with offset {far} expected {exact_rounded}, yours {rounded}; is every offset served?"
    )


# %% exercise={"name": "neighbour", "role": "mistake", "expect": "the weight on the token before"}
def neighbour_weight(weights: torch.Tensor, offset: int) -> torch.Tensor:
    return weights.transpose(-1, -2).diagonal(offset, dim1=-2, dim2=-1).mean(dim=-1)


# %% exercise={"name": "neighbour", "role": "mistake", "expect": "you divided by all 3 tokens"}
def neighbour_weight(weights: torch.Tensor, offset: int) -> torch.Tensor:
    return weights.diagonal(offset, dim1=-2, dim2=-1).sum(dim=-1) / weights.shape[-1]


# %% exercise={"name": "neighbour", "role": "mistake", "expect": "is every offset served?"}
def neighbour_weight(weights: torch.Tensor, offset: int) -> torch.Tensor:
    return weights.diagonal(1, dim1=-2, dim2=-1).mean(dim=-1)


# %% exercise={"name": "neighbour", "role": "mistake", "expect": "one number for each of 2 heads"}
def neighbour_weight(weights: torch.Tensor, offset: int) -> torch.Tensor:
    return weights.diagonal(offset, dim1=-2, dim2=-1).mean()


# %% [markdown]
# Now count four habits of every head: the weight on the piece before, on the piece after, on `<s>`, on `</s>`.


# %%
def habits(weights: torch.Tensor) -> torch.Tensor:
    """One sentence's weights `(12, 12, n, n)` -> `(4, 12, 12)`: before, after, first, last."""
    beside = [weights.diagonal(offset, dim1=-2, dim2=-1).mean(dim=-1) for offset in (-1, 1)]
    return torch.stack([*beside, weights[..., 0].mean(dim=-1), weights[..., -1].mean(dim=-1)])


# %%
stacked = torch.stack(seen.attentions, dim=1)  # (sentences, 12 layers, 12 heads, T, T)
lengths = real.sum(dim=1).tolist()
found = torch.stack([habits(stacked[i, :, :, :n, :n]) for i, n in enumerate(lengths)]).mean(dim=0)

# %% [markdown]
# Four squares of 144 heads. Rows are layers, columns heads, light is more. Where will it be light?

# %%
titles = ("the one before", "the next", "<s>, the first", "</s>, the last")
with plots.style():
    figure, panels = plots.plt.subplots(1, 4, figsize=(10, 3.1), sharey=True)
    for axes, title, values in zip(panels, titles, found, strict=True):
        image = axes.imshow(values, vmin=0, vmax=1)
        axes.set(title=title, xlabel="head", xticks=range(0, 12, 3), yticks=range(0, 12, 3))
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=panels, label="mean weight", shrink=0.8).outline.set_visible(False)
alt = (
    "Four grids of 144 heads: two or three bright cells for neighbours, many bright ones for <s>, paler ones for </s>."
)
plots.show(figure, alt=alt)

# %% [markdown]
# In numbers, the mean of all heads and the surest one:

# %%
for title, values in zip(titles, found, strict=True):
    layer, head = divmod(int(values.argmax()), 12)
    print(f"{title:15} all heads {values.mean():.2f}, most in layer {layer}, head {head}: {values.max():.2f}")
print(f"<s> and </s> together get {found[2:].sum(dim=0).mean():.2f} of all attention")

# %% [markdown]
# Two heads of 144 are sure of the next piece. In layers 1 to 4 many lean on `<s>`, and from layer 5 on they divide
# their weight between the two ends.
#
# Half of all attention, over fifteen languages, goes to two tokens that carry no word. Is the model that interested
# in them?

# %% [markdown]
# ## What a look brings home
#
# A weight is half of the story. Token $i$ takes from token $j$ its *value*, sent through the head's part of the
# output map, times the weight: $w_{ij}\, W v_j$. A weight of 0.9 on a value near zero brings almost nothing.
#
# How long are the values of `<s>` and `</s>`, next to those of words? And what share do they have in what is brought?

# %% [markdown]
# ### Exercise: what is handed over
#
# `weights` `(T, T)` is one head's, a row for each token that looks. `values` `(T, H)` is what each token has to
# give, $W v_j$. Return the shares `(T, T)`: row $i$ holds the lengths $\lVert w_{ij}\, W v_j \rVert$, divided by
# their sum.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The weight is a number, so the length of the product is the weight times the length of the value.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `values.norm(dim=-1)` has one length for each token that is looked at, so it goes along the columns.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `brought = weights * values.norm(dim=-1)`, then divide by `brought.sum(dim=-1, keepdim=True)`.
#
# </details>


# %% exercise={"name": "handed-over", "role": "answer", "points": 2}
def handed_over(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weights `(T, T)` and values `(T, H)` -> the share of each token in what each token gets, `(T, T)`."""
    ### BEGIN SOLUTION
    brought = weights * values.norm(dim=-1)
    return brought / brought.sum(dim=-1, keepdim=True)
    ### END SOLUTION


# %% exercise={"name": "handed-over", "role": "check"}
looks = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
gives = torch.tensor([[0.03, 0.0, -0.04], [0.0, 3.0, 4.0]])  # lengths 0.05 and 5
yours = handed_over(looks, gives)
assert yours.shape == (2, 2), f"handed-over: expected a share for each pair, (2, 2); yours {tuple(yours.shape)}"
assert not torch.allclose(yours, looks), "handed-over: your shares equal the weights; a value scales its *column*"
assert not torch.allclose(yours, torch.tensor([[0.045, 0.5], [0.025, 2.5]])), "handed-over: divide by each row's sum"
wanted = torch.tensor([[0.0826, 0.9174], [0.0099, 0.9901]])
assert torch.allclose(yours, wanted, atol=1e-3), (
    f"handed-over: 0.9 × 0.05 against 0.1 × 5 are the shares 0.083 and 0.917; yours {yours[0].tolist()}"
)
print([round(share, 3) for share in yours[0].tolist()])

# %% exercise={"name": "handed-over", "role": "hidden"}
three = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.6, 0.1, 0.3]])
minus = torch.tensor([[-1.0, 0.0, 0.0, 0.0], [0.0, -2.0, 0.0, 0.0], [2.0, 2.0, -2.0, 2.0]])  # lengths 1, 2, 4
found_shares = handed_over(three.clone(), minus.clone())
assert found_shares.shape == (3, 3), f"handed-over: 3 tokens make (3, 3), yours {tuple(found_shares.shape)}"
exact_shares = torch.tensor([[0.2 / 2.8, 0.6 / 2.8, 2 / 2.8], [0.0, 1.0, 0.0], [0.3, 0.1, 0.6]])
assert torch.allclose(found_shares, exact_shares, atol=1e-5), (
    "handed-over: values of length 1, 2, 4 give the last row 0.3, 0.1, 0.6; "
    f"yours {[round(share, 3) for share in found_shares[2].tolist()]}; "
    "a length is never negative, and is not the sum of the numbers"
)


# %% exercise={"name": "handed-over", "role": "mistake", "expect": "your shares equal the weights"}
def handed_over(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    brought = weights * values.norm(dim=-1)[:, None]
    return brought / brought.sum(dim=-1, keepdim=True)


# %% exercise={"name": "handed-over", "role": "mistake", "expect": "divide by each row's sum"}
def handed_over(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return weights * values.norm(dim=-1)


# %% exercise={"name": "handed-over", "role": "mistake", "expect": "0.9 × 0.05 against 0.1 × 5"}
def handed_over(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    brought = weights * values.sum(dim=-1)
    return brought / brought.sum(dim=-1, keepdim=True)


# %% exercise={"name": "handed-over", "role": "mistake", "expect": "0.9 × 0.05 against 0.1 × 5"}
def handed_over(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    brought = weights * values.norm(dim=-1)
    return brought / brought.sum()


# %% [markdown]
# The same for all heads of the real model. The output map is cut as the heads are: 12 parts of 32 columns.


# %%
def value_lengths(layer, state: torch.Tensor) -> torch.Tensor:
    """States `(B, T, H)` -> the length of what each token has to give in each head, `(B, h, T)`."""
    values = layer.attention.value(state).unflatten(-1, (12, 32))  # (B, T, h, d)
    maps = layer.attention.output.weight.unflatten(-1, (12, 32))  # (H, h, d)
    return torch.einsum("bthd,Hhd->bthH", values, maps).norm(dim=-1).transpose(1, 2)


# %% [markdown]
# Weight times length, for sixty sentences. From it, the share of the two special tokens: `looked` is what they get of
# the attention, `got` what they give of all that is brought.

# %%
given = torch.stack([value_lengths(*pair) for pair in zip(encoder.layers, seen.hidden_states, strict=False)], dim=1)
brought = stacked * given[:, :, :, None, :]  # (sentences, layers, heads, T, T)
shares = [brought[i, :, :, :n, :n] / brought[i, :, :, :n, :n].sum(dim=-1, keepdim=True) for i, n in enumerate(lengths)]
looked = found[2:].sum(dim=0).mean(dim=-1)  # (layers,)
got = torch.stack([share[..., [0, -1]].sum(dim=-1).mean(dim=(-1, -2)) for share in shares]).mean(dim=0)

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6, 2.8))
    curves = {"of the attention": looked.tolist(), "of what is brought": got.tolist()}
    for curve, colour in zip(curves.values(), plots.COLOURS, strict=False):
        axes.plot(curve, color=colour, marker="o", markersize=4)
    axes.set(xlabel="layer", xticks=range(12), ylabel="share of <s> and </s>", ylim=(0, 1))
    plots.label_ends(axes, curves, dict(zip(curves, plots.COLOURS, strict=False)))
plots.show(
    figure, alt="By layer: the two special tokens get about half of the attention, but a fifth of what is brought."
)

# %% [markdown]
# If a look were a contribution, the two lines would be one. How short are the values?

# %%
print(f"<s> and </s> get {looked.mean():.2f} of the attention and give {got.mean():.2f} of what is brought")
ratio = torch.stack(
    [given[i, :, :, 0].mean(dim=-1) / given[i, :, :, 1 : n - 1].mean((1, 2)) for i, n in enumerate(lengths)]
)
for layer in (0, 1, 5, 11):
    print(f"layer {layer:2}: the values of <s> are {ratio.mean(dim=0)[layer]:.2f} times as long as those of words")

# %% [markdown]
# Most of those looks are a way of looking at nothing. That fits a simple reading: weights must sum to 1, so a head
# that finds nothing to do has to put them somewhere, and `<s>` is always there. The numbers are measured; the reading
# is not.

# %% [markdown]
# ## Silence a head
#
# There is a harder test than looking: take a head away, and see what changes. What a head found stands in its own 32
# numbers before the output map. Set those to zero, and the head has said nothing.


# %%
def silence(layer, heads: list[int]):
    """Zero what these heads of a layer found, until `.remove()` is called on what this returns."""
    numbers = torch.cat([torch.arange(32 * head, 32 * head + 32) for head in heads])
    return layer.attention.output.register_forward_pre_hook(lambda _, given: (given[0].index_fill(-1, numbers, 0.0),))


# %% [markdown]
# What changes? Take fifteen sentences, each in another language. Each gets one vector, the mean of its tokens' states
# (more of that below). Measured is how far that vector moves, in percent of the distance between two of the
# sentences. 100 would mean: as far as to another sentence.
#
# Two heads looked at the next piece, almost alike: layer 1, head 7 and layer 2, head 6. Will they cost the same?

# %%
sizes = [len(text) for text in corpus.load("en", "test")["text"]]
short = sorted(range(210), key=sizes.__getitem__)[:15]
fifteen = [corpus.load(code, "test")["text"][i] for code, i in zip(LANGUAGES, short, strict=True)]

# %% [markdown]
# The encoder keeps every state on the way. So for a head of layer 7, only the layers from 7 on have to run again.

# %%
ids = tokenizer(fifteen)["input_ids"]
plan = encoder.plan(ids)
states, _ = encoder.packed(ids, plan, all_states=True)  # 13 of (N, H): the real tokens of all sentences


def vectors(state: torch.Tensor) -> torch.Tensor:
    """States of the real tokens `(N, H)` -> the mean of each sentence `(15, H)`."""
    return plan.unpack(state).sum(dim=1) / plan.keep.sum(dim=1, keepdim=True)


intact = vectors(states[-1])
apart = torch.cdist(intact, intact).sum() / (15 * 14)


# %%
def moved(number: int, heads: list[int]) -> float:
    """How far the sentences move when these heads of a layer say nothing, in percent of their distance."""
    hook, state = silence(encoder.layers[number], heads), states[number]
    for layer in encoder.layers[number:]:
        state, _ = layer(state, plan)
    hook.remove()
    return float(100 * (vectors(state) - intact).norm(dim=-1).mean() / apart)


# %%
effect = torch.tensor([[moved(layer, [head]) for head in range(12)] for layer in range(12)])
for layer, head in ((1, 7), (2, 6)):
    print(f"layer {layer}, head {head}: next piece {found[1, layer, head]:.2f}, moves by {effect[layer, head]:.0f} %")

# %% [markdown]
# The same look, and one of them matters more than twice as much. To tell them apart you had to take them away.
#
# And the others? On the left, how far each head moves the sentences. The last three layers stand next to the result,
# so all of their heads move it more. On the right, for the heads before those: does a clear habit go with a large
# effect?

# %%
clear = found[:2].amax(dim=0)
with plots.style():
    figure, (left, right) = plots.plt.subplots(1, 2, figsize=(9, 3.6))
    image = left.imshow(effect, vmin=0)
    left.set(xlabel="head", ylabel="layer", xticks=range(0, 12, 3), yticks=range(0, 12, 3), title="moves by, %")
    figure.colorbar(image, ax=left).outline.set_visible(False)
    right.plot(clear[:9].flatten(), effect[:9].flatten(), "o", color=plots.BLUE, alpha=0.6, markersize=5)
    for layer, head in ((1, 7), (2, 6), (7, 7), (0, 2)):
        right.annotate(
            f"{layer}, {head}", (clear[layer, head], effect[layer, head]), (5, 4), textcoords="offset points"
        )
    right.set(xlabel="weight on the one before or after", ylabel="moves by, %", title="heads of layers 0 to 8")
    figure.tight_layout()
plots.show(
    figure, alt="Left: effects of 144 heads, largest in the last layers. Right: no line through clarity and effect."
)

# %% [markdown]
# Among the heads before layer 9, which one moves the sentences most? And what did it look at?

# %%
early = effect[:9]
layer, head = divmod(int(early.argmax()), 12)
rest = found[2:, layer, head].sum()
print(f"largest before layer 9: layer {layer}, head {head}, {early.max():.0f} %")
print(f"  it gives {clear[layer, head]:.2f} to neighbours and {rest:.2f} to <s> and </s>")
both = torch.stack([clear[:9].flatten(), early.flatten()])
print(f"correlation of clear habit and effect: {torch.corrcoef(both)[0, 1]:.1f}")

# %% [markdown]
# The head that moves the sentences most is not the one with the clearest habit. It gives more than half of its weight
# to the two empty tokens, and what it does with the rest has no name on these pictures.

# %% [markdown]
# A weight says where a head looks. It does not say what the head takes, nor what the layers above make of it. So when
# a picture of attention seems to explain an answer, silence the head and see whether the answer changes.

# %% [markdown] exercise={"name": "evidence", "role": "manual", "points": 2, "rubric": "1 point: the weights alone do not show that the head is used (its values may be short, other heads may do the same, the layers above may ignore it). 1 point: a test that could fail, such as silencing the head and counting the answers that change, beside other heads silenced as a control."}
# ### In your own words: is that evidence?
#
# Somebody shows you one head that, in *Juma anampenda Asha*, looks from the verb to *Juma*. They write: "This head
# finds the subject; this is how the model knows who loves whom." What is missing? What would you measure?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# One sentence shows where the head looks there, not that it looks at subjects, nor that anything depends on it. What
# it takes from *Juma* may be next to nothing, or another head may bring the same. I would count over many sentences,
# also where the subject does not come first, then silence the head and see whether the answers about who loves whom
# change more than when I silence other heads of that layer.
# ### END SOLUTION

# %% [markdown]
# ## One vector a sentence
#
# Now the states themselves. To compare sentences, each needs one vector. The plain way is the mean over its tokens.
# There is one trap in it.

# %% [markdown]
# ### Exercise: the mean of real tokens
#
# `states` is `(B, T, H)`, `mask` is `(B, T)` with 1 for real tokens. Return `(B, H)`: the mean over the real tokens of
# each sentence. At padding, states may hold anything.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `mask[:, :, None]` has the shape `(B, T, 1)`. Times `states`, it leaves zeros at padding.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Divide the sum by how many real tokens each sentence has, `mask.sum(dim=1, keepdim=True)`, and not by `T`.
#
# </details>


# %% exercise={"name": "mean-pool", "role": "answer", "points": 2}
def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """States `(B, T, H)` and a mask `(B, T)` -> `(B, H)`."""
    ### BEGIN SOLUTION
    return (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    ### END SOLUTION


# %% exercise={"name": "mean-pool", "role": "check"}
padded = torch.tensor(
    [[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [9.0, 9.0]], [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [6.0, 4.0]]]
)
yours = mean_pool(padded, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]))
assert yours.shape == (2, 2), f"mean-pool: expected one vector a sentence, (2, 2); yours {tuple(yours.shape)}"
first = [round(number, 3) for number in yours[0].tolist()]
assert first != [5.5, 6.0], "mean-pool: the padding is in your mean; set it to zero with the mask, and don't count it"
assert first != [1.0, 1.5], "mean-pool: you divided by T, 4; the first sentence has 2 real tokens"
assert first != [4.0, 6.0], "mean-pool: that is the sum; divide by the number of real tokens"
assert first == [2.0, 3.0], f"mean-pool: the mean of (1, 2) and (3, 4) is (2, 3); yours {first}"
assert yours[1].tolist() == [3.0, 1.0], (
    f"mean-pool: the sentence without padding gives (3, 1); yours {yours[1].tolist()}"
)
print(yours.tolist())

# %% exercise={"name": "mean-pool", "role": "hidden"}
wide = torch.linspace(-4, 7, 72).view(3, 6, 4).cos() * 5
holes = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 0, 0]])
exact_means = torch.stack([wide[i][holes[i].bool()].mean(dim=0) for i in range(3)])
found_means = mean_pool(wide.clone(), holes.clone())
assert found_means.shape == (3, 4), f"mean-pool: (3, 6, 4) becomes (3, 4), yours {tuple(found_means.shape)}"
exact_rounded, rounded = ([round(n, 3) for n in means[1].tolist()] for means in (exact_means, found_means))
assert torch.allclose(found_means, exact_means, atol=1e-5), (
    f"mean-pool: padding on the left, or one real token alone: expected {exact_rounded}, yours {rounded}; "
    "go by the mask, not by the place"
)


# %% exercise={"name": "mean-pool", "role": "mistake", "expect": "the padding is in your mean"}
def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.mean(dim=1)


# %% exercise={"name": "mean-pool", "role": "mistake", "expect": "you divided by T"}
def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask[:, :, None]).mean(dim=1)


# %% exercise={"name": "mean-pool", "role": "mistake", "expect": "that is the sum"}
def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask[:, :, None]).sum(dim=1)


# %% exercise={"name": "mean-pool", "role": "mistake", "expect": "go by the mask, not by the place"}
def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([state[: int(keep.sum())].mean(dim=0) for state, keep in zip(states, mask, strict=True)])


# %% [markdown]
# Thirteen vectors a sentence, then: after the embeddings and after each of twelve layers. The package computes them
# batch by batch:

# %%
show_source(features._pooled)

# %% [markdown]
# The encoder leaves zeros at padding, so the sum needs no mask. Does it give what the mask gives?

# %%
batch = tokenizer(["Habari ya asubuhi", "καλημέρα", "صبح بخیر، آپ کیسے ہیں؟"])
state, mask = encoder(**batch).last_hidden_state, batch["attention_mask"]
masked = (state * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
rows = [row[: int(n)].tolist() for row, n in zip(batch["input_ids"], mask.sum(dim=1), strict=True)]
print("the same:", torch.allclose(masked, features.sentence_features(encoder, rows, [12])[:, 0], atol=1e-5))

# %% [markdown]
# Now read the 210 test sentences in all fifteen languages. It takes most of the chapter's time.


# %%
def read(texts: list[str]) -> torch.Tensor:
    """Texts -> `(len(texts), 13, 384)`, the mean state of each sentence at every depth."""
    rows = tokenizer(texts, padding=False, return_tensors=None)["input_ids"]
    return features.sentence_features(encoder, rows)


test = {language: read(corpus.load(language, "test")["text"]) for language in LANGUAGES}
test["th"].shape

# %% [markdown]
# Here are five of the sentences, in English and in Swahili.

# %%
five = [181, 43, 153, 135, 108]
rows = [(code, corpus.load(code, "test")["text"][i]) for i in five for code in ("en", "sw")]
plots.show_sentences(rows)

# %% [markdown]
# Each has a colour, and is drawn fifteen times, as the code of its language: the two directions in which the 75
# vectors differ most, at three depths. Depth 0 is the embeddings, 12 the last layer's output. What will stand together
# at the bottom of the model, and what at the top?

# %%
from sklearn.decomposition import PCA

with plots.style():
    figure, panels = plots.plt.subplots(1, 3, figsize=(10.5, 3.7))
    for axes, depth in zip(panels, (0, 5, 12), strict=True):
        points = torch.cat([test[language][five, depth] for language in LANGUAGES])
        codes = [language for language in LANGUAGES for _ in five]
        plots.state_map(PCA(2).fit_transform(points.numpy()), codes, [*range(5)] * 15, axes)
        axes.set_title(f"depth {depth}")
    figure.tight_layout()
plots.show(
    figure, alt="Three maps of 75 vectors: at first the languages lie together, at the end the five sentences do."
)

# %% [markdown]
# At depth 0 the codes stand together: Thai in one corner, Hindi and Urdu in another, a heap for most languages in Latin
# letters. At depth 12 the colours do: five heaps, in each of them fifteen languages. Two directions of 384 can
# deceive, though. So count again.

# %% [markdown]
# ## Find the translation
#
# Take an English sentence, and look among the 210 Urdu ones for the vector most like it, by cosine. Is it the
# translation? The share of hits is called *retrieval accuracy*. Guessing gets 1 in 210.

# %% [markdown]
# ### Exercise: retrieval
#
# Row $i$ of `queries` and row $i$ of `others`, both `(n, H)`, are translations of each other. Return the share of
# queries whose most similar row among `others`, by cosine, is their own translation.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The cosine is the dot product of vectors that were brought to length 1: `F.normalize(x, dim=-1)`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# One matrix product gives all cosines: a row for each query, a column for each candidate. Take each row's `argmax`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `nearest = (F.normalize(queries, dim=-1) @ F.normalize(others, dim=-1).T).argmax(dim=-1)`, compared with
# `torch.arange(len(queries))`.
#
# </details>


# %% exercise={"name": "retrieval", "role": "answer", "points": 3}
def retrieval(queries: torch.Tensor, others: torch.Tensor) -> float:
    """Two lists of vectors `(n, H)`, translations in the same rows -> the share that finds its translation."""
    ### BEGIN SOLUTION
    nearest = (F.normalize(queries, dim=-1) @ F.normalize(others, dim=-1).T).argmax(dim=-1)
    return float((nearest == torch.arange(len(queries))).float().mean())
    ### END SOLUTION


# %% exercise={"name": "retrieval", "role": "check"}
asks = torch.tensor([[-3.0, -3.0], [5.0, 6.0], [9.0, 3.0], [0.0, 7.0]])
answers = torch.tensor([[-3.0, 7.0], [7.0, -1.0], [4.0, 0.0], [0.0, 1.0]])
yours = round(float(retrieval(asks, answers)), 3)
assert yours != 0.25, "retrieval: a long vector wins every dot product; bring both sides to length 1 first"
assert yours != 0.5, "retrieval: you let the answers look for their question; each row, a query, needs its best column"
assert yours <= 1, f"retrieval: {yours} is a count; return the share of the queries"
assert yours != 0.0, "retrieval: no query finds its own; is it the *largest cosine* that you take, not a distance?"
assert yours == 0.75, f"retrieval: three of these four queries find their own row, 0.75; yours {yours}"
print(yours, round(float(retrieval(asks, asks)), 3))

# %% exercise={"name": "retrieval", "role": "hidden"}
compass = torch.linspace(0, 6, 30)
around = torch.stack([compass.cos(), compass.sin()], dim=-1) * torch.linspace(1, 50, 30)[:, None]
turned = around.clone()
turned[[3, 20]] = around[[20, 3]] / 100
hit_share = float(retrieval(around, turned))
assert abs(hit_share - 28 / 30) < 1e-6, (
    f"retrieval: of 30 queries 28 point the way of their own row, {28 / 30:.3f}; yours {hit_share:.3f}; "
    "lengths don't count"
)


# %% exercise={"name": "retrieval", "role": "mistake", "expect": "a long vector wins every dot product"}
def retrieval(queries: torch.Tensor, others: torch.Tensor) -> float:
    nearest = (queries @ others.T).argmax(dim=-1)
    return float((nearest == torch.arange(len(queries))).float().mean())


# %% exercise={"name": "retrieval", "role": "mistake", "expect": "you let the answers look"}
def retrieval(queries: torch.Tensor, others: torch.Tensor) -> float:
    nearest = (F.normalize(queries, dim=-1) @ F.normalize(others, dim=-1).T).argmax(dim=0)
    return float((nearest == torch.arange(len(queries))).float().mean())


# %% exercise={"name": "retrieval", "role": "mistake", "expect": "is a count"}
def retrieval(queries: torch.Tensor, others: torch.Tensor) -> float:
    nearest = (F.normalize(queries, dim=-1) @ F.normalize(others, dim=-1).T).argmax(dim=-1)
    return float((nearest == torch.arange(len(queries))).sum())


# %% exercise={"name": "retrieval", "role": "mistake", "expect": "not a distance"}
def retrieval(queries: torch.Tensor, others: torch.Tensor) -> float:
    nearest = torch.cdist(queries, others).argmin(dim=-1)
    return float((nearest == torch.arange(len(queries))).float().mean())


# %% [markdown]
# From English into each of the other fourteen, at every depth:


# %%
def hits(queries: torch.Tensor, others: torch.Tensor) -> float:
    """As your `retrieval`."""
    cosines = F.normalize(queries, dim=-1) @ F.normalize(others, dim=-1).T
    return (cosines.argmax(dim=-1) == torch.arange(len(queries))).float().mean().item()


depths = range(13)
table = torch.tensor([[hits(test["en"][:, k], test[code][:, k]) for k in depths] for code in LANGUAGES[1:]])

# %% [markdown]
# Light means that a translation is found. Where does each row turn light?

# %%
names = [str(depth) for depth in depths]
figure = plots.heatmap(table.numpy(), LANGUAGES[1:], names, limits=(0, 1), annotate=True, label="translations found")
figure.axes[0].set_xlabel("depth")
plots.show(figure, alt="A heat map of 14 languages by 13 depths: dark on the left, nearly all at 1 from depth 11 on.")

# %% [markdown]
# The mean over the fourteen, and the lowest:

# %% tags=["nbval-ignore-output"]
for k in (0, 4, 7, 12):
    worst = int(table[:, k].argmin())
    print(f"depth {k:2}: {table[:, k].mean():.2f} on average, least {table[worst, k]:.2f} for {LANGUAGES[1:][worst]}")

# %% [markdown]
# Read the left column. French, Spanish and German find half of their translations among the embeddings already. They
# share names, numbers and many pieces with English. Greek shares the names only in its own letters.
#
# Now look at depth 7. The lowest row is Swahili, which is written in the same letters as English. So by then it is no
# longer the alphabet that holds a language back.

# %% [markdown]
# One caution. `small` was trained for exactly this: its last layer was taught to bring similar sentences together,
# with pairs of texts. XLM-R as it comes from masked language modelling was not. What you see at depth 12 is partly
# that teaching.

# %% [markdown]
# And the heads of the first half of this chapter? Choose 72 of the 144 blindly and silence them all. How many of the
# first sixty sentences still find their translation in Thai and in Urdu?


# %%
def found_with_silenced(chosen: list[int]) -> list[float]:
    """Retrieval from English on 60 sentences while some of the 144 heads say nothing."""
    heads = {layer: [head % 12 for head in chosen if head // 12 == layer] for layer in range(12)}
    hooks = [silence(encoder.layers[layer], which) for layer, which in heads.items() if which]
    vectors = {code: read(corpus.load(code, "test")["text"][:60])[:, 12] for code in ("en", "th", "ur")}
    for hook in hooks:
        hook.remove()
    return [hits(vectors["en"], others) for code, others in vectors.items() if code != "en"]


# %% tags=["nbval-ignore-output"]
order = torch.randperm(144, generator=torch.Generator().manual_seed(0)).tolist()
for number in (72, 108):
    scores = found_with_silenced(order[:number])
    print(f"{number} of 144 heads silenced: Thai {scores[0]:.2f}, Urdu {scores[1]:.2f}")

# %% [markdown]
# Half of the heads are gone, and hardly a translation is lost. With three quarters gone, nine in ten are found. Now
# think back to the picture of one head and what it "does". This test would not have noticed its absence.

# %% [markdown]
# ## What stands in the way
#
# At depth 0 only about a quarter of the sentences find their translation. Is the meaning not there yet? Or is it
# there, and something lies on top of it?
#
# A vector of this table belongs to a language and to a sentence. So its distance from the mean of all can be split
# exactly: a part that its language has in common, a part that its sentence has in common in all languages, and the
# rest.

# %%
cube = torch.stack([test[language] for language in LANGUAGES])  # (15, 210, 13, 384)
cube = cube - cube.mean(dim=(0, 1))
whole = cube.pow(2).mean(dim=(0, 1)).sum(dim=-1)  # (13,)
language_share = cube.mean(dim=1).pow(2).mean(dim=0).sum(dim=-1) / whole
sentence_share = cube.mean(dim=0).pow(2).mean(dim=0).sum(dim=-1) / whole

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.6, 3.2))
    parts = torch.stack([language_share, sentence_share, 1 - language_share - sentence_share])
    shades = (plots.ORANGE, plots.BLUE, "#d5d9de")
    axes.stackplot(depths, parts, colors=shades, labels=("the language", "the sentence", "the rest"))
    axes.set(xlim=(0, 12), ylim=(0, 1), xticks=depths, xlabel="depth", ylabel="share of the variance")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
plots.show(
    figure, alt="Stacked shares by depth: the language falls from a half to a fifth, the sentence grows to a half."
)

# %% [markdown]
# As a formula, with $x_{ls}$ for sentence $s$ in language $l$ and bars for means:
#
# $$x_{ls} - \bar x = (\bar x_l - \bar x) + (\bar x_s - \bar x) + r_{ls}$$
#
# Every language has every sentence, so the squares of the three parts add up to the whole.

# %%
for k in (0, 6, 12):
    print(f"depth {k:2}: language {language_share[k]:.2f}, sentence {sentence_share[k]:.2f}")

# %% [markdown]
# At the bottom more than half of what tells two vectors apart is their language. At the top it is the sentence. So
# the middle layers do not switch from one to the other. They turn the one down and the other up.

# %% [markdown]
# Is the language ever gone? Take the mean vector of each language over its first 105 sentences, and let each of the
# other 105 find the mean that is nearest to it:

# %%
for k in (0, 6, 12):
    means = F.normalize(torch.stack([test[language][:105, k].mean(dim=0) for language in LANGUAGES]), dim=-1)
    guesses = [(F.normalize(test[code][105:, k], dim=-1) @ means.T).argmax(dim=-1) for code in LANGUAGES]
    right = sum(int((guess == number).sum()) for number, guess in enumerate(guesses))
    print(f"depth {k:2}: the language is told for {right / (15 * 105):.2f} of the sentences")

# %% [markdown]
# Never. A sentence still says which language it is in, even where all find their translations. Perhaps each language
# has a place of its own, and around it the sentences are laid out alike.
#
# If so, there is a cheap remedy: move every language to the same place.

# %% [markdown]
# ### Exercise: centre each language
#
# `vectors` is `(n, H)`, `languages` a list of `n` codes. Subtract from each vector the mean of its own language.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For one code: `here = torch.tensor([language == code for language in languages])` marks its rows.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with `centred = vectors.clone()`. For each code in `set(languages)`, `centred[here] -= …`
#
# </details>
# <details><summary>Hint 3</summary>
#
# What is subtracted is `vectors[here].mean(dim=0)`, a vector of H numbers.
#
# </details>


# %% exercise={"name": "centre", "role": "answer", "points": 2}
def centre(vectors: torch.Tensor, languages: list[str]) -> torch.Tensor:
    """`(n, H)` -> `(n, H)`: each vector without the mean of its language."""
    ### BEGIN SOLUTION
    centred = vectors.clone()
    for code in set(languages):
        here = torch.tensor([language == code for language in languages])
        centred[here] -= vectors[here].mean(dim=0)
    return centred
    ### END SOLUTION


# %% exercise={"name": "centre", "role": "check"}
mixed = torch.tensor([[10.0, 0.0], [0.0, 5.0], [14.0, 2.0], [0.0, 7.0]])
before = mixed.clone()
yours = centre(mixed, ["sw", "th", "sw", "th"])
assert yours.shape == (4, 2), f"centre: expected the shape of what went in, (4, 2); yours {tuple(yours.shape)}"
first = [round(number, 3) for number in yours[0].tolist()]
assert first != [4.0, -3.5], "centre: you subtracted the mean of all; each language has its own"
assert first != [5.0, -5.0], "centre: that is each vector's own mean; the mean goes over a language's sentences, dim 0"
assert first == [-2.0, -1.0], f"centre: (10, 0) less the mean of sw, (12, 1), is (−2, −1); yours {first}"
assert yours[3].tolist() == [0.0, 1.0], (
    f"centre: (0, 7) less the mean of th, (0, 6), is (0, 1); yours {yours[3].tolist()}"
)
assert torch.equal(mixed, before), "centre: you changed the vectors you were given; work on a clone"
print(yours.tolist())

# %% exercise={"name": "centre", "role": "hidden"}
many = torch.linspace(-3, 9, 63).view(21, 3).sin() * 4
many_codes = ["de", "el", "zh", *["ur", "el", "zh"] * 6]
found_centred = centre(many.clone(), many_codes)
assert found_centred.shape == (21, 3), f"centre: (21, 3) went in, {tuple(found_centred.shape)} came out"
for one_code in ("ur", "el", "zh", "de"):
    of_code = [i for i, other in enumerate(many_codes) if other == one_code]
    exact = many[of_code] - many[of_code].mean(dim=0)
    exact_rounded, rounded = ([round(n, 3) for n in part[0].tolist()] for part in (exact, found_centred[of_code]))
    assert torch.allclose(found_centred[of_code], exact, atol=1e-5), (
        f"centre: of {len(many_codes)} sentences {len(of_code)} are {one_code}; expected {exact_rounded}, "
        f"yours {rounded}; languages may have different numbers of sentences"
    )


# %% exercise={"name": "centre", "role": "mistake", "expect": "you subtracted the mean of all"}
def centre(vectors: torch.Tensor, languages: list[str]) -> torch.Tensor:
    return vectors - vectors.mean(dim=0)


# %% exercise={"name": "centre", "role": "mistake", "expect": "that is each vector's own mean"}
def centre(vectors: torch.Tensor, languages: list[str]) -> torch.Tensor:
    return vectors - vectors.mean(dim=-1, keepdim=True)


# %% exercise={"name": "centre", "role": "mistake", "expect": "you changed the vectors you were given"}
def centre(vectors: torch.Tensor, languages: list[str]) -> torch.Tensor:
    for code in set(languages):
        here = torch.tensor([language == code for language in languages])
        vectors[here] -= vectors[here].mean(dim=0)
    return vectors


# %% exercise={"name": "centre", "role": "mistake", "expect": "different numbers of sentences"}
def centre(vectors: torch.Tensor, languages: list[str]) -> torch.Tensor:
    centred = vectors.clone()
    for code in set(languages):
        here = torch.tensor([language == code for language in languages])
        centred[here] -= vectors[here].sum(dim=0) * len(set(languages)) / len(languages)
    return centred


# %% [markdown]
# The same on the 210 sentences. No label is used, and no translation: only which language each is in.

# %%
centred = {language: vectors - vectors.mean(dim=0) for language, vectors in test.items()}
after = torch.tensor([[hits(centred["en"][:, k], centred[code][:, k]) for k in depths] for code in LANGUAGES[1:]])

# %% [markdown]
# Will the curve begin higher now? By how much?

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6, 3))
    curves = {"centred": after.mean(dim=0).tolist(), "as they are": table.mean(dim=0).tolist()}
    shades = dict(zip(curves, (plots.ORANGE, plots.BLUE), strict=True))
    for name, curve in curves.items():
        axes.plot(curve, color=shades[name], marker="o", markersize=4)
    axes.set(xticks=depths, xlabel="depth", ylabel="translations found", ylim=(0, 1.03))
    plots.label_ends(axes, curves, shades, gap=0.09)
plots.show(
    figure,
    alt="Retrieval by depth: centred from three quarters at depth 0, as they are from one quarter; both end near 1.",
)

# %% [markdown]
# How much is that, at four depths?

# %% tags=["nbval-ignore-output"]
for k in (0, 4, 7, 12):
    print(f"depth {k:2}: {table[:, k].mean():.2f} as they are, {after[:, k].mean():.2f} centred")

# %% [markdown]
# A surprise at depth 0. These are mean word embeddings, before any attention, and three quarters of the sentences
# find their translation. So a good part of what looked like "early layers know one language each" was one shift a
# language, and lay on top.

# %% [markdown]
# The rest is the layers' work: what centring alone does not reach, depths 1 to 4 add.

# %% [markdown]
# ## From vectors to topics
#
# Now use the vectors. A standard classifier, scikit-learn's logistic regression, learns seven topics from 420
# *English* vectors. The encoder stays as it is. Can it sort the other fourteen languages, and at what depth?

# %%
show_source(features.new_classifier)

# %%
english = corpus.load("en", "train")
trained_on = read(english["text"])
topics = corpus.load("en", "test")["topic"]  # the same in all languages
models = [features.new_classifier().fit(trained_on[:, k].numpy(), english["topic"]) for k in depths]
scores = {code: [model.score(test[code][:, k].numpy(), topics) for k, model in enumerate(models)] for code in LANGUAGES}

# %% [markdown]
# A thin line for each language it was not taught in. The dotted line is guessing, one in seven.

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6, 3.2))
    for code in LANGUAGES[1:]:
        axes.plot(scores[code], color=plots.BLUE, alpha=0.25, linewidth=1)
    others = torch.tensor([scores[code] for code in LANGUAGES[1:]], dtype=torch.float64).mean(dim=0).tolist()
    curves = {"English": scores["en"], "mean of the others": others}
    shades = {"English": plots.ORANGE, "mean of the others": plots.BLUE}
    for name, curve in curves.items():
        axes.plot(curve, color=shades[name])
    axes.axhline(1 / 7, color=plots.QUIET, linewidth=1, linestyle=":")
    axes.set(xticks=depths, xlabel="depth", ylabel="accuracy", ylim=(0, 1))
    plots.label_ends(axes, curves, shades)
plots.show(
    figure, alt="Accuracy by depth: English starts at three quarters, the others far below; the gap closes upwards."
)

# %% [markdown]
# At depth 0 the English classifier works, in English. It has learned English words. What it finds in the other
# languages is little, though above guessing. With depth the gap closes. At the last depth:

# %% tags=["nbval-ignore-output"]
from xlmr_course.results import LanguageResult, Results

rows = [LanguageResult.of(code, [scores[code][12]], len(topics)) for code in LANGUAGES]
results = Results(rows, train_language="en")
plots.show(
    results.plot(), alt="Points with intervals: topic accuracy by language, English first, Swahili and Urdu last."
)
print(results.table())

# %% [markdown]
# Nothing of the encoder was trained here, and the fit itself takes less than a second. Chapter 11 trains the layers,
# too, and you can compare.
#
# Each interval is the 95 % interval for 210 sentences. Where two overlap as much as most of these do, the table does
# not tell the languages apart.

# %% [markdown]
# ## What you saw
#
# - Half of all attention rests on `<s>` and `</s>`, and brings home a fifth of what is taken: a weight is not a
#   contribution.
# - Of two heads with the same clear habit one costs more than twice what the other does. And of all heads before the
#   last three layers, the one that costs most has no clear habit.
# - With half of the heads silenced, translations were still found. A picture of one head explains little.
# - Early states are first of all a language, late ones first of all a sentence, and the language never goes away.
# - Much of the distance between languages is one shift each. Take it off, and even word embeddings find translations.
# - A classifier of English vectors sorts fourteen other languages, the better the deeper you take the vectors.
#
# ## Try next
#
# - Centre the vectors before the classifier: `centred` for the tests, and for training
#   `trained_on - trained_on.mean(dim=0)`. Which depth gains most?
# - `attention_view.show(encoder, tokenizer, text, pair)` shows two texts at once. Give it a sentence and its
#   translation, and look for a head that finds the translated word. Then count.
#
# ## Further reading
#
# - Vig (2019), *A Multiscale Visualization of Attention in the Transformer Model*: BertViz.
# - Clark et al. (2019), *What Does BERT Look At?*: heads, and the weight on separators.
# - Kobayashi et al. (2020), *Attention is Not Only a Weight*: lengths of what is brought.
# - Jain and Wallace (2019), *Attention is not Explanation*.
# - Michel, Levy and Neubig (2019), *Are Sixteen Heads Really Better than One?*: silencing heads.
# - Libovický, Rosa and Fraser (2020), *On the Language Neutrality of Pre-trained Multilingual Representations*:
#   centring.
