"""Reading and writing checkpoints in the Hugging Face layout: `config.json`, `model.safetensors`, the tokenizer.

The course's encoder and transformers' hold the same tensors under different names; the two tables below are the
whole translation.

A checkpoint never runs code: safetensors holds numbers only, and an old `pytorch_model.bin` is a pickle that is read
with `weights_only=True`, which refuses everything but tensors. Tensors are mapped from the file, not copied, so a
page of a 384 MB embedding table takes memory when a sentence first needs it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xlmr_course import sources
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import MaskedLM
from xlmr_course.sources import CheckpointError

log = logging.getLogger(__name__)

# Our names -> transformers', first outside the layers, then inside one. Each has a weight; all but the tables a bias.
EMBEDDING_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
LAYER_NAMES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "output_norm": "output.LayerNorm",
}
SHAPE_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
)


def hugging_face_name(name: str) -> str:
    """The name of one of our encoder's tensors -> transformers' name.

    >>> hugging_face_name("layers.7.feed_forward.up.weight")
    'encoder.layer.7.intermediate.dense.weight'
    """
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("layers."):
        _, number, part = stem.split(".", 2)
        return f"encoder.layer.{number}.{LAYER_NAMES[part]}.{kind}"
    return f"{EMBEDDING_NAMES[stem]}.{kind}"


def load_tokenizer(name: str | Path):
    """The tokenizer of a checkpoint, an `XLMRTokenizer`; `name` as for `load_encoder`. Fetches no weights."""
    from xlmr_course.tokenizer import XLMRTokenizer

    return XLMRTokenizer.from_pretrained(sources.locate(name, weights=False))


def load_encoder(name: str | Path) -> Encoder:
    """The encoder of a checkpoint, in float32, in evaluation mode.

    Args:
        name: "small", "base", "large", or a folder in the Hugging Face layout.

    Raises:
        CheckpointError: the name is unknown, or the files are not to be had, damaged or of another model.
    """
    folder = sources.locate(name)
    encoder = Encoder(read_config(folder), device="meta")
    load_weights(encoder, folder)
    return encoder.eval()


def load_masked_lm(name: str | Path) -> MaskedLM:
    """The encoder of a checkpoint with its masked-LM head, in float32, in evaluation mode; as `load_encoder`.

    Raises:
        CheckpointError: as `load_encoder`; also when the checkpoint has no head.
    """
    folder = sources.locate(name)
    model = MaskedLM(Encoder(read_config(folder), device="meta"))
    load_weights(model, folder)
    return model.eval()


def read_config(folder: Path) -> XLMRConfig:
    """The shape of the model in a folder, from its `config.json`."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(told, dict):
            raise ValueError
    except OSError:
        raise CheckpointError(f"the folder {folder.name!r} has no config.json, so it holds no checkpoint") from None
    except ValueError:
        raise CheckpointError(f"config.json in {folder.name!r} is damaged: fetch the checkpoint again") from None
    same = {
        "model_type": "xlm-roberta",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    for field, value in same.items():
        if told.get(field, value) != value:
            raise CheckpointError(
                f"config.json in {folder.name!r} says {field}={told[field]!r}, and this encoder is {value!r} only"
            )
    # transformers' own defaults are not XLM-R's (its LayerNorm eps is 1e-12), so nothing of the shape is guessed.
    missing = [name for name in SHAPE_FIELDS if name not in told]
    if missing:
        raise CheckpointError(f"config.json in {folder.name!r} does not say {listed(missing)}")
    fields = [field.name for field in dataclasses.fields(XLMRConfig)]
    try:
        return XLMRConfig(**{name: told[name] for name in fields if name in told})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json in {folder.name!r} describes no model: {error}") from None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, by the names they have in its files, mapped rather than copied.

    The weights are in `model.safetensors`, or in several files that `model.safetensors.index.json` lists, or in an old
    `pytorch_model.bin`.
    """
    index, pickled = folder / sources.SHARDS, folder / "pytorch_model.bin"
    if (folder / sources.WEIGHTS).is_file():
        files = [folder / sources.WEIGHTS]
    elif index.is_file():
        files = _shards(index)
    elif pickled.is_file():
        files = [pickled]
    else:
        raise CheckpointError(f"{folder.name!r} holds neither model.safetensors nor pytorch_model.bin")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read_file(file)
    return tensors


def _shards(index: Path) -> list[Path]:
    """The files that an index names."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index.name} in {index.parent.name!r} is damaged: fetch the checkpoint again") from None
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index.name} in {index.parent.name!r} names {name!r}, which is not beside it")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent.name!r} lacks {name}, one of {len(names)} files of weights: fetch it")
    return [index.parent / name for name in names]


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        try:
            tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before PyTorch 1.6 cannot be mapped
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{file.name} in {file.parent.name!r} is not a plain file of tensors; it may carry code, so it is not read"
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{file.name} in {file.parent.name!r} ({file.stat().st_size:,} bytes) is damaged or incomplete: "
            "fetch it again"
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{file.name} in {file.parent.name!r} is not a table of tensors")
    return dict(tensors)


def load_weights(model: nn.Module, folder: Path) -> list[str]:
    """Give a model made on the "meta" device the weights of a folder.

    The model is an `Encoder`, or has one as `.encoder`, and names its other parts as transformers does (`lm_head`,
    `classifier`, `qa_outputs`), which is how their keys are found.

    Returns:
        Notes in words: what the file held that this model does not use. They are logged as well.

    Raises:
        CheckpointError: tensors are missing, or have other shapes than `config.json` asks for.
    """
    theirs = read_tensors(folder)
    try:
        notes, state = translate(theirs, model)
    except CheckpointError as error:
        raise CheckpointError(f"{folder.name!r}: {error}") from None
    model.load_state_dict(state, assign=True)
    for note in notes:
        log.log(logging.WARNING if note.startswith("not used") else logging.INFO, "%s: %s", folder.name, note)
    return notes


def translate(theirs: Mapping[str, Tensor], model: nn.Module) -> tuple[list[str], dict[str, Tensor]]:
    """Tensors by transformers' names -> notes in words, and the state dict of `model`.

    Raises:
        CheckpointError: as `load_weights`.
    """
    left = dict(theirs)
    prefix = "roberta." if any(name.startswith("roberta.") for name in left) else ""
    untie(left, prefix)
    state, missing, wrong = {}, [], []
    for name, wanted in model.state_dict().items():
        their_name = name_in_file(name, model, prefix)
        tensor = left.pop(their_name, None)
        if tensor is None:
            missing.append(their_name)
        elif tensor.shape != wanted.shape:
            wrong.append(f"{their_name} has shape {tuple(tensor.shape)} instead of {tuple(wanted.shape)}")
        else:
            state[name] = tensor.to(torch.float32)
    if any(name.startswith("lm_head.") for name in missing) and not any("lm_head." in name for name in theirs):
        having = [c.name for c in sources.CHECKPOINTS.values() if c.has_lm_head]
        raise CheckpointError(
            f"this checkpoint holds an encoder without a masked-LM head: use load_encoder, or one of the names that "
            f"have a head ({', '.join(having)})"
        )
    if missing:
        raise CheckpointError(f"the weights lack {listed(missing)}: is this an XLM-RoBERTa checkpoint?")
    if wrong:
        raise CheckpointError(f"{listed(wrong)}: the weights do not fit config.json")
    return notes_on(left), state


def untie(tensors: dict[str, Tensor], prefix: str) -> None:
    """Drop the second copies that old files hold of tied tensors, in place.

    The decoder's matrix is the word table. A file where it is another one holds a model that this is not.
    """
    if (bias := tensors.pop("lm_head.decoder.bias", None)) is not None:
        tensors.setdefault("lm_head.bias", bias)
    decoder, words = tensors.pop("lm_head.decoder.weight", None), f"{prefix}embeddings.word_embeddings.weight"
    if decoder is not None and words in tensors and not torch.equal(decoder, tensors[words]):
        raise CheckpointError(
            "lm_head.decoder.weight differs from the word embeddings; XLM-RoBERTa ties them, this checkpoint does not"
        )


def notes_on(left: Iterable[str]) -> list[str]:
    """What a file holds beyond the model, in words; positions 0, 1, 2 … that old files store go unmentioned."""
    groups = {
        "pooler": "pooler weights are left out: XLM-R was pretrained without a pooler",
        "lm_head": "the masked-LM head is left out: load_masked_lm reads it",
    }
    left = [name for name in left if not name.endswith("position_ids")]
    notes = [text for key, text in groups.items() if any(key in name for name in left)]
    others = [name for name in left if not any(key in name for key in groups)]
    return notes + ([f"not used by this model: {listed(others)}"] if others else [])


def listed(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def to_hugging_face(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model under transformers' names, not copied; tied copies are left out, as transformers does."""
    prefix = "" if isinstance(model, Encoder) else "roberta."
    return {name_in_file(name, model, prefix): tensor for name, tensor in model.state_dict().items()}


def name_in_file(name: str, model: nn.Module, prefix: str) -> str:
    """A tensor's name in `model` -> its name in a file where the encoder's names begin with `prefix`."""
    if isinstance(model, Encoder):
        return prefix + hugging_face_name(name)
    if name.startswith("encoder."):
        return prefix + hugging_face_name(name.removeprefix("encoder."))
    return name  # heads have transformers' own names


def save_pretrained(
    model: nn.Module, tokenizer, folder: str | Path, extra_config: Mapping[str, object] | None = None
) -> Path:
    """Write a folder that `load_encoder`, `load_masked_lm` and transformers' `from_pretrained` read back.

    Args:
        model: an `Encoder`, a `MaskedLM`, or a module with an `.encoder` whose class names transformers' counterpart
            as `architecture`.
        tokenizer: anything with `save_pretrained(folder)`; None leaves it out.
        folder: is made if it does not exist; files of the same names are replaced.
        extra_config: more fields for `config.json`, such as `id2label`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": [getattr(model, "architecture", "XLMRobertaModel")],
        "model_type": "xlm-roberta",
        "hidden_act": "gelu",
        **dataclasses.asdict(model.config),
        "tie_word_embeddings": True,
        "dtype": "float32",
        **(extra_config or {}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in to_hugging_face(model).items()}
    # Under another name first: the model's own tensors may be mapped from the file that is being replaced.
    save_file(tensors, folder / "model.safetensors.part", metadata={"format": "pt"})
    # safetensors keeps the file to its owner; in a shared folder the others are to read it like config.json.
    os.chmod(folder / "model.safetensors.part", (folder / "config.json").stat().st_mode)
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder
