"""The Unigram model: against brute force, against SentencePiece, and the two forms of training against each other."""

import collections
import contextlib
import io
import itertools
import math

import pytest
import sentencepiece
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xlmr_course import corpus, sentencepiece_file, unigram, unigram_fast, unigram_training
from xlmr_course.lattice import Lattice, logsumexp, tokens
from xlmr_course.unigram import ModelFileError, UnigramModel

HUG = {"h": -3.0, "u": -2.5, "g": -3.5, "hu": -2.0, "ug": -2.2, "hug": -4.1}


def all_paths(text, log_probs, unknown):
    """Every segmentation of a short text with its log p, by trying all places to cut."""
    for cuts in itertools.product([False, True], repeat=len(text) - 1):
        bounds = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(text)]
        parts = [text[a:b] for a, b in itertools.pairwise(bounds)]
        if all(part in log_probs or len(part) == 1 for part in parts):
            yield parts, sum(log_probs.get(part, unknown) for part in parts)


@st.composite
def toys(draw):
    """A small text and a vocabulary that covers some of it."""
    text = draw(st.text("abc", min_size=1, max_size=7))
    pieces = draw(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=10, unique=True))
    scores = draw(st.lists(st.floats(-9, -0.1), min_size=len(pieces), max_size=len(pieces)))
    return text, dict(zip(pieces, scores, strict=True))


# --- the lattice --------------------------------------------------------------------------------------------------


def test_the_lattice_of_hug_by_hand():
    lattice = Lattice("hug", HUG)
    path, score = lattice.viterbi()
    assert tokens(path) == ["hug"]
    assert score == -4.1
    z = logsumexp([-4.1, -5.5, -5.2, -9.0])
    assert lattice.forward()[-1] == pytest.approx(z)
    assert lattice.expected_counts()["ug"] == pytest.approx(math.exp(-5.2 - z))
    assert lattice.expected_counts()["h"] == pytest.approx(math.exp(-5.2 - z) + math.exp(-9.0 - z))


@given(toys())
def test_lattice_equals_brute_force(toy):
    text, log_probs = toy
    lattice = Lattice(text, log_probs)
    paths = sorted(all_paths(text, log_probs, min(log_probs.values()) - 10), key=lambda item: -item[1])
    z = logsumexp([score for _, score in paths])
    assert lattice.viterbi()[1] == pytest.approx(paths[0][1])
    assert lattice.forward()[-1] == pytest.approx(z)
    assert lattice.backward()[0] == pytest.approx(z)
    found = lattice.nbest(1000)
    assert [score for _, score in found] == pytest.approx([score for _, score in paths])
    assert sorted([node.piece for node in nodes] for nodes, _ in found) == sorted(parts for parts, _ in paths)
    expected = collections.Counter()
    for parts, score in paths:
        for part in parts:
            expected[part] += math.exp(score - z)
    for piece, count in lattice.expected_counts().items():
        assert count == pytest.approx(expected[piece])
    # Every position is covered once: the posteriors of the nodes over it add up to one.
    for position in range(len(text)):
        over = [
            probability
            for node, probability in zip(lattice.nodes, lattice.posteriors(), strict=True)
            if node.start <= position < node.end
        ]
        assert sum(over) == pytest.approx(1)


def test_nbest_is_lazy():
    """Four billion segmentations, and the first five at once."""
    lattice = Lattice("a" * 33, {"a": -1.0, "aa": -1.9})
    scores = [score for _, score in lattice.nbest(5)]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(lattice.viterbi()[1])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sampling_follows_p_to_the_alpha(alpha):
    lattice, generator = Lattice("hug", HUG), torch.Generator().manual_seed(3)
    drawn = collections.Counter(tuple(tokens(lattice.sample(alpha, generator))) for _ in range(4000))
    weights = {tuple(parts): math.exp(alpha * score) for parts, score in all_paths("hug", HUG, -14)}
    for parts, weight in weights.items():
        assert drawn[parts] / 4000 == pytest.approx(weight / sum(weights.values()), abs=0.03)
    again = torch.Generator().manual_seed(3)
    first = torch.Generator().manual_seed(3)
    assert lattice.sample(alpha, first) == lattice.sample(alpha, again)


# --- the model ----------------------------------------------------------------------------------------------------


@given(toys())
def test_segment_takes_a_best_path(toy):
    text, log_probs = toy
    model = UnigramModel({"▁": -0.5, **log_probs})
    normalized = model.normalize(text)
    best = Lattice(normalized, model.log_probs, model.unknown_score).viterbi()[1]
    score = sum(
        model.scores[place] if place >= 0 else model.unknown_score * len(token)
        for token, place in zip(model.segment(text), model.segment_numbers(normalized), strict=True)
    )
    assert "".join(model.segment(text)) == normalized
    assert score == pytest.approx(best, abs=1e-4)  # single precision


def test_segment_nbest_sample_and_log_prob_agree():
    model = UnigramModel({"▁": -3.0, "▁a": -2.0, "a": -2.5, "b": -3.0, "ab": -2.2, "▁ab": -4.0})
    best = model.nbest("ab ab", 3)
    assert best[0][0] == model.segment("ab ab") == ["▁ab", "▁ab"]
    assert model.nbest("ab", 100)[-1][0] == ["▁", "a", "b"]
    assert model.log_prob("ab ab") == pytest.approx(logsumexp([score for _, score in model.nbest("ab ab", 100)]))
    assert "".join(model.sample("ab ab", 0.2, torch.Generator().manual_seed(0))) == "▁ab▁ab"
    assert model.segment("") == []
    assert model.log_prob("  ") == 0
    assert model.nbest("", 2) == [([], 0.0)]


def test_neighbouring_unknown_characters_are_one_token():
    model = UnigramModel({"▁": -1.0, "a": -2.0})
    assert model.segment("xyaz") == ["▁", "xy", "a", "z"]
    assert model.segment_numbers("▁xyaz") == [0, -1, 1, -1]
    assert model.nbest("xyaz", 1)[0][0] == ["▁", "xy", "a", "z"]


def test_a_model_without_single_characters_still_segments():
    model = UnigramModel({"▁abc": -1.0, "cd": -2.0})
    assert model.segment("abc") == ["▁abc"]
    assert model.segment("abcd") == ["▁abc", "d"]
    assert model.segment("ab cd") == ["▁ab▁", "cd"]


def test_pieces_may_cross_words_if_a_model_says_so():
    model = UnigramModel({"▁a▁b": -1.0, "▁": -2.0, "a": -2.0, "b": -2.0, "▁b": -3.0})
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.to_sentencepiece())
    for text, expected in (("a b", ["▁a▁b"]), ("b a b", ["▁b", "▁a▁b"]), ("a a b", ["▁", "a", "▁a▁b"])):
        assert model.segment(text) == processor.encode(text, out_type=str) == expected


def test_remembered_words_are_cut_as_in_their_text():
    """Scores that differ by less than single precision can tell: which way wins depends on where the word stands."""
    model = UnigramModel({"▁": -1.0, "a": -1.3, "b": -1.7, "ab": -3.0001, "▁a": -2.30005, "▁ab": -4.0002})
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.to_sentencepiece())
    cuts = set()
    for count in (1, 2, 50, 500, 5000):
        tokens_of_text = model.segment("ab " * count)
        assert tokens_of_text == processor.encode("ab " * count, out_type=str)
        cuts.add(tuple(tokens_of_text[-3:]))
    assert len(cuts) > 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.segment(5), TypeError, "expected a string, got int"),
        (lambda model: model.segment(b"a"), TypeError, "got bytes"),
        (lambda model: model.segment("ab\ud83d c"), ValueError, r"U\+D83D, at position 2"),
        (lambda model: model.nbest("a", 0), ValueError, "n=0"),
        (lambda model: model.sample("a", -1.0), ValueError, "alpha=-1.0"),
        (lambda model: model.sample("a", math.nan), ValueError, "alpha=nan"),
        (lambda model: UnigramModel({}), ValueError, "at least one piece"),
        (lambda model: UnigramModel({"": -1.0}), ValueError, "no piece may be empty"),
        (lambda model: UnigramModel({"a": math.nan}), ValueError, "the score of 'a' is nan"),
        (lambda model: UnigramModel.from_pieces(["a", "b", "a"], [-1, -1, -1]), ValueError, "'a' stands twice"),
        (lambda model: UnigramModel.from_pieces(["a", "b"], [-1]), ValueError, "2 pieces but 1 scores"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(UnigramModel({"▁": -1.0, "a": -2.0}))


# --- the file -----------------------------------------------------------------------------------------------------


def test_a_model_file_is_read_by_sentencepiece_and_back():
    model = UnigramModel({"▁a": -1.5, "b": -2.25, "▁": -3.0, "ﬁ": -4.0})
    data = model.to_sentencepiece()
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [processor.id_to_piece(i) for i in range(len(processor))] == [*sentencepiece_file.CONTROL, *model.pieces]
    assert processor.encode("ab  b", out_type=str) == model.segment("ab  b") == ["▁a", "b", "▁", "b"]
    again = UnigramModel.from_sentencepiece(data)
    assert (again.log_probs, again.normalize.spec) == (model.log_probs, model.normalize.spec)
    assert again.to_sentencepiece() == data


def trained_by_sentencepiece(texts, **options):
    out = io.BytesIO()
    options = {"minloglevel": 3, "num_threads": 1, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=out, **options)
    return out.getvalue()


TEXTS = ["the cat sat on the mat and the dog sat on the log", "a cat and a dog and a hen sat on a hill"] * 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: b"", "hold no vocabulary"),
        (lambda: b"<!doctype html><html>Not found</html>", "no SentencePiece model"),
        (lambda: UnigramModel({"a": -1.0}).to_sentencepiece()[:-9], "no SentencePiece model"),
        (lambda: trained_by_sentencepiece(TEXTS, vocab_size=40, model_type="bpe"), "type BPE"),
        (
            lambda: trained_by_sentencepiece(TEXTS, vocab_size=30, pad_id=3),
            "'<pad>' of the SentencePiece model is CON",
        ),
        (
            lambda: trained_by_sentencepiece(TEXTS, vocab_size=30, unk_id=2, bos_id=1, eos_id=0),
            "begins with </s> <s> <unk>",
        ),
        (
            lambda: trained_by_sentencepiece(TEXTS, vocab_size=40, user_defined_symbols=["#"]),
            "USER_DEFINED",
        ),
        (lambda: trained_by_sentencepiece(TEXTS, vocab_size=300, byte_fallback=True), "BYTE"),
        (lambda: sentencepiece_file.write(["a", "a"], [-1, -1], sentencepiece_file.nmt_nfkc()), "'a' stands twice"),
        (lambda: sentencepiece_file.write(["a"], [math.nan], sentencepiece_file.nmt_nfkc()), "score of 'a' is nan"),
    ],
)
def test_a_foreign_or_damaged_file_gives_one_sentence(data, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        UnigramModel.from_sentencepiece(data())
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no second traceback above it


def test_cut_files_never_end_in_a_parser_traceback():
    data = UnigramModel({"▁a": -1.5, "b": -2.25}).to_sentencepiece()
    for length in [*range(20), *range(20, len(data), 9973)]:
        with contextlib.suppress(ModelFileError):  # cut between two entries, it is a smaller model
            UnigramModel.from_sentencepiece(data[:length])


# --- training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences():
    """Some hundred classroom sentences of each language that is there."""
    rows = [list(corpus.load(language)["text"]) for language in corpus.languages_in()]
    return [text for texts in rows for text in texts[::2]]


ALPHABETS = ["ab", "abc d", "αβ ab", "กขค ", "的是ー a", "a\u0301\u0300b c", "12a. ", "▁a ▅\0", "a\U00100061b "]


@given(
    st.sampled_from(ALPHABETS).flatmap(lambda letters: st.lists(st.text(letters, max_size=40), max_size=10)),
    st.integers(3, 60),
    st.booleans(),
    st.sampled_from([0.9, 0.9995, 1.0]),
)
@example(["aaaaaaaaa"], 4, False, 0.9)
@settings(max_examples=150, deadline=None)
def test_the_fast_form_gives_the_readable_form_s_result(texts, vocab_size, as_sentencepiece, coverage):
    results = []
    for fast in (False, True):
        steps = []
        options = {"as_sentencepiece": as_sentencepiece, "fast": fast, "on_step": steps.append}
        try:
            model = unigram.train(texts, vocab_size, coverage, **options)
            results.append((model.pieces, model.scores, [step[:2] for step in steps]))
        except ValueError as error:
            results.append(str(error))
    assert results[0] == results[1]


@pytest.mark.parametrize("as_sentencepiece", [True, False])
def test_both_forms_agree_on_real_text(sentences, as_sentencepiece):
    texts = sentences[::25]
    steps = {True: [], False: []}
    models = {
        fast: unigram.train(texts, 900, as_sentencepiece=as_sentencepiece, fast=fast, on_step=steps[fast].append)
        for fast in (True, False)
    }
    assert models[True].pieces == models[False].pieces
    assert models[True].scores == models[False].scores
    assert [step.pieces for step in steps[True]] == [step.pieces for step in steps[False]]
    likelihoods = [[step.log_likelihood for step in steps[fast] if step.kind == "em"] for fast in (True, False)]
    assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-9)


@pytest.mark.parametrize("by_bytes", [True, False])
def test_fast_substrings_equal_counted_ones(sentences, by_bytes):
    text = unigram_training.prepare(sentences[::20])
    scripts = unigram_training.script_numbers(text.required)
    slow = unigram_training.count_substrings(text.sentences, scripts, 16, by_bytes)
    assert slow == unigram_fast.count_substrings(text.sentences, scripts, 16, by_bytes)
    assert len(slow) > 1000
    joined = "\0".join(text.sentences)
    for piece in list(slow)[::97]:
        assert slow[piece] == sum(joined.startswith(piece, place) for place in range(len(joined)))


def test_the_last_plane_of_unicode_is_told_apart():
    """Characters and prefixes share one number: 21 bits for the character, or a + U+100061 would pass for b + a."""
    lattices = unigram_fast.Lattices(["ba", "a\U00100061"], ["a", "b", "\U00100061", "a\U00100061"])
    assert sorted(lattices.piece.tolist()) == [0, 0, 1, 2, 3]


def test_fast_expected_counts_equal_the_lattice_s(sentences):
    text = unigram_training.prepare(sentences[::40])
    log_probs = unigram_training.seed_pieces(text)
    expected = collections.Counter()
    likelihood = 0.0
    for word, count in text.words.items():
        lattice = Lattice(word, log_probs)
        likelihood += count * lattice.forward()[-1]
        for piece, share in lattice.expected_counts().items():
            expected[piece] += count * share
    trainer = unigram_fast.FastTrainer(text.words, log_probs)
    counts, found = trainer.corpus.expected_counts(trainer._edge_scores(), trainer.counts)
    assert found == pytest.approx(likelihood, rel=1e-12)
    assert counts[:-1] == pytest.approx([expected[piece] for piece in trainer.pieces], rel=1e-9, abs=1e-12)


def test_expectation_maximisation_raises_the_likelihood(sentences):
    """Without the digamma prior, the threshold and unknown characters, EM never makes the text less probable."""
    text = unigram_training.prepare(sentences[::30], 1.0)
    log_probs, likelihoods = unigram_training.seed_pieces(text), []
    for _ in range(5):
        counts, likelihood = collections.Counter(), 0.0
        for word, count in text.words.items():
            lattice = Lattice(word, log_probs)
            likelihood += count * lattice.forward()[-1]
            for piece, share in lattice.expected_counts().items():
                counts[piece] += count * share
        total = sum(counts.values())
        log_probs = {piece: math.log(count / total) for piece, count in counts.items() if count > 0}
        likelihoods.append(likelihood)
    assert likelihoods == sorted(likelihoods)
    assert likelihoods[-1] > likelihoods[0] + 100


def test_prune_by_hand():
    """`ab` is replaced by a + b; `▁` and the letters have no second segmentation."""
    log_probs = {"a": -2.0, "b": -2.0, "ab": -1.0, "ba": -5.0, "▁": -1.0}
    words = {"▁ab": 3, "▁b": 1, "▁a": 1}
    assert set(unigram_training.prune(words, log_probs, 10)) == {"▁", "a", "b", "ab"}  # ba: never used
    assert set(unigram_training.prune(words, log_probs, 3)) == {"▁", "a", "b"}
    log_probs["ab"] = -4.0  # as good as a + b: stays
    trainer = unigram_fast.FastTrainer(words, log_probs)
    trainer.prune(10)
    assert set(trainer.log_probs()) == set(unigram_training.prune(words, log_probs, 10)) == {"▁", "a", "b", "ab"}
    log_probs["ab"] = -4.5  # a + b is better: not its own best segmentation
    assert set(unigram_training.prune(words, log_probs, 10)) == {"▁", "a", "b"}


def test_m_step_by_hand():
    result = unigram_training.m_step({"a": 3.0, "b": 1.0, "c": 0.49})
    psi = torch.digamma(torch.tensor([3.0, 1.0, 4.0], dtype=torch.float64))
    assert result == pytest.approx({"a": float(psi[0] - psi[2]), "b": float(psi[1] - psi[2])}, abs=1e-6)


def test_required_characters_survive():
    texts = ["abcd abcd abcd abce"] * 10 + ["q"]
    model = unigram.train(texts, 11, character_coverage=1.0)
    assert set("▁abcdeq") <= set(model.pieces)
    assert "q" not in unigram.train(texts, 10, character_coverage=0.99).pieces


def test_pieces_stay_within_one_script_and_one_word():
    texts = ["abcабв abc", "абвabc. 世界ナイス x1x1", "1x世界ナイス né nè", "né! nèabc世界ナイス", "né абв"]
    text = unigram_training.prepare(texts, 1.0)
    found = unigram_training.count_substrings(text.sentences, unigram_training.script_numbers(text.required), 16, False)
    assert {"▁abc", "абв", "世界ナイス", "▁né"} <= set(found)
    assert not [piece for piece in found if "▁" in piece[1:]]
    assert not [piece for piece in found if set("abc") & set(piece) and set("абв") & set(piece)]
    assert not [piece for piece in found if "1" in piece and "x" in piece]


@pytest.mark.skipif(
    tuple(map(int, sentencepiece.__version__.split(".")[:3])) < (0, 2, 3), reason="0.2.3 changed its trainer"
)
def test_training_equals_sentencepiece(sentences):
    """Same text, same settings: the same seeds, nearly the same pieces, and the same quality on text not seen."""
    train, held_out = sentences[1::2], sentences[::6]
    ours = unigram.train(train, 4000)
    theirs = UnigramModel.from_sentencepiece(
        trained_by_sentencepiece(train, vocab_size=4000, normalization_rule_name="nmt_nfkc", character_coverage=0.9995)
    )
    assert len(ours.pieces) == len(theirs.pieces)
    assert len(set(ours.pieces) & set(theirs.pieces)) >= 0.95 * len(ours.pieces)
    tokens_ours, tokens_theirs = (sum(len(model.segment(text)) for text in held_out) for model in (ours, theirs))
    assert tokens_ours == pytest.approx(tokens_theirs, rel=0.01)
    likelihoods = [sum(map(model.log_prob, held_out)) for model in (ours, theirs)]
    assert likelihoods[0] == pytest.approx(likelihoods[1], rel=0.005)
    mended = unigram.train(train, 4000, as_sentencepiece=False)
    assert sum(len(mended.segment(text)) for text in held_out) < tokens_ours


@pytest.mark.parametrize(
    ("texts", "vocab_size", "options", "error", "message"),
    [
        ([], 100, {}, ValueError, "no text to train on"),
        (["", " \n"], 100, {}, ValueError, "no text to train on"),
        ("one string", 100, {}, TypeError, "texts is one string"),
        (["a", 7], 100, {}, TypeError, r"texts\[1\]: expected a string, got int"),
        (["a", "b\udc00"], 100, {}, ValueError, r"texts\[1\]: .*U\+DC00, at position 1"),
        (["abc"], 6, {}, ValueError, "vocab_size=6 is smaller than the 4 characters .* use 7 or more"),
        (["abc"], -1, {}, ValueError, "use 7 or more"),
        (["abc"], 7.0, {}, TypeError, "vocab_size=7.0 is float"),
        (["abc"], 7, {"seed_size": -1}, ValueError, "seed_size=-1"),
        (["abc"], 7, {"character_coverage": 1.1}, ValueError, "character_coverage=1.1"),
        (["aaaaaaaaa"], 4, {"character_coverage": 0.9}, ValueError, "too little text to learn from"),
        (["ab ab ab"], 4000, {}, ValueError, "vocab_size=4,000 is more than this text allows; use 7 or less"),
    ],
)
def test_bad_training_input_says_what_would_work(texts, vocab_size, options, error, message):
    with pytest.raises(error, match=message):
        unigram.train(texts, vocab_size, **options)


def test_the_number_in_the_message_works():
    texts = ["the cat sat on the mat", "the hen sat on the cat", "a cat, a hen, a mat"] * 2
    for vocab_size in (4, 500):
        with pytest.raises(ValueError, match="use ") as caught:
            unigram.train(texts, vocab_size)
        number = int(str(caught.value).split("use ")[1].split()[0].replace(",", ""))
        assert len(unigram.train(texts, number).pieces) == number - 3


def test_one_character_can_be_learned():
    assert sorted(unigram.train(["a"], 5).pieces) == ["a", "▁"]
