"""The training loop on a toy: what it keeps, when it stops, what it refuses, and that a kill changes nothing."""

import dataclasses

import pytest
import torch
from toys import toy_checkpoint
from transformers import get_linear_schedule_with_warmup

from xlmr_course import checkpoints, fitting
from xlmr_course.batches import Encoded
from xlmr_course.encoder import XLMRConfig
from xlmr_course.fitting import FinetuningError, Settings
from xlmr_course.heads import ClassifierOutput, SequenceClassifier

QUICK = Settings(epochs=3, batch_size=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return toy_checkpoint(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """The same without dropout: what is computed in parts must give what is computed at once."""
    return toy_checkpoint(tmp_path_factory.mktemp("toy") / "still", dropout=0.0)


def sentences(count, seed=0):
    """Random ids, and among them several times the word 5 or the word 6, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (count,), generator=generator).tolist()
    ids = [
        [0, *torch.randint(7, 20, (length,), generator=generator).tolist(), *[5 + i % 2] * 4, 2]
        for i, length in enumerate(lengths)
    ]
    return Encoded(ids, [i % 2 for i in range(count)])


TRAIN, DEV = sentences(22), sentences(8, seed=1)


def trained(checkpoint, settings=QUICK, **options):
    return fitting.train_classifier(checkpoint, TRAIN, DEV, 2, 0, settings, **options)


def assert_equal(one, two):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_it_learns_and_says_how_it_went(checkpoint):
    settings = dataclasses.replace(QUICK, epochs=6)
    model = fitting.train_classifier(checkpoint, sentences(80), sentences(20, seed=1), 2, 0, settings)
    assert not model.training
    assert model.progress.scores[model.progress.best_epoch][0] >= 0.95
    assert len(model.progress.losses) == 20 * len(model.progress.scores)
    assert model.progress.losses[-1] < model.progress.losses[0]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(checkpoint):
    assert_equal(trained(checkpoint), trained(checkpoint))
    other = fitting.train_classifier(checkpoint, TRAIN, DEV, 2, 1, QUICK)
    assert not torch.equal(other.classifier.dense.weight, trained(checkpoint).classifier.dense.weight)


# --- what is trained ------------------------------------------------------------------------------------------------


def test_word_embeddings_are_frozen_where_there_are_many():
    assert QUICK.resolved(XLMRConfig.small()).freeze_embeddings is True
    assert QUICK.resolved(XLMRConfig.large()).freeze_embeddings is True
    assert QUICK.resolved(XLMRConfig.tiny()).freeze_embeddings is False
    asked = dataclasses.replace(QUICK, freeze_embeddings=False)
    assert asked.resolved(XLMRConfig.large()).freeze_embeddings is False


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_embeddings_stay_and_others_move(checkpoint, frozen):
    model = trained(checkpoint, dataclasses.replace(QUICK, freeze_embeddings=frozen))
    before = checkpoints.load_encoder(checkpoint)
    assert torch.equal(model.encoder.embeddings.word.weight, before.embeddings.word.weight) == frozen
    assert not torch.equal(model.encoder.layers[0].feed_forward.up.weight, before.layers[0].feed_forward.up.weight)


def test_the_rate_follows_the_size_of_the_model():
    assert Settings().resolved(XLMRConfig.large()).learning_rate == 1e-5
    assert Settings().resolved(XLMRConfig.small()).learning_rate == 2e-4
    assert QUICK.resolved(XLMRConfig.small()).learning_rate == 3e-3


def test_the_schedule_rises_and_falls_like_transformers_one_step_ahead():
    """Theirs has the factor 0 at its first step; ours does not waste it."""
    steps, rise = 100, 10
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimiser, rise, steps).lr_lambdas[0]
    for step in range(rise - 1):
        assert fitting.warmup_decay(step, steps, 0.1) == pytest.approx(theirs(step + 1))
    for step in range(rise, steps):
        assert fitting.warmup_decay(step, steps, 0.1) == pytest.approx(theirs(step))


# --- the best epoch, and when to stop -------------------------------------------------------------------------------


def scored(monkeypatch, scores):
    """Let dev give these scores, one an epoch."""
    left = iter(scores)
    monkeypatch.setattr(fitting, "score", lambda *arguments: (next(left), 0.0))


def test_the_best_epoch_on_dev_is_what_is_returned(checkpoint, monkeypatch):
    scored(monkeypatch, [0.5, 0.9, 0.7])
    model = trained(checkpoint)
    seen = []
    monkeypatch.setattr(
        fitting, "score", lambda model, *_: (seen.append(model.classifier.dense.weight.clone()), 0.0)[1:] * 2
    )
    trained(checkpoint)
    assert model.progress.best_epoch == 1
    assert torch.equal(model.classifier.dense.weight, seen[1])


def test_patience_stops_after_epochs_without_a_better_score(checkpoint, monkeypatch):
    scored(monkeypatch, [0.5, 0.8, 0.7, 0.6, 0.9])
    model = trained(checkpoint, dataclasses.replace(QUICK, epochs=5, patience=2))
    assert [accuracy for accuracy, _ in model.progress.scores] == [0.5, 0.8, 0.7, 0.6]
    assert model.progress.best_epoch == 1
    scored(monkeypatch, [0.5, 0.8, 0.7, 0.6, 0.9])
    assert trained(checkpoint, dataclasses.replace(QUICK, epochs=5, patience=None)).progress.best_epoch == 4


def test_without_dev_sentences_the_last_epoch_is_returned(checkpoint):
    model = fitting.train_classifier(checkpoint, TRAIN, Encoded([], []), 2, 0, QUICK)
    assert model.progress.best_epoch == 2


# --- a kill changes nothing -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing in the loop may catch it."""


@pytest.mark.parametrize("at", [1, 5, 6, 7, 12, 17, 18])
def test_a_run_that_is_killed_at_any_step_ends_with_the_same_weights(checkpoint, tmp_path, monkeypatch, at):
    """Six steps an epoch: in the first, at an end, just behind it, in the last."""
    whole = trained(checkpoint)
    step = fitting.Run.step
    calls = []

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return step(self, *arguments)

    monkeypatch.setattr(fitting.Run, "step", dying)
    with pytest.raises(Killed):
        trained(checkpoint, folder=tmp_path, snapshot_seconds=0.0)
    done = len(calls) - 1
    resumed = trained(checkpoint, folder=tmp_path, snapshot_seconds=0.0)
    assert len(calls) - 1 - done == 18 - done  # no step twice: there is a snapshot after each
    assert_equal(whole, resumed)
    assert whole.progress.losses == resumed.progress.losses
    assert whole.progress.scores == resumed.progress.scores


def test_float16_goes_on_with_its_loss_scale(still, tmp_path, monkeypatch):
    settings = dataclasses.replace(QUICK, precision="float16")
    whole = trained(still, settings)
    saved = fitting.Run.save
    monkeypatch.setattr(fitting.Run, "save", lambda self, folder: (saved(self, folder), (_ for _ in ()).throw(Killed)))
    with pytest.raises(Killed):
        trained(still, settings, folder=tmp_path, snapshot_seconds=0.0)
    monkeypatch.setattr(fitting.Run, "save", saved)
    assert_equal(whole, trained(still, settings, folder=tmp_path))


# --- less memory ----------------------------------------------------------------------------------------------------


def close(one, two, tolerance):
    assert max(abs(a - b) for a, b in zip(one.progress.losses, two.progress.losses, strict=True)) < tolerance


def test_parts_of_a_batch_give_the_batch(still):
    close(trained(still), trained(still, dataclasses.replace(QUICK, accumulate=3)), 1e-4)


def test_layers_computed_again_give_the_same(still):
    close(trained(still), trained(still, dataclasses.replace(QUICK, gradient_checkpointing=True)), 1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_the_same(still, precision):
    exact = trained(still).progress.losses
    model = trained(still, dataclasses.replace(QUICK, precision=precision))
    assert 0 < abs(model.progress.losses[0] - exact[0]) < 0.05
    assert abs(sum(model.progress.losses[-6:]) - sum(exact[-6:])) < 0.2 * 6
    assert model.classifier.dense.weight.dtype == torch.float32


def test_accelerate_s_own_flag_sets_the_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert QUICK.resolved(XLMRConfig.tiny()).precision == "bfloat16"
    assert dataclasses.replace(QUICK, precision="float32").resolved(XLMRConfig.tiny()).precision == "float32"


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_too_small_is_told_what_to_lower(checkpoint, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(SequenceClassifier, "forward", full)
    with pytest.raises(
        FinetuningError, match=r"out of memory on cpu, at [24] sentences of \d+ tokens.*--accumulate 2 comp"
    ):
        trained(checkpoint)


def test_an_evaluation_that_does_not_fit_takes_smaller_batches(checkpoint, monkeypatch):
    forward, sizes = SequenceClassifier.forward, []

    def small_only(self, ids, *arguments, **options):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids, *arguments, **options)

    model = trained(checkpoint)
    whole = fitting.predict(model, DEV.ids)
    monkeypatch.setattr(SequenceClassifier, "forward", small_only)
    assert torch.equal(fitting.predict(model, DEV.ids), whole)
    assert sizes[:4] == [8, 8, 8, 8]


def test_a_collapsed_run_is_no_result(checkpoint):
    with pytest.raises(FinetuningError, match=r"which is guessing \(ln 2 = 0.693\); the run collapsed"):
        fitting.refuse_collapse([0.6932] * 30, 2, 1e-3)
    shuffled = Encoded(TRAIN.ids, torch.randint(0, 2, (22,), generator=torch.Generator().manual_seed(3)).tolist())
    settings = dataclasses.replace(QUICK, epochs=8, learning_rate=1e-9)
    with pytest.raises(FinetuningError, match="the run collapsed"):
        fitting.train_classifier(checkpoint, shuffled, DEV, 2, 0, settings)


def test_a_diverging_loss_stops_the_run(checkpoint, monkeypatch):
    def forward(self, ids, mask=None, labels=None):
        return ClassifierOutput(None, self.classifier.dense.weight.sum() * float("nan"))

    monkeypatch.setattr(SequenceClassifier, "forward", forward)
    with pytest.raises(FinetuningError, match=r"the loss is nan at step 1; lower the learning rate from 0\.003"):
        trained(checkpoint)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "accumulate", "patience"])
def test_settings_that_mean_nothing_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        Settings(**{name: 0})
    with pytest.raises(ValueError, match="precision='half' is unknown"):
        Settings(precision="half").resolved(XLMRConfig.tiny())


# --- prediction -----------------------------------------------------------------------------------------------------


def test_predictions_come_back_in_the_order_given(checkpoint):
    model = SequenceClassifier(checkpoints.load_encoder(checkpoint), 5).eval()
    rows = [[0, 7 + i, *range(8, 8 + (7 * i) % 11), 2] for i in range(9)]
    together = fitting.predict(model, rows, batch_size=4)
    alone = torch.cat([fitting.predict(model, [row]) for row in rows])
    assert together.tolist() == alone.tolist()
