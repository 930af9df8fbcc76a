"""Where sentences come from: data sets in the layouts of facebook/xnli and Davlan/sib200, as local copies."""

import datasets
import pytest
from toys import toy_checkpoint

from xlmr_course import finetuning, tasks
from xlmr_course.corpus import CorpusError
from xlmr_course.fitting import Settings

ENTAILMENT = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
COUNTS = {"train": 12, "validation": 6, "test": 6}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def dataset_card(folder, configurations, kind):
    """A README.md that says, as the hub's do, which files are which split of which configuration."""
    lines = ["---", "configs:"]
    for name in configurations:
        lines += [f"- config_name: {name}", "  data_files:"]
        for split in COUNTS:
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.{kind}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


@pytest.fixture
def xnli(tmp_path):
    """As facebook/xnli: parquet, one folder a language, a ClassLabel."""
    folder = tmp_path / "xnli"
    kinds = datasets.Features(
        {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"), "label": ENTAILMENT}
    )
    for language in ("ar", "en", "sw"):
        (folder / language).mkdir(parents=True)
        for split, count in COUNTS.items():
            rows = [(f"the boat sailed {i}", ["the boat", "rice", "soup and rice"][i % 3], i % 3) for i in range(count)]
            columns = dict(zip(("premise", "hypothesis", "label"), map(list, zip(*rows, strict=True)), strict=True))
            data = datasets.Dataset.from_dict(columns, features=kinds)
            data.to_parquet(folder / language / f"{split}-00000-of-00001.parquet")
    dataset_card(folder, ("ar", "en", "sw"), "parquet")
    return folder


@pytest.fixture
def sib(tmp_path):
    """As Davlan/sib200: a configuration a language and script, text categories."""
    folder = tmp_path / "sib200"
    for language in ("eng_Latn", "quy_Latn", "swh_Latn"):
        (folder / language).mkdir(parents=True)
        for split, count in COUNTS.items():
            topics = [["travel", "sports"][i % 2] for i in range(count)]
            texts = [{"travel": "the boat sailed", "sports": "she cooked rice"}[topic] for topic in topics]
            data = datasets.Dataset.from_dict({"index_id": list(range(count)), "category": topics, "text": texts})
            data.to_parquet(folder / language / f"{split}-00000-of-00001.parquet")
    dataset_card(folder, ("eng_Latn", "quy_Latn", "swh_Latn"), "parquet")
    return folder


def test_xnli_gives_pairs_and_named_labels(xnli):
    source = tasks.open_source(dataset=str(xnli))
    assert source.languages() == ["en", "ar", "sw"]  # the course's order
    rows = source.read("sw", "dev")
    assert rows.texts[:2] == ["the boat sailed 0", "the boat sailed 1"]
    assert rows.pairs[:2] == ["the boat", "rice"]
    assert rows.labels[:3] == ["entailment", "neutral", "contradiction"]
    assert len(source.read("en", "train").texts) == 12


def test_sib_s_languages_answer_to_the_course_s_codes_and_their_own(sib):
    source = tasks.open_source(dataset=str(sib))
    assert source.languages() == ["en", "sw"]
    assert source.read("sw", "test") == source.read("swh_Latn", "test")
    assert source.read("quy_Latn", "test").pairs is None
    assert source.labels(["en"]) == ["sports", "travel"]


def test_only_the_split_that_is_asked_for_is_read(xnli):
    (xnli / "sw" / "train-00000-of-00001.parquet").write_bytes(b"no parquet at all")
    assert len(tasks.open_source(dataset=str(xnli)).read("sw", "test").texts) == 6


@pytest.mark.parametrize(("which", "classes"), [("xnli", 3), ("sib", 2)])
def test_fine_tuning_on_both_layouts(which, classes, request, tmp_path):
    """Text by text the label is learnable; pairs go through the tokenizer as pairs."""
    data = request.getfixturevalue(which)
    checkpoint = toy_checkpoint(tmp_path / "toy")
    settings = Settings(epochs=2, batch_size=4, learning_rate=3e-3)
    results = finetuning.finetune(
        "topics",
        checkpoint,
        "en",
        ["en", "sw"],
        dataset=str(data),
        settings=settings,
        output=tmp_path / "out",
        device="cpu",
    )
    assert [row.n for row in results.languages] == [6, 6]
    assert results.settings["data"] == str(data)
    assert len(finetuning.load_classifier(tmp_path / "out")[2]) == classes
    tokenizer = finetuning.load_classifier(tmp_path / "out")[1]
    rows = tasks.open_source(dataset=str(data)).read("en", "test")
    encoded = finetuning._encoded(rows, tokenizer, sorted(set(rows.labels)), 64)
    assert all(ids.count(2) == (3 if which == "xnli" else 1) for ids in encoded.ids)  # <s> A </s></s> B </s>


def test_the_classroom_corpus_is_the_default():
    source = tasks.open_source()
    assert len(source.languages()) == 15
    assert source.labels(["en"])[0] == "science/technology"
    rows = source.read("sw", "test")
    assert len(rows.texts) == 210
    assert rows.where(0).startswith("sw.tsv, line ")


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    with pytest.raises(
        CorpusError, match=r"^the data set 'facebook/xnli' \(configurations\) could not be read on the Hugging Face hub"
    ) as error:
        tasks.open_source(dataset="facebook/xnli")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("connect to the hub, or pass a folder that holds a copy")


def test_a_language_a_split_or_a_column_that_is_missing_is_named(xnli, sib):
    source = tasks.open_source(dataset=str(xnli))
    with pytest.raises(CorpusError, match=r"has no language 'zz'; there are en, ar, sw"):
        source.read("zz", "test")
    card = (xnli / "README.md").read_text()
    (xnli / "README.md").write_text(card.replace("  - split: test\n    path: sw/test-*.parquet\n", ""))
    with pytest.raises(CorpusError, match="sw: there are no test rows"):
        tasks.open_source(dataset=str(xnli)).read("sw", "test")
    file = sib / "swh_Latn" / "test-00000-of-00001.parquet"
    datasets.Dataset.from_dict({"Satz": ["a"], "category": ["travel"]}).to_parquet(file)
    with pytest.raises(CorpusError, match=r"swh_Latn: the columns are Satz, category; one of premise, text, sentence"):
        tasks.open_source(dataset=str(sib)).read("sw", "test")


def test_a_label_that_training_never_saw_is_named_by_its_row(sib, tmp_path):
    file = sib / "swh_Latn" / "test-00000-of-00001.parquet"
    columns = {"index_id": [0, 1], "category": ["travel", "weather"], "text": ["a", "b"]}
    datasets.Dataset.from_dict(columns).to_parquet(file)
    rows = tasks.open_source(dataset=str(sib)).read("sw", "test")
    with pytest.raises(CorpusError, match=r"swh_Latn, test, row 1: the label 'weather' does not occur"):
        rows.numbers(["sports", "travel"])


def test_a_row_without_a_label_is_named(xnli):
    file = xnli / "en" / "test-00000-of-00001.parquet"
    columns = {"premise": ["a"], "hypothesis": ["b"], "label": [-1]}
    datasets.Dataset.from_dict(columns).to_parquet(file)
    with pytest.raises(CorpusError, match=r"en, test, row 0: it has no label"):
        tasks.open_source(dataset=str(xnli)).read("en", "test")


def test_a_damaged_file_and_two_sources_are_refused(xnli, own_corpus):
    (xnli / "en" / "train-00000-of-00001.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(CorpusError, match=r"\(en\) could not be read in this folder"):
        tasks.open_source(dataset=str(xnli)).read("en", "train")
    with pytest.raises(CorpusError, match="were both given; give one"):
        tasks.open_source(own_corpus, str(xnli))
