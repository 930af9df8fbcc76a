"""Fine-tune an encoder on one language and measure it in all of them.

One loop: batches of similar length, AdamW with a linear warm-up and decay, mixed precision on a GPU, the best epoch on
the *training* language's dev set kept. Choosing on the other languages' dev sets would no longer be zero-shot.

The word embeddings are frozen by default: at 250,002 rows they are most of `small` and `large`, a few hundred sentences
touch hardly any of them, and leaving them out of the optimiser saves most of its memory.
"""

from __future__ import annotations

import copy
import json
import math
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from xlmr_course import checkpoints, corpus
from xlmr_course.encoder import Encoder
from xlmr_course.heads import SequenceClassifier
from xlmr_course.results import LanguageResult, Results
from xlmr_course.tokenizer import XLMRTokenizer

TASKS = {"topics": "which of seven topics a sentence is about"}

# Peak learning rates that work at each size; larger models need smaller steps (fairseq #1367, #2057; SIB-200).
LEARNING_RATES = {128: 5e-4, 384: 2e-4, 768: 2e-5, 1024: 1e-5}  # by hidden size


class FinetuningError(ValueError):
    """Training did not work; what came out is no result. The message says what to try."""


@dataclass(frozen=True)
class Settings:
    """How to train. Every field ends up in `results.json`."""

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float | None = None  # None: by the size of the model
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 0.01
    max_length: int = 128
    freeze_embeddings: bool = True
    gradient_checkpointing: bool = False
    clip: float = 1.0


@dataclass(frozen=True)
class Encoded:
    """Sentences as token ids, with their class numbers."""

    ids: list[list[int]]
    labels: list[int]

    @classmethod
    def joined(cls, parts: Iterable[Encoded]) -> Encoded:
        """Several languages' sentences as one set."""
        parts = list(parts)
        return cls([ids for part in parts for ids in part.ids], [label for part in parts for label in part.labels])


def finetune(
    task: str = "topics",
    checkpoint: str | Path = "small",
    train_language: str = "en",
    evaluate: str | Sequence[str] = "all",
    data: str | Path | None = None,
    *,
    seeds: Sequence[int] = (0,),
    settings: Settings | None = None,
    output: str | Path | None = None,
    device: str | None = None,
) -> Results:
    """Train on one language (or several, `"en,sw"`), test on others.

    Args:
        task: `"topics"`.
        checkpoint: a name of the course or a folder.
        train_language: what to train on; `"all"` is translate-train-all on the parallel corpus.
        evaluate: `"all"`, or a list of languages.
        data: a folder of your own in the corpus's layout, with any topics; None for the classroom corpus.
        seeds: one run each; the table holds their mean.
        output: write `results.json`, and the first seed's model in the Hugging Face layout, into this folder.
        device: `"cpu"`, `"cuda"`; None picks a GPU if there is one.

    Raises:
        ValueError: an unknown task, language or label, no seed.
        FinetuningError: the loss never left ln(classes), or stopped being a number.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")
    if not seeds:
        raise ValueError("seeds is empty; give at least one, such as (0,)")
    settings = settings or Settings()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    there = corpus.languages_in(data)
    train_on = there if train_language == "all" else train_language.split(",")
    test_on = there if evaluate == "all" else [evaluate] if isinstance(evaluate, str) else list(evaluate)
    tokenizer = checkpoints.load_tokenizer(checkpoint)

    topics = None if data is not None else corpus.TOPICS
    names = list(topics) if topics else _labels(train_on, data)
    train, dev = (
        Encoded.joined(encode(tokenizer, language, split, data, names, settings.max_length) for language in train_on)
        for split in ("train", "dev")
    )
    tests = {language: encode(tokenizer, language, "test", data, names, settings.max_length) for language in test_on}

    accuracies: dict[str, list[float]] = {language: [] for language in test_on}
    for seed in seeds:
        model = train_classifier(checkpoint, train, dev, len(names), seed, settings, device)
        for language in tqdm(test_on, desc="testing", unit="language", leave=False):
            predicted = predict(model, tests[language].ids)
            right = predicted.eq(torch.tensor(tests[language].labels)).float().mean()
            accuracies[language].append(float(right))
        if output is not None and seed == seeds[0]:
            extra = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
            checkpoints.save_pretrained(model, tokenizer, output, extra_config=extra)
    results = Results(
        languages=[LanguageResult.of(language, accuracies[language], len(tests[language].ids)) for language in test_on],
        train_language=",".join(train_on),
        settings={"task": task, "checkpoint": str(checkpoint), "seeds": list(seeds), "device": device}
        | asdict(settings),
        versions={"python": platform.python_version(), "torch": torch.__version__},
        seconds=round(time.perf_counter() - started, 1),
    )
    if output is not None:
        results.save(output)
    return results


def encode(
    tokenizer: XLMRTokenizer, language: str, split: str, data: str | Path | None, names: list[str], max_length: int
) -> Encoded:
    """One split of one language as ids and class numbers.

    Raises:
        ValueError: a label that training never saw; language and sentence are named.
    """
    rows = corpus.load(language, split, folder=data, topics=None)
    numbers = {name: number for number, name in enumerate(names)}
    for key, topic in zip(rows["id"], rows["topic"], strict=True):
        if topic not in numbers:
            raise ValueError(
                f"{language}.tsv, id {key!r}: the label {topic!r} does not occur in the training data; "
                f"it knows {', '.join(names)}"
            )
    ids = tokenizer(list(rows["text"]), padding=False, truncation=True, max_length=max_length, return_tensors=None)[
        "input_ids"
    ]
    return Encoded(ids, [numbers[topic] for topic in rows["topic"]])


def train_classifier(
    checkpoint: str | Path,
    train: Encoded,
    dev: Encoded,
    num_labels: int,
    seed: int = 0,
    settings: Settings | None = None,
    device: str = "cpu",
) -> SequenceClassifier:
    """Train one classifier and return it as it was after its best epoch on `dev`, in evaluation mode."""
    settings = settings or Settings()
    generator = torch.Generator().manual_seed(seed)
    model = SequenceClassifier(checkpoints.load_encoder(checkpoint), num_labels, generator).to(device)
    model.encoder.gradient_checkpointing = settings.gradient_checkpointing
    if settings.freeze_embeddings:
        model.encoder.embeddings.requires_grad_(False)
    rate = settings.learning_rate or LEARNING_RATES.get(model.config.hidden_size, 2e-5)
    optimiser = _optimiser(model, rate, settings.weight_decay)
    steps = settings.epochs * math.ceil(len(train.ids) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_decay(step, steps, settings.warmup))
    precision = _precision(device)
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
    lengths = [len(ids) for ids in train.ids]
    best, best_state, losses = (-1.0, -math.inf), None, []

    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)  # dropout has no generator of its own
        bar = tqdm(total=steps, desc=f"training, seed {seed}", unit="step")
        for _ in range(settings.epochs):
            model.train()
            for batch in batches_by_length(lengths, settings.batch_size, generator):
                inputs = pad([train.ids[i] for i in batch], model.config.pad_token_id).to(device)
                labels = torch.tensor([train.labels[i] for i in batch], device=device)
                with torch.autocast(device.split(":")[0], precision, enabled=precision != torch.float32):
                    loss = model(inputs, labels=labels).loss
                scaler.scale(loss).backward()
                scaler.unscale_(optimiser)
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], settings.clip)
                scaler.step(optimiser)
                scaler.update()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise FinetuningError(
                        f"the loss is {losses[-1]} at step {len(losses)}; lower the learning rate from {rate:g}"
                    )
                bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", refresh=False)
                bar.update()
            score = _score(model, dev)
            if score > best:
                best, best_state = score, _trainable_state(model)
        bar.close()
    _refuse_collapse(losses, num_labels, rate)
    model.load_state_dict(best_state, strict=False)
    return model.eval()


@torch.inference_mode()
def predict(model: SequenceClassifier, ids: list[list[int]], batch_size: int = 64) -> Tensor:
    """The most likely class of each sentence, `(len(ids),)`, in the order given."""
    return torch.cat([logits.argmax(-1) for logits in _logits(model, ids, batch_size)])[_undo(ids)]


def warmup_decay(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: up from 0 over the first `warmup` share of the steps, then down to 0, in lines."""
    rise = max(1, round(steps * warmup))
    return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))


def batches_by_length(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of sentences of similar length, in random order: short ones need not wait for long ones.

    Sentences are shuffled, sorted by length within pools of sixteen batches, and cut; the batches are shuffled again.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = 16 * batch_size
    batches = [
        chunk[start : start + batch_size]
        for first in range(0, len(order), pool)
        for chunk in [sorted(order[first : first + pool], key=lengths.__getitem__)]
        for start in range(0, len(chunk), batch_size)
    ]
    yield from (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


def pad(ids: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Lists of ids as one tensor `(B, T)`, filled up on the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(i) for i in ids], batch_first=True, padding_value=padding)


def _labels(languages: list[str], data: str | Path | None) -> list[str]:
    found = {t for language in languages for t in corpus.load(language, "train", folder=data, topics=None)["topic"]}
    if len(found) < 2:
        raise ValueError(f"the training data has one label, {found.pop()!r}; a classifier needs at least two")
    return sorted(found)


def _optimiser(model: SequenceClassifier, rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; biases and LayerNorms are not decayed, as in BERT."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8)


def _precision(device: str) -> torch.dtype:
    """bfloat16 where a GPU computes in it, float16 (with loss scaling) on older ones such as the T4, else float32."""
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _order(ids: list[list[int]]) -> list[int]:
    return sorted(range(len(ids)), key=lambda i: len(ids[i]))


def _undo(ids: list[list[int]]) -> Tensor:
    """Where each sentence went when they were sorted by length."""
    return torch.tensor(_order(ids)).argsort()


def _logits(model: SequenceClassifier, ids: list[list[int]], batch_size: int = 64) -> Iterator[Tensor]:
    """Logits `(B, C)` in batches, shortest sentences first."""
    model.eval()
    device = next(model.parameters()).device
    order = _order(ids)
    for start in range(0, len(order), batch_size):
        inputs = pad([ids[i] for i in order[start : start + batch_size]], model.config.pad_token_id)
        yield model(inputs.to(device)).logits.float().cpu()


@torch.inference_mode()
def _score(model: SequenceClassifier, dev: Encoded) -> tuple[float, float]:
    """Accuracy on dev, then minus the loss, which decides between equals."""
    logits = torch.cat(list(_logits(model, dev.ids)))[_undo(dev.ids)]
    labels = torch.tensor(dev.labels)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    return float(logits.argmax(-1).eq(labels).float().mean()), -float(loss)


def _trainable_state(model: SequenceClassifier) -> dict[str, Tensor]:
    """A copy of what training changes; the frozen tables need none."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: copy.deepcopy(value) for name, value in model.state_dict().items() if name in trained}


def _refuse_collapse(losses: list[float], num_labels: int, rate: float) -> None:
    last = losses[-max(1, len(losses) // 5) :]
    mean, guessing = sum(last) / len(last), math.log(num_labels)
    if len(losses) >= 20 and mean > 0.97 * guessing:
        raise FinetuningError(
            f"the loss stayed at {mean:.3f}, which is guessing (ln {num_labels} = {guessing:.3f}); "
            f"the run collapsed: use another seed or a learning rate below {rate:g}"
        )


def load_classifier(folder: str | Path) -> tuple[SequenceClassifier, XLMRTokenizer, list[str]]:
    """What `finetune(output=folder)` wrote: the model in evaluation mode, its tokenizer, and the names of its classes.

    Raises:
        CheckpointError: the folder holds no classifier.
    """
    folder = Path(folder)
    config = json.loads((checkpoints.sources.locate(folder) / "config.json").read_text(encoding="utf-8"))
    if "id2label" not in config:
        raise checkpoints.CheckpointError(f"{folder.name!r} is no classifier; make one with finetune(output=…)")
    names = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    model = SequenceClassifier(Encoder(checkpoints.read_config(folder), device="meta"), len(names))
    checkpoints.load_weights(model, folder)
    return model.eval(), checkpoints.load_tokenizer(folder), names
