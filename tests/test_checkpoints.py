"""Checkpoints in transformers' layout: round trips bit for bit, old and new files, and files that are broken."""

import io
import json
import pickle
import subprocess
import sys

import pytest
import torch
from reference import batch, random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, XLMRobertaForMaskedLM

from xlmr_course import checkpoints
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import MaskedLM
from xlmr_course.sources import CheckpointError

SHAPE = XLMRConfig.tiny(vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2)


@pytest.fixture
def model():
    return random_model(SHAPE)


@pytest.fixture
def folder(model, tmp_path):
    return checkpoints.save_pretrained(model, None, tmp_path / "mine")


def rewrite(folder, change):
    """Let `change` edit the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    tensors = change(tensors) or tensors
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors")


def assert_same(ours, theirs):
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


# --- round trips ----------------------------------------------------------------------------------------------------


def test_ours_to_transformers_and_back_is_bit_for_bit(model, folder, tmp_path):
    theirs, report = XLMRobertaForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    theirs.save_pretrained(tmp_path / "theirs")
    back = checkpoints.load_masked_lm(tmp_path / "theirs")
    assert_same(model, back)
    assert back.config == SHAPE
    assert not back.training
    assert_same(model.encoder, checkpoints.load_encoder(tmp_path / "theirs"))


def test_an_encoder_alone_goes_both_ways(model, tmp_path):
    folder = checkpoints.save_pretrained(model.encoder, None, tmp_path)
    theirs, report = AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert type(theirs).__name__ == "XLMRobertaModel"
    assert not any(report.values()), report
    assert_same(model.encoder, checkpoints.load_encoder(folder))
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same(model.encoder, checkpoints.load_encoder(tmp_path / "theirs"))


def test_saving_into_the_folder_that_was_loaded(folder):
    """The model's tensors are mapped from the very file that is replaced."""
    model = checkpoints.load_masked_lm(folder)
    with torch.no_grad():
        model.lm_head.dense.weight += 1
    checkpoints.save_pretrained(model, None, folder)
    assert_same(model, checkpoints.load_masked_lm(folder))
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_who_may_read_the_config_may_read_the_weights(folder):
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_a_loaded_model_trains_and_leaves_its_file_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    model = checkpoints.load_masked_lm(folder)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(*batch([5, 3], 60), labels=torch.tensor([[7] * 5, [7] * 3 + [-100] * 2])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (folder / "model.safetensors").read_bytes() == before
    assert not torch.equal(model.lm_head.bias, checkpoints.load_masked_lm(folder).lm_head.bias)


def test_the_tokenizer_and_extra_fields_are_written(model, tmp_path):
    class Tokenizer:
        def save_pretrained(self, folder):
            (folder / "sentencepiece.bpe.model").write_bytes(b"pieces")

    checkpoints.save_pretrained(model, Tokenizer(), tmp_path, {"id2label": {"0": "πλοίο"}})
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "πλοίο"}
    assert config["architectures"] == ["XLMRobertaForMaskedLM"]
    assert (tmp_path / "sentencepiece.bpe.model").read_bytes() == b"pieces"


def test_a_pretrained_tiny_stays_below_8_megabytes(tmp_path):
    model = MaskedLM(Encoder(XLMRConfig.tiny()))
    folder = checkpoints.save_pretrained(model, None, tmp_path)
    assert (folder / "model.safetensors").stat().st_size < 8_000_000
    assert model.config.max_tokens == 128
    assert model.config.vocab_size == 4000


# --- what files look like -------------------------------------------------------------------------------------------


def old_file(model, folder, **options):
    """As fairseq's conversion wrote them in 2019: a pickle with tied copies, position ids and a pooler."""
    tensors = checkpoints.to_hugging_face(model)
    tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"]
    tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"]
    tensors["roberta.embeddings.position_ids"] = torch.arange(130)[None]
    tensors["roberta.pooler.dense.weight"] = torch.zeros(16, 16)
    tensors["roberta.pooler.dense.bias"] = torch.zeros(16)
    torch.save(tensors, folder / "pytorch_model.bin", **options)
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_an_old_pickle_with_tied_copies_loads(model, folder, zipped):
    old_file(model, folder, _use_new_zipfile_serialization=zipped)
    loaded = MaskedLM(Encoder(SHAPE, device="meta"))
    notes = checkpoints.load_weights(loaded, folder)
    assert_same(model, loaded)
    assert len(notes) == 1
    assert "pooler" in notes[0]


def test_a_head_bias_by_its_other_name_is_found(model, folder):
    rewrite(folder, lambda t: t.update({"lm_head.decoder.bias": t.pop("lm_head.bias")}))
    assert_same(model, checkpoints.load_masked_lm(folder))


def test_half_a_head_is_not_called_none(folder):
    rewrite(folder, lambda t: {name: value for name, value in t.items() if "lm_head.dense" not in name})
    with pytest.raises(CheckpointError, match=r"the weights lack lm_head\.dense\.weight, lm_head\.dense\.bias"):
        checkpoints.load_masked_lm(folder)


def test_names_without_the_prefix_load(model, folder):
    rewrite(folder, lambda t: {name.removeprefix("roberta."): value for name, value in t.items()})
    assert_same(model, checkpoints.load_masked_lm(folder))


def test_half_precision_files_become_float32(model, folder):
    rewrite(folder, lambda t: {name: value.half() for name, value in t.items()})
    loaded = checkpoints.load_encoder(folder)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.embeddings.word.weight, model.encoder.embeddings.word.weight.half().float())


@pytest.fixture
def sharded(model, tmp_path):
    """As transformers writes a model that is larger than `max_shard_size`."""
    checkpoints.save_pretrained(model, None, tmp_path / "whole")
    theirs = XLMRobertaForMaskedLM.from_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    return tmp_path / "sharded"


def test_weights_in_several_files_load(model, sharded):
    assert_same(model, checkpoints.load_masked_lm(sharded))


def test_a_missing_or_truncated_shard_is_named(sharded):
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=rf"{shard.name} in 'sharded' \([\d,]+ bytes\) is damaged"):
        checkpoints.load_encoder(sharded)
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"'sharded' lacks {shard.name}, one of \d+ files"):
        checkpoints.load_encoder(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"weight_map": {"a": "../b"}}', "names '../b', which is not beside")],
)
def test_a_broken_index_is_refused(sharded, text, message):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_encoder(sharded)


def test_what_is_not_used_is_said(folder, caplog):
    rewrite(folder, lambda t: t.update({"classifier.dense.weight": torch.zeros(2)}))
    notes = checkpoints.load_weights(Encoder(SHAPE, device="meta"), folder)
    assert notes == [
        "the masked-LM head is left out: load_masked_lm reads it",
        "not used by this model: classifier.dense.weight",
    ]
    assert [record.getMessage() for record in caplog.records] == [f"mine: {notes[1]}"]  # the others are no surprise


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_missing_head_names_the_checkpoints_that_have_one(model, tmp_path):
    folder = checkpoints.save_pretrained(model.encoder, None, tmp_path)
    with pytest.raises(CheckpointError, match=r"without a masked-LM head.*base, large"):
        checkpoints.load_masked_lm(folder)


QUERY = "roberta.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: v for n, v in t.items() if n != QUERY}, f"'mine': the weights lack {QUERY}"),
        (lambda t: {n: v for n, v in t.items() if "layer.1." not in n}, "lack .* and 13 more"),
        (lambda t: t.update({QUERY: torch.zeros(3, 3)}), rf"{QUERY} has shape \(3, 3\) instead of \(16, 16\)"),
        (lambda t: t.update({"lm_head.decoder.weight": torch.zeros(60, 16)}), "lm_head.decoder.weight differs"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_encoder(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -10], ids=str)
def test_a_truncated_file_is_refused(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model.safetensors in 'mine' \([\d,]+ bytes\) is damaged"):
        checkpoints.load_encoder(folder)


class Trap:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('sprung').touch()",))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_never_runs(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"roberta.embeddings": Trap()}))
    with pytest.raises(CheckpointError, match=name):
        checkpoints.load_encoder(folder)
    zipped = io.BytesIO()
    torch.save({"x": Trap()}, zipped)
    (folder / name).write_bytes(zipped.getvalue())
    with pytest.raises(CheckpointError, match=name):
        checkpoints.load_encoder(folder)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("content", [[1, 2], {"x": 3}], ids=str)
def test_a_pickle_of_something_else_is_refused(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a table of tensors"):
        checkpoints.load_encoder(folder)


def test_a_truncated_pickle_is_refused(model, folder):
    old_file(model, folder)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load_encoder(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model.bin"):
        checkpoints.load_encoder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert'"),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"hidden_size": 17}, "hidden_size=17"),
        ({"hidden_size": "sixteen"}, "describes no model"),
    ],
)
def test_another_kind_of_model_is_refused(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_encoder(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[1]", "is damaged"),
        ("{}", "does not say vocab_size, hidden_size, num_hidden_layers and 5 more"),
    ],
)
def test_a_broken_config_is_refused(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_encoder(folder)


def test_an_unknown_name_is_refused():
    with pytest.raises(CheckpointError, match="'huge' is no checkpoint"):
        checkpoints.load_encoder("huge")


# --- the real one ---------------------------------------------------------------------------------------------------


def test_small_loads_and_says_that_it_has_no_head(small):
    encoder = checkpoints.load_encoder("small")
    assert encoder.config == XLMRConfig.small()
    assert sum(p.numel() for p in encoder.parameters()) == 117_492_864
    with pytest.raises(CheckpointError, match=r"'small'.*without a masked-LM head.*base, large"):
        checkpoints.load_masked_lm("small")


MEMORY = """
import os, pathlib, sys
def peak():  # `ru_maxrss` would count the process that started this one
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
from xlmr_course import checkpoints
import torch
before = peak()
encoder = checkpoints.load_encoder("small")
for parameter in encoder.parameters():
    parameter.sum()  # every page is read
print((peak() - before) / os.path.getsize(os.path.join(sys.argv[1], "model.safetensors")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the Linux way")
def test_loading_takes_hardly_more_memory_than_the_file(small):
    done = subprocess.run([sys.executable, "-c", MEMORY, str(small)], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.2
