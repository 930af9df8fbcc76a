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
# # 03 · XLM-R's vocabulary
#
# **You will build** what stands between pieces and XLM-R: its numbering, its pairs, its way to cut what is too long,
# and the way back to text. Along the way you find out what a sentence costs in fifteen languages.
#
# *Needs:* {{needs}}. *Download:* none.

# %% [markdown]
# In chapter 2 you trained 8,000 pieces on fifteen languages. XLM-R has about thirty times as many, for a hundred
# languages, learned by the same algorithm from web pages.
#
# If you had 250,000 pieces to share out among a hundred languages, how would you divide them? The algorithm was not
# asked to be fair. It was asked to make its training text probable.

# %% tags=["setup"]
import tempfile
from collections import Counter
from pathlib import Path

import regex
import sentencepiece

from xlmr_course import checkpoints, corpus, plots
from xlmr_course.classroom import show_source
from xlmr_course.tokenizer import XLMRTokenizer
from xlmr_course.unigram import UnigramModel

# %% [markdown]
# `small`, the model that comes with the course, uses XLM-R's vocabulary entry for entry. So this is the real one:

# %%
tokenizer = checkpoints.load_tokenizer("small")
table = tokenizer.model.log_probs
print(f"{len(tokenizer):,} entries, {len(table):,} of them pieces")

# %% [markdown]
# ## A look inside
#
# The table is what chapter 2 made: pieces with their log-probabilities. Guess before you look: which piece is the most
# probable in a hundred languages?

# %%
by_score = sorted(table, key=table.get, reverse=True)
for piece in by_score[:6]:
    print(f"{piece:4} {table[piece]:7.3f}")

# %% [markdown]
# Punctuation, which most languages share. *de* is a word in several Romance languages and in Dutch.
#
# And the longest pieces? Do you recognise any of these languages?

# %%
longest = sorted(table, key=len)[-25:]
print(f"{len(longest[0])} characters each:", " · ".join(longest))

# %% [markdown]
# They are web pages' words: *contactformulier* is a contact form in Dutch, the Thai one belongs to the name of a kind
# of university, and a row of equals signs is as good as a word.
#
# Some lack their first letter or their last. *petussuunnitelma* is the Finnish *opetussuunnitelma*, curriculum,
# without its *o*. The training allowed sixteen characters and no more, and the ▁ counts.

# %% [markdown]
# At the other end stand the lowest scores. Here are some from near the bottom. Look at the fourth decimal:

# %%
print(*[f"{piece} {table[piece]:.4f}" for piece in by_score[-26:-16]], sep="\n")
single = next(place for place, piece in enumerate(reversed(by_score)) if len(piece) > 1)
print(f"the {single:,} lowest are single characters")

# %% [markdown]
# Mostly one ten-thousandth a step, like the rungs of a ladder. No count of words looks like that.
#
# These are *required characters*. Pruning had thrown them out, and the last step of training put them back: the lowest
# score, plus 0.0001, plus 0.0002, and so on. They are there so that they can be written at all.

# %% [markdown]
# ## Which scripts own how many pieces?
#
# Take the first letter of each piece and ask Unicode for its script.

# %%
SCRIPTS = [
    "Latin", "Cyrillic", "Han", "Arabic", "Devanagari", "Hangul", "Hebrew", "Greek", "Thai", "Malayalam",
    "Georgian", "Armenian", "Sinhala", "Telugu", "Ethiopic", "Kannada", "Tamil", "Bengali", "Myanmar",
    "Gujarati", "Khmer", "Oriya", "Gurmukhi", "Lao", "Hiragana", "Katakana", "Tibetan",
]  # fmt: skip
letter = regex.compile("|".join(rf"(?P<{script}>\p{{Script={script}}})" for script in SCRIPTS))
found = [letter.search(piece) for piece in table]
owned = Counter(match.lastgroup if match else "none of these" for match in found)

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(6.5, 5.6))
    bars = axes.barh(*zip(*reversed(owned.most_common()), strict=True), color=plots.BLUE)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8.5)
    axes.set(xlabel="pieces whose first letter is in the script", xticks=[], ylim=(-0.7, len(owned) - 0.3))
plots.show(figure, alt="Bars: Latin has by far the most pieces, then Cyrillic, Han and Arabic; Tibetan has three.")

# %% [markdown]
# Latin letters serve dozens of the hundred languages, so the longest bar is shared by many. Greek, Thai and Georgian
# letters serve one or two each. *None of these* holds punctuation, digits, signs,
# and letters of scripts with a handful of pieces.
#
# Tibetan has three pieces. What happens to a Tibetan word?

# %% [markdown]
# ## What is not in it
#
# XLM-R has no byte fallback. A character without a piece becomes `<unk>`, and neighbours become one `<unk>` together.
# Here are *Sri Lanka* in Sinhala, a Tibetan greeting, the name of the N'Ko script, and a zebra:

# %%
rows = [("si", "ශ්‍රී ලංකා"), ("bo", "བཀྲ་ཤིས་བདེ་ལེགས"), ("nqo", "ߒߞߏ"), ("zxx", "🦓")]
reads = {text: tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) for _, text in rows}
rows = [(code, text, reads[text]) for code, text in rows]
plots.show_sentences(rows, header=("", "text", "what XLM-R reads"))

# %% [markdown]
# The last three keep hardly anything. The unknown in the first row is harder to see. It is U+200D, an invisible
# joiner that tells two letters to merge. Sinhala needs it, and the country's own name holds one.

# %% [markdown]
# ## What a sentence costs
#
# Here is one sentence in six languages, cut by XLM-R's vocabulary. Which one will need the most pieces?

# %%
parallel = corpus.load_parallel(["en", "vi", "th", "ar", "hi", "el"])
chosen = [row for row in parallel if row["id"] == "science-052"]
rows = [(row["language"], tokenizer.tokenize(row["text"])) for row in chosen]
plots.show_sentences([(code, str(len(tokens)), "  ".join(tokens)) for code, tokens in rows])

# %% [markdown]
# One sentence proves little. The classroom corpus has 700, each in fifteen languages, so their costs can be compared.
#
# But how do you compare? *Pieces per word*, often called fertility, fails at once: Thai and Chinese put no spaces
# between words. Since the sentences are translations of each other, there is something better. Take the pieces of
# all sentences, and divide by what English needs for the same ones.

# %% [markdown]
# ### Exercise: cost relative to English
#
# You get the number of pieces of each sentence, by language, the same sentences in the same order. Return for each
# language its total as a multiple of the English total.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Add up first, then divide. A mean over the sentences' ratios would give a short sentence as much weight as a long
# one.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `{code: sum(counts) / sum(pieces["en"]) for code, counts in pieces.items()}`
#
# </details>


# %% exercise={"name": "cost", "role": "answer", "points": 1}
def relative_cost(pieces: dict[str, list[int]]) -> dict[str, float]:
    """Pieces of all sentences of a language, divided by the English ones; English is 1."""
    ### BEGIN SOLUTION
    english = sum(pieces["en"])
    return {code: sum(counts) / english for code, counts in pieces.items()}
    ### END SOLUTION


# %% exercise={"name": "cost", "role": "check"}
cost = relative_cost({"en": [10, 30], "el": [20, 40], "vi": [12, 24]})
rounded = {code: round(value, 3) for code, value in cost.items()}
assert rounded.get("en") == 1, f"cost: English must cost 1, yours says {rounded.get('en')}; divide by the English total"
assert rounded["el"] != 0.667, "cost: upside down; Greek needs more pieces here, so it costs more than 1"
assert rounded["el"] != 1.667, "cost: that is the mean of the sentences' ratios; add up the pieces first, then divide"
assert rounded == {"en": 1, "el": 1.5, "vi": 0.9}, f"cost: expected el 60/40 = 1.5, vi 36/40 = 0.9; yours {rounded}"
print(rounded)

# %% exercise={"name": "cost", "role": "hidden"}
other_cost = relative_cost({"th": [9, 1, 2], "en": [4, 2, 4], "sw": [5, 5, 5]})
other_cost = {code: round(value, 3) for code, value in other_cost.items()}
assert other_cost == {"th": 1.2, "en": 1, "sw": 1.5}, (
    f"cost: totals th 12, en 10, sw 15 make 1.2, 1, 1.5, wherever en stands; yours gives {other_cost}"
)


# %% exercise={"name": "cost", "role": "mistake", "expect": "mean of the sentences' ratios"}
def relative_cost(pieces: dict[str, list[int]]) -> dict[str, float]:
    ratios = {code: [n / en for n, en in zip(counts, pieces["en"], strict=True)] for code, counts in pieces.items()}
    return {code: sum(values) / len(values) for code, values in ratios.items()}


# %% exercise={"name": "cost", "role": "mistake", "expect": "upside down"}
def relative_cost(pieces: dict[str, list[int]]) -> dict[str, float]:
    return {code: sum(pieces["en"]) / sum(counts) for code, counts in pieces.items()}


# %% exercise={"name": "cost", "role": "mistake", "expect": "divide by the English total"}
def relative_cost(pieces: dict[str, list[int]]) -> dict[str, float]:
    return {code: sum(counts) / len(counts) for code, counts in pieces.items()}


# %% [markdown]
# Now all 10,500 sentences. For comparison: what would they cost a model that reads bytes of UTF-8?

# %%
texts = {code: list(corpus.load(code)["text"]) for code in corpus.LANGUAGES}
ids = {code: [tokenizer.encode(text) for text in rows] for code, rows in texts.items()}
pieces = {code: sum(len(row) - 2 for row in rows) for code, rows in ids.items()}  # without <s> and </s>
size = {code: sum(len(text.encode()) for text in rows) for code, rows in texts.items()}
order = sorted(pieces, key=pieces.get)

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 3.4))
    relative = [pieces[code] / pieces["en"] for code in order]
    in_bytes = [size[code] / size["en"] for code in order]
    bars = axes.bar(order, relative, color=plots.BLUE, label="XLM-R's pieces")
    axes.bar_label(bars, fmt="%.2f", label_type="center", fontsize=8.5, color="white")
    axes.plot(order, in_bytes, "o", color=plots.ORANGE, label="bytes of UTF-8")
    axes.axhline(1, color=plots.QUIET, linewidth=1)
    axes.set(ylabel="cost, English = 1", ylim=(0, 3))
    axes.legend(loc="upper left", ncols=2)
plots.show(figure, alt="Pieces: English is cheapest at 1, Greek dearest near 1.5. Bytes: Thai and Hindi above 2.5.")

# %% [markdown]
# No language is cheaper than English. Yet the spread is small beside that of bytes, where Hindi and Thai pay three
# bytes for most letters. That is what 250,000 pieces buy.
#
# Two things besides the vocabulary are in these bars. All the others are translations from English, which may make
# them longer. And a language can say the same with fewer letters: Thai owns fewer pieces than Greek, and still needs
# fewer for a sentence.

# %%
for code in ("en", "el", "th", "zh"):
    length = sum(map(len, texts[code]))
    print(f"{code}: {length / 700:5.1f} characters a sentence, {length / pieces[code]:.2f} characters a piece")

# %% [markdown]
# ## Why it matters
#
# Whoever pays by the token pays those ratios. And there is more. XLM-R has places for 512 tokens: a language that
# needs more of them gets less context. Attention compares every token with every other, so its work grows with the
# square.

# %%
for code in ("en", "zh", "sw", "hi", "el"):
    ratio, mean = pieces[code] / pieces["en"], pieces[code] / 700
    print(f"{code}: price {ratio:.2f}, sentences in 510 tokens {510 / mean:4.1f}, attention {ratio**2:.2f}")

# %% [markdown]
# The same article, cut off at 512 tokens: the English reader's model sees half as much again as the Greek reader's.

# %% [markdown] exercise={"name": "whose-fault", "role": "manual", "points": 2, "rubric": "1 point: names a cause besides the vocabulary (translated from English, longer text, the script). 1 point: a way to separate them (characters a piece, texts first written in Greek, another vocabulary on the same text)."}
# ### In your own words: whose fault is it?
#
# A newspaper in Athens pays half as much again for the same article as one in London. Is that the vocabulary's fault?
# What else is in the number, and how would you tell the two apart?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# Only in part. The Greek sentences are translations from English, which may make them longer, and Greek may need more
# letters for the same content. Characters a piece show what the vocabulary itself does, since they don't depend on
# the length of the sentence. Better still, count texts that were written in Greek and translated into English, too.
# ### END SOLUTION

# %% [markdown]
# ## From pieces to numbers
#
# An encoder wants numbers. SentencePiece numbers its entries from 0, in the order of its file. XLM-R's embedding rows
# stand in another order:

# %%
processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model.to_sentencepiece())
print("SentencePiece", [processor.id_to_piece(number) for number in range(6)], "…", len(processor))
print("XLM-R        ", tokenizer.tokens[:6], "…", len(tokenizer))
print("the last one ", tokenizer.tokens[-1], tokenizer.mask_token_id)

# %% [markdown]
# fairseq, the library that trained XLM-R, has a dictionary of its own. It starts with four special entries where
# SentencePiece has three:
#
# | | 0 | 1 | 2 | 3 | 4 | … | 250,000 | 250,001 |
# |---|---|---|---|---|---|---|---|---|
# | SentencePiece | `<unk>` | `<s>` | `</s>` | `,` | `.` | … | | |
# | XLM-R | `<s>` | `<pad>` | `</s>` | `<unk>` | `,` | … | the last piece | `<mask>` |
#
# So each piece moves up by one. What if you forgot? No error, no warning. Every word is its neighbour:

# %%
correct = tokenizer.encode("Hello world!")
print([tokenizer.tokens[number] for number in correct])
print("one too low:", [tokenizer.tokens[number - 1] for number in correct[1:-1]])

# %% [markdown]
# ### Exercise: the offset of one
#
# You get the numbers that SentencePiece gives to a text: pieces are 3 and above, an unknown is 0. Return XLM-R's ids,
# with `<s>` in front and `</s>` at the end.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Read the two rows of the table. `,` goes from 3 to 4. Where does `<unk>` go?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Every number goes up by one, except 0, which becomes 3.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `[0, *(number + 1 if number else 3 for number in numbers), 2]`
#
# </details>


# %% exercise={"name": "ids", "role": "answer", "points": 2}
def xlmr_ids(numbers: list[int]) -> list[int]:
    """SentencePiece's numbers of a text, as XLM-R's ids of `<s> text </s>`."""
    ### BEGIN SOLUTION
    return [0, *(number + 1 if number else 3 for number in numbers), 2]
    ### END SOLUTION


# %% exercise={"name": "ids", "role": "check"}
hindi = xlmr_ids([68699, 97882, 29404])  # नमस्ते दुनिया
assert hindi[:1] == [0], f"ids: the first id must be 0, <s>; yours is {hindi[:1]}"
assert hindi[-1] == 2, f"ids: the last id must be 2, </s>; yours is {hindi[-1]}"
assert hindi[1] != 68699, "ids: these are still SentencePiece's numbers; pieces move up by one"
assert hindi == [0, 68700, 97883, 29405, 2], f"ids: expected [0, 68700, 97883, 29405, 2], yours gives {hindi}"
zebra = xlmr_ids([5, 0])  # ▁🦓
assert zebra[2] != 1, "ids: the unknown became 1, <pad>, which means there is no token; look up <unk> in the table"
assert zebra == [0, 6, 3, 2], f"ids: ▁ and an unknown are [0, 6, 3, 2]; yours gives {zebra}"
print(hindi, zebra)

# %% exercise={"name": "ids", "role": "hidden"}
for given, wanted_ids in (
    ([], [0, 2]),
    ([0], [0, 3, 2]),
    ([3, 0, 0, 249_999], [0, 4, 3, 3, 250_000, 2]),
    ([664, 193_477, 257, 1704, 77_795], [0, 665, 193_478, 258, 1705, 77_796, 2]),
):
    given_ids = list(xlmr_ids(list(given)))
    assert given_ids == wanted_ids, f"ids: {given} becomes {wanted_ids}; yours gives {given_ids}"


# %% exercise={"name": "ids", "role": "mistake", "expect": "the unknown became 1, <pad>"}
def xlmr_ids(numbers: list[int]) -> list[int]:
    return [0, *(number + 1 for number in numbers), 2]


# %% exercise={"name": "ids", "role": "mistake", "expect": "still SentencePiece's numbers"}
def xlmr_ids(numbers: list[int]) -> list[int]:
    return [0, *(number if number else 3 for number in numbers), 2]


# %% exercise={"name": "ids", "role": "mistake", "expect": "the first id must be 0, <s>"}
def xlmr_ids(numbers: list[int]) -> list[int]:
    return [number + 1 if number else 3 for number in [1, *numbers, 2]]


# %% exercise={"name": "ids", "role": "mistake", "expect": "the last id must be 2"}
def xlmr_ids(numbers: list[int]) -> list[int]:
    return [0, *(number + 1 if number else 3 for number in numbers)]


# %% [markdown]
# ## Proof: the published ids
#
# The authors' own page (fairseq, `examples/xlmr`) shows five greetings with their ids. Are they ours?

# %%
published = [
    ([0, 35378, 8999, 38, 2], "Hello world!"),
    ([0, 6, 124084, 4, 3221, 2], "你好，世界"),
    ([0, 68700, 97883, 29405, 2], "नमस्ते दुनिया"),
    ([0, 665, 193478, 258, 1705, 77796, 2], "مرحبا بالعالم"),
    ([0, 84602, 95, 11146, 2], "Bonjour le monde"),
]
print([tokenizer.encode(text) == expected for expected, text in published])

# %% [markdown]
# Five is few. SentencePiece's own C++ code, given the same table, can judge every sentence of the corpus:

# %%
different = 0
for code, rows in texts.items():
    for text, row in zip(rows, ids[code], strict=True):
        different += row != [0, *(n + 1 if n else 3 for n in processor.encode(text)), 2]
print(f"{sum(map(len, texts.values())):,} sentences, {different} differences")

# %% [markdown]
# ## Two texts at once
#
# Does one sentence follow from another? Where in a passage is the answer to a question? Such tasks need two texts in
# one sequence. XLM-R writes them `<s> A </s></s> B </s>`.
#
# There are two `</s>` in the middle because fairseq ends the first text with one and starts the second with another.
# BERT marks the two texts with token types 0 and 1 instead. XLM-R has a single type, so these two signs are all it
# gets.

# %% tags=["setup"]
LETTERS = XLMRTokenizer(UnigramModel({f"▁{letter}": -3.0 for letter in "abcdefghijklmnopqrstuvwxyz"}))

# %% [markdown]
# `LETTERS` is a toy tokenizer for the next two exercises: its pieces are the letters, and its ids start at 4 with *a*.

# %%
print(LETTERS.encode("a b"), LETTERS.encode("a b", "c"))

# %% [markdown]
# ### Exercise: build a pair
#
# Put two lists of ids, without special tokens, together as `<s> A </s></s> B </s>`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `<s>` is 0 and `</s>` is 2. Four special tokens in all.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `[0, *first, 2, 2, *second, 2]`
#
# </details>


# %% exercise={"name": "pair", "role": "answer", "points": 1}
def pair_ids(first: list[int], second: list[int]) -> list[int]:
    """Ids of `<s> first </s></s> second </s>`."""
    ### BEGIN SOLUTION
    return [0, *first, 2, 2, *second, 2]
    ### END SOLUTION


# %% exercise={"name": "pair", "role": "check"}
yours = pair_ids([4, 5], [6])
assert yours.count(0) == 1, "pair: <s> (0) stands once, at the very front; the second text begins with </s>"
assert yours != [0, 4, 5, 2, 6, 2], "pair: one </s> in the middle is BERT's way; XLM-R puts two there"
assert yours[-1] == 2, f"pair: the last id must be 2, </s>; yours ends with {yours[-1]}"
assert yours == LETTERS.encode("a b", "c"), f"pair: expected {LETTERS.encode('a b', 'c')}, yours gives {yours}"
print(yours)

# %% exercise={"name": "pair", "role": "hidden"}
for one, two in (([], [7]), ([8], []), ([665, 193_478], [6, 124_084, 4])):
    one_pair = list(pair_ids(list(one), list(two)))
    wanted_pair = [0, *one, 2, 2, *two, 2]
    assert one_pair == wanted_pair, f"pair: {one} and {two} make {wanted_pair}; yours gives {one_pair}"


# %% exercise={"name": "pair", "role": "mistake", "expect": "one </s> in the middle is BERT's way"}
def pair_ids(first: list[int], second: list[int]) -> list[int]:
    return [0, *first, 2, *second, 2]


# %% exercise={"name": "pair", "role": "mistake", "expect": "<s> (0) stands once"}
def pair_ids(first: list[int], second: list[int]) -> list[int]:
    return [0, *first, 2, 0, *second, 2]


# %% exercise={"name": "pair", "role": "mistake", "expect": "the last id must be 2"}
def pair_ids(first: list[int], second: list[int]) -> list[int]:
    return [0, *first, 2, 2, *second]


# %% [markdown]
# ## Too long
#
# The encoder has places for 512 tokens. Of a single text, the end goes. Of a pair, which half should suffer?
#
# Think of a question in Urdu of eight tokens and a passage of nine hundred. Cutting both alike would hurt the question
# for nothing. So the rule is *longest first*: take a token off the end of the longer text, again and again, until the
# pair fits.

# %% [markdown]
# ### Exercise: cut a pair
#
# `limit` is the length of the finished pair, with its four special tokens. Return both lists, cut. When they are
# equally long, cut either.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The two lists may have `limit - 4` ids between them.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `while len(first) + len(second) > limit - 4:` shorten the longer one by its last id.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Inside the loop: `if len(first) > len(second): first = first[:-1]`, otherwise `second = second[:-1]`.
#
# </details>


# %% exercise={"name": "cut", "role": "answer", "points": 2}
def cut_pair(first: list[int], second: list[int], limit: int) -> tuple[list[int], list[int]]:
    """Shorten the longer list from its end until the pair, with four special tokens, has `limit` tokens."""
    ### BEGIN SOLUTION
    while len(first) + len(second) > limit - 4:
        if len(first) > len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    return first, second
    ### END SOLUTION


# %% exercise={"name": "cut", "role": "check"}
question, passage = [5, 6, 7], list(range(8, 28))
first, second = cut_pair(question, passage, 14)
total = len(first) + len(second) + 4
assert total <= 14, f"cut: your pair has {total} tokens with its special ones, limit 14; leave room for four"
assert first == question, f"cut: the question has 3 ids and the passage 20, but you cut the question to {first}"
assert total == 14, f"cut: your pair has only {total} of 14 tokens; what the short text doesn't need, the long one gets"
assert second[0] == 8, f"cut: you cut the passage at its beginning, it starts with {second[0]}; cut at the end"
expected = LETTERS("b c d", "e f g h i j k l m n o p q r s t u v w x", truncation=True, max_length=14)["input_ids"]
assert [0, *first, 2, 2, *second, 2] == expected[0].tolist(), "cut: the package gives other ids; compare yours by hand"
lengths = [len(part) for part in cut_pair(passage, passage, 12)]
assert lengths == [4, 4], (
    f"cut: of two texts of 20 with limit 12, each keeps 4; yours {lengths}; shorten whichever is longer"
)
print(first, second, lengths)

# %% exercise={"name": "cut", "role": "hidden"}
for one, two, limit, kept in (
    (list(range(40, 60)), [5, 6, 7], 13, (6, 3)),  # the first text can be the long one
    ([5, 6], [7], 20, (2, 1)),  # nothing to cut
    ([5, 6], [7, 8, 9], 9, (2, 3)),  # fits exactly
    (list(range(40, 52)), list(range(60, 70)), 18, (7, 7)),  # both are too long
):
    left, right = cut_pair(list(one), list(two), limit)
    assert (len(left), len(right)) == kept, (
        f"cut: of texts with {len(one)} and {len(two)} ids and limit {limit}, {kept[0]} and {kept[1]} stay; "
        f"yours keeps {len(left)} and {len(right)}"
    )
    assert (list(left), list(right)) == (one[: kept[0]], two[: kept[1]]), (
        f"cut: what stays is the beginning of each text; of {one} and {two} yours keeps {left} and {right}"
    )
odd_pair = cut_pair(list(range(40, 50)), list(range(50, 60)), 11)
assert sorted(map(len, odd_pair)) == [3, 4], (
    f"cut: two texts of 10 ids share 7 places as 3 and 4; yours keeps {[len(part) for part in odd_pair]}"
)


# %% exercise={"name": "cut", "role": "mistake", "expect": "leave room for four"}
def cut_pair(first: list[int], second: list[int], limit: int) -> tuple[list[int], list[int]]:
    while len(first) + len(second) > limit:
        first, second = (first[:-1], second) if len(first) > len(second) else (first, second[:-1])
    return first, second


# %% exercise={"name": "cut", "role": "mistake", "expect": "what the short text doesn't need"}
def cut_pair(first: list[int], second: list[int], limit: int) -> tuple[list[int], list[int]]:
    return first[: (limit - 4) // 2], second[: (limit - 4) // 2]


# %% exercise={"name": "cut", "role": "mistake", "expect": "of two texts of 20 with limit 12"}
def cut_pair(first: list[int], second: list[int], limit: int) -> tuple[list[int], list[int]]:
    return first, second[: max(0, limit - 4 - len(first))]


# %% exercise={"name": "cut", "role": "mistake", "expect": "cut at the end"}
def cut_pair(first: list[int], second: list[int], limit: int) -> tuple[list[int], list[int]]:
    while len(first) + len(second) > limit - 4:
        first, second = (first[1:], second) if len(first) > len(second) else (first, second[1:])
    return first, second


# %% [markdown]
# With the real vocabulary, and rows of different lengths: padding fills them up with 1, and the attention mask says
# which ids are real.

# %%
batch = tokenizer(["مرحبا", "Nani anasoma?"], ["بالعالم", "Wanafunzi wote."], truncation=True, max_length=11)
print(*batch["input_ids"].tolist(), sep="\n")
print(*batch["attention_mask"].tolist(), sep="\n")

# %% [markdown]
# ## `<mask>` and the space on its left
#
# XLM-R learned by filling gaps. A gap is the last entry of all, `<mask>`. Does it matter whether you write a space in
# front of it?

# %%
for text in ("Nairobi ni <mask> ya Kenya.", "Nairobi ni<mask> ya Kenya.", "Nairobi ni <mask>."):
    print(tokenizer.encode(text), tokenizer.tokenize(text))

# %% [markdown]
# The first two are the same. A text is cut at special tokens first. Each part is then normalised on its own: spaces
# at its ends go, and a ▁ is put in front.
#
# Two things follow. You can't ask for the *end* of a word, because `wana<mask>` and `wana <mask>` are one and the
# same. And the full stop after a final gap comes with a lone ▁, as in the third line.

# %% [markdown]
# ## The way back
#
# Ids give tokens, tokens give text. This is what ▁ was for.

# %% [markdown]
# ### Exercise: undo the tokenizer
#
# Turn tokens back into text. `<s>`, `</s>` and `<pad>` are no part of it.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Join the pieces without anything between them. The spaces are in the pieces, written ▁.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The first ▁ was put there by the tokenizer. `removeprefix` takes it away if it is there.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `"".join(token for token in tokens if token not in ("<s>", "</s>", "<pad>"))`, then
# `.removeprefix("▁").replace("▁", " ")`
#
# </details>


# %% exercise={"name": "undo", "role": "answer", "points": 2}
def undo(tokens: list[str]) -> str:
    """The text that some tokens stand for, without `<s>`, `</s>` and `<pad>`."""
    ### BEGIN SOLUTION
    text = "".join(token for token in tokens if token not in ("<s>", "</s>", "<pad>"))
    return text.removeprefix("▁").replace("▁", " ")
    ### END SOLUTION


# %% exercise={"name": "undo", "role": "check"}
text = undo(["<s>", "▁Nina", "kupenda", "▁sana", "!", "</s>", "<pad>"])
assert "<" not in text, f"undo: special tokens are no part of the text; yours is {text!r}"
assert "▁" not in text, f"undo: ▁ stands for a space; yours is {text!r}"
assert text[0] != " ", f"undo: the tokenizer put the first ▁ in front itself; take it away; yours is {text!r}"
assert "sana !" not in text, f"undo: spaces are where ▁ stands, not between all pieces; yours is {text!r}"
assert " " in text, f"undo: the space between the words is gone; ▁ becomes a space, not nothing; yours is {text!r}"
assert text == "Ninakupenda sana!", f"undo: expected 'Ninakupenda sana!', yours is {text!r}"
thai = undo(["▁", "ผม", "รัก", "คุณ"])
assert thai == "ผมรักคุณ", f"undo: a lone ▁ at the front is only the mark; expected 'ผมรักคุณ', yours is {thai!r}"
letters = LETTERS.encode("x y z")
assert undo([LETTERS.tokens[number] for number in letters]) == LETTERS.decode(letters), "undo: the package disagrees"
print(text, thai)

# %% exercise={"name": "undo", "role": "hidden"}
for given, wanted_text in (
    (["<s>", "▁Τι", "▁κάνεις", ";", "</s>", "</s>", "▁Κα", "λά", ".", "</s>", "<pad>", "<pad>"], "Τι κάνεις; Καλά."),
    (["<s>", "▁آپ", "▁کیسے", "▁ہیں", "؟", "</s>"], "آپ کیسے ہیں؟"),
    (["kupenda", "▁sana"], "kupenda sana"),  # it need not begin with ▁
    (["▁a", "▁", "b"], "a b"),
):
    given_text = undo(list(given))
    assert given_text == wanted_text, f"undo: {' '.join(given)} stands for {wanted_text!r}; yours gives {given_text!r}"


# %% exercise={"name": "undo", "role": "mistake", "expect": "not between all pieces"}
def undo(tokens: list[str]) -> str:
    kept = [token for token in tokens if token not in ("<s>", "</s>", "<pad>")]
    return " ".join(kept).replace("▁", "")


# %% exercise={"name": "undo", "role": "mistake", "expect": "take it away"}
def undo(tokens: list[str]) -> str:
    return "".join(token for token in tokens if token not in ("<s>", "</s>", "<pad>")).replace("▁", " ")


# %% exercise={"name": "undo", "role": "mistake", "expect": "the space between the words is gone"}
def undo(tokens: list[str]) -> str:
    return "".join(token for token in tokens if token not in ("<s>", "</s>", "<pad>")).replace("▁", "")


# %% exercise={"name": "undo", "role": "mistake", "expect": "special tokens are no part"}
def undo(tokens: list[str]) -> str:
    return "".join(tokens).replace("▁", " ").removeprefix(" ")


# %% [markdown]
# Does every sentence of the corpus come back? Three answers are possible: as it was written; not as written but as
# *normalised*, the way chapter 1 did it; or not even that.

# %%
fates = Counter()
for code, rows in texts.items():
    for text, row in zip(rows, ids[code], strict=True):
        back, normal = tokenizer.decode(row), tokenizer.model.normalize(text).replace("▁", " ").strip()
        fates["as written" if back == text else "as normalised" if back == normal else "not"] += 1
print(dict(fates), f"sentences with an unknown: {sum(3 in row for rows in ids.values() for row in rows)}")

# %% [markdown]
# Normalisation goes one way only. The no-break spaces of French become plain ones, the Chinese comma `，` becomes `,`,
# and the Thai vowel `ำ` becomes two characters that look the same.
#
# Five sentences lose something for good, and five hold an unknown. Which characters did 250,000 pieces leave out?

# %%
for code, rows in texts.items():
    for text in [text for text, row in zip(rows, ids[code], strict=True) if 3 in row]:
        print(code, *[token for token in tokenizer.tokenize(text) if token not in tokenizer.ids])

# %% [markdown]
# All are Chinese and rare. They stand in the names of a bird, of the Visayas and of a tamarisk, in a farewell and a
# pair of tweezers.

# %% [markdown]
# ## The package's version
#
# Here are the parts you wrote, in the package's own words.

# %%
show_source(XLMRTokenizer._numbers, XLMRTokenizer._assemble, XLMRTokenizer.decode)

# %% [markdown]
# ## Saving, and loading in transformers
#
# A saved vocabulary is two files. The library *transformers* reads them, and so does SentencePiece.

# %%
folder = Path(tempfile.mkdtemp())
tokenizer.save_pretrained(folder)
print(sorted(file.name for file in folder.iterdir()))

# %%
from transformers import AutoTokenizer

automatic = AutoTokenizer.from_pretrained(folder)
print(type(automatic).__name__, len(automatic), automatic("नमस्ते दुनिया")["input_ids"])

# %% [markdown]
# And back: transformers saves a `tokenizer.json`, which the package reads too.

# %%
automatic.save_pretrained(folder / "theirs")
again = XLMRTokenizer.from_pretrained(folder / "theirs")
print(again.tokens == tokenizer.tokens, again.encode("नमस्ते दुनिया"))

# %% [markdown]
# ## Slow and fast
#
# transformers used to have two tokenizers for XLM-R. The *slow* one called SentencePiece. The *fast* one was written
# anew in Rust, in the library *tokenizers*. Version 5 keeps only the second. Is it the same?

# %%
differ = 0
for code, rows in texts.items():
    differ += sum(a != b for a, b in zip(automatic(rows)["input_ids"], ids[code], strict=True))
print(f"{sum(map(len, texts.values())):,} sentences, {differ} differences")

# %% [markdown]
# On ordinary text, yes. On less ordinary text, no. Below, `ja` is Japanese in half-width katakana, a narrow
# set of letters. `yo` is a Yoruba vowel with two marks, typed in the less usual order. The last row is no language.

# %%
odd = [("ja", "ｽﾅｯﾌﾟﾘﾝｸﾞ"), ("yo", "e\u0301\u0323"), ("zxx", "isggg")]
ours, theirs = ([" ".join(tool.tokenize(text)) for _, text in odd] for tool in (tokenizer, automatic))
rows = [(*row, a, b) for row, a, b in zip(odd, ours, theirs, strict=True)]
plots.show_sentences(rows, header=("", "text", "SentencePiece and the package", "transformers 5"))

# %% [markdown]
# Each row has its own cause:
#
# - **Katakana.** `ﾌ` and `ﾟ` are two characters that should become one, `プ`. SentencePiece takes the longest
#   normalisation rule that fits. *tokenizers* goes by what the eye sees as one sign, then by single characters, and
#   leaves the mark on its own.
# - **Stacked marks.** The same cause, and here something disappears: count the characters below.
# - **Ties.** `gg g` and `g gg` have the same product. Which wins depends on rounding: SentencePiece adds in single
#   precision, *tokenizers* in double.

# %%
for name, tool in (("package", tokenizer), ("transformers", automatic)):
    characters = "".join(tool.tokenize("e\u0301\u0323"))
    print(f"{name:12}", [f"U+{ord(character):04X}" for character in characters])

# %% [markdown]
# transformers dropped U+0323, the dot below, and the vowel became another.

# %% [markdown]
# Does it matter? If you fine-tune and predict with the same tokenizer, hardly. If you compare numbers to the last
# digit with someone else's, find out first which one they used.

# %% [markdown]
# ## What you saw
#
# - XLM-R's vocabulary is a Unigram table of 249,997 pieces and five special entries. It has pieces for many scripts,
#   very unequally, and no bytes to fall back on.
# - The same sentence costs up to half as much again as in English. Price and context follow, and attention by the
#   square.
# - Ids are SentencePiece's plus one, and an unknown is 3. An error here is silent.
# - A pair is `<s> A </s></s> B </s>`; the longer half is cut first; `<mask>` takes the space on its left.
# - Our ids equal SentencePiece's on all 10,500 sentences. So do those of transformers, but for rare kinds of text.
#
# Next, these ids become vectors, and the vectors look at each other: attention.
#
# ## Further reading
#
# - Conneau et al. (2020), *Unsupervised Cross-lingual Representation Learning at Scale*, arXiv 1911.02116.
# - Rust et al. (2021), *How Good is Your Tokenizer?*, arXiv 2012.15613: what a vocabulary does to a language.
# - Petrov et al. (2023), *Language Model Tokenizers Introduce Unfairness Between Languages*, arXiv 2305.15425.
#
# Go on with `04_attention`.
