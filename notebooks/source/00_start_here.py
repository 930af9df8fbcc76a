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
# # 00 · Start here
#
# **You will build** nothing yet: you will see what you are going to build, find out whether your machine is ready,
# and try out how the exercises work.
#
# *Needs:* {{needs}}. *Download:* none.

# %% [markdown]
# One sentence, fifteen languages, seven scripts. You may be able to read two or three of the rows below.
#
# By the end of this course you will have written, line by line, a model that reads all of them.

# %% tags=["setup"]
import torch

from xlmr_course import checkpoints, corpus, plots

# %%
sentence = "geography-001"
parallel = [row for row in corpus.load_parallel() if row["id"] == sentence]
plots.show_sentences([(row["language"], row["text"]) for row in parallel])

# %% [markdown]
# ## What does such a model know?
#
# The sentences were written for this course, so no model has seen them before.
#
# Here is a question. Turn a Swahili sentence into a vector, do the same with 210 English ones, and look for the
# nearest. Will it be the translation?

# %%
tokenizer = checkpoints.load_tokenizer("small")
encoder = checkpoints.load_encoder("small")


def vectors(texts: list[str]) -> torch.Tensor:
    """One unit vector a sentence: the mean over its tokens' vectors."""
    batch = tokenizer(texts)
    states = encoder(**batch).last_hidden_state
    mean = states.sum(dim=1) / batch["attention_mask"].sum(dim=1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=-1)


# %%
english, swahili = corpus.load("en", "test"), corpus.load("sw", "test")
with torch.no_grad():
    similarity = vectors(swahili["text"][:3]) @ vectors(list(english["text"])).T
for row, nearest in zip(swahili["text"][:3], similarity.argmax(dim=1).tolist(), strict=True):
    print(f"{row}\n    → {english['text'][nearest]}\n")

# %% [markdown]
# The model here is `small`, a child of XLM-RoBERTa with 117 million numbers in it. It shares XLM-R's vocabulary and
# its architecture. In chapter 5 you load those numbers into the encoder that you wrote yourself.

# %% [markdown]
# ## How the exercises work
#
# An exercise is a cell with a gap, `# YOUR CODE HERE`. The cell after it is the **check**. Run both.
#
# A check that fails says what is wrong and what to look at. A check that passes prints a few facts about your answer.
# You can't edit a check, and you can run it as often as you like.
#
# Try one. Python's `len` counts the *code points* of a string, the numbers that Unicode gives to characters. How many
# does each of these greetings have?

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A string is a sequence of code points already.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `return len(text)`
#
# </details>


# %% exercise={"name": "code-points", "role": "answer", "points": 1}
def code_points(text: str) -> int:
    """How many code points `text` has."""
    ### BEGIN SOLUTION
    return len(text)
    ### END SOLUTION


# %% exercise={"name": "code-points", "role": "check"}
counts = [code_points(greeting) for greeting in ("hello", "नमस्ते", "你好")]
assert counts != [5, 18, 6], "code-points: these are bytes of UTF-8; count the items of the string itself"
assert counts[1] not in (3, 4), "code-points: that is what the eye sees; Unicode counts vowel signs on their own"
assert counts == [5, 6, 2], f"code-points: expected [5, 6, 2] for hello, नमस्ते, 你好; yours gives {counts}"
print(counts)

# %% exercise={"name": "code-points", "role": "hidden"}
for greeting_given, points_wanted in (("สวัสดี", 6), ("", 0), ("cảm ơn", 6), ("🦓!", 2), ("a b  c", 6)):
    points_found = code_points(greeting_given)
    assert points_found == points_wanted, (
        f"code-points: {greeting_given!r} has {points_wanted} code points, spaces and marks too; "
        f"yours gives {points_found}"
    )


# %% exercise={"name": "code-points", "role": "mistake", "expect": "bytes of UTF-8"}
def code_points(text: str) -> int:
    return len(text.encode("utf-8"))


# %% exercise={"name": "code-points", "role": "mistake", "expect": "expected [5, 6, 2]"}
def code_points(text: str) -> int:
    return len(text.split())


# %% [markdown]
# Look at the Hindi greeting: fewer things to the eye than its six code points. Vowel signs and the sign that mutes a
# vowel count on their own. Chapter 1 is about such things.

# %% [markdown]
# ## One more, a little harder
#
# The same sentence is short in one language and long in another. Given a sentence in several languages, which
# language needs the most code points for it?

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `max` takes a `key`: a function that says how large an item counts.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `max(texts, key=...)` goes over the *keys* of a dictionary, which are the language codes.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `max(texts, key=lambda language: len(texts[language]))`
#
# </details>


# %% exercise={"name": "longest", "role": "answer", "points": 1}
def longest(texts: dict[str, str]) -> str:
    """The code of the language whose text has the most code points."""
    ### BEGIN SOLUTION
    return max(texts, key=lambda language: len(texts[language]))
    ### END SOLUTION


# %% exercise={"name": "longest", "role": "check"}
answer = longest({"zh": "谢谢你", "en": "thank you", "de": "danke", "vi": "cảm ơn"})
assert answer != "thank you", "longest: you returned the text; return the key, its language code"
assert answer != "zh", "longest: zh has the fewest; `max` over the keys alone compares their letters, not the texts"
assert answer == "en", f"longest: 'thank you' (en) has the most code points, 9; yours gives {answer!r}"
print(answer)

# %% exercise={"name": "longest", "role": "hidden"}
thanks = {"el": "ευχαριστώ", "sw": "asante sana", "ur": "شکریہ", "th": "ขอบคุณ"}
for thanks_given, longest_wanted in ((thanks, "sw"), (dict(reversed(thanks.items())), "sw"), ({"ur": "شکریہ"}, "ur")):
    longest_found = longest(thanks_given)
    assert longest_found == longest_wanted, (
        f"longest: of {thanks_given} the longest is {longest_wanted!r}; yours gives {longest_found!r}"
    )


# %% exercise={"name": "longest", "role": "mistake", "expect": "compares their letters"}
def longest(texts: dict[str, str]) -> str:
    return max(texts)


# %% exercise={"name": "longest", "role": "mistake", "expect": "return the key"}
def longest(texts: dict[str, str]) -> str:
    return max(texts.values(), key=len)


# %% [markdown]
# ## And over the whole corpus?
#
# Here are 700 sentences in each language. Same content, different length. A model that reads text piece by piece pays
# for every piece, so this picture returns in chapter 3, measured in what XLM-R really reads.

# %%
lengths = {code: sum(map(len, corpus.load(code)["text"])) / 700 for code in corpus.LANGUAGES}
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 2.8))
    axes.bar(list(lengths), list(lengths.values()), color=plots.BLUE)
    axes.set_ylabel("code points a sentence")
plots.show(figure, alt="Bars: mean code points a sentence for 15 languages; Chinese is by far the shortest.")

# %% [markdown]
# ## Is your machine ready?
#
# Every line should begin with ✓. A line with ! says what to do. In a terminal, `xlmr-course doctor` prints the same.

# %% tags=["nbval-ignore-output"]
from xlmr_course.classroom.doctor import examine

for finding in examine():
    print(finding.line())

# %% [markdown]
# ## Where this goes
#
# | chapter | you build | and prove it against |
# |---|---|---|
# | 01 Text in a hundred languages | normal forms, scripts, sampling | the table of sampling rates |
# | 02 The Unigram tokenizer | Viterbi, and training in 15 languages | SentencePiece |
# | 03 XLM-R's vocabulary | ids, pairs, what each language pays | SentencePiece, on 10,500 sentences |
# | 04 Attention | scores, masks, heads, positions | PyTorch's own kernel |
# | 05 The encoder | XLM-R's encoder, with real weights in it | transformers, layer by layer |
# | 06 Masked language modelling | masking, the head, the loss | transformers' loss |
# | 07 Pretraining | the loop that trains a model of 15 languages | transformers' fill-mask |
# | 09 Looking inside | views of attention, sentences as vectors | translations that find each other |
# | 10 The real model | a bill of its memory, and its weights in your encoder | transformers, on the same weights |
# | 11 Cross-lingual fine-tuning | a topic classifier taught in English | 14 languages it was never taught in |
#
# ## What is done?
#
# The last cell of every notebook marks it: it runs all checks in a fresh kernel and says what is left to do. The cell
# below gathers what those markings found, over all chapters. Come back to it now and then.

# %% tags=["nbval-ignore-output"]
from xlmr_course.classroom import show_progress

show_progress()

# %% [markdown]
# Go on with `01_text_in_a_hundred_languages`.
