"""The loader, and the rules that the classroom corpus must hold."""

import collections
import itertools
import re
import unicodedata

import pytest

from xlmr_course import corpus
from xlmr_course.corpus import LANGUAGES, TOPICS, CorpusError

SCRIPTS = {
    **dict.fromkeys(LANGUAGES, "LATIN"),
    **{"ar": "ARABIC", "ur": "ARABIC", "bg": "CYRILLIC", "ru": "CYRILLIC"},
    **{"el": "GREEK", "hi": "DEVANAGARI", "th": "THAI", "zh": "CJK"},
}


@pytest.fixture(scope="module")
def sentences():
    return {code: corpus.read_sentences(corpus.corpus_folder() / "sentences" / f"{code}.tsv") for code in LANGUAGES}


def write(tmp_path, *rows, header="id\tsplit\ttopic\ttext", language="en"):
    file = tmp_path / "sentences" / f"{language}.tsv"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes("\n".join([header, *rows]).encode("utf-8", "surrogateescape") + b"\n")
    return tmp_path


# --- the loader ------------------------------------------------------------------------------------------------------


def test_load_gives_the_columns_and_the_split():
    train = corpus.load("en", "train")
    assert train.column_names == ["id", "split", "topic", "text", "tokens", "name_tags"]
    assert set(train["split"]) == {"train"}
    assert len(train) == 420
    assert len(corpus.load("en")) == 700


def test_parallel_keeps_translations_together():
    both = corpus.load_parallel(["en", "hi"], "dev")
    assert both["language"][:4] == ["en", "hi", "en", "hi"]
    assert both["id"][0] == both["id"][1]
    assert len(both) == 2 * 70


def test_names_become_bio_tags_on_tokens():
    text, tokens, tags = corpus.parse("Did [Marie Curie|PER] see l’[Espagne|LOC], or the [Red Cross|ORG]?")
    assert text == "Did Marie Curie see l’Espagne, or the Red Cross?"
    named = [(token, tag) for token, tag in zip(tokens, tags, strict=True) if tag != "O"]
    assert named == [
        *(("Marie", "B-PER"), ("Curie", "I-PER"), ("Espagne", "B-LOC"), ("Red", "B-ORG"), ("Cross", "I-ORG"))
    ]


def test_scripts_without_spaces_are_cut_into_characters():
    assert corpus.parse("[居里夫人|PER]在[巴黎|LOC]。")[1] == list("居里夫人在巴黎。")
    assert corpus.parse("ไป[กรุงเทพ|LOC]")[1] == ["ไ", "ป", "ก", "รุ", "ง", "เ", "ท", "พ"]


def test_a_hindi_word_keeps_its_vowel_signs():
    assert corpus.parse("मैरी क्यूरी पेरिस में हैं।")[1] == ["मैरी", "क्यूरी", "पेरिस", "में", "हैं", "।"]


def test_a_learner_s_own_folder_loads_with_any_topics(own_corpus):
    assert corpus.languages_in(own_corpus) == ["en", "xx"]
    assert set(corpus.load("xx", folder=own_corpus, topics=None)["topic"]) == {"sea", "kitchen"}
    with pytest.raises(CorpusError, match=r"xx.tsv, line 2: the topic 'sea' is not one of science"):
        corpus.load("xx", folder=own_corpus)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a-1\ttrain\ttravel", r"line 3: 3 columns instead of 4"),
        ("a-1\ttrain\ttravel\tOne.\tTwo.", r"line 3: 5 columns instead of 4"),
        ("a-1\ttest\ttravle\tOne.", r"line 3: the topic 'travle'"),
        ("a-1\tvalid\ttravel\tOne.", r"line 3: the split 'valid'"),
        ("a-0\ttrain\ttravel\tOne.", r"line 3: the id 'a-0' stands in line 2"),
        ("a-1\ttrain\ttravel\tOne [Ana|PER.", r"line 3: a '\[' that belongs to no name"),
        ("a-1\ttrain\ttravel\tOne [Ana|DOG].", r"line 3: a '\[' that belongs to no name"),
        ("a-1\ttrain\ttravel\tOne Ana|PER].", r"line 3: a '\|' that belongs to no name"),
        ("a-1\ttrain\ttravel\t ", r"line 3: the text is empty"),
        ("a-1\ttrain\ttravel\tCafe\u0301.", r"line 3: the text is not in Unicode normal form C"),
        ("a-1\ttrain\ttravel\tOne \udcff.", r"line 3: byte 22 of the line is not UTF-8"),
        ("", r"line 3: 1 columns instead of 4"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, row, message):
    folder = write(tmp_path, "a-0\ttrain\ttravel\tZero.", row)
    with pytest.raises(CorpusError, match="en.tsv, " + message):
        corpus.load("en", folder=folder)


def test_a_wrong_header_and_an_empty_file_are_named(tmp_path):
    with pytest.raises(CorpusError, match="line 1: the header is"):
        corpus.load("en", folder=write(tmp_path, header="id,split,topic,text"))
    with pytest.raises(CorpusError, match="holds no sentences"):
        corpus.load("en", folder=write(tmp_path))


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    folder = write(tmp_path, "a-0\ttrain\ttravel\tZero.\r", header="\ufeffid\tsplit\ttopic\ttext\r")
    assert corpus.load("en", folder=folder)["text"] == ["Zero."]


def test_an_unknown_language_or_split_lists_what_there_is(own_corpus):
    with pytest.raises(CorpusError, match="no language 'xy': sentences/ holds en, xx"):
        corpus.load("xy", folder=own_corpus)
    with pytest.raises(CorpusError, match="no split 'valid'; there are train, dev, test"):
        corpus.load("en", "valid")


def test_parallel_files_must_hold_the_same_ids(own_corpus):
    file = own_corpus / "sentences" / "xx.tsv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(CorpusError, match=r"xx.tsv has no row 'kitchen-test-3'"):
        corpus.load_parallel(["en", "xx"], folder=own_corpus, topics=None)
    with pytest.raises(CorpusError, match="is one string"):
        corpus.load_parallel("en")


# --- sampling --------------------------------------------------------------------------------------------------------


def test_sampling_reproduces_the_published_table():
    """q for α = 1, 0.7, 0.3 from CC-100's sizes needs all 100 languages; two of them show the formula."""
    q = corpus.sampling_probabilities({"en": 300.8, "sw": 1.6}, alpha=0.3)
    assert q["en"] / q["sw"] == pytest.approx((300.8 / 1.6) ** 0.3)
    assert sum(q.values()) == pytest.approx(1)
    assert corpus.sampling_probabilities({"en": 3, "sw": 1}, alpha=1) == {"en": 0.75, "sw": 0.25}
    assert corpus.sampling_probabilities({"en": 3, "sw": 1}, alpha=0) == {"en": 0.5, "sw": 0.5}


@pytest.mark.parametrize(
    ("sizes", "alpha", "message"),
    [({"en": 1}, 1.5, "alpha=1.5 lies outside"), ({}, 0.3, "no languages"), ({"en": 1, "sw": 0}, 0.3, "'sw' is 0")],
)
def test_sampling_refuses_bad_input(sizes, alpha, message):
    with pytest.raises(ValueError, match=message):
        corpus.sampling_probabilities(sizes, alpha)


# --- the classroom corpus --------------------------------------------------------------------------------------------


def test_every_language_holds_the_same_seven_hundred(sentences):
    english = {row.id: row for row in sentences["en"]}
    assert len(english) == 700
    for code, rows in sentences.items():
        assert [row.id for row in rows] == list(english), code
        for row in rows:
            assert (row.split, row.topic) == (english[row.id].split, english[row.id].topic), (code, row.id)


def test_sixty_ten_thirty_per_topic(sentences):
    counts = collections.Counter((row.topic, row.split) for row in sentences["en"])
    wanted = {"train": 60, "dev": 10, "test": 30}
    assert counts == {(topic, split): n for topic in TOPICS for split, n in wanted.items()}
    assert all(re.fullmatch(r"[a-z]+-\d{3}", row.id) for row in sentences["en"])


def mentions(row):
    return collections.Counter(tag[2:] for tag in row.name_tags if tag.startswith("B-"))


def test_names_carry_the_same_labels_in_every_language(sentences):
    english = {row.id: mentions(row) for row in sentences["en"]}
    for code, rows in sentences.items():
        wrong = [row.id for row in rows if mentions(row) != english[row.id]]
        assert not wrong, f"{code}: {wrong[:5]}"


def test_there_are_enough_names(sentences):
    total = sum((mentions(row) for row in sentences["en"]), collections.Counter())
    assert (total["PER"] >= 180, total["LOC"] >= 220, total["ORG"] >= 140) == (True, True, True)
    assert sum(bool(mentions(row)) for row in sentences["en"]) >= 380


def test_the_english_is_varied(sentences):
    words = [re.findall(r"[\w’-]+", row.text.lower()) for row in sentences["en"]]
    assert all(8 <= len(row.text.split()) <= 25 for row in sentences["en"])
    openings = collections.Counter(tuple(w[:3]) for w in words)
    assert sum(count == 1 for count in openings.values()) >= 0.85 * len(words)
    fives = collections.Counter(five for w in words for five in {tuple(w[i : i + 5]) for i in range(len(w) - 4)})
    assert max(fives.values()) <= 3


def test_text_is_clean_in_every_language(sentences):
    for code, rows in sentences.items():
        for row in rows:
            assert row.text == unicodedata.normalize("NFC", row.text.strip()), (code, row.id)
            assert "  " not in row.text, (code, row.id)
            letters = [c for c in row.text if c.isalpha()]
            share = sum(SCRIPTS[code] in unicodedata.name(c, "") for c in letters) / len(letters)
            assert share >= 0.6, (code, row.id, share)


def test_no_sentence_stands_twice_or_untranslated(sentences):
    english = {row.text for row in sentences["en"]}
    for code, rows in sentences.items():
        texts = [row.text for row in rows]
        assert len(set(texts)) == len(texts), code
        assert code == "en" or not english & set(texts), code


@pytest.mark.parametrize(
    ("code", "wanted", "unwanted"),
    [("ar", "،؟", ",?;"), ("ur", "،؟۔", ",?;"), ("zh", "，。？", ",?;! "), ("hi", "।?", ""), ("th", "", "।。")],
)
def test_punctuation_is_the_language_s_own(sentences, code, wanted, unwanted):
    text = "".join(row.text for row in sentences[code])
    assert all(sign in text for sign in wanted)
    assert not set(unwanted) & set(text)


def test_chinese_is_simplified_and_urdu_uses_urdu_letters(sentences):
    assert not set("國學發經電個們說這為與會時來對") & set("".join(row.text for row in sentences["zh"]))
    assert not set("كيىه") & set("".join(row.text for row in sentences["ur"]))


def test_thai_has_no_spaces_between_words(sentences):
    longest = [max(len(part) for part in row.text.split()) for row in sentences["th"]]
    assert sorted(longest)[len(longest) // 20] >= 12  # 95 % hold a run of at least 12 characters


def test_tokens_lose_nothing_but_white_space(sentences):
    for rows in sentences.values():
        for row in itertools.islice(rows, 0, None, 7):
            assert "".join(row.tokens) == re.sub(r"\s", "", row.text)
            assert len(row.tokens) == len(row.name_tags)
