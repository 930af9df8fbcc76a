"""From a command to a finished folder: texts, tokenizer, model, training, what came out, and the model card.

`xlmr-course pretrain` calls `pretrain_folder`. The folder is a checkpoint in the Hugging Face layout, and beside the
weights it says what they are: `README.md` for people, `results.json` and `fill_mask.json` for programs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import regex

from xlmr_course import checkpoints, corpus, perplexity, texts, training, unigram
from xlmr_course.encoder import XLMRConfig
from xlmr_course.mlm import MaskedLM
from xlmr_course.perplexity import HeldOut
from xlmr_course.pretraining import Run, Settings, fill_mask, pretrain
from xlmr_course.streams import Texts, is_streamed
from xlmr_course.tokenizer import VOCABULARY_FILE, XLMRTokenizer
from xlmr_course.training import TrainingError

# A model that reads little and briefly is far from learning its texts by heart: dropout would only slow it down.
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS = {
    "tiny": partial(XLMRConfig.tiny, **STILL),
    "small": XLMRConfig.small,
    "base": XLMRConfig.base,
    "large": XLMRConfig.large,
}
TOKENIZER_TEXT = 20_000_000  # characters that a new tokenizer is trained on, at most
COUNTED_TEXT = 20_000_000  # characters up to which the counting baselines are worth their time
SHOWN_STEPS = (0, 100, 1000)  # fill-mask answers are kept at these, and at the last


@dataclass(frozen=True)
class Source:
    """Texts by language: to train on, to watch, and, where there is a third part, to report."""

    train: Mapping[str, Texts]
    dev: Mapping[str, Sequence[str]]
    test: Mapping[str, Sequence[str]] | None
    description: str
    licence: str | None = None


def source(
    data: str | Path | None = None,
    dataset: str | None = None,
    languages: Sequence[str] = (),
    subset: str = "{language}",
    split: str = "train",
    column: str = "text",
    held_out: int = texts.HELD_OUT,
) -> Source:
    """The classroom corpus; or a folder in its layout; or a folder of `<language>.txt`; or a dataset, streamed.

    Raises:
        ValueError: a folder and a dataset at once, or a dataset without languages. Also what the readers raise.
    """
    if dataset is not None:
        if data is not None:
            raise ValueError("--data and --dataset are two sources; give one of them")
        if not languages:
            raise ValueError("--dataset needs --languages, such as sw,ur: each is one subset of the dataset")
        streams = dict(texts.hub(dataset, languages, subset, split, column))
        dev = {language: texts.first_of(stream, held_out) for language, stream in streams.items()}
        return Source(streams, dev, None, f"the dataset {dataset}, {split}, subsets {subset} ({', '.join(streams)})")
    if data is None or (Path(data) / "sentences").is_dir():
        train, dev, test = (_only(texts.classroom(split, data), languages) for split in corpus.SPLITS)
        name = "the classroom corpus of the course" if data is None else f"the corpus in {Path(data).name}"
        description = f"{name}: {sum(map(len, train.values())):,} sentences in {len(train)} languages"
        return Source(train, dev, test, description, "CC0-1.0" if data is None else None)
    if not Path(data).is_dir():
        raise TrainingError(f"there is no folder {str(data)!r}")
    train, dev = texts.set_apart(_only(texts.text_files(data), languages), held_out)
    count = sum(map(len, train.values()))
    return Source(train, dev, None, f"text files of the folder {Path(data).name}: {count:,} lines")


def _only(found: dict[str, list[str]], languages: Sequence[str]) -> dict[str, list[str]]:
    if missing := [language for language in languages if language not in found]:
        raise TrainingError(f"there is no text in {', '.join(missing)}; there are {', '.join(found)}")
    return {language: part for language, part in found.items() if not languages or language in languages}


def new_tokenizer(train: Mapping[str, Texts], vocab_size: int, max_length: int) -> XLMRTokenizer:
    """A Unigram tokenizer with `vocab_size` ids, trained on the training texts, each language in equal parts."""
    room = TOKENIZER_TEXT // len(train)
    sample = [text for found in train.values() for text in _beginning(found, room)]
    # SentencePiece counts <unk> <s> </s>, and ids hold <pad> and <mask> besides.
    return XLMRTokenizer(unigram.train(sample, vocab_size - 2), max_length)


def _beginning(found: Texts, characters: int) -> list[str]:
    taken: list[str] = []
    for text in found:
        taken.append(text if isinstance(text, str) else text["text"])
        characters -= len(taken[-1])
        if characters <= 0:
            break
    return taken


def pretrain_folder(
    output: str | Path,
    given: Source,
    settings: Settings,
    *,
    config: str = "tiny",
    dropout: float | None = None,
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    vocab_size: int = 4000,
    device: str | None = None,
    tensorboard: bool = False,
    on_step: Callable[[int, MaskedLM], None] | None = None,
) -> Run:
    """Pretrain into a folder, or go on there; then write what came out beside the weights.

    Args:
        output: the folder.
        given: the texts.
        settings: how to train.
        config: the shape of a new model: tiny, small, base or large.
        dropout: instead of the shape's own.
        checkpoint: go on from this one (a name or a folder), with its tokenizer, instead of a new model.
        tokenizer: that of a checkpoint or folder; None trains one with `vocab_size` ids.
        device: `"cpu"` to leave a GPU alone.
        tensorboard, on_step: as in `pretrain`.

    Raises:
        ValueError, TrainingError: as `pretrain`.
    """
    output, started = Path(output), time.perf_counter()
    if config not in CONFIGS:
        raise ValueError(f"there is no shape {config!r}; use {', '.join(CONFIGS)}")
    told = {"shape": config, "dropout": dropout, "checkpoint": checkpoint, "tokenizer": tokenizer}
    recipe = {name: None if value is None else str(value) for name, value in told.items()} | {"vocab_size": vocab_size}
    if checkpoint is not None:
        model: MaskedLM | XLMRConfig = checkpoints.load_masked_lm(checkpoint)
        words = checkpoints.load_tokenizer(tokenizer or checkpoint)
    else:
        shape = CONFIGS[config]()
        changes = {} if dropout is None else dict.fromkeys(
            ("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout
        )  # fmt: skip
        model = replace(
            shape, max_position_embeddings=max(shape.max_position_embeddings, settings.length + 2), **changes
        )
        if tokenizer is not None:
            words = XLMRTokenizer.from_pretrained(tokenizer)
        elif (output / training.RUN_FILE).is_file() and (output / VOCABULARY_FILE).is_file():
            words = XLMRTokenizer.from_pretrained(output)  # of this very run, or `pretrain` will refuse the folder
        else:
            words = new_tokenizer(given.train, vocab_size, settings.length)
    writes = os.environ.get("RANK", "0") == "0"  # of several processes one
    answers = Answers(words, given, output, settings.steps) if given.test is not None and writes else None

    def after(step: int, model: MaskedLM) -> None:
        if answers is not None:
            answers.keep(step, model)
        if on_step is not None:
            on_step(step, model)

    run = pretrain(
        words, model, given.train, given.dev, settings, output,
        on_step=after, device=device, tensorboard=tensorboard, recipe=recipe,
    )  # fmt: skip
    if run.is_main:
        results = measure(run, words, given) | {"recipe": recipe}
        results["seconds of the last start"] = round(time.perf_counter() - started, 1)
        _write(output / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
        _write(output / "README.md", model_card(run, results, given))
    return run


def measure(run: Run, tokenizer, given: Source) -> dict[str, Any]:
    """Nats per hidden token by language, on dev and test: of the model, and of the counting baselines."""
    length, seed = run.settings.length, run.settings.seed
    sets = {"dev": given.dev} | ({"test": given.test} if given.test is not None else {})
    held_out = {name: HeldOut.of(tokenizer, part, length=length, seed=seed) for name, part in sets.items()}
    losses: dict[str, Any] = {name: {"model": found.loss(run.model)} for name, found in held_out.items()}
    small = not is_streamed(given.train)
    if small and sum(len(text) for part in given.train.values() for text in part) <= COUNTED_TEXT:
        counted = perplexity.counted_losses(tokenizer, given.train, *held_out.values())
        for name, found in zip(held_out, counted, strict=True):
            losses[name] |= found
    rounded = {
        split: {who: {language: round(loss, 4) for language, loss in found.items()} for who, found in table.items()}
        for split, table in losses.items()
    }
    last = run.history[-1]
    return {
        "losses": rounded, "steps": last["step"], "tokens": last["tokens"], "settings": asdict(run.settings),
        "parameters": sum(p.numel() for p in run.model.parameters()), "versions": run.versions,
    }  # fmt: skip


def summary(folder: Path) -> str:
    """A finished folder's perplexities by language as lines of text."""
    losses = json.loads((folder / "results.json").read_text(encoding="utf-8"))["losses"]
    split = "test" if "test" in losses else "dev"
    who = [name for name in ("model", "cloze", "bigram", "unigram") if name in losses[split]]
    lines = [f"perplexity on {split:<10}" + "".join(f"{name:>10}" for name in who)]
    for language in losses[split]["model"]:
        values = (perplexity.perplexities(losses[split][name])[language] for name in who)
        lines.append(f"{language:<24}" + "".join(f"{value:>10.1f}" for value in values))
    return "\n".join(lines)


class Answers:
    """What the model writes into blanks, at a few steps: `fill_mask.json`.

    The blanks are not chosen by what the model answers: of each language, the first test sentences in which a word
    that is one token and stands among the language's 60 most frequent ones can be hidden, and of those words the first.
    """

    def __init__(self, tokenizer, given: Source, output: Path, steps: int, each: int = 2) -> None:
        self.tokenizer, self.file, self.steps = tokenizer, output / "fill_mask.json", (*SHOWN_STEPS, steps)
        self.prompts = [
            prompt for language in given.test for prompt in blanks(tokenizer, language, given, each)
        ]  # fmt: skip

    def keep(self, step: int, model: MaskedLM) -> None:
        """Write the answers of this step, if it is one of those that are shown."""
        if step not in self.steps or not self.prompts or not self.file.parent.is_dir():
            return
        told = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() and step else {"guesses": {}}
        guesses = [
            [[token, round(p, 4)] for token, p in fill_mask(model, self.tokenizer, prompt["text"])]
            for prompt in self.prompts
        ]
        told = {"prompts": self.prompts, "guesses": told["guesses"] | {str(step): guesses}}
        _write(self.file, json.dumps(told, indent=None, ensure_ascii=False).replace("]], [[", "]],\n[["))


def blanks(tokenizer, language: str, given: Source, count: int) -> list[dict[str, str]]:
    """Test sentences with one frequent word hidden: `{"language", "text", "answer"}`."""
    seen: dict[str, int] = {}
    for text in given.train[language]:
        for token in tokenizer.tokenize(text):
            seen[token] = seen.get(token, 0) + 1
    spaced = sum(token.startswith(unigram.SPACE) for token in seen) > len(seen) / 4

    def is_word(token: str) -> bool:
        letters = token.removeprefix(unigram.SPACE)
        whole = not spaced or (token.startswith(unigram.SPACE) and len(letters) > 1)
        return whole and regex.fullmatch(r"[\p{L}\p{M}]+", letters) is not None

    frequent = set(sorted((t for t in seen if is_word(t)), key=lambda t: (-seen[t], t))[:60])
    found = []
    for text in given.test[language]:
        tokens = tokenizer.tokenize(text)
        for place in range(2, len(tokens) - 2):
            alone = not spaced or tokens[place + 1].startswith(unigram.SPACE)
            if tokens[place] in frequent and alone:
                before, after = (
                    "".join(part).replace(unigram.SPACE, " ") for part in (tokens[:place], tokens[place + 1 :])
                )
                found.append({"language": language, "text": f"{before.strip()} <mask>{after}", "answer": tokens[place]})
                break
        if len(found) == count:
            break
    return found


def model_card(run: Run, results: Mapping[str, Any], given: Source) -> str:
    """README.md in the layout of the Hugging Face hub."""
    settings, config = run.settings, run.model.config
    split = "test" if "test" in results["losses"] else "dev"
    table = results["losses"][split]
    who = [name for name in ("model", "cloze", "bigram", "unigram") if name in table]
    names = {
        "model": "this model", "cloze": "counts, both neighbours", "bigram": "counts, left neighbour",
        "unigram": "counts, frequency alone",
    }  # fmt: skip
    rows = [f"| language | {' | '.join(names[name] for name in who)} |", f"|---|{'--:|' * len(who)}"]
    for language in table["model"]:
        cells = " | ".join(f"{perplexity.perplexities(table[name])[language]:.1f}" for name in who)
        rows.append(f"| {language} | {cells} |")
    means = " | ".join(f"{perplexity.mean(table[name]):.3f}" for name in who)
    rows.append(f"| mean loss, nats | {means} |")
    tags = "\n".join(f"- {language}" for language in table["model"])
    licence = f"\nlicense: {given.licence.lower()}" if given.licence else ""
    facts = "\n".join(rows)
    each = results["tokens"] / len(table["model"])
    began = (
        f"Training went on from the checkpoint {results['recipe']['checkpoint']}."
        if results["recipe"]["checkpoint"] else "Nothing else: weights and vocabulary were learned from it alone."
    )  # fmt: skip
    limits = (
        f"It read about {each:,.0f} tokens of each language, repetitions counted; XLM-R's corpus holds 295 billion."
    )
    return f"""---
language:
{tags}{licence}
library_name: transformers
pipeline_tag: fill-mask
mask_token: <mask>
---

# A small XLM-RoBERTa, pretrained by the course

**What it is.** An encoder of {results["parameters"] / 1e6:.1f} million parameters with its masked-LM head:
{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads,
{config.vocab_size:,} ids, up to {config.max_tokens} tokens. `xlmr-course pretrain` made it.

**Data.** {given.description}. {began}

**Training.** {results["steps"]:,} steps, {results["tokens"]:,} tokens, seed {settings.seed};
{settings.batch_size} rows of up to {settings.length} ids a step{"" if settings.pack else ", one text a row"},
peak learning rate {settings.learning_rate:g}, {settings.masking:.0%} of the tokens chosen, α = {settings.alpha:g}.
`run.json` holds every setting, `history.jsonl` the course of it.
Versions: {", ".join(f"{name} {value}" for name, value in run.versions.items())}.

**What it guesses.** Perplexity on held-out text ({split}), where every token is hidden once and always by `<mask>`:
among how many equally likely tokens it hesitates. The columns stand for the same hidden tokens; languages can't be
compared with each other, because they are cut into pieces of different size. The counting baselines know the language,
and their free numbers were tuned on dev text of each.

{facts}

**What it cannot do.** {limits} It was trained to guess hidden tokens and for nothing else: it generates no text, and
nobody has tested it on a task or looked for bias in it. Whatever stands in its training text, it may repeat. For work,
take a real XLM-R.

```python
from transformers import pipeline

pipeline("fill-mask", model="this/folder")("… <mask> …")
```
"""


def _write(path: Path, text: str) -> None:
    training.write_whole(path, lambda file: file.write((text.rstrip("\n") + "\n").encode()))
