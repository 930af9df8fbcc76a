"""Fine-tune on one language and measure in all of them: from names of things to a folder with results.

`finetune` reads the sentences (`tasks.py`), trains one model for each seed (`fitting.py`) or fits a classifier on
frozen features (`features.py`), tests each in every language, and writes the folder. A run that was interrupted goes
on when it is started again with the same arguments; a finished seed is not repeated.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from xlmr_course import checkpoints, features, sources, training
from xlmr_course.batches import Encoded, batches_by_length, pad
from xlmr_course.encoder import Encoder
from xlmr_course.fitting import LEARNING_RATES, FinetuningError, Settings, bar_of, predict, train_classifier
from xlmr_course.heads import SequenceClassifier
from xlmr_course.results import LanguageResult, Results
from xlmr_course.tasks import TASKS, Labelled, open_source
from xlmr_course.team import Team
from xlmr_course.tokenizer import XLMRTokenizer
from xlmr_course.training import warmup_decay

__all__ = [
    "LEARNING_RATES", "TASKS", "Encoded", "FinetuningError", "Results", "SequenceClassifier", "Settings",
    "batches_by_length", "encode", "finetune", "load_classifier", "pad", "predict", "train_classifier", "warmup_decay",
]  # fmt: skip

METHODS = ("finetune", "features")
CHOOSING = 2_000  # sentences of the training language that choose the layer of the features


def finetune(
    task: str = "topics",
    checkpoint: str | Path = "small",
    train_language: str = "en",
    evaluate: str | Sequence[str] = "all",
    data: str | Path | None = None,
    *,
    dataset: str | None = None,
    method: str = "finetune",
    seeds: Sequence[int] = (0,),
    settings: Settings | None = None,
    output: str | Path | None = None,
    device: str | None = None,
    snapshot_seconds: float = 120.0,
) -> Results:
    """Train on one language (or several, `"en,sw"`), test on others.

    Args:
        task: `"topics"`.
        checkpoint: a name of the course or a folder.
        train_language: what to train on; `"all"` is translate-train-all on the parallel corpus.
        evaluate: `"all"`, or a list of languages.
        data: a folder of your own in the corpus's layout, with any languages and labels; None for the classroom corpus.
        dataset: instead, a data set on the hub, such as `"facebook/xnli"`, or a folder with a copy of one.
        method: `"finetune"` trains the encoder; `"features"` leaves it as it is and fits a logistic regression.
        seeds: one run each; the table holds their mean.
        output: a folder for `results.json` and the first seed's model in the Hugging Face layout. The same call goes
            on with a run that was interrupted there; more seeds may be added. Several machines need it on a disk they
            share.
        device: `"cpu"`, `"cuda"`; None picks a GPU if there is one.
        snapshot_seconds: how often a run is saved into the folder, so that it can go on.

    Raises:
        ValueError: an unknown task, language or label, no seed, a folder that holds another run.
        FinetuningError: the loss never left ln(classes), stopped being a number, or the memory was too small.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; the methods are {', '.join(METHODS)}")
    if not seeds:
        raise ValueError("seeds is empty; give at least one, such as (0,)")
    team = Team.here(device)
    with team.main_first():  # one process downloads, the others find the files
        tokenizer = checkpoints.load_tokenizer(checkpoint)
        folder = sources.locate(checkpoint)
        source = open_source(data, dataset)
        there = source.languages()
        train_on = there if train_language == "all" else train_language.split(",")
        test_on = there if evaluate == "all" else [evaluate] if isinstance(evaluate, str) else list(evaluate)
        names = source.labels(train_on)
        settings = (settings or Settings()).resolved(checkpoints.read_config(folder), team.device)

        def read(language: str, split: str) -> Encoded:
            return _encoded(source.read(language, split), tokenizer, names, settings.max_length)

        train, dev = (Encoded.joined(read(language, split) for language in train_on) for split in ("train", "dev"))
        tests = {language: read(language, "test") for language in test_on}

    told = {"task": task, "method": method, "checkpoint": str(checkpoint), "data": source.name, "device": team.device}
    told |= {"processes": team.size} | asdict(settings)
    if output is not None and team.main:
        hashes = {"sentences": _hash([train, dev, tests, names]), "weights": _weights_hash(folder)}
        told_before = told | {"device": team.device.split(":")[0]} | hashes
        training.claim_folder(output, told_before | {"train": train_on, "evaluate": test_on})
    seconds, runs = 0.0, []
    for seed in seeds:
        home = None if output is None else Path(output) / "seeds" / str(seed)
        run = team.agreed(_finished(home))
        if run is None and method == "features":
            run = _run_features(checkpoint, train, dev, tests, team.device, seed)
        elif run is None:
            model = train_classifier(
                checkpoint, train, dev, len(names), seed, settings, folder=home, team=team,
                snapshot_seconds=snapshot_seconds,
            )  # fmt: skip
            run = _tested(model, tests, team, settings) | {"seed": seed}
            if output is not None and seed == seeds[0] and team.main:
                extra = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
                checkpoints.save_pretrained(model, tokenizer, output, extra_config=extra)
        if home is not None and team.main:
            _keep(home, run)
        seconds += run["seconds"]
        runs.append({key: run[key] for key in run if key != "seconds"})
    results = Results(
        languages=[
            LanguageResult.of(language, [run["accuracy"][language] for run in runs], len(tests[language].ids))
            for language in test_on
        ],
        train_language=",".join(train_on),
        settings=told | {"seeds": list(seeds)},
        versions=_versions(checkpoint),
        seconds=round(seconds, 1),
        runs=runs,
    )
    if output is not None and team.main:
        results.save(output)
    return results


def encode(
    tokenizer: XLMRTokenizer, language: str, split: str, data: str | Path | None, names: list[str], max_length: int
) -> Encoded:
    """One split of one language of the corpus, or of a folder in its layout, as ids and class numbers.

    Raises:
        ValueError: a label that is not among `names`; file and line are named.
    """
    return _encoded(open_source(data).read(language, split), tokenizer, names, max_length)


def load_classifier(folder: str | Path) -> tuple[SequenceClassifier, XLMRTokenizer, list[str]]:
    """What `finetune(output=folder)` wrote: the model in evaluation mode, its tokenizer, and the names of its classes.

    Raises:
        CheckpointError: the folder holds no classifier.
    """
    folder = Path(folder)
    config = json.loads((sources.locate(folder) / "config.json").read_text(encoding="utf-8"))
    if "id2label" not in config:
        raise checkpoints.CheckpointError(f"{folder.name!r} is no classifier; make one with finetune(output=…)")
    names = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    model = SequenceClassifier(Encoder(checkpoints.read_config(folder), device="meta"), len(names))
    checkpoints.load_weights(model, folder)
    return model.eval(), checkpoints.load_tokenizer(folder), names


def _encoded(rows: Labelled, tokenizer: XLMRTokenizer, names: Sequence[str], max_length: int) -> Encoded:
    labels = rows.numbers(names)
    found = tokenizer(
        rows.texts, rows.pairs, padding=False, truncation=True, max_length=max_length, return_tensors=None
    )
    return Encoded(found["input_ids"], labels)


def _tested(model: SequenceClassifier, tests: dict[str, Encoded], team: Team, settings: Settings) -> dict:
    """A run's figures: accuracy by language, and how training went."""
    started, accuracy = time.monotonic(), {}
    precision = training.precision(team.device, settings.precision)
    for language in bar_of(team, iterable=list(tests), desc="testing", unit="language", leave=False):
        predicted = predict(model, tests[language].ids, team=team, precision=precision)
        accuracy[language] = float(predicted.eq(torch.tensor(tests[language].labels)).float().mean())
    progress = model.progress
    return {
        "accuracy": accuracy,
        "best_epoch": progress.best_epoch + 1,
        "epochs": len(progress.scores),
        "steps": len(progress.losses),
        "dev_accuracy": progress.scores[progress.best_epoch][0],
        "losses": [round(loss, 6) for loss in progress.losses],
        "seconds": progress.seconds + time.monotonic() - started,
    }


def _run_features(
    checkpoint: str | Path, train: Encoded, dev: Encoded, tests: dict[str, Encoded], device: str, seed: int
) -> dict:
    """The frozen encoder's features and a logistic regression; the layer is chosen by the language of training."""
    started = time.monotonic()
    encoder = checkpoints.load_encoder(checkpoint).to(device)
    whole = Encoded.joined([train, dev])
    some = torch.randperm(len(whole.ids), generator=torch.Generator().manual_seed(seed))[:CHOOSING].tolist()
    every_layer = features.sentence_features(encoder, [whole.ids[i] for i in some])
    layer, on_layers = features.choose_layer(every_layer.numpy(), [whole.labels[i] for i in some])

    def pooled(ids: list[list[int]]) -> np.ndarray:
        return features.sentence_features(encoder, ids, [layer])[:, 0].numpy()

    model = features.new_classifier().fit(pooled(train.ids), train.labels)
    accuracy = {language: float(model.score(pooled(test.ids), test.labels)) for language, test in tests.items()}
    return {
        "accuracy": accuracy, "layer": layer, "pooling": "mean", "accuracy_by_layer": on_layers, "seed": seed,
        "seconds": time.monotonic() - started,
    }  # fmt: skip


def _finished(home: Path | None) -> dict | None:
    """The figures of a seed that is done."""
    file = None if home is None else home / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else None


def _keep(home: Path, run: dict) -> None:
    """A seed is done when its figures are there; its snapshots have served."""
    home.mkdir(parents=True, exist_ok=True)
    training.write_whole(home / "run.json", lambda file: file.write((json.dumps(run, indent=1) + "\n").encode()))
    shutil.rmtree(home / training.SNAPSHOTS, ignore_errors=True)


def _hash(content: object) -> str:
    """A fingerprint of the encoded sentences: other data is another run."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _weights_hash(folder: Path) -> str:
    """A fingerprint of a checkpoint's weights: the size of each file and its first and last mebibyte."""
    found = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model.bin")]):
        with file.open("rb") as opened:
            found.update(f"{file.name} {file.stat().st_size}".encode() + opened.read(1 << 20))
            opened.seek(max(0, file.stat().st_size - (1 << 20)))
            found.update(opened.read())
    return found.hexdigest()[:16]


def _versions(checkpoint: str | Path) -> dict:
    """What a result depends on: the packages, and where the weights came from."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", "xlmr-course"):
        try:
            found[name.replace("-", "_")] = version(name)
        except PackageNotFoundError:
            found[name.replace("-", "_")] = None
    return found | {"checkpoint": sources.provenance(checkpoint)}
