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
# # 01 · Text in a hundred languages
#
# **You will build** the tools that look at text before any model does: bytes, normal forms, scripts. Then you build
# the rule by which XLM-R chose how much of each of its hundred languages to read.
#
# *Needs:* {{needs}}. *Download:* none.

# %% [markdown]
# Two people type the same name into a form. Do you see a difference? Will a search for the one find the other?

# %% tags=["setup"]
import unicodedata
from collections import Counter

import regex

from xlmr_course import corpus, plots
from xlmr_course.classroom import show_source
from xlmr_course.sentencepiece_file import Normalizer

# %%
first, second = "José", "Jose\u0301"
print(first, second, first == second, len(first), len(second))

# %% [markdown]
# The second one has five code points: after the *e* comes an accent of its own, which the screen puts on top. No
# reader can tell. A program that compares code points can't do otherwise.
#
# A model is such a program. Whatever it should take for the same must be made the same before it reads.

# %% [markdown]
# ## Three ways to count
#
# There are three answers to "how long is this word?":
#
# - what **the eye** sees, in Unicode's words *grapheme clusters*,
# - **code points**, the numbers that Unicode gives to letters, signs and accents,
# - **bytes**, what lies in the file.
#
# For *hello* all three are 5. And for these? (The last row is no language, which is coded `zxx`.)

# %%
words = {"es": "José", "ar": "عَرَبِيّ", "hi": "किताब", "th": "พื้นที่", "zh": "书", "zxx": "👩🏽‍🚀"}
rows = [
    (code, word, str(len(regex.findall(r"\X", word))), str(len(word)), str(len(word.encode("utf-8"))))
    for code, word in words.items()
]
plots.show_sentences(rows, header=("", "text", "the eye", "code points", "bytes"))

# %% [markdown]
# The Hindi word is *kitāb*, book. You see three things. What are the five code points?

# %%
for character in words["hi"]:
    print(f"U+{ord(character):04X}  {unicodedata.name(character)}")

# %% [markdown]
# Three letters and two vowel signs. The sign for *i* comes second here and is drawn first, left of its letter: Hindi's
# code points follow the sound, not the picture.
#
# The astronaut is four: a woman, a skin tone, a joiner that nobody sees, and a rocket. In Thai, a vowel and a tone
# mark can both stand above one consonant. In Arabic, the short vowels are marks, and mostly left out.

# %% [markdown]
# What the eye takes for one thing is partly a habit. In नमस्ते, some count स्ते as one, others स् and ते as two.
# Code points leave no doubt. So it is code points that XLM-R's pieces are made of.

# %% [markdown]
# ## And bytes?
#
# A code point is a number up to 1,114,111. A file has bytes. UTF-8 writes small numbers in one byte and large ones in
# up to four. Each byte begins with a few bits that say where in the row it stands. The `x` are left for the number:
#
# | bytes | bits | room for | reaches | whose letters |
# |---|---|---|---|---|
# | 1 | `0xxxxxxx` | 7 bits | U+007F | English, Swahili, digits |
# | 2 | `110xxxxx 10xxxxxx` | 11 bits | U+07FF | é, Greek, Cyrillic, Arabic |
# | 3 | `1110xxxx 10xxxxxx 10xxxxxx` | 16 bits | U+FFFF | Devanagari, Thai, Chinese |
# | 4 | `11110xxx 10xxxxxx 10xxxxxx 10xxxxxx` | 21 bits | the end | emoji, rare Chinese |

# %% [markdown]
# ### Exercise: bytes of a code point
#
# Given the number of a code point, how many bytes does UTF-8 use for it?

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The third column says it: what has more than 7 bits needs two bytes, more than 11 needs three, more than 16 four.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The largest number in 7 bits is 127, or `0x7F`. So `0x80` is the first that needs two bytes.
#
# </details>
# <details><summary>Hint 3</summary>
#
# In Python, `True` counts as 1: `1 + (code_point > 0x7F) + ...`
#
# </details>


# %% exercise={"name": "utf8-length", "role": "answer", "points": 1}
def utf8_length(code_point: int) -> int:
    """How many bytes UTF-8 uses for a code point."""
    ### BEGIN SOLUTION
    return 1 + (code_point > 0x7F) + (code_point > 0x7FF) + (code_point > 0xFFFF)
    ### END SOLUTION


# %% exercise={"name": "utf8-length", "role": "check"}
sizes = [utf8_length(number) for number in (0x41, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000)]
assert sizes != [1, 1, 1, 2, 2, 2, 3], "utf8-length: whole bytes of 8 bits; each byte spends some bits on its place"
assert sizes != [1, 1, 1, 2, 2, 3, 3], "utf8-length: off by one at the borders; U+0080 already needs two bytes"
assert sizes != [1, 1, 2, 2, 3, 3, 3], "utf8-length: an emoji gets 3; above U+FFFF there is a fourth byte"
assert sizes == [1, 1, 2, 2, 3, 3, 4], (
    f"utf8-length: expected [1, 1, 2, 2, 3, 3, 4] at the borders; yours gives {sizes}"
)
print(sizes)

# %% exercise={"name": "utf8-length", "role": "hidden"}
numbers_tried = [*range(0x20, 0x900, 7), 0x928, 0xE01, 0xD7FF, 0xE000, 0x1F680, 0x10FFFF]
for tried in numbers_tried:
    right = len(chr(tried).encode("utf-8"))
    assert utf8_length(tried) == right, (
        f"utf8-length: U+{tried:04X} has {right} bytes, yours gives {utf8_length(tried)}; every number counts, not "
        "the borders alone"
    )


# %% exercise={"name": "utf8-length", "role": "mistake", "expect": "each byte spends some bits"}
def utf8_length(code_point: int) -> int:
    return (code_point.bit_length() + 7) // 8


# %% exercise={"name": "utf8-length", "role": "mistake", "expect": "off by one at the borders"}
def utf8_length(code_point: int) -> int:
    return 1 + (code_point > 0x80) + (code_point > 0x800) + (code_point > 0x10000)


# %% exercise={"name": "utf8-length", "role": "mistake", "expect": "there is a fourth byte"}
def utf8_length(code_point: int) -> int:
    return 1 if code_point < 0x80 else 2 if code_point < 0x800 else 3


# %% [markdown]
# ## Who pays?
#
# The classroom corpus says the same 700 things in each language. Count its code points and its bytes.

# %%
texts = {code: list(corpus.load(code)["text"]) for code in corpus.LANGUAGES}
points = {code: len("".join(texts[code])) / 700 for code in texts}
octets = {code: len("".join(texts[code]).encode("utf-8")) / 700 for code in texts}

# %% [markdown]
# Before you look: which language takes the most bytes? And which has the longest way from blue to orange?

# %%
order = sorted(texts, key=octets.get)
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 4.4))
    axes.hlines(order, [points[code] for code in order], [octets[code] for code in order], color=plots.QUIET)
    axes.plot([points[code] for code in order], order, "o", color=plots.BLUE, label="code points")
    axes.plot([octets[code] for code in order], order, "o", color=plots.ORANGE, label="bytes")
    axes.set(xlabel="a sentence, on average", xlim=(0, None))
    axes.legend()
plots.show(figure, alt="Code points and bytes a sentence, 15 languages: Hindi and Thai have by far the most bytes.")

# %% [markdown]
# The languages that need most bytes are not those that say most. Divide the one by the other: how many bytes is a code
# point, on average?

# %%
print({code: round(octets[code] / points[code], 2) for code in ("sw", "vi", "el", "ar", "hi", "th", "zh")})

# %% [markdown]
# A model that reads bytes would take almost three steps for each Thai letter, where it takes one for a Swahili letter.
# XLM-R doesn't read bytes. The price is another: a letter that is not in its vocabulary can't be spelt in bytes
# either. It becomes `<unk>`, unknown.

# %% [markdown]
# ## One text, one spelling
#
# Back to José. Unicode defines **normal forms**, so that equal texts get equal code points:
#
# - **NFC** puts letter and accent together where there is a code point for both,
# - **NFD** takes them apart,
# - **NFKC** is NFC, and also replaces what it holds for the same letter in another dress.
#
# What counts as another dress? Here are an accented letter, a Korean syllable, half-width katakana, a ligature, an
# Arabic letter pair drawn as one, a Hindi letter with a dot, and a square metre.

# %%
cases = {"es": "é", "ko": "한", "ja": "ｸﾞ", "de": "ﬁ", "ar": "ﻻ", "hi": "\u0958", "zxx": "m²"}


def numbers(text: str) -> str:
    """The code points of a text in hexadecimal."""
    return " ".join(f"{ord(character):04X}" for character in text)


# %% [markdown]
# Four hexadecimal digits are one code point. Where does a form make two of one, or one of two?

# %%
rows = [
    (code, text, *[numbers(unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC")])
    for code, text in cases.items()
]
plots.show_sentences(rows, header=("", "text", "NFC", "NFD", "NFKC"))

# %% [markdown]
# Go through the table slowly. It holds three surprises:
#
# - The Hindi letter comes *apart* under NFC. Unicode decided that it is written as two, always.
# - NFKC makes the ligature *f* and *i*, and the katakana and its voicing mark one full-width letter. NFC and NFD leave
#   both alone.
# - NFKC makes *m²* into *m2*. That loses something, and no way leads back.

# %% [markdown]
# ### Exercise: the same to a reader
#
# Two strings are the same to a reader if only their spelling in code points differs, ligatures and widths included.
# Upper and lower case stay different, and so do letters with and without an accent.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which of the three forms joins *ﬁ* and *fi*?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Either string may be the odd one. Normalise both.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `unicodedata.normalize("NFKC", a) == unicodedata.normalize("NFKC", b)`
#
# </details>


# %% exercise={"name": "same", "role": "answer", "points": 1}
def same(a: str, b: str) -> bool:
    """Whether two strings read the same, whatever their code points."""
    ### BEGIN SOLUTION
    return unicodedata.normalize("NFKC", a) == unicodedata.normalize("NFKC", b)
    ### END SOLUTION


# %% exercise={"name": "same", "role": "check"}
pairs = [("José", "Jose\u0301"), ("ﬁn", "fin"), ("グ", "ｸﾞ"), ("Rosa", "rosa"), ("piñata", "pinata")]
answers = [bool(same(a, b)) for a, b in pairs]
assert answers != [False] * 5, "same: no pair is the same for you; normalise the strings before you compare"
assert answers[3:] == [False, False], "same: Rosa is not rosa, piñata is not pinata; change neither case nor accents"
assert answers[:3] != [True, False, False], "same: NFC and NFD keep ligatures and half-width letters; use NFKC"
assert sum(answers) == 3, f"same: only one of the two strings was normalised, it seems; yours gives {answers}"
print(answers)

# %% exercise={"name": "same", "role": "hidden"}
alike = [("한국", unicodedata.normalize("NFD", "한국")), ("ﻻ", "لا"), ("m²", "m2"), ("ﾃﾚﾋﾞ", "テレビ")]
apart = [("Α", "A"), ("straße", "strasse"), ("ñ", "n"), ("कि", "की"), ("İ", "i")]
for one, two in alike + [(two, one) for one, two in alike]:
    assert same(one, two), f"same: {one!a} and {two!a} have the same NFKC; yours tells them apart"
for one, two in apart:
    assert not same(one, two), f"same: {one!a} and {two!a} differ in NFKC too; yours takes them for the same"


# %% exercise={"name": "same", "role": "mistake", "expect": "normalise the strings before"}
def same(a: str, b: str) -> bool:
    return a == b


# %% exercise={"name": "same", "role": "mistake", "expect": "use NFKC"}
def same(a: str, b: str) -> bool:
    return unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)


# %% exercise={"name": "same", "role": "mistake", "expect": "only one of the two"}
def same(a: str, b: str) -> bool:
    return unicodedata.normalize("NFKC", a) == b


# %% exercise={"name": "same", "role": "mistake", "expect": "change neither case nor accents"}
def same(a: str, b: str) -> bool:
    return unicodedata.normalize("NFKC", a).casefold() == unicodedata.normalize("NFKC", b).casefold()


# %% exercise={"name": "same", "role": "mistake", "expect": "change neither case nor accents"}
def same(a: str, b: str) -> bool:
    def bare(text: str) -> str:
        return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))

    return bare(a) == bare(b)


# %% [markdown]
# ## What XLM-R does: `nmt_nfkc`
#
# SentencePiece, the library behind XLM-R's vocabulary, has its own rules, called `nmt_nfkc`. They are NFKC and a bit
# more. What is the bit? The `!a` in the last line makes visible what the screen hides.

# %%
normalize = Normalizer()
odd = {
    "spaces": "  a  b ", "line break": "a\nb", "control character": "a\x07b", "zero-width space": "a\u200bb",
    "zero-width non-joiner": "a\u200cb", "zero-width joiner": "a\u200db", "full-width tilde": "a\uff5eb",
}  # fmt: skip
for name, text in odd.items():
    nfkc = unicodedata.normalize("NFKC", text)
    print(f"{name:22} NFKC {nfkc!a:14} nmt_nfkc {normalize(text)!a}")

# %% [markdown]
# U+2581 is the sign ▁. SentencePiece writes it for a space, and puts one in front of the text. Spaces in a row become
# one, spaces at the end go. Line breaks and some invisible characters turn into spaces, control characters vanish. The
# full-width tilde, which NFKC would change, stays.

# %% [markdown]
# Such rules are decisions, and somebody bears them. Persian writes *mī-khāham*, I want, as one word with a
# non-joiner in it, so that the two parts don't flow into each other. What does XLM-R get to read?

# %%
plots.show_sentences([("fa", "می\u200cخواهم", normalize("می\u200cخواهم"))], header=("", "written", "read"))

# %% [markdown]
# Two words. Most of the time that does little harm. But you should know it before you compare the model's output with
# your text, letter by letter.
#
# How often do the rules touch the classroom corpus, beyond its spaces? And which character is it, mostly?

# %%
for code in texts:
    touched = sum(normalize(text) != "▁" + text.replace(" ", "▁") for text in texts[code])
    found = Counter(c for c in "".join(texts[code]) if unicodedata.normalize("NFKC", c) != c)
    if touched:
        print(f"{code}  {touched:3} of 700 sentences, mostly {unicodedata.name(found.most_common(1)[0][0])}")

# %% [markdown]
# Almost every Chinese sentence, because its comma is a wide one: XLM-R reads `,` for `，`. Many Thai ones, because
# NFKC takes the vowel *am* apart. Many French ones, because French sets a space before `?` and inside « », and it is
# one at which no line may break.

# %% [markdown]
# ## Scripts
#
# Normal forms join what is the same letter. They do not join what only looks the same. One of these is Greek and one
# is Russian:

# %%
for character in "AΑА":
    print(f"U+{ord(unicodedata.normalize('NFKC', character)):04X}  {unicodedata.name(character)}")

# %% [markdown]
# Three letters in three scripts, and they stay three under NFKC. Nor is a script a language: Swahili, Turkish and
# Vietnamese share Latin, Arabic and Urdu share Arabic.
#
# Unicode gives each code point its script. Digits, spaces and most punctuation serve many scripts, so they belong to
# none.

# %% tags=["setup"]
SCRIPTS = (
    *("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Armenian", "Georgian", "Ethiopic", "Devanagari", "Bengali"),
    *("Gujarati", "Gurmukhi", "Tamil", "Telugu", "Kannada", "Malayalam", "Oriya", "Sinhala", "Thai", "Lao", "Khmer"),
    *("Myanmar", "Hangul", "Han", "Hiragana", "Katakana"),
)
PATTERN = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))


def script(character: str) -> str:
    """The script that a character belongs to, or "none"."""
    found = PATTERN.match(character)
    return found.lastgroup if found else "none"


# %%
print([script(character) for character in "wшωوह文, 7"])

# %% [markdown]
# ### Exercise: the share of a script
#
# A sentence may mix scripts: `XLM-R 模型`. Of those characters that have a script, what share is in each?

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Take the script of each character first, and leave out every `"none"`.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `Counter` counts the items of a list. Its `.total()` is their number.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `counts = Counter(name for name in map(script, text) if name != "none")`; then divide each by `counts.total()`.
#
# </details>


# %% exercise={"name": "script-shares", "role": "answer", "points": 2}
def script_shares(text: str) -> dict[str, float]:
    """Script → its share of the characters that have a script."""
    ### BEGIN SOLUTION
    counts = Counter(name for name in map(script, text) if name != "none")
    return {name: count / counts.total() for name, count in counts.items()}
    ### END SOLUTION


# %% exercise={"name": "script-shares", "role": "check"}
shares = {name: round(share, 3) for name, share in script_shares("XLM-R 模型").items()}
assert "none" not in shares, "script-shares: 'none' is no script; leave out hyphens, spaces and digits"
assert shares != {"Latin": 4, "Han": 2}, "script-shares: these are counts; divide each by their sum"
assert shares != {"Latin": 0.5, "Han": 0.25}, "script-shares: you divide by all 8 characters; 6 have a script"
assert shares == {"Latin": 0.667, "Han": 0.333}, f"script-shares: 4 of 6 are Latin, 2 are Han; yours gives {shares}"
assert script_shares("2026!") == {}, "script-shares: a text without any script gives an empty dictionary"
print(shares)

# %% exercise={"name": "script-shares", "role": "hidden"}
mixed_shares = {name: round(share, 3) for name, share in script_shares("नमस्ते, hello 👋 你好世").items()}
assert mixed_shares == {"Devanagari": 0.429, "Latin": 0.357, "Han": 0.214}, (
    f"script-shares: of 14 characters with a script, 6 are Devanagari (its signs count), 5 Latin, 3 Han; "
    f"yours gives {mixed_shares}"
)
assert script_shares("ไทย") == {"Thai": 1}, f"script-shares: ไทย is all Thai; yours gives {script_shares('ไทย')}"
assert script_shares("") == {}, "script-shares: an empty text gives an empty dictionary"


# %% exercise={"name": "script-shares", "role": "mistake", "expect": "'none' is no script"}
def script_shares(text: str) -> dict[str, float]:
    counts = Counter(map(script, text))
    return {name: count / counts.total() for name, count in counts.items()}


# %% exercise={"name": "script-shares", "role": "mistake", "expect": "you divide by all 8 characters"}
def script_shares(text: str) -> dict[str, float]:
    counts = Counter(name for name in map(script, text) if name != "none")
    return {name: count / len(text) for name, count in counts.items()}


# %% exercise={"name": "script-shares", "role": "mistake", "expect": "these are counts"}
def script_shares(text: str) -> dict[str, float]:
    return dict(Counter(name for name in map(script, text) if name != "none"))


# %% [markdown]
# How many scripts do the fifteen languages use? Guess, then count.

# %%
used = {name: Counter() for name in SCRIPTS}
for code in texts:
    for character, count in Counter("".join(texts[code])).items():
        if (name := script(character)) != "none":
            used[name][code] += count
used = {name: counts for name, counts in used.items() if counts}

# %% [markdown]
# That is a count for each script and language. Sorted, with the languages that are at home in each:

# %%
for name, counts in sorted(used.items(), key=lambda item: -item[1].total()):
    home = [code for code, count in counts.items() if count > 700]  # more than one a sentence
    print(f"{name:10} {counts.total():7,}  {' '.join(home)}")

# %% [markdown]
# Seven. And there are strays, too few to be named: Roman numerals in Bulgarian, an α in Chinese. Over a hundred
# languages, XLM-R met many more scripts than these, all through one vocabulary.

# %% [markdown]
# ## What is a word?
#
# "What stands between two spaces" is a good answer in Swahili. Here is one sentence in four languages, and the number
# of words that Python's `split` finds.

# %%
row = corpus.load("en")["id"].index("travel-011")
rows = [(code, texts[code][row], str(len(texts[code][row].split()))) for code in ("sw", "vi", "th", "zh")]
plots.show_sentences(rows, header=("", "text", "words?"))

# %% [markdown]
# The Chinese sentence is not one word, nor is the Thai one. Neither script puts spaces between words; where Thai has
# one, it marks a pause. And Vietnamese puts a space after each *syllable*, so it seems to have too many words.
#
# Is that sentence an exception? Here is the mean over all 700.

# %%
split = {code: sum(len(text.split()) for text in texts[code]) / 700 for code in texts}
order = sorted(split, key=split.get, reverse=True)
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 2.8))
    bars = axes.bar(order, [split[code] for code in order], color=plots.BLUE)
    axes.bar_label(bars, fmt="%.1f", fontsize=8.5)
    axes.set_ylabel("“words” a sentence")
plots.show(figure, alt="Bars: words a sentence by spaces. Vietnamese has most; Thai has under 4, Chinese 1.")

# %% [markdown]
# Even among languages with spaces the numbers differ, for the same content. Turkish says "from your houses" in one
# word, *evlerinizden*: house-s-your-from.
#
# So a tokenizer that takes words from the spaces has a different task in each language, and in Chinese one that it
# can't do. XLM-R's looks for pieces inside any stretch of text, however long. Chapter 2 builds it.

# %% [markdown]
# ## A hundred languages, and how much of each
#
# XLM-R was trained on CC-100: web pages in a hundred languages. Here are the sizes in GiB, from Table 6 of the paper
# (Conneau et al. 2020). Burmese stands there twice, because a part of it is in Zawgyi, another encoding. A name with
# `_rom` is a language written in Latin letters.

# %% tags=["setup"]
GIB = {
    "af": 1.3, "am": 0.8, "ar": 28.0, "as": 0.1, "az": 6.5, "be": 4.3, "bg": 57.5, "bn": 8.4, "bn_rom": 0.5,
    "br": 0.1, "bs": 0.1, "ca": 10.1, "cs": 16.3, "cy": 0.8, "da": 45.6, "de": 66.6, "el": 46.9, "en": 300.8,
    "eo": 0.9, "es": 53.3, "et": 6.1, "eu": 2.0, "fa": 111.6, "fi": 54.3, "fr": 56.8, "fy": 0.2, "ga": 0.5,
    "gd": 0.1, "gl": 2.9, "gu": 1.9, "ha": 0.3, "he": 31.6, "hi": 20.2, "hi_rom": 0.5, "hr": 20.5, "hu": 58.4,
    "hy": 5.5, "id": 148.3, "is": 3.2, "it": 30.2, "ja": 69.3, "jv": 0.2, "ka": 9.1, "kk": 6.4, "km": 1.5,
    "kn": 3.3, "ko": 54.2, "ku": 0.4, "ky": 1.2, "la": 2.5, "lo": 0.6, "lt": 13.7, "lv": 8.8, "mg": 0.2,
    "mk": 4.8, "ml": 7.6, "mn": 3.0, "mr": 2.8, "ms": 8.5, "my": 0.4, "my'": 1.6, "ne": 3.8, "nl": 29.3,
    "no": 49.0, "om": 0.1, "or": 0.6, "pa": 0.8, "pl": 44.6, "ps": 0.7, "pt": 49.1, "ro": 61.4, "ru": 278.0,
    "sa": 0.3, "sd": 0.4, "si": 3.6, "sk": 23.2, "sl": 10.3, "so": 0.4, "sq": 5.4, "sr": 9.1, "su": 0.1,
    "sv": 12.1, "sw": 1.6, "ta": 12.2, "ta_rom": 0.3, "te": 4.7, "te_rom": 0.3, "th": 71.7, "tl": 3.1,
    "tr": 20.9, "ug": 0.4, "uk": 84.6, "ur": 5.7, "ur_rom": 0.5, "uz": 0.7, "vi": 137.3, "xh": 0.1, "yi": 0.3,
    "zh-Hans": 46.9, "zh-Hant": 16.6,
}  # fmt: skip

# %%
ranked = sorted(GIB, key=GIB.get, reverse=True)
classroom = {*corpus.LANGUAGES, "zh-Hans", "zh-Hant"}
with plots.style():
    figure, columns = plots.plt.subplots(1, 2, figsize=(8, 8.6), sharex=True)
    for axes, codes in zip(columns, (ranked[:50], ranked[50:]), strict=True):
        colours = [plots.ORANGE if code in classroom else plots.BLUE for code in codes]
        axes.barh(codes, [GIB[code] for code in codes], color=colours)
        axes.set(xscale="log", xlabel="GiB", ylim=(49.6, -0.6), xlim=(0.05, 500))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="y", labelsize=8.5, length=0)
    columns[1].legend(handles=[plots.mpl.patches.Patch(color=plots.ORANGE, label="in the classroom corpus")])
    figure.tight_layout()
plots.show(figure, alt="Bars, logarithmic: GiB of CC-100 in 100 languages, from English 300.8 to 0.1; Swahili has 1.6.")

# %% [markdown]
# Mind the scale: each step to the right is ten times as much. How many times more English than Swahili is there? And
# what do the ten largest hold together?

# %%
total = sum(GIB.values())
print(f"{len(GIB)} entries, {total:,.1f} GiB; English is {GIB['en'] / GIB['sw']:.0f} times Swahili")
print(f"the ten largest hold {sum(GIB[code] for code in ranked[:10]) / total:.3f} of it")
print(f"below 1 GiB: {sum(size < 1 for size in GIB.values())} entries")

# %% [markdown]
# Remember the bytes when you read such a table. Thai has more GiB than German, 71.7 against 66.6. But a Thai letter
# takes three bytes: the paper counts 1,834 million tokens of Thai and 10,297 million of German.

# %% [markdown]
# ## Which language next?
#
# Training draws a language, then a text in it. If every text has the same chance, Swahili comes up as often as its
# share of the data. The picture shows that as α = 1. The other two curves give more to the small ones. What do the
# large ones pay?

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 3.6))
    for alpha, colour in zip((1, 0.7, 0.3), (plots.BLUE, plots.GREEN, plots.ORANGE), strict=True):
        chance = corpus.sampling_probabilities(GIB, alpha)
        axes.semilogy([100 * chance[code] for code in ranked], color=colour, label=f"α = {alpha}")
    marks = ["en", "fr", "hi", "ur", "sw", "so"]
    axes.set_xticks([ranked.index(code) for code in marks], marks)
    axes.set(xlabel="languages, from large to small", ylabel="% of the draws")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
plots.show(figure, alt="Share of the draws, languages by size: three falling curves, flatter the smaller α is.")

# %% [markdown]
# With α = 0.3, English comes up a quarter as often as before, and still more often than any other. The order stays;
# the distances shrink.
#
# The rule: let $p_i$ be the share of language $i$ in the data. Raise it to the power α, then scale so that all add up
# to 1:
#
# $$q_i = \frac{p_i^{\alpha}}{\sum_j p_j^{\alpha}}$$

# %% [markdown]
# ### Exercise: sampling probabilities
#
# From sizes to $q$. The paper doesn't print its $q$. The numbers below were worked out apart from this chapter, from
# the same GiB; your function has to meet each of their digits.

# %% tags=["setup"]
TABLE = {  # α → language → % of the draws
    1: {"en": "12.56", "ru": "11.61", "fr": "2.37", "hi": "0.84", "sw": "0.067", "ur": "0.238"},
    0.7: {"en": "7.69", "sw": "0.197", "ur": "0.479"},
    0.3: {"en": "2.96", "ru": "2.89", "fr": "1.79", "hi": "1.32", "sw": "0.615", "ur": "0.900"},
}

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two steps: a weight for each language, then each weight over the sum of the weights.
#
# </details>
# <details><summary>Hint 2</summary>
#
# `size ** alpha` will do for a weight. Dividing all sizes by the same total first changes nothing in the end.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `weights = {code: size**alpha for code, size in sizes.items()}`; then
# `{code: weight / sum(weights.values()) for code, weight in weights.items()}`
#
# </details>


# %% exercise={"name": "sampling", "role": "answer", "points": 2}
def sampling(sizes: dict[str, float], alpha: float) -> dict[str, float]:
    """The probability of drawing each language: q_i ∝ p_i^α."""
    ### BEGIN SOLUTION
    weights = {code: size**alpha for code, size in sizes.items()}
    scale = sum(weights.values())
    return {code: weight / scale for code, weight in weights.items()}
    ### END SOLUTION


# %% exercise={"name": "sampling", "role": "check"}
q = [round(chance, 3) for chance in sampling({"en": 81, "hi": 16, "sw": 1}, 0.5).values()]
assert abs(sum(q) - 1) < 0.01, (
    f"sampling: {q} add up to {sum(q):.3f}; divide by the sum of the powers, as the last step"
)
assert q != [0.827, 0.163, 0.01], "sampling: α changes nothing in yours; a factor cancels out, make it the exponent"
assert q != [0.962, 0.038, 0.0], "sampling: the small languages got less; the exponent is α, not 1/α"
assert q == [0.643, 0.286, 0.071], f"sampling: roots 9, 4, 1 over 14 make [0.643, 0.286, 0.071]; yours gives {q}"
for alpha, row in TABLE.items():
    theirs, yours = corpus.sampling_probabilities(GIB, alpha), sampling(GIB, alpha)
    for code, digits in row.items():
        printed = f"{100 * yours[code]:.{len(digits.partition('.')[2])}f}"
        assert printed == digits, f"sampling: {code} at α = {alpha} is {digits} % in the table; yours gives {printed}"
    assert all(abs(yours[code] - theirs[code]) < 1e-12 for code in GIB), "sampling: differs from the package's version"
print(q, sum(map(len, TABLE.values())))

# %% exercise={"name": "sampling", "role": "hidden"}
other_q = [round(chance, 3) for chance in sampling({"el": 27, "th": 8, "ur": 1}, 1 / 3).values()]
assert other_q == [0.5, 0.333, 0.167], (
    f"sampling: cube roots 3, 2, 1 over 6 make [0.5, 0.333, 0.167] at α = 1/3; yours gives {other_q}"
)
all_alike = [round(chance, 3) for chance in sampling({"el": 27, "th": 8, "ur": 1, "yo": 0.5}, 0).values()]
assert all_alike == [0.25] * 4, f"sampling: at α = 0 four languages get 0.25 each; yours gives {all_alike}"


# %% exercise={"name": "sampling", "role": "mistake", "expect": "as the last step"}
def sampling(sizes: dict[str, float], alpha: float) -> dict[str, float]:
    total = sum(sizes.values())
    return {code: (size / total) ** alpha for code, size in sizes.items()}


# %% exercise={"name": "sampling", "role": "mistake", "expect": "a factor cancels out"}
def sampling(sizes: dict[str, float], alpha: float) -> dict[str, float]:
    weights = {code: alpha * size for code, size in sizes.items()}
    return {code: weight / sum(weights.values()) for code, weight in weights.items()}


# %% exercise={"name": "sampling", "role": "mistake", "expect": "not 1/α"}
def sampling(sizes: dict[str, float], alpha: float) -> dict[str, float]:
    weights = {code: size ** (1 / alpha) for code, size in sizes.items()}
    return {code: weight / sum(weights.values()) for code, weight in weights.items()}


# %% [markdown]
# Side by side: the package's numbers in %, in the digits of the table.

# %%
for alpha, row in TABLE.items():
    chance = corpus.sampling_probabilities(GIB, alpha)
    ours = {code: f"{100 * chance[code]:.{len(digits.partition('.')[2])}f}" for code, digits in row.items()}
    print(f"α = {alpha:<3} {' '.join(f'{code} {share}' for code, share in ours.items())}   equal: {ours == row}")

# %% [markdown]
# ## What does Swahili gain?
#
# How many times as often as with α = 1 does each language come up? What is below 1 has lost.

# %%
even, flat = corpus.sampling_probabilities(GIB, 1), corpus.sampling_probabilities(GIB, 0.3)
print({code: round(flat[code] / even[code], 2) for code in ("en", "ru", "fr", "hi", "ur", "sw")})
for chance in (even, flat):
    print(f"English is drawn {chance['en'] / chance['sw']:.1f} times as often as Swahili")

# %% [markdown]
# With α = 0.3, Swahili is drawn about nine times as often as its share. But there is no more Swahili than before: the
# same 1.6 GiB, again and again. Of English, meanwhile, most is left unread.

# %% [markdown]
# ### Exercise: how often is each text read?
#
# Say training draws `budget` GiB in all, spread over the languages by $q$. How many times does it go through the text
# of each language? 1 is once through, 0.5 is half of it. Use `corpus.sampling_probabilities`.

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First: how many GiB are drawn in Swahili? It is a share of the budget.
#
# </details>
# <details><summary>Hint 2</summary>
#
# If 15 GiB are drawn, and there are 1.5, then each text is read ten times.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `budget * q[code] / size` for each language.
#
# </details>


# %% exercise={"name": "passes", "role": "answer", "points": 2}
def passes(sizes: dict[str, float], alpha: float, budget: float) -> dict[str, float]:
    """How many times the text of each language is read when `budget` GiB are drawn in all."""
    ### BEGIN SOLUTION
    q = corpus.sampling_probabilities(sizes, alpha)
    return {code: budget * q[code] / size for code, size in sizes.items()}
    ### END SOLUTION


# %% exercise={"name": "passes", "role": "check"}
times = [round(number, 3) for number in passes({"en": 81, "hi": 16, "sw": 1}, 0.5, budget=294).values()]
assert times != [0.643, 0.286, 0.071], "passes: these are the shares of the draws; times the budget makes them GiB"
assert times != [189, 84, 21], "passes: these are the GiB drawn; divide by how many there are of the language"
assert times != [0.778, 1.75, 7], "passes: that is q over p, right if the budget is all the data; here it is 294 GiB"
assert times != [0.429, 0.19, 0.048], "passes: upside down; divide what is drawn by what there is"
assert times == [2.333, 5.25, 21], f"passes: expected [2.333, 5.25, 21.0]: 189 of 81, 84 of 16, 21 of 1; yours {times}"
print(times)

# %% exercise={"name": "passes", "role": "hidden"}
other_times = passes({"ur": 4, "el": 64, "th": 16}, 0.5, budget=70)
other_times = {code: round(number, 3) for code, number in other_times.items()}
assert other_times == {"ur": 2.5, "el": 0.625, "th": 1.25}, (
    f"passes: of 70 GiB, el gets 40 of 64, th 20 of 16, ur 10 of 4: 0.625, 1.25, 2.5; yours gives {other_times}"
)
once = passes({"ur": 4, "el": 64}, 1, budget=68)
assert all(abs(number - 1) < 1e-9 for number in once.values()), (
    f"passes: with α = 1 and as much drawn as there is, each text is read once; yours gives {once}"
)


# %% exercise={"name": "passes", "role": "mistake", "expect": "these are the GiB drawn"}
def passes(sizes: dict[str, float], alpha: float, budget: float) -> dict[str, float]:
    return {code: budget * chance for code, chance in corpus.sampling_probabilities(sizes, alpha).items()}


# %% exercise={"name": "passes", "role": "mistake", "expect": "q over p"}
def passes(sizes: dict[str, float], alpha: float, budget: float) -> dict[str, float]:
    q, total = corpus.sampling_probabilities(sizes, alpha), sum(sizes.values())
    return {code: q[code] / (size / total) for code, size in sizes.items()}


# %% exercise={"name": "passes", "role": "mistake", "expect": "upside down"}
def passes(sizes: dict[str, float], alpha: float, budget: float) -> dict[str, float]:
    q = corpus.sampling_probabilities(sizes, alpha)
    return {code: size / (budget * q[code]) for code, size in sizes.items()}


# %% exercise={"name": "passes", "role": "mistake", "expect": "the shares of the draws"}
def passes(sizes: dict[str, float], alpha: float, budget: float) -> dict[str, float]:
    return corpus.sampling_probabilities(sizes, alpha)


# %% [markdown]
# Now all hundred. Let training draw as much as there is, 2,394 GiB. With α = 1 each text is read once. With a smaller
# α?

# %%
with plots.style():
    figure, axes = plots.plt.subplots(figsize=(7, 3.6))
    for alpha, colour in zip((1, 0.7, 0.3), (plots.BLUE, plots.GREEN, plots.ORANGE), strict=True):
        chance = corpus.sampling_probabilities(GIB, alpha)
        read = [total * chance[code] / GIB[code] for code in ranked]
        axes.loglog([GIB[code] for code in ranked], read, "o", color=colour, markersize=4, label=f"α = {alpha}")
    for code in ("en", "hi", "ur", "sw"):
        axes.text(GIB[code], 1.5 * total * chance[code] / GIB[code], code, ha="center", va="center")
    axes.set(xlabel="GiB of the language", ylabel="times its text is read")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
plots.show(figure, alt="Times a text is read, by size of its language: level for α = 1, else falling lines.")

# %% [markdown]
# Left of the crossing, texts are read more than once. Right of it, some are never read. The orange points lie at the
# numbers you saw above, 0.24 for English and 9.2 for Swahili: when as much is drawn as there is, the passes are
# $q_i / p_i$.
#
# And for each time through English, how many times through Swahili?

# %%
read = {code: total * flat[code] / GIB[code] for code in ("en", "sw")}
print(f"{read['sw'] / read['en']:.1f} times")

# %% [markdown]
# Straight lines on these scales mean a power law, and it follows from the formula: for languages $i$ and $j$ the ratio
# of passes is $(p_i / p_j)^{\alpha - 1}$. For Swahili and English that is $(1.6 / 300.8)^{-0.7}$.

# %% [markdown]
# Is α = 0.3 the best? The authors tried 0.01, 0.3, 0.7 and 1. The smaller α, the better the languages with little
# data did, and the worse those with much. On average over all, 0.3 was best. (Read from the paper's charts.)
#
# No α makes more data. It only says who has to read the same page twice, so that another page is left unread.

# %% [markdown] exercise={"name": "choose-alpha", "role": "manual", "points": 2, "rubric": "1 point: all are drawn equally often, so the small ones gain and the large ones pay. 1 point: no α adds text; the same pages are repeated, or others stay unread."}
# ### In your own words: choose α
#
# A speaker of Swahili asks you to train with α = 0. How often would each of the hundred languages be drawn? Who gains,
# who pays, and what does it not change?
#
# Two to four sentences. No check can read them; a teacher can.
#
# ### BEGIN SOLUTION
# With α = 0 every entry of the table is drawn equally often. Swahili comes up more often than at α = 0.3, and
# English, Russian and the other large ones less. It adds no Swahili: the same 1.6 GiB are read again and again, while
# most of the English stays unread. The authors found that a smaller α helps the languages with little data and costs
# those with much; on average 0.3 was best.
# ### END SOLUTION

# %% [markdown]
# ## The package's version
#
# The same two steps, and what to do when the numbers can't be right:

# %%
show_source(corpus.sampling_probabilities)

# %% [markdown]
# ## What you saw
#
# - What the eye sees, code points and bytes are three different lengths. XLM-R's pieces are made of code points.
# - The same text can be spelt in several ways. NFKC gives it one, and loses a little. XLM-R reads what `nmt_nfkc` makes
#   of it.
# - Spaces don't tell words in Thai or Chinese. A tokenizer for all languages can't rely on them.
# - CC-100 holds 188 times as much English as Swahili. With α = 0.3, English is drawn 4.8 times as
#   often as Swahili.
#
# ## Further reading
#
# - Conneau et al. (2020), *Unsupervised Cross-lingual Representation Learning at Scale*, arXiv 1911.02116: section 3.1
#   on sampling, Table 6 with the sizes.
# - Wenzek et al. (2020), *CCNet*: how web pages become text in a known language.
# - Unicode Standard Annex 15, *Unicode Normalization Forms*, and Annex 29, *Text Segmentation*.
#
# Go on with `02_the_unigram_tokenizer`.
