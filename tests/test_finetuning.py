"""From the names of things to a folder with results, on a corpus of one's own and a toy that trains in a second."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from toys import toy_checkpoint
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from xlmr_course import checkpoints, finetuning, fitting
from xlmr_course.corpus import CorpusError
from xlmr_course.finetuning import FinetuningError, Settings
from xlmr_course.results import Results
from xlmr_course.training import TrainingError

QUICK = Settings(epochs=2, batch_size=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return toy_checkpoint(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(checkpoint, data, **options):
    options = {"settings": QUICK, "device": "cpu"} | options
    return finetuning.finetune("topics", checkpoint, data=data, **options)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# --- what comes out -------------------------------------------------------------------------------------------------


def test_it_learns_topics_and_writes_what_transformers_reads(checkpoint, own_corpus, out):
    settings = dataclasses.replace(QUICK, epochs=20, batch_size=12)
    results = run(checkpoint, own_corpus, settings=settings, output=out)
    assert [row.language for row in results.languages] == ["en", "xx"]
    assert results.accuracy("en") == 1.0
    model, tokenizer, names = finetuning.load_classifier(out)
    assert names == ["kitchen", "sea"]
    texts = ["the boat sailed over the waves", "rice"]
    ours = tokenizer(texts)
    theirs = AutoTokenizer.from_pretrained(out)(texts, padding=True, return_tensors="pt")
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    other = AutoModelForSequenceClassification.from_pretrained(out).eval()
    assert other.config.id2label == {0: "kitchen", 1: "sea"}
    with torch.no_grad():
        torch.testing.assert_close(model(**ours).logits, other(**theirs).logits, atol=1e-5, rtol=0)


def test_the_file_holds_the_languages_and_what_led_there(checkpoint, own_corpus, out):
    results = run(checkpoint, own_corpus, seeds=(0, 1, 2), output=out)
    written = json.loads((out / "results.json").read_text())
    assert [set(row) for row in written["languages"]] == [{"language", "accuracy", "n", "low", "high"}] * 2
    assert written["languages"][1]["n"] == 4
    assert written["settings"]["seeds"] == [0, 1, 2]
    assert written["settings"]["learning_rate"] == 3e-3
    assert written["settings"]["freeze_embeddings"] is False  # what None stood for
    assert written["settings"]["precision"] == "float32"
    assert set(written["versions"]) == {"python", "torch", "transformers", "xlmr_course", "checkpoint"}
    assert written["versions"]["checkpoint"] == {"name": "toy", "source": "a local folder", "revision": None}
    assert [one["seed"] for one in written["runs"]] == [0, 1, 2]
    assert len(written["runs"][0]["losses"]) == written["runs"][0]["steps"] == 2 * 3
    for row in results.languages:
        values = [one["accuracy"][row.language] for one in written["runs"]]
        assert row.accuracy == pytest.approx(sum(values) / 3)
        assert written["spread"][row.language] == pytest.approx(float(torch.tensor(values).std()), abs=1e-6)
    assert Results.load(out) == results
    assert "±" in results.table()


def test_translate_train_all_trains_on_every_language(checkpoint, own_corpus):
    results = run(checkpoint, own_corpus, train_language="all")
    assert results.train_language == "en,xx"
    assert results.runs[0]["steps"] == 2 * 6


def test_frozen_features_and_logistic_regression(checkpoint, own_corpus, out):
    results = run(checkpoint, own_corpus, method="features", output=out)
    assert results.accuracy("en") >= 0.75
    one = json.loads((out / "results.json").read_text())["runs"][0]
    assert one["layer"] == max(range(3), key=lambda layer: (one["accuracy_by_layer"][layer], layer))
    assert one["pooling"] == "mean"
    again = run(checkpoint, own_corpus, method="features")
    assert again.languages == results.languages


# --- a run that is interrupted --------------------------------------------------------------------------------------

COMMAND = """
import sys
from xlmr_course import finetuning
from xlmr_course.finetuning import Settings
settings = Settings(epochs=20, batch_size=12, learning_rate=3e-3)
finetuning.finetune("topics", sys.argv[1], data=sys.argv[2], output=sys.argv[3], settings=settings,
                    seeds=[0, 1], device="cpu", snapshot_seconds=float(sys.argv[4]))
"""


def start(checkpoint, data, out, seconds=0.0):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMAND, str(checkpoint), str(data), str(out), str(seconds)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def figures(folder):
    """results.json without what a clock decides."""
    written = json.loads((folder / "results.json").read_text())
    del written["seconds"]
    return written


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_ends_with_the_same_numbers_and_weights(checkpoint, own_corpus, tmp_path):
    """Killed in the second seed, when the first is done."""
    assert start(checkpoint, own_corpus, tmp_path / "whole", seconds=100).wait() == 0
    out = tmp_path / "killed"
    process = start(checkpoint, own_corpus, out)
    while process.poll() is None and len(list((out / "seeds" / "1").glob("snapshots/step-*"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9, "it was over before it could be killed"
    assert (out / "seeds" / "0" / "run.json").is_file()
    assert not (out / "results.json").exists()
    assert start(checkpoint, own_corpus, out).wait() == 0
    assert figures(out) == figures(tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")
    assert not list(out.rglob("step-*"))


def test_a_finished_seed_is_not_repeated_and_seeds_may_be_added(checkpoint, own_corpus, out, monkeypatch):
    first = run(checkpoint, own_corpus, output=out)
    model = weights(out)
    trained = []
    train = fitting.train_classifier
    monkeypatch.setattr(finetuning, "train_classifier", lambda *a, **k: (trained.append(a[4]), train(*a, **k))[1])
    assert run(checkpoint, own_corpus, output=out).languages == first.languages
    assert trained == []
    assert [one["seed"] for one in run(checkpoint, own_corpus, output=out, seeds=(0, 7)).runs] == [0, 7]
    assert trained == [7]
    assert weights(out) == model


def test_other_settings_or_data_in_the_same_folder_are_refused(checkpoint, own_corpus, out):
    run(checkpoint, own_corpus, output=out)
    with pytest.raises(TrainingError, match=r"holds another run: epochs: 2 before, 5 now\. Go on with the old values"):
        run(checkpoint, own_corpus, output=out, settings=dataclasses.replace(QUICK, epochs=5))
    with pytest.raises(TrainingError, match=r'evaluate: \["en", "xx"\] before, \["en"\] now'):
        run(checkpoint, own_corpus, output=out, evaluate=["en"])
    file = own_corpus / "sentences" / "en.tsv"
    file.write_text(file.read_text().replace("soup", "bread"))
    with pytest.raises(TrainingError, match=r"sentences: .* before, .* now"):
        run(checkpoint, own_corpus, output=out)


def test_a_folder_that_holds_something_else_is_left_alone(checkpoint, own_corpus, out):
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"holds thesis.txt and no run.json"):
        run(checkpoint, own_corpus, output=out)
    assert [file.name for file in out.iterdir() if file.is_file()] == ["thesis.txt"]


# --- what is refused ------------------------------------------------------------------------------------------------


def edit(folder, language, change):
    file = folder / "sentences" / f"{language}.tsv"
    file.write_text(change(file.read_text()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("sea-test-0\ttest\tsea", "sea-test-0\ttest\tsky"),
            r"xx\.tsv, line 18: the label 'sky' does not occur in the training data, which has kitchen, sea",
        ),
        (lambda text: text.splitlines()[0] + "\n", r"xx\.tsv holds no sentences"),
        (lambda text: text.replace("\ttest\t", "\ttrain\t"), r"xx\.tsv has no test rows"),
        (lambda text: text.replace("id\tsplit\ttopic\ttext", "id\ttext\tlabel"), r"xx\.tsv, line 1: the header is"),
        (lambda text: text.replace("\tdev\tsea\t", "\tsea\t", 1), r"xx\.tsv, line 14: 3 columns instead of 4"),
    ],
    ids=["unknown label", "empty language", "missing split", "wrong columns", "a cell too few"],
)
def test_bad_data_of_one_s_own_is_named_by_file_and_line(checkpoint, own_corpus, change, message):
    edit(own_corpus, "xx", change)
    with pytest.raises(CorpusError, match=message):
        run(checkpoint, own_corpus)


def test_one_label_and_no_folder_are_refused(checkpoint, own_corpus, tmp_path):
    for language in ("en", "xx"):
        edit(own_corpus, language, lambda text: text.replace("\tkitchen\t", "\tsea\t"))
    with pytest.raises(CorpusError, match="the training data has one label, 'sea'"):
        run(checkpoint, own_corpus)
    with pytest.raises(CorpusError, match=r"holds no sentences/<language>.tsv"):
        run(checkpoint, tmp_path / "nowhere")


def test_unknown_names_are_refused(checkpoint, own_corpus):
    with pytest.raises(ValueError, match="there is no task 'names'; the tasks are topics"):
        finetuning.finetune("names", checkpoint)
    with pytest.raises(ValueError, match="there is no method 'magic'; the methods are finetune, features"):
        run(checkpoint, own_corpus, method="magic")
    with pytest.raises(ValueError, match="seeds is empty"):
        finetuning.finetune("topics", checkpoint, seeds=())
    with pytest.raises(CorpusError, match=r"no language 'zz': sentences/ holds en, xx"):
        run(checkpoint, own_corpus, evaluate="zz")


def test_a_collapsed_run_leaves_no_results(checkpoint, own_corpus, out, monkeypatch):
    settings = dataclasses.replace(QUICK, epochs=8, patience=None)
    monkeypatch.setattr(fitting.Run, "step", lambda self, train, batch: 0.6931)
    with pytest.raises(FinetuningError, match="the run collapsed"):
        run(checkpoint, own_corpus, settings=settings, output=out)
    assert not (out / "results.json").exists()
    assert not (out / "model.safetensors").exists()


def test_a_folder_without_a_classifier_is_named(checkpoint):
    with pytest.raises(checkpoints.CheckpointError, match="'toy' is no classifier"):
        finetuning.load_classifier(checkpoint)
