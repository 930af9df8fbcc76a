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
# # 06 · Masked language modelling
#
# **You will build** the game that XLM-R learned everything from: hide some words, guess them back, and measure how
# wrong the guess was, to the fifth digit of what transformers measures.
#
# *Needs:* {{needs}}. *Download:* none; the checkpoint `small` comes with the course's `offline` extra.

# %% [markdown]
# *Ankara, Türkiye'nin \_\_\_\_\_ .* You may know no Turkish and still have a guess. The words around a gap tell a lot
# about what is in it.
#
# XLM-R was never told what a capital is, what a verb is, or that two languages are alike. It was only made to fill
# gaps, in a hundred languages, 1.5 million batches long.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F

from xlmr_course import checkpoints, corpus, mlm, plots, unigram
from xlmr_course.classroom import show_source
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.tokenizer import XLMRTokenizer

# %% [markdown]
# ## What may a model see?
#
# Three ways to guess a word from its neighbours. A dark cell says: to guess this row's word, the model may look at
# that column's word.

# %%
size = 6
views = {
    "recurrent: a summary\nof what came before": torch.tril(torch.ones(size, size), -1) * 0.45,
    "causal: every word\nthat came before": torch.tril(torch.ones(size, size), -1),
    "masked: every word\nbut the hidden one": 1 - torch.eye(size),
}

# %%
with plots.style():
    figure, panels = plots.plt.subplots(1, 3, figsize=(8, 3.2))
    for axes, (name, view) in zip(panels, views.items(), strict=True):
        axes.imshow(view, cmap="Blues", vmin=0, vmax=1.2)
        axes.set(title=name, xticks=[], yticks=[], xlabel="may look at", ylabel="guesses")
plots.show(
    figure, alt="Three 6 by 6 grids: recurrent pale below the diagonal, causal dark below it, masked all but it."
)

# %% [markdown]
# Only the third sees both sides. It pays for that: a model that sees the whole sentence would see the answer too, so
# the answer must be hidden. That is what `<mask>` is for.

# %% [markdown]
# ## Hiding words
#
# 15 % of the tokens are chosen. Of those, 80 % become `<mask>`, 10 % become some random token, and 10 % stay as they
# are. Why not mask them all? Because a fine-tuned model never meets a `<mask>`. The other two shares make it look
# hard at every word, for any word may be wrong.
#
# Here is a Greek sentence, masked three times over. XLM-R saw a different pattern each time round.

# %%
tokenizer = checkpoints.load_tokenizer("small")
greek = corpus.load("el", "train")["text"][20]
ids = tokenizer(greek)["input_ids"]
generator = torch.Generator().manual_seed(4)
for _ in range(3):
    inputs, labels = mlm.mask_tokens(ids, tokenizer, generator=generator)
    print(tokenizer.decode(inputs[0], skip_special_tokens=False), "\n")

# %% [markdown]
# Over many sentences, do the shares come out? And is `<s>` ever hidden?

# %%
batch = tokenizer(list(corpus.load("sw", "train")["text"]))["input_ids"]
inputs, labels = mlm.mask_tokens(batch, tokenizer, generator=torch.Generator().manual_seed(0))
chosen = labels != -100
ordinary = ~torch.isin(batch, torch.tensor(tokenizer.all_special_ids))
print(f"chosen of ordinary tokens {chosen.sum() / ordinary.sum():.3f}")
print(f"of the chosen: masked {(inputs[chosen] == tokenizer.mask_token_id).float().mean():.3f}", end=", ")
print(f"unchanged {(inputs[chosen] == labels[chosen]).float().mean():.3f}")
print("<s> chosen:", int(chosen[:, 0].sum()))

# %% [markdown]
# ### Exercise: mask
#
# Write the masking, with the random numbers already drawn. `chance` and `fate` are two tensors of uniform numbers in
# $[0, 1)$. Choose a token if its `chance` is below 0.15 *and* it is not special. A chosen one becomes `MASK` if its
# `fate` is below 0.8, `random_ids` if below 0.9, and stays otherwise. Labels are the original id where chosen, and
# −100 elsewhere.

# %% tags=["setup"]
MASK, SPECIAL = 250_001, torch.tensor([0, 1, 2, 3, 250_001])

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `torch.isin(ids, SPECIAL)` marks the special tokens. `&` joins two boolean tensors, `~` turns one round.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Build the labels first, with `torch.where(chosen, ids, -100)`. Then change the inputs, from the outside in: random
# where `fate < 0.9`, and after that mask where `fate < 0.8`.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `inputs = torch.where(chosen & (fate < 0.9), random_ids, ids)`, then the same once more with `MASK` and 0.8.
#
# </details>


# %% exercise={"name": "mask", "role": "answer", "points": 3}
def mask(ids, random_ids, chance, fate):
    """Return `(inputs, labels)`, all of the shape of `ids` `(B, T)`."""
    ### BEGIN SOLUTION
    chosen = (chance < 0.15) & ~torch.isin(ids, SPECIAL)
    labels = torch.where(chosen, ids, -100)
    inputs = torch.where(chosen & (fate < 0.9), random_ids, ids)
    inputs = torch.where(chosen & (fate < 0.8), MASK, inputs)
    return inputs, labels
    ### END SOLUTION


# %% exercise={"name": "mask", "role": "check"}
sample = torch.tensor([[0, 10, 11, 12, 13, 2, 1]])
noise = torch.full((1, 7), 99)
chance = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.5, 0.1, 0.1]])
fate = torch.tensor([[0.0, 0.5, 0.85, 0.95, 0.0, 0.0, 0.0]])
inputs, labels = (t.tolist()[0] for t in mask(sample, noise, chance, fate))
assert (inputs[0], labels[0]) == (0, -100), "mask: you hid <s>; special tokens are never chosen"
assert inputs[6] == 1, "mask: you hid padding; `torch.isin(ids, SPECIAL)` finds special tokens"
assert labels[1:4] != inputs[1:4], "mask: the labels must hold the *original* ids; take them before you change anything"
assert labels[3] != -100, (
    "mask: the token that stays as it is was chosen too, so it has a label; label before you change"
)
assert labels == [-100, 10, 11, 12, -100, -100, -100], f"mask: labels are wrong: {labels}; −100 where nothing is chosen"
assert inputs[2] == 99, f"mask: fate 0.85 gives the random id 99, yours {inputs[2]}; which share comes first?"
assert inputs == [0, MASK, 99, 12, 13, 2, 1], f"mask: expected [0, {MASK}, 99, 12, 13, 2, 1], yours {inputs}"
print(inputs, labels)

# %% exercise={"name": "mask", "role": "hidden"}
two_rows = torch.tensor([[0, 21, 22, 23, 24, 2], [0, 31, 250_001, 33, 2, 1]])
two_noise = torch.arange(70, 82).view(2, 6)
two_chances = torch.tensor([[0.9, 0.149, 0.15, 0.0, 0.14, 0.9], [0.9, 0.1, 0.1, 0.2, 0.9, 0.9]])
two_fates = torch.tensor([[0.9, 0.8, 0.1, 0.9, 0.79, 0.9], [0.9, 0.85, 0.1, 0.1, 0.9, 0.9]])
new, gold = (part.tolist() for part in mask(two_rows.clone(), two_noise, two_chances, two_fates))
assert gold == [[-100, 21, -100, 23, 24, -100], [-100, 31, -100, -100, -100, -100]], (
    "mask: chances below 0.15 are chosen, but no special token, and a <mask> that was there before is one; "
    f"your labels are {gold}"
)
assert new == [[0, 71, 22, 23, 250_001, 2], [0, 77, 250_001, 33, 2, 1]], (
    "mask: fate 0.79 gives <mask>, 0.8 and 0.85 the random id of that place, 0.9 the token as it was; "
    f"yours gives {new}"
)


# %% exercise={"name": "mask", "role": "mistake", "expect": "you hid <s>"}
def mask(ids, random_ids, chance, fate):
    chosen = chance < 0.15
    labels = torch.where(chosen, ids, -100)
    return torch.where(chosen & (fate < 0.8), MASK, torch.where(chosen & (fate < 0.9), random_ids, ids)), labels


# %% exercise={"name": "mask", "role": "mistake", "expect": "which share comes first?"}
def mask(ids, random_ids, chance, fate):
    chosen = (chance < 0.15) & ~torch.isin(ids, SPECIAL)
    inputs = torch.where(chosen & (fate < 0.1), random_ids, torch.where(chosen & (fate < 0.9), MASK, ids))
    return inputs, torch.where(chosen, ids, -100)


# %% exercise={"name": "mask", "role": "mistake", "expect": "must hold the *original* ids"}
def mask(ids, random_ids, chance, fate):
    chosen = (chance < 0.15) & ~torch.isin(ids, SPECIAL)
    inputs = torch.where(chosen & (fate < 0.9), random_ids, ids)
    inputs = torch.where(chosen & (fate < 0.8), MASK, inputs)
    return inputs, torch.where(chosen, inputs, -100)


# %% exercise={"name": "mask", "role": "mistake", "expect": "stays as it is was chosen too"}
def mask(ids, random_ids, chance, fate):
    chosen = (chance < 0.15) & ~torch.isin(ids, SPECIAL)
    inputs = torch.where(chosen & (fate < 0.9), random_ids, ids)
    inputs = torch.where(chosen & (fate < 0.8), MASK, inputs)
    return inputs, torch.where(inputs != ids, ids, -100)


# %% exercise={"name": "mask", "role": "mistake", "expect": "you hid padding"}
def mask(ids, random_ids, chance, fate):
    chosen = (chance < 0.15) & (ids != 0) & (ids != 2)
    inputs = torch.where(chosen & (fate < 0.9), random_ids, ids)
    inputs = torch.where(chosen & (fate < 0.8), MASK, inputs)
    return inputs, torch.where(chosen, ids, -100)


# %% [markdown]
# ## From a vector to 250,002 scores
#
# The encoder gives a vector of 384 numbers for each token. The head must turn it into a score for every word of the
# vocabulary. A matrix for that would be as large as the embedding table itself.
#
# So it *is* the embedding table. A word's score is the product of the head's vector with that word's embedding, plus
# a bias. The two share their weights; they are tied.

# %%
show_source(mlm.LMHead)

# %% [markdown]
# What does tying save at the size of XLM-R large?

# %%
config = XLMRConfig.large()
table = config.vocab_size * config.hidden_size
print(f"{table:,} parameters; {4 * table / 1e9:.2f} GB in float32, before the optimiser")

# %% [markdown]
# ### Exercise: the tied decoder
#
# Given the transformed vectors `x` `(M, H)`, the embedding table `words` `(V, H)` and a bias `(V,)`, return the
# scores `(M, V)`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Every row of `x` against every row of `words`: which one has to be transposed?
#
# </details>
# <details><summary>Hint 2</summary>
#
# `x @ words.T + bias`
#
# </details>


# %% exercise={"name": "decoder", "role": "answer", "points": 1}
def decode(x, words, bias):
    """Scores `(M, V)` of every word for every vector."""
    ### BEGIN SOLUTION
    return x @ words.T + bias
    ### END SOLUTION


# %% exercise={"name": "decoder", "role": "check"}
x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
words = torch.tensor([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 1.0]])
scores = decode(x, words, torch.tensor([0.0, 0.0, 10.0, 0.0]))
assert scores.shape == (2, 4), f"decoder: expected one score a word, shape (2, 4); yours {tuple(scores.shape)}"
assert scores[0, 2] != 0.5, "decoder: the bias is missing; each word has one"
assert scores.sum(1)[0] > 1.5, "decoder: these are probabilities; the loss wants raw scores, so leave softmax out"
assert scores.tolist() == [[3.0, 0.0, 10.5, 2.0], [1.0, 3.0, 10.0, 0.0]], f"decoder: wrong scores {scores.tolist()}"
print(scores[0].tolist())

# %% exercise={"name": "decoder", "role": "hidden"}
three, pair_of_words = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 1], [-1, 0, 1, 0]]), torch.eye(4)[[3, 1]]
other_scores = decode(three, pair_of_words, torch.tensor([-1.0, 0.5]))
assert other_scores.shape == (3, 2), f"decoder: 3 vectors and 2 words make (3, 2), yours {tuple(other_scores.shape)}"
assert other_scores.tolist() == [[3.0, 2.5], [0.0, 0.5], [-1.0, 0.5]], (
    f"decoder: each word's score is vector · embedding + its own bias; yours gives {other_scores.tolist()}"
)


# %% exercise={"name": "decoder", "role": "mistake", "expect": "the bias is missing"}
def decode(x, words, bias):
    return x @ words.T


# %% exercise={"name": "decoder", "role": "mistake", "expect": "leave softmax out"}
def decode(x, words, bias):
    return (x @ words.T + bias).softmax(-1)


# %% exercise={"name": "decoder", "role": "mistake", "expect": "one score a word"}
def decode(x, words, bias):
    return (x @ words.T + bias).max(-1).values


# %% [markdown]
# ## The loss, only where it counts
#
# The loss is the mean of $-\log p(\text{right word})$ over the *chosen* tokens. The others have nothing to guess.
#
# That is also where the time goes. How many scores would eight sentences of 128 tokens need, all of them, and how
# many only where tokens are chosen?

# %%
tokens = 8 * 128
for name, count in (("every token", tokens), ("chosen ones", round(0.15 * tokens))):
    print(f"{name}: {count:5} × 250,002 scores = {4 * count * 250_002 / 1e6:6.0f} MB")

# %% [markdown]
# ### Exercise: the loss
#
# `logits` `(B, T, V)` and `labels` `(B, T)`, −100 where nothing was chosen. Return the mean of $-\log p$ over the
# chosen tokens, in nats.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `chosen = labels != -100`; then `logits[chosen]` is `(M, V)` and `labels[chosen]` is `(M,)`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `log_softmax(-1)` gives log-probabilities; `gather` or indexing with `torch.arange(M)` picks one a row.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `F.cross_entropy(logits[chosen], labels[chosen])` does both.
#
# </details>


# %% exercise={"name": "mlm-loss", "role": "answer", "points": 2}
def mlm_loss(logits, labels):
    """Mean cross-entropy over the chosen tokens, in nats."""
    ### BEGIN SOLUTION
    chosen = labels != -100
    return F.cross_entropy(logits[chosen], labels[chosen])
    ### END SOLUTION


# %% exercise={"name": "mlm-loss", "role": "check"}
logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]]])
labels = torch.tensor([[0, -100, 1, -100]])
loss = float(mlm_loss(logits, labels))
everywhere = float(F.cross_entropy(logits[0], torch.tensor([0, 0, 1, 0])))
spread = float(F.cross_entropy(logits[0], labels[0], reduction="sum") / 4)
assert round(loss, 3) != -1, "mlm-loss: that is the mean of the raw scores; log_softmax makes them log-probabilities"
assert loss > 0, f"mlm-loss: {loss:.3f} is negative; the loss is *minus* the log-probability"
assert round(loss, 3) != round(everywhere, 3), "mlm-loss: tokens that were not chosen take part; leave out −100"
assert round(loss / 2, 3) != 1.667, "mlm-loss: you added the losses; divide by the two chosen tokens"
assert round(loss, 3) != round(spread, 3), "mlm-loss: you divided by all four tokens; divide by the two chosen ones"
assert round(loss, 3) == 1.667, f"mlm-loss: expected 1.667, yours {loss:.3f}"
print(round(loss, 3))

# %% exercise={"name": "mlm-loss", "role": "hidden"}
other_logits = torch.linspace(-3, 3, 40).view(2, 4, 5).cos() * 3
other_labels = torch.tensor([[-100, 4, -100, 0], [2, -100, -100, -100]])
picked = [
    other_logits[0, 1].log_softmax(-1)[4],
    other_logits[0, 3].log_softmax(-1)[0],
    other_logits[1, 0].log_softmax(-1)[2],
]
mean_of_three, other_loss = -sum(picked).item() / 3, float(mlm_loss(other_logits, other_labels))
assert abs(other_loss - mean_of_three) < 1e-4, (
    f"mlm-loss: of two sentences with 2 and 1 chosen tokens, the mean over the three is {mean_of_three:.3f}, "
    f"yours {other_loss:.3f}"
)
certain = float(mlm_loss(torch.tensor([[[100.0, 0.0], [0.0, 0.0]]]), torch.tensor([[0, -100]])))
assert abs(certain) < 1e-4, f"mlm-loss: one chosen token, guessed for certain, has the loss 0; yours {certain:.3f}"


# %% exercise={"name": "mlm-loss", "role": "mistake", "expect": "tokens that were not chosen take part"}
def mlm_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten().clamp(min=0))


# %% exercise={"name": "mlm-loss", "role": "mistake", "expect": "you divided by all four"}
def mlm_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / labels.numel()


# %% exercise={"name": "mlm-loss", "role": "mistake", "expect": "is negative"}
def mlm_loss(logits, labels):
    chosen = labels != -100
    return -F.cross_entropy(logits[chosen], labels[chosen])


# %% exercise={"name": "mlm-loss", "role": "mistake", "expect": "you added the losses"}
def mlm_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


# %% exercise={"name": "mlm-loss", "role": "mistake", "expect": "raw scores"}
def mlm_loss(logits, labels):
    chosen = labels != -100
    return -logits[chosen].gather(1, labels[chosen][:, None]).mean()


# %% [markdown]
# ## The proof
#
# The checkpoint `small` has no head for masked language modelling, so the one here starts at random. That is no
# matter for the proof: the same random head goes into transformers. Five sentences in five languages, masked the same
# way.

# %%
model = mlm.MaskedLM(checkpoints.load_encoder("small"), torch.Generator().manual_seed(0)).eval()
texts = [corpus.load(language, "test")["text"][3] for language in ("tr", "th", "ar", "el", "vi")]
batch = tokenizer(texts)
inputs, labels = mlm.mask_tokens(batch["input_ids"], tokenizer, generator=torch.Generator().manual_seed(1))
labels.ne(-100).sum(dim=1).tolist()

# %%
import tempfile

from transformers import XLMRobertaForMaskedLM

with tempfile.TemporaryDirectory() as folder:
    checkpoints.save_pretrained(model, None, folder)
    reference = XLMRobertaForMaskedLM.from_pretrained(folder).eval()

# %%
with torch.no_grad():
    ours = model(inputs, batch["attention_mask"], labels).loss.item()
    theirs = reference(inputs, batch["attention_mask"], labels=labels).loss.item()
print(f"loss {ours:.2f}; within 1e-5 of transformers: {abs(ours - theirs) < 1e-5}")

# %% [markdown]
# A model that guesses all 250,002 words alike has the loss $\ln 250{,}002$. Yours is close to that: the head has
# learned nothing yet.

# %%
print(f"{math.log(250_002):.2f}")

# %% [markdown]
# ## Perplexity
#
# A loss in nats is hard to feel. Its exponential is easier: *as uncertain as a fair choice among this many words*. A
# loss of $\ln 250{,}002$ is a perplexity of 250,002.
#
# Published, on English Wikipedia text (WikiText-2): 6.85 for XLM-R base, 5.36 for large.

# %% [markdown]
# ### Exercise: perplexity
#
# Two batches: the first has 3 chosen tokens and a mean loss of 2, the second has 1 and a mean loss of 6. What is the
# perplexity of all four tokens together?

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Average the *losses* first, each batch counting as much as it has tokens. Exponentiate last.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `math.exp(sum(l * n for l, n in zip(losses, counts)) / sum(counts))`
#
# </details>


# %% exercise={"name": "perplexity", "role": "answer", "points": 2}
def perplexity(losses: list[float], counts: list[int]) -> float:
    """Perplexity over all tokens, from each batch's mean loss and its number of chosen tokens."""
    ### BEGIN SOLUTION
    total = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    return math.exp(total / sum(counts))
    ### END SOLUTION


# %% exercise={"name": "perplexity", "role": "check"}
found = perplexity([2.0, 6.0], [3, 1])
assert round(found, 3) != round(math.exp(4), 3), "perplexity: both batches count alike; weigh each by its tokens"
assert round(found, 3) != round((3 * math.exp(2) + math.exp(6)) / 4, 3), (
    "perplexity: you averaged exponentials; average the losses, exponentiate last"
)
assert round(found, 3) != 3.0, "perplexity: 3.0 is the mean loss; take its exponential"
assert round(found, 3) == 20.086, f"perplexity: expected exp(3) = 20.086, yours {found:.3f}"
print(round(found, 3))

# %% exercise={"name": "perplexity", "role": "hidden"}
other = perplexity([1.0, 2.0, 4.0], [2, 5, 1])
assert abs(other - math.exp(2)) < 1e-3, (
    f"perplexity: losses 1, 2, 4 over 2, 5, 1 tokens have the mean 2, so exp(2) = {math.exp(2):.3f}; yours {other:.3f}"
)
alone = perplexity([math.log(250_002)], [17])
assert abs(alone - 250_002) < 1, (
    f"perplexity: guessing among 250,002 words has the perplexity 250,002; yours {alone:.0f}"
)


# %% exercise={"name": "perplexity", "role": "mistake", "expect": "both batches count alike"}
def perplexity(losses: list[float], counts: list[int]) -> float:
    return math.exp(sum(losses) / len(losses))


# %% exercise={"name": "perplexity", "role": "mistake", "expect": "you averaged exponentials"}
def perplexity(losses: list[float], counts: list[int]) -> float:
    return sum(math.exp(loss) * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


# %% exercise={"name": "perplexity", "role": "mistake", "expect": "take its exponential"}
def perplexity(losses: list[float], counts: list[int]) -> float:
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


# %% [markdown]
# ## Watch it learn
#
# Before anyone trains a model for weeks, they make it memorise a handful of sentences. If it can't even do that,
# something is broken.
#
# The two shortest sentences of five languages, and a vocabulary trained on just those (chapter 2). How many steps
# until the loss is near nothing?

# %%
languages = ("tr", "hi", "sw", "el", "en")
memorise = [text for language in languages for text in sorted(corpus.load(language, "train")["text"], key=len)[:2]]
own = XLMRTokenizer(unigram.train(memorise, vocab_size=160))
shape = XLMRConfig.tiny(vocab_size=len(own), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
learner = mlm.MaskedLM(Encoder(shape, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(0))
sentences = own(memorise)["input_ids"]
tuple(sentences.shape)

# %%
optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(0)
curve = []
for _ in range(400):
    inputs, labels = mlm.mask_tokens(sentences, own, generator=generator)
    loss = learner(inputs, labels=labels).loss
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    curve.append(loss.item())

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.5, 2.8))
    axes.plot(curve, color=plots.BLUE)
    axes.axhline(math.log(len(own)), color=plots.QUIET, linestyle=":")
    axes.text(400, math.log(len(own)), "guessing", ha="right", va="bottom", color=plots.QUIET)
    axes.set(xlabel="step", ylabel="loss (nats)")
plots.show(figure, alt="The loss starts at that of guessing and falls close to zero within 400 steps.")

# %% [markdown]
# Now hide every fourth piece of each sentence, one at a time, and ask. How many does it know, in five languages and
# three scripts?
#
# A good number proves the machinery, and nothing about language: it has seen these ten sentences and no others.

# %%
learner.eval()
right = 0
for row in sentences:
    places = range(2, int((row != 1).sum()) - 1, 4)
    probes = row.repeat(len(places), 1)
    for probe, place in zip(probes, places, strict=True):
        probe[place] = own.mask_token_id
    with torch.no_grad():
        guesses = learner(probes).logits[torch.arange(len(places)), list(places)].argmax(-1)
    right += int((guesses == row[list(places)]).float().mean() > 0.8)
print(f"sentences with more than four fifths of the hidden pieces right: {right} of {len(sentences)}")

# %% [markdown] exercise={"name": "half-masked", "role": "manual", "points": 2, "rubric": "1 point: more guesses a sentence against less context, or text unlike real text. 1 point: the two losses come from different games; compare at the same masking or on a task."}
# ### In your own words: why not half of them?
#
# A friend wants to choose 50 % of the tokens instead of 15 %, so that each sentence teaches more. What speaks for it,
# what against it? And why can't you just compare the two losses?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# More chosen tokens give more guesses to learn from in each sentence. But fewer words are left to guess from, and the
# text looks less like what the model will meet later. The loss at 50 % belongs to a harder game, so a higher one need
# not mean a worse model. Compare both models at the same game, or better at a task they are meant for.
# ### END SOLUTION

# %% [markdown]
# ## The package's version
#
# This is how the package hides tokens. It knows both rules: transformers' coin for each token, and fairseq's exact
# count.

# %%
show_source(mlm.mask_tokens)

# %% [markdown]
# ## What you saw
#
# - Guessing a hidden word needs both sides, so the answer must be hidden: 80 % `<mask>`, 10 % random, 10 % unchanged.
# - The decoder is the embedding table, used a second time.
# - The loss counts only the chosen tokens, and computing scores only for them saves six sevenths of the largest tensor.
# - Your loss and transformers' agree to the fifth digit.
#
# ## Further reading
#
# - Devlin et al. (2019), *BERT*, section 3.1, for the 80/10/10.
# - Liu et al. (2019), *RoBERTa*, section 4.1, for drawing the mask anew each time.
# - Press and Wolf (2017), *Using the Output Embedding to Improve Language Models*, for tied weights.
#
# Go on with `07_pretraining`.
