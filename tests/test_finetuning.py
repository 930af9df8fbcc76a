"""Fine-tuning on a corpus of one's own with a small random encoder: it learns, saves, and refuses what is wrong."""

import json

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from xlmr_course import checkpoints, finetuning
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.finetuning import FinetuningError, Settings
from xlmr_course.heads import ClassifierOutput


@pytest.fixture
def checkpoint(tmp_path, small):
    """XLM-R's real tokenizer on a small random encoder; the vocabulary is what makes it slow, so the rest is tiny."""
    config = XLMRConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, initializer_range=0.3
    )
    encoder = Encoder(config, torch.Generator().manual_seed(0))
    return checkpoints.save_pretrained(encoder, checkpoints.load_tokenizer(small), tmp_path / "random")


def test_it_learns_topics_and_writes_what_transformers_reads(checkpoint, own_corpus, tmp_path):
    settings = Settings(epochs=8, batch_size=4, learning_rate=3e-3)
    out = tmp_path / "out"
    results = finetuning.finetune("topics", checkpoint, data=own_corpus, settings=settings, output=out, device="cpu")
    assert [row.language for row in results.languages] == ["en", "xx"]
    assert results.accuracy("en") == 1.0
    written = json.loads((out / "results.json").read_text())
    assert written["settings"]["epochs"] == 8
    assert written["languages"][1]["n"] == 4

    model, tokenizer, names = finetuning.load_classifier(out)
    assert names == ["kitchen", "sea"]
    ids = tokenizer("the boat sailed")["input_ids"]
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_pretrained(out).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_results_and_frozen_embeddings_stay(checkpoint, own_corpus):
    arguments = ("topics", checkpoint, "en", ["xx"], own_corpus)
    settings = Settings(epochs=2, batch_size=4, learning_rate=1e-3)
    runs = [finetuning.finetune(*arguments, seeds=(3,), settings=settings, device="cpu") for _ in range(2)]
    assert runs[0].languages == runs[1].languages
    train = finetuning.encode(checkpoints.load_tokenizer(checkpoint), "en", "train", own_corpus, ["sea", "kitchen"], 64)
    tuned = finetuning.train_classifier(checkpoint, train, train, 2, 0, settings)
    before = checkpoints.load_encoder(checkpoint)
    assert torch.equal(tuned.encoder.embeddings.word.weight, before.embeddings.word.weight)
    assert not torch.equal(tuned.encoder.layers[0].feed_forward.up.weight, before.layers[0].feed_forward.up.weight)


def test_translate_train_all_trains_on_every_language(checkpoint, own_corpus):
    results = finetuning.finetune(
        "topics", checkpoint, "all", data=own_corpus, settings=Settings(epochs=1, batch_size=8), device="cpu"
    )
    assert results.train_language == "en,xx"


def test_a_label_that_training_never_saw_is_named(checkpoint, own_corpus):
    file = own_corpus / "sentences" / "xx.tsv"
    file.write_text(file.read_text().replace("sea-test-0\ttest\tsea", "sea-test-0\ttest\tsky"))
    with pytest.raises(ValueError, match=r"xx.tsv, id 'sea-test-0': the label 'sky' does not occur"):
        finetuning.finetune("topics", checkpoint, data=own_corpus, device="cpu")


def test_an_unknown_task_and_no_seed_are_refused(checkpoint):
    with pytest.raises(ValueError, match="there is no task 'names'; the tasks are topics"):
        finetuning.finetune("names", checkpoint)
    with pytest.raises(ValueError, match="seeds is empty"):
        finetuning.finetune("topics", checkpoint, seeds=())


def test_a_collapsed_run_is_no_result(checkpoint, own_corpus):
    with pytest.raises(FinetuningError, match="the run collapsed"):
        finetuning.finetune(
            "topics", checkpoint, data=own_corpus, settings=Settings(epochs=8, batch_size=4, learning_rate=1e-9)
        )


def test_a_diverging_loss_stops_the_run(checkpoint, own_corpus, monkeypatch):
    monkeypatch.setattr(
        finetuning.SequenceClassifier,
        "forward",
        lambda self, ids, mask=None, labels=None: ClassifierOutput(
            None, self.classifier.dense.weight.sum() * float("nan")
        ),
    )
    with pytest.raises(FinetuningError, match="the loss is nan at step 1; lower the learning rate"):
        finetuning.finetune("topics", checkpoint, data=own_corpus, device="cpu")


def test_the_schedule_rises_and_falls_like_transformers_one_step_ahead():
    """Theirs has the factor 0 at its first step; ours does not waste it."""
    steps, rise = 100, 10
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimiser, rise, steps).lr_lambdas[0]
    for step in range(rise - 1):
        assert finetuning.warmup_decay(step, steps, 0.1) == pytest.approx(theirs(step + 1))
    for step in range(rise, steps):
        assert finetuning.warmup_decay(step, steps, 0.1) == pytest.approx(theirs(step))


def test_batches_hold_every_sentence_once_and_similar_lengths_together():
    lengths = torch.randint(5, 60, (420,), generator=torch.Generator().manual_seed(1)).tolist()
    batches = list(finetuning.batches_by_length(lengths, 16, torch.Generator().manual_seed(0)))
    assert sorted(i for batch in batches for i in batch) == list(range(420))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sorted(spread)[len(spread) // 2] <= 6
    again = list(finetuning.batches_by_length(lengths, 16, torch.Generator().manual_seed(0)))
    assert batches == again


def test_predictions_come_back_in_the_order_given(checkpoint):
    model = finetuning.SequenceClassifier(checkpoints.load_encoder(checkpoint), 5).eval()
    sentences = [[0, 100 + i, *range(200, 200 + (7 * i) % 11), 2] for i in range(9)]
    together = finetuning.predict(model, sentences, batch_size=4)
    alone = torch.cat([finetuning.predict(model, [sentence]) for sentence in sentences])
    assert together.tolist() == alone.tolist()
