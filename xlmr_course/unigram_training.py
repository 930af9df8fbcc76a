"""Training a Unigram model: which pieces, and how probable each is.

Start from all frequent substrings. Then, until 1.1 × the vocabulary's size is left, take two steps of EM and drop the
quarter of the pieces that the likelihood misses least. Choose the most probable of what remains.

This is the readable form, one word at a time, step by step as in SentencePiece 0.2.3 (`unigram_model_trainer.cc`,
`trainer_interface.cc`). `unigram_fast.py` takes the same steps with NumPy.

Two QUIRKS of SentencePiece are kept, because its vocabularies are what we compare with. `as_sentencepiece=False` mends
both.

- Candidates are found in a suffix tree over the bytes of UTF-8 (since 0.2.3; before, over characters). There a
  substring is a node only if different *bytes* follow it. All Thai letters begin with the same byte, and most Greek or
  Devanagari ones: their scripts lose candidates that Latin keeps.
- When a piece's second-best segmentation contains an unknown character, pruning looks up the frequency of entry 0,
  meaning unknown, and gets that of the first piece, a frequent one. So the piece seems easy to replace, and goes.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import regex
import torch

from xlmr_course import unigram_fast
from xlmr_course.lattice import UNKNOWN_PENALTY, Lattice
from xlmr_course.sentencepiece_file import CONTROL, Normalizer
from xlmr_course.unigram_fast import MINIMUM_COUNT, TOO_LITTLE

SPACE = "▁"  # U+2581: a space that stays visible. Joining the pieces and putting spaces back gives the text again
RARE = "▅"  # kUNKChar, U+2585: in training it stands for the characters that will be unknown
LONGEST_PIECE = 16  # max_sentencepiece_length, in characters
EM_STEPS = 2  # num_sub_iterations: EM steps before each pruning
SHRINKING_FACTOR = 0.75  # what share of the pieces one pruning keeps
OVERSHOOT = 1.1  # EM stops at this multiple of the vocabulary's size; the best scores are chosen from it


class Step(NamedTuple):
    """What `train` reports after each step: `kind` is "seed", "em", "prune" or "final"."""

    kind: str
    pieces: int
    log_likelihood: float  # of the training text under the pieces before this step, natural logarithm; nan if unknown


@dataclass(frozen=True)
class TrainingText:
    """Text made ready for training.

    sentences: normalised, with rare characters replaced by ▅. words: word -> count, most frequent first; a word runs
    from one ▁ to the next. required: character -> count, the characters that the vocabulary must keep.
    """

    sentences: list[str]
    words: dict[str, int]
    required: dict[str, int]


def learn(
    texts: Iterable[str],
    vocab_size: int,
    character_coverage: float = 0.9995,
    seed_size: int = 1_000_000,
    as_sentencepiece: bool = True,
    fast: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, float]:
    """piece -> log p, most probable first; arguments and errors as for `unigram.train`."""
    for name, value in (("vocab_size", vocab_size), ("seed_size", seed_size)):
        if not isinstance(value, int):
            raise TypeError(f"{name}={value!r} is {type(value).__name__}; use a whole number")
    if seed_size < 0:
        raise ValueError(f"seed_size={seed_size} is negative; use the number of substrings to start from")
    report = on_step or (lambda step: None)
    text = prepare(texts, character_coverage)
    special = len(CONTROL)
    if vocab_size < len(text.required) + special:
        raise ValueError(
            f"vocab_size={vocab_size:,} is smaller than the {len(text.required):,} characters that must be kept and "
            f"{special} special entries; use {len(text.required) + special:,} or more, or lower "
            f"character_coverage={character_coverage}"
        )
    count = unigram_fast.count_substrings if fast else count_substrings
    log_probs = seed_pieces(text, seed_size, as_sentencepiece, count)
    report(Step("seed", len(log_probs), math.nan))
    trainer = (unigram_fast.FastTrainer if fast else ReferenceTrainer)(text.words, log_probs, as_sentencepiece)
    target = int(vocab_size * OVERSHOOT)
    while True:
        for _ in range(EM_STEPS):
            log_likelihood = trainer.em_step()
            report(Step("em", len(trainer), log_likelihood))
        trainer.prune(max(target, int(SHRINKING_FACTOR * len(trainer))))
        report(Step("prune", len(trainer), math.nan))
        if not len(trainer):
            raise ValueError(TOO_LITTLE)
        if len(trainer) <= target:
            break
    final = choose_final(trainer.log_probs(), text.required, vocab_size - special)
    if len(final) + special < vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size:,} is more than this text allows; use {len(final) + special:,} or less, "
            "or give more text"
        )
    report(Step("final", len(final), math.nan))
    return final


def prepare(texts: Iterable[str], character_coverage: float = 0.9995) -> TrainingText:
    """Normalise, choose the characters to keep, replace the others by ▅, count words.

    Raises:
        TypeError, ValueError: as `train`.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string; pass a list of texts, such as [text] or text.splitlines()")
    if not 0 < character_coverage <= 1:
        raise ValueError(f"character_coverage={character_coverage} lies outside (0, 1]; SentencePiece's is 0.9995")
    normalize = Normalizer()
    sentences = []
    for place, text in enumerate(texts):
        try:
            sentences.append(normalize(text))
        except (TypeError, ValueError) as error:
            raise type(error)(f"texts[{place}]: {error}") from None
    sentences = [sentence for sentence in sentences if sentence]
    frequency = Counter(itertools.chain.from_iterable(sentences))
    del frequency["\0"], frequency[RARE]  # neither can be in a piece
    total = frequency.total()
    if not total:
        raise ValueError("there is no text to train on: all texts are empty or blank; give some sentences")
    required: dict[str, int] = {}
    covered = 0
    for character, count in sorted(frequency.items(), key=lambda item: (-item[1], item[0])):
        if covered / total >= character_coverage:
            break
        required[character] = count
        covered += count
    rare = {ord(character): RARE for character in [*frequency, "\0"] if character not in required}
    sentences = [sentence.translate(rare) for sentence in sentences]
    words = Counter(word for sentence in sentences for word in split_words(sentence))
    return TrainingText(sentences, dict(sorted(words.items(), key=lambda item: (-item[1], item[0]))), required)


def split_words(sentence: str) -> list[str]:
    """`"▁a▁cat"` → `["▁a", "▁cat"]`: no piece crosses the start of a word."""
    head, *rest = sentence.split(SPACE)
    return [head] * bool(head) + [SPACE + word for word in rest]


def seed_pieces(
    text: TrainingText,
    seed_size: int = 1_000_000,
    as_sentencepiece: bool = True,
    count: Callable[..., dict[str, int]] | None = None,
) -> dict[str, float]:
    """What training starts from: all characters, and the substrings that cover most text, frequency × length.

    Returns piece -> log of its share; most frequent characters first, then substrings, best first.
    """
    substrings = (count or count_substrings)(
        text.sentences, script_numbers(text.required), LONGEST_PIECE, as_sentencepiece
    )
    ranked = sorted(
        ((len(piece) * frequency, piece) for piece, frequency in substrings.items()),
        key=lambda item: (-item[0], -len(item[1].encode()), item[1]),
    )
    weights = {**text.required, **{piece: weight for weight, piece in ranked[:seed_size]}}
    total = math.log(sum(weights.values()))
    return _float32({piece: math.log(weight) - total for piece, weight in weights.items()})


def count_substrings(
    sentences: Sequence[str], script_of: Mapping[str, int], longest: int, by_bytes: bool = True
) -> dict[str, int]:
    """How often each candidate of 2 to `longest` characters occurs in the sentences.

    A candidate stays within one script, has ▁ only in front, occurs twice, and branches: different things follow it.
    What is always followed by the same thing is left to the longer candidate. (Candidates are the inner nodes of the
    suffix tree. SentencePiece finds them with a suffix array; here they are counted one by one.)

    Args:
        script_of: from `script_numbers`.
        by_bytes: two characters with the same first byte in UTF-8 count as the same follower. See QUIRKS.
    """
    counts: Counter[str] = Counter()
    followers: dict[str, set] = {}
    for sentence in sentences:
        sentence += "\0"  # the end is one more thing that can follow
        for start, first in enumerate(sentence):
            script = script_of.get(first, -1)
            if script == -1:
                continue
            script = max(script, 0)
            for end in range(start + 1, min(start + longest, len(sentence) - 1) + 1):
                piece, follower = sentence[start:end], sentence[end]
                counts[piece] += 1
                followers.setdefault(piece, set()).add(follower.encode()[0] if by_bytes else follower)
                following = script_of.get(follower, -1)
                if following < 0 or (script and following and following != script):
                    break
                script = script or following
    return {piece: count for piece, count in counts.items() if len(piece) > 1 and len(followers[piece]) > 1}


class ReferenceTrainer:
    """The state of training: the pieces that are left and their log-probabilities. One word at a time, to be read."""

    def __init__(self, words: Mapping[str, int], log_probs: Mapping[str, float], as_sentencepiece: bool = True) -> None:
        self.words, self._log_probs, self.as_sentencepiece = dict(words), dict(log_probs), as_sentencepiece

    def __len__(self) -> int:
        return len(self._log_probs)

    def log_probs(self) -> dict[str, float]:
        """piece -> log p, in order."""
        return dict(self._log_probs)

    def em_step(self) -> float:
        """Expected counts, then new log-probabilities. Returns the log-likelihood before the step."""
        counts = dict.fromkeys(self._log_probs, 0.0)
        log_likelihood = 0.0
        for word, frequency in self.words.items():
            lattice = Lattice(word, self._log_probs)
            for piece, count in lattice.expected_counts().items():
                counts[piece] += frequency * count
            log_likelihood += frequency * lattice.forward()[-1]
        self._log_probs = m_step(counts)
        return log_likelihood

    def prune(self, keep: int) -> None:
        """Drop the pieces that the likelihood misses least, until at most `keep` are left."""
        self._log_probs = prune(self.words, self._log_probs, keep, self.as_sentencepiece)


def m_step(counts: Mapping[str, float]) -> dict[str, float]:
    """Expected counts → log-probabilities, ψ(c) − ψ(Σ c); pieces expected less than half a time are dropped.

    ψ, the digamma function, lies below log, most for small counts: it makes rare pieces rarer (a sparse Dirichlet
    prior; Liang & Klein's ACL 2007 tutorial, as `RunMStep` says).
    """
    kept = {piece: count for piece, count in _float32(counts).items() if count >= MINIMUM_COUNT}
    if not kept:
        raise ValueError(TOO_LITTLE)
    values = torch.tensor(list(kept.values()), dtype=torch.float64)
    scores = torch.digamma(values) - torch.digamma(values.sum())
    return _float32(dict(zip(kept, scores.tolist(), strict=True)))


def prune(
    words: Mapping[str, int], log_probs: Mapping[str, float], keep: int, as_sentencepiece: bool = True
) -> dict[str, float]:
    """Keep the `keep` pieces whose loss would cost the likelihood most (`PruneSentencePieces`).

    A piece goes at once if no word's best segmentation uses it, or if its own best segmentation is not itself. For the
    others, suppose that the second-best segmentation takes the piece's place everywhere, and compare the likelihoods.
    Single characters have no second segmentation, and stay while they are used.
    """
    frequency = dict.fromkeys(log_probs, 0)
    for word, count in words.items():
        for node in Lattice(word, log_probs).viterbi()[0]:
            if node.known:
                frequency[node.piece] += count
    total = sum(frequency.values())
    unknown_frequency = next(iter(frequency.values())) if as_sentencepiece else 0  # see QUIRKS
    kept: list[str] = []
    losses: dict[str, float] = {}
    for piece, count in frequency.items():
        if not count:
            continue
        if len(piece) == 1:
            kept.append(piece)
            continue
        others = {other: score for other, score in log_probs.items() if other != piece and other in piece}
        nodes, score = Lattice(piece, others, min(log_probs.values()) - UNKNOWN_PENALTY, len(piece)).viterbi()
        if score > log_probs[piece]:
            continue
        # The alternatives gain `count` uses each, and the total grows by `count` for each of them beyond the first.
        log_total = math.log(total + count * (len(nodes) - 1))
        after = sum(math.log(frequency.get(node.piece, unknown_frequency) + count) - log_total for node in nodes)
        losses[piece] = count / total * (math.log(count) - math.log(total) - after)
    losses = _float32(losses)
    ranked = sorted(losses, key=lambda piece: -losses[piece])  # stable: equal losses stay in order
    return {piece: log_probs[piece] for piece in [*kept, *ranked[: max(0, keep - len(kept))]]}


def choose_final(log_probs: Mapping[str, float], required: Mapping[str, int], size: int) -> dict[str, float]:
    """The required characters, then the most probable pieces, `size` in all, most probable first.

    A required character that training lost gets the least score, and 0.0001 more for each such character before it, so
    that no two are equal (`FinalizeSentencePieces`).
    """
    least, lost = min(log_probs.values()), 0
    final: dict[str, float] = {}
    for character in required:
        if character in log_probs:
            final[character] = log_probs[character]
        else:
            final[character] = least + 0.0001 * lost
            lost += 1
    for piece in sorted(log_probs, key=lambda piece: (-log_probs[piece], piece)):
        if len(final) >= size:
            break
        final.setdefault(piece, log_probs[piece])
    return dict(sorted(_float32(final).items(), key=lambda item: (-item[1], item[0])))


SCRIPTS = (  # noqa: SIM905
    "Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali "
    "Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma "
    "Cham Cherokee Coptic Cuneiform Cypriot Cyrillic Deseret Devanagari Duployan Egyptian_Hieroglyphs Elbasan "
    "Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gurmukhi Han Hangul Hanunoo Hatran Hebrew "
    "Imperial_Aramaic Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Kayah_Li "
    "Kharoshthi Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani "
    "Malayalam Mandaic Manichaean Marchen Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs "
    "Miao Modi Mongolian Mro Multani Myanmar Nabataean New_Tai_Lue Newa Nko Ogham Ol_Chiki Old_Hungarian "
    "Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_South_Arabian Old_Turkic Oriya Osage Osmanya "
    "Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra "
    "Sharada Shavian Siddham SignWriting Sinhala Sora_Sompeng Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa "
    "Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Ugaritic Vai "
    "Warang_Citi Yi "
).split()  # unicode_script_map.h, without Common, Inherited and kana


def script_numbers(characters: Iterable[str]) -> dict[str, int]:
    """character -> number of its Unicode script, for `count_substrings`; -2 for ▁, which only begins a piece.

    Kana counts as Han, so that Japanese words stay whole. A mark that takes its script from its neighbour (Inherited)
    has 0 and joins any. Characters in no script of SentencePiece's table are Common, as digits and punctuation are.
    """
    characters = "".join(characters)
    numbers = dict.fromkeys(characters, 1)  # Common
    for number, name in enumerate(SCRIPTS, start=2):
        for character in regex.findall(rf"\p{{Script={name}}}", characters):
            numbers[character] = number
    han = SCRIPTS.index("Han") + 2
    for character in regex.findall(r"[\p{Script=Hiragana}\p{Script=Katakana}ー]", characters):
        numbers[character] = han
    for character in regex.findall(r"\p{Script=Inherited}", characters):
        numbers[character] = 0
    if SPACE in numbers:
        numbers[SPACE] = -2
    numbers.pop(RARE, None)
    return numbers


def _float32(values: Mapping[str, float]) -> dict[str, float]:
    """Rounded to single precision, SentencePiece's, so that equal stays equal however a sum was ordered."""
    return dict(zip(values, array("f", values.values()).tolist(), strict=True))
