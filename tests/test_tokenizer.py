"""The tokenizer: ids equal to SentencePiece's and transformers', files that both read, and clear errors."""

import base64
import json
import subprocess
import sys

import pytest
import sentencepiece
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from unicode_texts import SPECIAL, texts

from xlmr_course import corpus, sources, unigram
from xlmr_course.tokenizer import XLMRTokenizer
from xlmr_course.unigram import ModelFileError, UnigramModel

# https://github.com/facebookresearch/fairseq, examples/xlmr/README.md
README = {
    "Hello world!": [0, 35378, 8999, 38, 2],
    "你好，世界": [0, 6, 124084, 4, 3221, 2],
    "नमस्ते दुनिया": [0, 68700, 97883, 29405, 2],
    "مرحبا بالعالم": [0, 665, 193478, 258, 1705, 77796, 2],
    "Bonjour le monde": [0, 84602, 95, 11146, 2],
}
SENTENCES = [
    "the cat sat on the mat.",
    "the dog sat on the log!",
    "Ana's hen, a cat and 12 dogs",
    "नमस्ते दुनिया",
    "世界你好",
]


@pytest.fixture(scope="module")
def real(small):
    return XLMRTokenizer.from_pretrained(small)


@pytest.fixture(scope="module")
def processor(small):
    return sentencepiece.SentencePieceProcessor(model_file=str(small / "sentencepiece.bpe.model"))


@pytest.fixture(scope="module")
def transformers_tokenizer(real, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    real.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tiny():
    """A vocabulary of one's own."""
    return XLMRTokenizer(unigram.train(SENTENCES * 4, 43, character_coverage=1.0))


def sentencepiece_ids(processor, text):
    return [0, *(number + 1 if number else 3 for number in processor.encode(text)), 2]


# --- the same ids ---------------------------------------------------------------------------------------------------


def test_ids_of_the_fairseq_readme(real):
    assert {text: real.encode(text) for text in README} == README
    assert len(real) == real.vocab_size == 250_002
    assert real.all_special_ids == [0, 1, 2, 3, 250_001]


@pytest.mark.parametrize("language", corpus.languages_in())
def test_classroom_sentences_as_sentencepiece(real, processor, language):
    sentences = list(corpus.load(language)["text"])
    assert [real.encode(text) for text in sentences] == [sentencepiece_ids(processor, text) for text in sentences]
    assert real.tokenize(sentences[0]) == processor.encode(sentences[0], out_type=str)


def test_random_unicode_as_sentencepiece(real, processor):
    @given(texts(real.model.pieces))
    @settings(max_examples=4000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(text):
        assert real.encode(text) == sentencepiece_ids(processor, text)
        assert "".join(real.tokenize(text)) == real.model.normalize(text)

    check()


@pytest.mark.parametrize(
    "text", ["ccc", "cccc" * 9, "aaa bbb ccc" * 20, "\0", "a\0b\x01\x1fc\x7f", "\u0378", "😀\ue000"]
)
def test_ties_controls_and_unassigned_as_sentencepiece(real, processor, text):
    assert real.encode(text) == sentencepiece_ids(processor, text)


@pytest.mark.parametrize("unit", ["a", "世界你好吗", "สวัสดีชาวโลก", "\ue000", "isggg klauuuoik ddd "])
def test_long_lines_as_sentencepiece(real, processor, unit):
    """Long enough for the sum of scores to pass −100,000, where SentencePiece starts it again."""
    text = (unit * 120_000)[:120_000]
    assert real.encode(text) == sentencepiece_ids(processor, text)


PARTS = [*SPECIAL, " <mask> ", "a", "Hello", " ", "  ", ".", "世界", "Ｆ", "x y", "\n", "!", "नमस्ते "]


@given(parts=st.lists(st.sampled_from(PARTS), max_size=8), skip=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_special_tokens_and_decoding_as_transformers(real, transformers_tokenizer, parts, skip):
    text = "".join(parts)
    ids = real.encode(text)
    assert ids == transformers_tokenizer(text)["input_ids"]
    assert real.tokenize(text) == transformers_tokenizer.tokenize(text)
    assert real.decode(ids, skip_special_tokens=skip) == transformers_tokenizer.decode(ids, skip_special_tokens=skip)


@given(
    lengths=st.tuples(st.integers(0, 9), st.integers(0, 9)), max_length=st.integers(4, 20), fill=st.booleans()
)  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_pairs_truncation_and_padding_as_transformers(real, transformers_tokenizer, lengths, max_length, fill):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    first, second = (" ".join(words[:n]) for n in lengths)
    options = {"truncation": True, "max_length": max_length, "padding": "max_length" if fill else True}
    ours = real([first, "x"], [second, "y z"], return_tensors="pt", **options)
    theirs = transformers_tokenizer([first, "x"], [second, "y z"], return_tensors="pt", **options)
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(ours[name], theirs[name])
    alone = real([first, second], return_tensors=None, truncation=True, max_length=max_length, padding=False)
    assert (
        alone["input_ids"] == transformers_tokenizer([first, second], truncation=True, max_length=max_length).input_ids
    )


def test_quirks_that_the_module_names(real, processor, transformers_tokenizer):
    assert processor.encode(",") == [6 - 1, 4 - 1]  # ▁ and the comma; ids are one more
    assert real.encode(",") == [0, 6, 4, 2]
    assert real.encode("a<mask>b") == real.encode("a <mask> b") == [0, 10, 250001, 876, 2]
    assert real.tokenize("<mask>.") == ["<mask>", "▁", "."]
    assert real.encode("x</s>y") == [0, 1022, 2, 113, 2]
    assert real.encode("\U000f0000\U000f0001\U000f0002") == [0, 6, 3, 2]
    assert real.encode("a", "b") == [0, 10, 2, 2, 876, 2]
    assert real.encode("a▁b") == real.encode("a b")
    assert real.decode(real.encode("a <mask> b"), skip_special_tokens=False) == "<s> a<mask> b</s>"
    # Where transformers 5, which is `tokenizers`, differs from SentencePiece.
    for text in ("ｽﾅｯﾌﾟﾘﾝｸﾞ", "e\u0301\u0323", "isggg"):
        assert real.encode(text) == sentencepiece_ids(processor, text) != transformers_tokenizer(text)["input_ids"]


# --- text in, text out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000", "\u200b"])
def test_empty_and_blank_text(real, text):
    assert real.encode(text) == [0, 2]
    assert real.encode(text, text) == [0, 2, 2, 2]
    assert real(text)["input_ids"].tolist() == [[0, 2]]


def test_decode_gives_normalised_text_back(real):
    for language in corpus.languages_in():
        for text in list(corpus.load(language)["text"])[:20]:
            normalised = real.model.normalize(text).removeprefix("▁").replace("▁", " ")
            if real.unk_token_id not in real.encode(text):
                assert real.decode(real.encode(text)) == normalised
    assert real.decode(torch.tensor([0, 35378, 8999, 38, 2, 1, 1])) == "Hello world!"
    assert real.decode([]) == ""


def test_a_batch(real):
    batch = real(["Hello world!", "Hello"], padding=True)
    assert batch["input_ids"].tolist() == [[0, 35378, 8999, 38, 2], [0, 35378, 2, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["input_ids"].dtype == torch.int64
    assert real([])["input_ids"].shape == (0, 0)
    assert real(iter(["a"]), iter(["b"]))["input_ids"].tolist() == [[0, 10, 2, 2, 876, 2]]
    assert real("a", padding="max_length", max_length=5)["input_ids"].tolist() == [[0, 10, 2, 1, 1]]
    assert real("word " * 600, truncation=True)["input_ids"].shape == (1, 512)
    assert len(real("word " * 600)["input_ids"][0]) > 600


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.encode(None), TypeError, "expected a string, got NoneType"),
        (lambda t: t.encode(b"a"), TypeError, "got bytes"),
        (lambda t: t(["a", None]), TypeError, r"texts\[1\] is NoneType"),
        (lambda t: t(["a"], [1.5]), TypeError, r"pairs\[0\] is float, 1.5"),
        (lambda t: t.encode("ab\ud800"), ValueError, r"U\+D800, at position 2"),
        (lambda t: t(["a", "b"], ["c"]), ValueError, "2 texts but 1 pairs"),
        (lambda t: t("a", padding="left"), ValueError, "padding='left'"),
        (lambda t: t("a", truncation="only_first"), ValueError, "truncation='only_first'"),
        (lambda t: t("a", return_tensors="tf"), ValueError, "return_tensors='tf'"),
        (lambda t: t("a b c", truncation=True, max_length=1), ValueError, "max_length=1 leaves no room"),
        (lambda t: t("a", "b", truncation=True, max_length=3), ValueError, "the special tokens alone are 4"),
        (lambda t: t(["a", "a b c"], padding=False), ValueError, "rows of different lengths"),
        (lambda t: t.decode([0, 999_999]), ValueError, "the id 999999 is not in the vocabulary"),
        (lambda t: t.decode([-1]), ValueError, "the id -1"),
        (lambda t: t.decode([[0, 2], [0, 2]]), ValueError, "one sequence"),
        (lambda t: t.decode(torch.zeros(2, 2, dtype=torch.long)), ValueError, "one sequence"),
    ],
)
def test_bad_input_is_named(tiny, call, error, message):
    with pytest.raises(error, match=message):
        call(tiny)


def test_a_piece_may_not_be_called_like_a_special_token():
    with pytest.raises(ValueError, match="'<mask>' is a piece"):
        XLMRTokenizer(UnigramModel({"a": -1.0, "<mask>": -2.0}))


# --- files ----------------------------------------------------------------------------------------------------------


def test_saved_files_are_read_by_all(tiny, tmp_path):
    tiny.model_max_length = 128
    tiny.save_pretrained(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    ours = XLMRTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    assert (ours.tokens, ours.model_max_length) == (tiny.tokens, 128)
    assert (len(theirs), theirs.model_max_length, theirs.mask_token_id) == (len(tiny), 128, tiny.mask_token_id)
    assert theirs.convert_ids_to_tokens(range(len(tiny))) == tiny.tokens
    for text in [*SENTENCES, "", "unseen Ж and the <mask> cat"]:
        assert ours.encode(text) == tiny.encode(text) == theirs(text)["input_ids"]
        if "<mask>" not in text:
            assert ours.encode(text) == sentencepiece_ids(processor, text)


def test_a_folder_with_only_tokenizer_json(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "a")
    AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b" / "sentencepiece.bpe.model").exists()
    again = XLMRTokenizer.from_pretrained(tmp_path / "b")
    assert again.tokens == tiny.tokens
    assert again.model.scores == tiny.model.scores
    assert [again.encode(text) for text in [*SENTENCES, "ﬁ ①"]] == [tiny.encode(text) for text in [*SENTENCES, "ﬁ ①"]]


def test_a_checkpoint_by_name(small, real):
    assert XLMRTokenizer.from_pretrained("small").tokens == real.tokens
    with pytest.raises(sources.CheckpointError, match="'no-such-model' is no checkpoint"):
        XLMRTokenizer.from_pretrained("no-such-model")


def damage(folder, name, content):
    for file in folder.iterdir():
        file.unlink()
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("readme.txt", b"", "holds neither sentencepiece.bpe.model nor tokenizer.json"),
        ("sentencepiece.bpe.model", b"version https://git-lfs.github.com/spec/v1\n", "no SentencePiece model"),
        ("sentencepiece.bpe.model", b"", "hold no vocabulary"),
        ("tokenizer.json", b"{", "tokenizer.json is not valid JSON"),
        ("tokenizer.json", b"[1]", "tokenizer.json is not valid JSON of an object"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json is not valid JSON"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}', "a model of type 'BPE'"),
        (
            "tokenizer.json",
            b'{"model": {"type": "Unigram", "vocab": 3}}',
            "the vocabulary in tokenizer.json is damaged",
        ),
        ("tokenizer.json", b'{"model": {"type": "Unigram", "vocab": [["a", -1]]}}', "begins a; XLM-R's begins <s>"),
        ("tokenizer.json", b'{"model": {"type": "Unigram", "vocab": [["a"]]}}', "is damaged"),
    ],
)
def test_a_folder_without_a_usable_vocabulary(tmp_path, name, content, message):
    damage(tmp_path, name, content)
    with pytest.raises(ModelFileError, match=message) as caught:
        XLMRTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("charsmap", [base64.b64encode(b"\xff" * 40).decode(), "not base64!", 5])
def test_damaged_rules_in_tokenizer_json(tiny, tmp_path, charsmap):
    tiny.save_pretrained(tmp_path / "a")
    AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    content = json.loads((tmp_path / "b" / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="damaged"):
        XLMRTokenizer.from_pretrained(tmp_path / "b")


def test_importing_the_tokenizer_needs_no_transformers():
    code = "import sys, xlmr_course.tokenizer; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
