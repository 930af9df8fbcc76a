"""Pretraining: the data's order, the loop, stopping by SIGKILL, two processes, and everything that must be refused."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import torch

from xlmr_course import perplexity, pretraining, recipes, streams, texts, training, unigram
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import IGNORED, MaskedLM
from xlmr_course.pretraining import Settings, pretrain
from xlmr_course.tokenizer import XLMRTokenizer
from xlmr_course.training import TrainingError

WORDS = {"aa": ["kat", "zumo", "mera", "pel", "dinsa"], "bb": ["xo", "vima", "sarta", "quem", "lefo", "no"]}


def sentences(language: str, count: int, seed: int = 0) -> list[str]:
    """Sentences in which each word decides which one follows nine times out of ten: something to learn."""
    generator, words = torch.Generator().manual_seed(seed), WORDS[language]
    found = []
    for _ in range(count):
        place, chosen = int(torch.randint(len(words), (1,), generator=generator)), []
        for _ in range(8):
            chosen.append(words[place])
            jump = int(torch.randint(10, (1,), generator=generator)) == 0
            place = int(torch.randint(len(words), (1,), generator=generator)) if jump else (place + 1) % len(words)
        found.append(" ".join(chosen) + ".")
    return found


TRAIN = {language: sentences(language, 60) for language in WORDS}
DEV = {language: sentences(language, 6, seed=1) for language in WORDS}
SHAPE = XLMRConfig.tiny(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return XLMRTokenizer(unigram.train([text for found in TRAIN.values() for text in found], 34), 32)


def settings(**changes) -> Settings:
    usual = {
        "steps": 12,
        "batch_size": 8,
        "length": 32,
        "learning_rate": 1e-2,
        "warmup": 0.1,
        "masking": 0.15,
        "pack": True,
    }
    return Settings(**(usual | {"eval_every": 6} | changes))


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# --- languages, documents, rows -------------------------------------------------------------------------------------


def test_languages_are_drawn_with_alpha():
    sampler = streams.LanguageSampler({"en": 900, "sw": 100}, 0.5, torch.Generator().manual_seed(0))
    assert sampler.probabilities == pytest.approx({"en": 0.75, "sw": 0.25})
    drawn = [sampler.draw() for _ in range(4000)]
    assert drawn.count("sw") / 4000 == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_its_bounds_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"alpha={alpha} lies outside \[0, 1\]"):
        Settings(alpha=alpha)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        streams.LanguageSampler({"en": 1}, alpha, torch.Generator())


class Letters:
    """A tokenizer that a person can check: each letter is its place in the alphabet plus four."""

    bos_token_id, pad_token_id, eos_token_id = 0, 1, 2

    def encode(self, text):
        return [0, *(ord(letter) - 93 for letter in text.replace(" ", "")), 2]


def test_every_text_comes_once_a_round_in_another_order():
    documents = streams.Documents("xx", ["a", "b", "c", "d", " ", "e"], Letters(), seed=3)
    rounds = [[int(documents.take(9)[0]) for _ in range(5)] for _ in range(3)]
    assert [sorted(found) for found in rounds] == [[4, 5, 6, 7, 8]] * 3
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]


def test_packing_keeps_texts_whole():
    class InOrder(streams.Documents):
        def _shuffled(self):
            return list(range(len(self.texts)))

    documents = InOrder("xx", ["aa", "bbb", "ccc", "d" * 12], Letters())
    packed = [streams.packed(documents, 9) for _ in range(5)]
    assert packed == [
        [0, 4, 4, 2, 5, 5, 5, 2],  # ccc would need four more
        [0, 6, 6, 6, 2],  # the long text begins a row of its own
        [0, 7, 7, 7, 7, 7, 7, 7, 2],
        [0, 7, 7, 7, 7, 7, 2],
        [0, 4, 4, 2, 5, 5, 5, 2],
    ]
    one_each = InOrder("xx", ["aa", "d" * 12], Letters())
    assert [len(streams.single(one_each, 9)) for _ in range(4)] == [4, 9, 7, 4]


@pytest.mark.parametrize("stream", [False, True])
def test_rows_go_on_where_they_stood(stream, tokenizer):
    def rows():
        given = {
            language: datasets.Dataset.from_dict({"text": found}).to_iterable_dataset(num_shards=3) if stream else found
            for language, found in TRAIN.items()
        }
        return streams.Rows(tokenizer, given, 32, 0.3, seed=4, without={"aa": TRAIN["aa"][:3]})

    straight = rows()
    wanted = []
    for number in range(30):  # far enough for each language to begin anew
        if number == 17:
            state = straight.state()
        wanted.append(straight.batch(8))
    again = rows()
    again.restore(state)
    for ids, languages in wanted[17:]:
        found, found_languages = again.batch(8)
        assert torch.equal(found, ids)
        assert found_languages == languages
    if stream:
        held_out = {tuple(tokenizer.encode(text)[1:-1]) for text in TRAIN["aa"][:3]} - {
            tuple(tokenizer.encode(text)[1:-1]) for text in TRAIN["aa"][3:]
        }
        assert held_out
        for ids, _ in wanted:
            for row in ids.tolist():
                assert not held_out & {tuple(part) for part in split(row[1:], tokenizer.eos_token_id)}


def split(row: list[int], at: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for number in row:
        if number == at:
            parts.append([])
        else:
            parts[-1].append(number)
    return parts


def test_streams_are_split_by_process(tokenizer):
    given = {"aa": datasets.Dataset.from_dict({"text": sorted(set(TRAIN["aa"]))}).to_iterable_dataset(num_shards=4)}
    seen = []
    for rank in range(2):
        rows = streams.Rows(tokenizer, given, 16, share=(rank, 2), pack=False)
        documents = rows.documents["aa"]
        first = []
        while documents.epoch == 0:
            first.append(tuple(documents.take(99)))
            documents.head()
        seen.append(first)
    assert not set(seen[0]) & set(seen[1])
    assert len(seen[0]) + len(seen[1]) == len(set(TRAIN["aa"]))


# --- where texts come from ------------------------------------------------------------------------------------------


def test_text_files(tmp_path):
    (tmp_path / "sw.txt").write_bytes("\ufeffHabari\r\n\n  Dunia  \n".encode())
    (tmp_path / "ur.txt").write_text("سلام\n", encoding="utf-8")
    assert texts.text_files(tmp_path) == {"sw": ["Habari", "Dunia"], "ur": ["سلام"]}


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_are_named(tmp_path, start):
    (tmp_path / "sw.txt").write_bytes(start + b"Habari\nya \xe9 asubuhi\n")
    with pytest.raises(TrainingError, match=rf"sw\.txt is not UTF-8: byte {11 + len(start)} \(line 2\) is 0xe9"):
        texts.text_files(tmp_path)


def test_an_empty_language_is_named(tmp_path, tokenizer):
    (tmp_path / "sw.txt").write_text(" \n\n")
    with pytest.raises(TrainingError, match=r"sw\.txt is empty"):
        texts.text_files(tmp_path)
    with pytest.raises(TrainingError, match=r"holds no \.txt file"):
        texts.text_files(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="the language 'sw' is empty"):
        streams.Rows(tokenizer, TRAIN | {"sw": []})
    empty = datasets.Dataset.from_dict({"text": ["", " "]}).to_iterable_dataset()
    with pytest.raises(TrainingError, match="the stream of 'sw' is empty"):
        streams.Rows(tokenizer, {"sw": empty}, alpha=0.0).batch(1)
    with pytest.raises(TrainingError, match="there is no language"):
        streams.Rows(tokenizer, {})


def test_some_texts_are_set_apart():
    train, held_out = texts.set_apart({"sw": [str(number) for number in range(100)]}, most=3)
    assert held_out == {"sw": ["33", "67"]}
    assert len(train["sw"]) == 98
    assert texts.set_apart({"sw": ["a", "b"]}) == ({"sw": ["a"]}, {"sw": ["b"]})
    with pytest.raises(TrainingError, match="two are needed"):
        texts.set_apart({"sw": ["a"]})


def test_a_dataset_is_streamed(tmp_path, tokenizer):
    """A folder stands for a repository of the hub: the same layout, the same loader."""
    for language, found in TRAIN.items():
        (tmp_path / language).mkdir()
        lines = "".join(json.dumps({"id": n, "content": text}) + "\n" for n, text in enumerate(found))
        (tmp_path / language / "train.jsonl").write_text(lines)
    parts = "".join(f"- config_name: x.{name}\n  data_files: {name}/train.jsonl\n" for name in TRAIN)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    given = recipes.source(
        dataset=str(tmp_path), languages=["aa", "bb"], subset="x.{language}", column="content", held_out=5
    )
    assert given.dev["bb"] == TRAIN["bb"][:5]
    run = pretrain(tokenizer, SHAPE, given.train, given.dev, settings(steps=2))
    assert math.isfinite(run.history[-1]["loss"])
    with pytest.raises(TrainingError, match="has no column 'text'; it has"):
        recipes.source(dataset=str(tmp_path), languages=["aa"], subset="x.{language}")
    with pytest.raises(TrainingError, match="subset 'cc', can't be read"):
        recipes.source(dataset=str(tmp_path), languages=["cc"])
    with pytest.raises(ValueError, match="--dataset needs --languages"):
        recipes.source(dataset=str(tmp_path))
    with pytest.raises(ValueError, match="two sources"):
        recipes.source(data=tmp_path, dataset=str(tmp_path))


# --- the loop -------------------------------------------------------------------------------------------------------


def test_it_learns_what_follows_what(tokenizer):
    before = perplexity.held_out_loss(MaskedLM(Encoder(shape_for(tokenizer)), None), tokenizer, DEV, length=32)
    seen = []
    run = pretrain(
        tokenizer, SHAPE, TRAIN, DEV, settings(steps=150, warmup=0.2), on_step=lambda step, model: seen.append(step)
    )
    assert seen == list(range(151))
    assert not run.model.training
    assert [entry["step"] for entry in run.history][:3] == [1, 6, 10]
    counted = perplexity.counted_losses(tokenizer, TRAIN, perplexity.HeldOut.of(tokenizer, DEV, length=32))[0]
    for language in DEV:
        assert run.held_out[language] < counted["unigram"][language] - 0.1
        assert run.held_out[language] < before[language] - 1
    assert run.history[-1]["tokens"] > 150 * 8 * 16
    assert run.history[-1]["learning_rate"] == pytest.approx(1e-2 / 120)


def shape_for(tokenizer):
    return XLMRConfig(**(vars(SHAPE) | {"vocab_size": len(tokenizer)}))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_caller_s_random_numbers(tokenizer):
    torch.manual_seed(3)
    first = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings())
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(weights(first.model), weights(pretrain(tokenizer, SHAPE, TRAIN, DEV, settings()).model))
    assert not torch.equal(
        weights(first.model), weights(pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(seed=1)).model)
    )


def test_pieces_add_up_to_the_whole_batch(tokenizer):
    """Three uneven pieces give the gradient of the whole batch: the mean over all hidden tokens, not of means."""
    shape = XLMRConfig(**(vars(SHAPE) | STILL))
    whole = pretrain(tokenizer, shape, TRAIN, DEV, settings())
    pieces = pretrain(tokenizer, shape, TRAIN, DEV, settings(accumulate=3))
    assert [entry["loss"] for entry in pieces.history] == pytest.approx(
        [entry["loss"] for entry in whole.history], abs=1e-5
    )
    assert (weights(whole.model) - weights(pieces.model)).abs().max() < 1e-3


def test_a_step_without_a_hidden_token_is_no_error(tokenizer):
    run = pretrain(tokenizer, SHAPE, {"aa": ["kat"]}, DEV, settings(steps=5, pack=False, masking=0.3, accumulate=8))
    assert math.isfinite(run.history[-1]["loss"])


def test_half_precision_learns_too(tokenizer):
    run = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(steps=30, precision="bfloat16"))
    wide = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(steps=30))
    assert run.history[-1]["loss"] == pytest.approx(wide.history[-1]["loss"], abs=0.2)


def test_going_on_from_a_model(tokenizer):
    first = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(steps=60))
    again = pretrain(tokenizer, first.model, TRAIN, DEV, settings(steps=20, learning_rate=1e-3))
    assert again.history[0]["loss"] < first.history[0]["loss"] - 0.3
    with pytest.raises(ValueError, match=r"the model has 4,000 word vectors and the tokenizer"):
        pretrain(tokenizer, MaskedLM(Encoder(SHAPE)), TRAIN, DEV, settings())


# --- the held-out loss and its baselines ----------------------------------------------------------------------------


def test_every_token_is_hidden_once(tokenizer):
    text = TRAIN["aa"][0]
    held_out = perplexity.HeldOut.of(tokenizer, {"aa": [text]}, length=16)
    inputs, labels = held_out.batches["aa"][0]
    assert (inputs[labels != IGNORED] == tokenizer.mask_token_id).all()
    hidden = sorted(labels[labels != IGNORED].tolist())
    assert hidden == sorted(tokenizer.encode(text)[1:-1])
    assert 5 <= len(inputs) <= 7 * (1 + len(tokenizer.encode(text)) // 14)


def test_the_held_out_loss_is_the_mean_over_tokens_and_draws_nothing(tokenizer):
    model = MaskedLM(Encoder(shape_for(tokenizer), torch.Generator().manual_seed(0))).train()
    state = torch.get_rng_state()
    held_out = perplexity.HeldOut.of(tokenizer, DEV, length=32)
    losses = held_out.loss(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    model.eval()
    total = count = 0.0
    for inputs, labels in held_out.batches["bb"]:
        for row, answers in zip(inputs, labels, strict=True):
            logits = model(row[None]).logits[0]
            hidden = answers != IGNORED
            total += torch.nn.functional.cross_entropy(logits[hidden], answers[hidden], reduction="sum").item()
            count += hidden.sum().item()
    assert losses["bb"] == pytest.approx(total / count, abs=1e-5)
    halves = sum(held_out.sums(model, rank, 2) for rank in range(2))
    assert held_out.means(halves) == pytest.approx(losses)


def test_counting_by_hand(tokenizer):
    class Ten:
        all_special_ids, mask_token_id = [0, 1, 2, 3, 9], 9

        def __len__(self):
            return 10

    rows = [[0, 4, 5, 6, 2], [0, 4, 5, 7, 2], [0, 8, 5, 6, 2]]
    counts = perplexity.Counts(rows, {4: 2, 5: 3, 6: 2, 7: 1, 8: 1}, Ten())
    counts.numbers = perplexity.Numbers(own=1.0, spread=0.0, discount=0.5, left=1.0, right=0.0, pair=1.0)
    q = counts.frequencies(counts.numbers)
    assert q[4:9] == pytest.approx([2 / 9, 3 / 9, 2 / 9, 1 / 9, 1 / 9])
    # After 5 came 6 twice and 7 once: half a count is taken from each kind, 1 of 3, and given to Q.
    assert counts.cloze([(5, 6, 9)])[0] == pytest.approx(1.5 / 3 + 1 / 3 * 2 / 9)
    assert counts.cloze([(5, 8, 9)])[0] == pytest.approx(1 / 3 * 1 / 9)
    assert counts.cloze([(9, 8, 9)])[0] == pytest.approx(1 / 9)


@pytest.mark.parametrize("numbers", [perplexity.Numbers(), perplexity.Numbers(0.5, 0.6, 0.5, 1.0, 0.4, 0.5)])
def test_counted_probabilities_add_up_to_one(tokenizer, numbers):
    rows = [tokenizer.encode(text) for text in TRAIN["aa"]]
    everything = dict.fromkeys(range(4, len(tokenizer) - 1), 1)
    counts = perplexity.Counts(rows, everything, tokenizer)
    counts.numbers = numbers
    for left, right in [(rows[0][1], rows[0][3]), (0, rows[1][2]), (tokenizer.mask_token_id, rows[0][3]), (5, 6)]:
        places = [(left, token, right) for token in everything]
        assert counts.cloze(places).sum() == pytest.approx(1)


def test_two_neighbours_guess_better_than_frequency(tokenizer):
    dev = perplexity.HeldOut.of(tokenizer, DEV, length=32)
    found = perplexity.counted_losses(tokenizer, TRAIN, dev, perplexity.HeldOut.of(tokenizer, TRAIN, length=32))
    assert len(found) == 2
    for language in DEV:
        assert found[0]["cloze"][language] < found[0]["unigram"][language] - 0.3


def test_filling_a_blank(tokenizer):
    model = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(steps=2)).model
    answers = pretraining.fill_mask(model, tokenizer, "kat <mask> mera", top=3)
    assert len(answers) == 3
    assert answers[0][1] >= answers[1][1]
    assert not {token for token, _ in answers} & {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
    with pytest.raises(ValueError, match="holds 2 <mask>; give it one"):
        pretraining.fill_mask(model, tokenizer, "<mask> <mask>")


# --- what must be refused or survived -------------------------------------------------------------------------------


def test_settings_that_make_no_sense(tokenizer):
    for changes, message in (
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"length": 2}, "length=2 leaves no room"),
        ({"masking": 1.0}, "masking=1.0 must lie between 0 and 1"),
        ({"warmup": 2.0}, "warmup=2.0 is a share"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**changes)
    with pytest.raises(ValueError, match=r"batch_size=8 rows cannot be shared .* with 9 pieces each: raise it to 9"):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(accumulate=9))
    with pytest.raises(ValueError, match="length=200, but the model has positions for 128 tokens"):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(length=200))
    with pytest.raises(ValueError, match="the held-out text of 'bb' is empty"):
        pretrain(tokenizer, SHAPE, TRAIN, {"bb": [" "]}, settings())


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_snapshot(tokenizer, tmp_path):
    def spoil(step, model):
        if step == 6:
            with torch.no_grad():
                model.lm_head.dense.weight.fill_(math.nan)

    with pytest.raises(TrainingError, match=r"the loss is nan at step 7, .* the snapshot of step 5 is kept"):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(save_every=5, eval_every=50), tmp_path / "run", on_step=spoil)
    kept = training.load_snapshot(tmp_path / "run")
    assert kept["step"] == 5
    assert all(torch.isfinite(value).all() for value in kept["model"].values())
    with pytest.raises(TrainingError, match=r"Start anew with a learning rate below 1e\+30"):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(steps=40, learning_rate=1e30))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_batch_that_does_not_fit_says_what_to_lower():
    code = """
import resource, sys
sys.path.insert(0, "tests")
import torch
from test_pretraining import *
tokenizer = XLMRTokenizer(unigram.train([text for found in TRAIN.values() for text in found], 34), 32)
pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(steps=1))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000, size + 200_000_000))
try:
    pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(batch_size=20_000, accumulate=2))
except TrainingError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert "a batch of 20000 rows of 32 ids in 2 piece(s) does not fit into memory at step 1" in run.stdout, run.stderr
    assert "--accumulate 4" in run.stdout
    assert "lower --batch-size or --length" in run.stdout


def test_an_output_folder_is_one_run_s(tokenizer, tmp_path):
    output = tmp_path / "run"
    first = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(), output)
    again = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(), output)  # nothing is left to do
    assert torch.equal(weights(again.model), weights(first.model))
    assert again.history == first.history
    for given, difference in (
        ((SHAPE, TRAIN, DEV, settings(alpha=1.0)), "settings.alpha: 0.3 before, 1.0 now"),
        ((SHAPE, TRAIN | {"aa": TRAIN["aa"][1:]}, DEV, settings()), "texts.aa: .*60 texts.* before, .*59 texts"),
        ((XLMRConfig.tiny(), TRAIN, DEV, settings()), "model.hidden_size: 32 before, 128 now"),
    ):
        with pytest.raises(TrainingError, match=difference):
            pretrain(tokenizer, *given, output)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("")
    with pytest.raises(TrainingError, match=r"holds photo\.jpg"):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(), tmp_path / "mine")


def test_a_full_disk_stops_the_run_with_a_sentence(tokenizer, tmp_path):
    def fill(step, model):
        if step == 5:
            (tmp_path / "run" / "snapshots" / "snapshot.part").symlink_to("/dev/full")

    with pytest.raises(
        TrainingError, match="step 8 could not be written: the disk is full; the one of step 4 is whole"
    ):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(save_every=4), tmp_path / "run", on_step=fill)
    stopped = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(save_every=4), tmp_path / "run")
    straight = pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(save_every=4), tmp_path / "straight")
    assert torch.equal(weights(stopped.model), weights(straight.model))


def test_tensorboard_is_asked_for_by_name_when_missing(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        pretrain(tokenizer, SHAPE, TRAIN, DEV, settings(), tmp_path / "run", tensorboard=True)


# --- the command: killed, and shared by two processes ---------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def own_texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for language, found in TRAIN.items():
        (folder / f"{language}.txt").write_text("\n".join(found) + "\n", encoding="utf-8")
    return folder


def command(own_texts, output, *more: str, launch: bool = False) -> list[str]:
    start = []
    if launch:  # accelerate's --cpu starts one process, whatever --num_processes says; this starts two, with gloo
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        launcher = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
        start = [*launcher.split(), "--dynamo_backend", "no", "--main_process_port", port, "-m"]
    pretrain = "pretrain --vocab-size 34 --batch-size 6 --length 32 --learning-rate 0.01 --device cpu"
    given = ["--data", str(own_texts), "--output", str(output)]
    return [sys.executable, "-m", *start, "xlmr_course", *pretrain.split(), *given, *more]


ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def finish(arguments: list[str]) -> None:
    run = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=ALONE, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]


def kill_when(arguments: list[str], ready) -> None:
    """Start, and SIGKILL the whole group of processes as soon as `ready()`."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=ALONE, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 300
        while not ready():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.0005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def told(folder: Path) -> list[dict]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "tokens_per_second"} for line in lines]


def steps_kept(folder: Path) -> list[int]:
    return [int(file.name.split("-")[1]) for file in sorted((folder / "snapshots").glob("step-*.pt"))]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_and_started_again_it_ends_with_the_same_bytes(own_texts, tmp_path):
    more = ["--steps", "40", "--save-every", "3", "--eval-every", "7"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    finish(command(own_texts, straight, *more))
    # Between two snapshots …
    kill_when(
        command(own_texts, stopped, *more), lambda: (stopped / "history.jsonl").is_file() and len(told(stopped)) > 1
    )
    # … and while one is being written.
    part, caught = stopped / "snapshots" / "snapshot.part", False
    for _ in range(4):
        before = steps_kept(stopped)
        kill_when(
            command(own_texts, stopped, *more), lambda before=before: part.exists() and steps_kept(stopped) != before
        )
        if caught := part.exists():
            break
    assert caught, "no kill fell into the writing of a snapshot"
    assert steps_kept(stopped)[-1] < 40
    finish(command(own_texts, stopped, *more))
    assert (stopped / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert told(stopped) == told(straight)
    assert {file.name for file in straight.iterdir()} == {
        "README.md", "config.json", "curves.png", "history.jsonl", "model.safetensors", "results.json", "run.json",
        "sentencepiece.bpe.model", "snapshots", "tokenizer_config.json",
    }  # fmt: skip
    refused = subprocess.run(
        command(own_texts, stopped, *more, "--alpha", "1"), capture_output=True, text=True, cwd=ROOT, env=ALONE
    )
    assert refused.returncode == 1
    assert "another run: settings.alpha: 0.3 before, 1.0 now" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_two_processes_share_a_batch_and_go_on_after_a_kill(own_texts, tmp_path):
    """The same global batch: the same curve as one process, and after a kill the same bytes as without."""
    more = ["--steps", "24", "--save-every", "5", "--eval-every", "8", "--dropout", "0"]
    one, two, stopped = (tmp_path / name for name in ("one", "two", "stopped"))
    finish(command(own_texts, one, *more))
    finish(command(own_texts, two, *more, "--accumulate", "2", launch=True))
    assert json.loads((two / "run.json").read_text())["processes"] == 2
    for ours, theirs in zip(told(two), told(one), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert ours["tokens"] == theirs["tokens"]
        assert ours.get("held_out", {}) == pytest.approx(theirs.get("held_out", {}), abs=1e-4)
    again = command(own_texts, stopped, *more, "--accumulate", "2", launch=True)
    kill_when(again, lambda: len(steps_kept(stopped)) > 0)
    finish(again)
    assert (stopped / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert told(stopped) == told(two)
