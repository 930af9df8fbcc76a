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
# # 11 · Cross-lingual fine-tuning
#
# **You will build** a classifier that is taught in English and tested in fourteen languages it was never taught in.
#
# *Needs:* {{needs}}. *Download:* none; the checkpoint `small` comes with the course's `offline` extra, or as 471 MB
# from the Hugging Face hub.

# %% [markdown]
# A newsroom has 420 English sentences, each marked with its topic. It wants the same for Urdu, where it has none.
#
# Could a model learn the task in English and do it in Urdu? And if so, in which language would you expect it to do
# worst? Write your guess down before you go on.

# %% tags=["setup"]
import math
from collections import Counter

from xlmr_course import checkpoints, corpus, finetuning, plots
from xlmr_course.classroom import show_source
from xlmr_course.finetuning import Settings
from xlmr_course.results import wilson

# %% [markdown]
# ## The task
#
# Seven topics, the same ones as in the public benchmark SIB-200. One training sentence of each:

# %%
english = corpus.load("en", "train")
first = {row["topic"]: row["text"] for row in reversed(list(english))}
plots.show_sentences([("en", topic, first[topic]) for topic in corpus.TOPICS], ("", "topic", "sentence"))

# %% [markdown]
# How many are there of each? If one topic were far more common, guessing it would look like skill.

# %%
Counter(english["topic"])

# %% [markdown]
# All equal. So guessing scores one in seven, and a model that knows nothing has a loss of $\ln 7$.

# %%
print(f"guessing: accuracy {1 / 7:.3f}, loss {math.log(7):.3f}")

# %% [markdown]
# ## From a sentence to seven scores
#
# The encoder gives one vector a token. Which of them speaks for the whole sentence? XLM-R takes the first, that of
# `<s>`. It stands for no word, so training can make it stand for the sentence.
#
# A small head turns that vector into one score a topic:

# %%
show_source(finetuning.SequenceClassifier.forward)

# %% [markdown]
# ## What is trained, and what is left alone?
#
# Where do the parameters of the model sit? Count before you decide what to train.

# %%
encoder = checkpoints.load_encoder("small")
sizes = {
    "word embeddings": encoder.embeddings.word.weight.numel(),
    "twelve layers": sum(p.numel() for p in encoder.layers.parameters()),
}
for part, size in sizes.items():
    print(f"{part:16} {size / 1e6:5.1f} M")

# %% [markdown]
# Four fifths are a table with one row for each of 250,002 vocabulary entries. How many of its rows do our 420
# sentences touch?

# %%
tokenizer = checkpoints.load_tokenizer("small")
encoded = finetuning.encode(tokenizer, "en", "train", None, list(corpus.TOPICS), 128)
touched = {token for ids in encoded.ids for token in ids}
print(f"{len(touched):,} of 250,002 rows, {len(touched) / 250_002:.1%}")

# %% [markdown]
# Training would move those few rows, and leave the rows of every other language where they were. So the course
# freezes the table. That also spares the optimiser two numbers for each of its 96 million entries.

# %% [markdown]
# ## How fast to learn
#
# A large step at the start can destroy what pretraining built. A large step at the end cannot settle. So the learning
# rate rises from zero for the first tenth of the steps, and then falls in a straight line to zero.

# %%
steps = 135
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6, 2.4))
    axes.plot([finetuning.warmup_decay(step, steps, 0.1) for step in range(steps)], color=plots.BLUE)
    axes.set_xlabel("step")
    axes.set_ylabel("factor")
plots.show(figure, alt="The learning rate's factor: a steep rise to 1 at step 14, then a straight fall to 0 at 135.")

# %% [markdown]
# ### Exercise: the schedule
#
# Write the factor for one step. `step` counts from 0. During the first `rise` steps the factor grows by $1/$`rise`
# each step and ends at 1; after that it falls in a straight line and would reach 0 at step `steps`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two lines, one rising and one falling. The factor is the lower of the two.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Rising: step 0 is already the first of `rise` steps, so it has the factor `1 / rise`, not 0.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `min((step + 1) / rise, (steps - step) / (steps - rise))`
#
# </details>


# %% exercise={"name": "schedule", "role": "answer", "points": 2}
def schedule(step: int, steps: int, rise: int) -> float:
    """The learning rate's factor at `step`, between 0 and 1."""
    ### BEGIN SOLUTION
    return min((step + 1) / rise, (steps - step) / (steps - rise))
    ### END SOLUTION


# %% exercise={"name": "schedule", "role": "check"}
factors = [round(schedule(step, 110, 10), 3) for step in (0, 4, 10, 60, 109)]
assert factors[0] != 0, "schedule: the first step has the factor 0, so it is wasted; count it as step 1 of the rise"
assert factors[1] == 0.5, f"schedule: after 5 of 10 warm-up steps expected 0.5; yours is {factors[1]}; does it rise?"
assert factors[3] == 0.5, f"schedule: halfway down, at step 60, expected 0.5; yours is {factors[3]}; where does it end?"
assert factors == [0.1, 0.5, 1.0, 0.5, 0.01], f"schedule: expected [0.1, 0.5, 1.0, 0.5, 0.01]; yours gives {factors}"
print(factors)


# %% exercise={"name": "schedule", "role": "mistake", "expect": "the first step has the factor 0"}
def schedule(step: int, steps: int, rise: int) -> float:
    return min(step / rise, (steps - step) / (steps - rise))


# %% exercise={"name": "schedule", "role": "mistake", "expect": "does it rise?"}
def schedule(step: int, steps: int, rise: int) -> float:
    return (steps - step) / steps


# %% exercise={"name": "schedule", "role": "mistake", "expect": "where does it end?"}
def schedule(step: int, steps: int, rise: int) -> float:
    return min((step + 1) / rise, 1.0)


# %% [markdown]
# ## What padding costs
#
# Sentences in a batch differ in length, and a batch is a rectangle. The corners are filled with `<pad>`. Sixteen
# sentences in the order of the file, then sixteen of similar length:

# %%
lengths = [len(ids) for ids in encoded.ids]
alike = sorted(lengths)[200:216]
print("by order: ", lengths[:16])
print("by length:", alike)

# %% [markdown]
# ### Exercise: the padded share
#
# What share of the rectangle is padding?

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The rectangle is as wide as the longest sentence, and has one row a sentence.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `1 - sum(lengths) / (len(lengths) * max(lengths))`
#
# </details>


# %% exercise={"name": "padded-share", "role": "answer", "points": 1}
def padded_share(lengths: list[int]) -> float:
    """The share of a padded batch that is padding; `lengths` are those of its sentences, in tokens."""
    ### BEGIN SOLUTION
    return 1 - sum(lengths) / (len(lengths) * max(lengths))
    ### END SOLUTION


# %% exercise={"name": "padded-share", "role": "check"}
share = padded_share([4, 2, 2, 4])
assert round(share, 3) != 0.75, "padded-share: 0.75 of this batch is real; you were asked for the rest"
assert share <= 1, f"padded-share: {share} is a number of tokens; divide by the size of the rectangle"
assert round(share, 3) == 0.25, f"padded-share: 4 of 16 places are padding, 0.25; yours gives {share:.3f}"
assert padded_share([7, 7]) == 0, "padded-share: a batch of equal lengths has no padding"
print(round(share, 3))


# %% exercise={"name": "padded-share", "role": "mistake", "expect": "you were asked for the rest"}
def padded_share(lengths: list[int]) -> float:
    return sum(lengths) / (len(lengths) * max(lengths))


# %% exercise={"name": "padded-share", "role": "mistake", "expect": "is a number of tokens"}
def padded_share(lengths: list[int]) -> float:
    return len(lengths) * max(lengths) - sum(lengths)


# %% [markdown]
# The course's encoder computes no padding at all. It gathers the real tokens and works on those (chapter 5). Batches
# of similar length still help it: attention runs once for each length in a batch.

# %% [markdown]
# ## Train
#
# Five times over the 420 English sentences. After each, the model is tested on 70 *English* sentences it was not
# trained on, and the best state is kept.
#
# Why not choose by the Urdu ones? Because then Urdu would have taken part, and "never taught in" would no longer be
# true.

# %% tags=["nbval-ignore-output", "long"]
settings = Settings(epochs=5)
results = finetuning.finetune("topics", "small", train_language="en", settings=settings, output="runs/topics")
print(results.table())

# %% [markdown]
# Guessing would score 0.143. Find your guess for the worst language in the table.

# %% tags=["nbval-ignore-output", "long"]
plots.show(
    results.plot(), alt="Points with intervals: accuracy by language, English highest, the others close below it."
)

# %% [markdown]
# ## How sure are these numbers?
#
# Each language has 210 test sentences. Had we written 210 others, the score would be a little different. The 95 %
# interval says how much. It comes from Wilson's formula (1927):
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z\sqrt{\frac{\hat p(1-\hat p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}}$$
#
# $\hat p$ is the accuracy, $n$ the number of sentences, $z = 1.96$.

# %%
for n in (21, 210, 2100):
    low, high = wilson(0.85, n)
    print(f"0.85 on {n:5,} sentences: between {low:.3f} and {high:.3f}")

# %% [markdown]
# Ten times the sentences, about a third of the width. So two languages two points apart in the table above are not
# told apart by it.

# %% [markdown]
# ### Exercise: what is transfer?
#
# One number for the whole table: the mean accuracy over the languages that were *not* trained on.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# English is in the table too. Leave it out, or the number flatters the model.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `others = [a for language, a in accuracies.items() if language not in trained]`
#
# </details>


# %% exercise={"name": "transfer", "role": "answer", "points": 1}
def transfer(accuracies: dict[str, float], trained: set[str]) -> float:
    """Mean accuracy over the languages outside `trained`."""
    ### BEGIN SOLUTION
    others = [accuracy for language, accuracy in accuracies.items() if language not in trained]
    return sum(others) / len(others)
    ### END SOLUTION


# %% exercise={"name": "transfer", "role": "check"}
mean = round(transfer({"en": 0.9, "sw": 0.6, "ur": 0.7}, {"en"}), 3)
assert mean != 0.733, "transfer: English is in your mean; the model was trained on it"
assert mean != 0.433, "transfer: you left English out of the sum, but divided by all three languages"
assert mean == 0.65, f"transfer: the mean of sw 0.6 and ur 0.7 is 0.65; yours gives {mean}"
print(mean, round(transfer({"en": 1.0, "de": 0.8, "th": 0.5}, {"en", "de"}), 3))


# %% exercise={"name": "transfer", "role": "mistake", "expect": "English is in your mean"}
def transfer(accuracies: dict[str, float], trained: set[str]) -> float:
    return sum(accuracies.values()) / len(accuracies)


# %% exercise={"name": "transfer", "role": "mistake", "expect": "divided by all three"}
def transfer(accuracies: dict[str, float], trained: set[str]) -> float:
    return sum(a for language, a in accuracies.items() if language not in trained) / len(accuracies)


# %% [markdown]
# ## Which topics are mistaken for which?
#
# A score hides the mistakes. This table shows them for Swahili: a row for each true topic, a column for each answer.

# %% tags=["nbval-ignore-output", "long"]
from sklearn.metrics import confusion_matrix

model, tokenizer, topics = finetuning.load_classifier("runs/topics")
test = finetuning.encode(tokenizer, "sw", "test", None, topics, 128)
predicted = finetuning.predict(model, test.ids)
table = confusion_matrix(test.labels, predicted, normalize="true")
short = [topic.split("/")[0] for topic in topics]
figure = plots.heatmap(table, short, short, annotate=True, label="share of the row")
plots.show(figure, alt="A seven by seven table of true against predicted topics for Swahili; the diagonal dominates.")

# %% [markdown]
# Here are some of the sentences behind the mistakes. With which of them would you argue?

# %% tags=["nbval-ignore-output", "long"]
texts = corpus.load("sw", "test")["text"]
wrong = [i for i, (label, guess) in enumerate(zip(test.labels, predicted.tolist(), strict=True)) if label != guess]
rows = [("sw", texts[i], short[test.labels[i]], short[predicted[i]]) for i in wrong[:6]]
plots.show_sentences(rows, ("", "sentence", "written as", "taken for"))

# %% [markdown]
# ## Ours and the published one
#
# The paper's task is harder: does one sentence follow from another (XNLI)? Its model is larger: XLM-R large. Training
# was English too. Is the order of the languages alike?
#
# The published numbers are Table 1 of Conneau et al. (2020).

# %% tags=["setup"]
XNLI_LARGE = dict(
    zip(
        corpus.LANGUAGES,
        (89.1, 84.1, 85.1, 83.9, 82.9, 84.0, 81.2, 79.6, 79.8, 80.8, 78.1, 80.2, 76.9, 73.9, 73.8),
        strict=True,
    )
)

# %% tags=["nbval-ignore-output", "long"]
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6, 4))
    for row in results.languages:
        axes.plot(XNLI_LARGE[row.language] / 100, row.accuracy, "o", color=plots.BLUE)
        axes.annotate(row.language, (XNLI_LARGE[row.language] / 100, row.accuracy), (5, 4), textcoords="offset points")
    axes.set_xlabel("XNLI, XLM-R large (published)")
    axes.set_ylabel("topics, small (this run)")
plots.show(figure, alt="Fifteen languages by published XNLI accuracy and by this chapter's topic accuracy.")

# %% [markdown]
# The published column falls from English to Swahili and Urdu. The paper's reason is data: XLM-R read 300.8 GiB of
# English, 1.6 GiB of Swahili and 5.7 GiB of Urdu. How much of that falls is left in your picture?

# %% [markdown]
# ### Exercise: how much does it lose?
#
# The *transfer gap* is what a language loses against the language of training. Give the language that loses most,
# with its gap.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The gap of a language is `accuracies[source] - accuracies[language]`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `worst = min(accuracies, key=accuracies.get)` finds the language; return it together with its gap.
#
# </details>


# %% exercise={"name": "gap", "role": "answer", "points": 2}
def largest_gap(accuracies: dict[str, float], source: str) -> tuple[str, float]:
    """The language that loses most against `source`, and how much it loses."""
    ### BEGIN SOLUTION
    worst = min(accuracies, key=accuracies.get)
    return worst, accuracies[source] - accuracies[worst]
    ### END SOLUTION


# %% exercise={"name": "gap", "role": "check"}
language, gap = largest_gap(XNLI_LARGE, "en")
assert language != "en", "gap: English loses nothing against itself; look for the lowest accuracy, not the highest"
assert gap > 0, f"gap: {gap:.1f} is negative; take the source's accuracy minus the language's"
assert language == "ur", f"gap: the lowest published accuracy is that of ur, 73.8; yours is {language!r}"
assert round(gap, 1) == 15.3, f"gap: 89.1 − 73.8 is 15.3; yours gives {gap:.1f}"
print(language, round(gap, 1))


# %% exercise={"name": "gap", "role": "mistake", "expect": "not the highest"}
def largest_gap(accuracies: dict[str, float], source: str) -> tuple[str, float]:
    best = max(accuracies, key=accuracies.get)
    return best, accuracies[source] - accuracies[best]


# %% exercise={"name": "gap", "role": "mistake", "expect": "is negative"}
def largest_gap(accuracies: dict[str, float], source: str) -> tuple[str, float]:
    worst = min(accuracies, key=accuracies.get)
    return worst, accuracies[worst] - accuracies[source]


# %% [markdown]
# ## The package's version
#
# What you read above in pieces is one loop in the package. It is what ran when you called `finetune`.

# %%
show_source(finetuning.train_classifier)

# %% [markdown]
# Your schedule and the package's agree, unless the cell below says otherwise.

# %%
print(all(finetuning.warmup_decay(s, 110, 10 / 110) == min((s + 1) / 10, (110 - s) / 100) for s in range(110)))

# %% [markdown]
# ## What you saw
#
# - A model fine-tuned on English sentences alone sorts sentences in fourteen other languages, far above guessing.
# - The word embeddings, four fifths of the model, stayed frozen. What transfers sits in the layers.
# - A score on 210 sentences has an interval of about five points to each side. Say it with the score.
# - Choosing the best epoch on English only is part of the honesty of "zero-shot".
#
# ## Try next
#
# - Train on Swahili and test on English: `finetune(train_language="sw")`. Is transfer a two-way street?
# - `train_language="all"` trains on all fifteen translations at once. The paper calls this *translate-train-all*.
# - Put your own sentences into a folder in the layout of `data/`, and run
#   `xlmr-course finetune --data FOLDER --train en --evaluate all`.
#
# ## Further reading
#
# - Conneau et al. (2020), *Unsupervised Cross-lingual Representation Learning at Scale*, section 5.
# - Mosbach et al. (2020), arXiv 2006.04884, on why fine-tuning sometimes collapses.
