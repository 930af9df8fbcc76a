"""Fine-tuning `small` on 420 English sentences: our loop against the same recipe as a plain transformers Trainer.

    python benchmarks/finetuning.py --part speed            # sentences a second, in turn, in one process: 6 minutes
    python benchmarks/finetuning.py --part command          # what a user runs: minutes, memory, accuracy
    python benchmarks/finetuning.py --part features         # frozen encoder + logistic regression
    python benchmarks/finetuning.py --part accuracy --side ours --seed 0     # nine of these: three sides, three seeds

Each part takes less than ten minutes on two cores and puts its figures into results/finetuning.json, beside those of
the other parts; results/finetuning.md is written from it.

The Trainer has two sides: `defaults` trains all weights, as `from_pretrained` hands them over; `frozen` leaves the
word embeddings alone, as we do. All use the same 420 English sentences, learning rate, schedule, batch size, clipping,
weight decay, epochs and choice of the best epoch on English dev.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

from xlmr_course import checkpoints, corpus, finetuning, sources
from xlmr_course.batches import Encoded, batches_by_length
from xlmr_course.encoder import Encoder
from xlmr_course.fitting import Run, Settings
from xlmr_course.heads import SequenceClassifier
from xlmr_course.team import Team

RESULTS = Path(__file__).parent / "results" / "finetuning.json"
SETTINGS = Settings()
RATE = finetuning.LEARNING_RATES[384]
SIDES = ("ours", "frozen", "defaults")
NAMES = {"ours": "ours", "frozen": "Trainer, frozen embeddings", "defaults": "Trainer, defaults"}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TARGETS = {
    "speed against the Trainer's defaults": 1.8,
    "speed against the Trainer with frozen embeddings": 1.25,
    "the command, minutes": 3,
    "the command, GB": 3,
    "mean accuracy, 14 languages": 0.78,
    "features, seconds": 90,
}


def encoded(language: str, split: str) -> Encoded:
    return finetuning.encode(TOKENIZER, language, split, None, list(corpus.TOPICS), SETTINGS.max_length)


def trainer(side: str, seed: int, folder: Path, choose_best: bool) -> transformers.Trainer:
    """The recipe as a plain Trainer script has it; `choose_best` evaluates each epoch and keeps the best one."""
    transformers.set_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        sources.locate("small"), num_labels=len(corpus.TOPICS)
    )
    if side == "frozen":
        model.roberta.embeddings.requires_grad_(False)
    rows = {
        split: [{"input_ids": i, "labels": n} for i, n in zip(part.ids, part.labels, strict=True)]
        for split, part in ((split, encoded("en", split)) for split in ("train", "dev"))
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(sources.locate("small"))
    each = "epoch" if choose_best else "no"
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=SETTINGS.batch_size, num_train_epochs=SETTINGS.epochs,
        learning_rate=RATE, warmup_steps=SETTINGS.warmup, weight_decay=SETTINGS.weight_decay, seed=seed,
        max_grad_norm=SETTINGS.clip, eval_strategy=each, save_strategy=each, save_only_model=True, save_total_limit=1,
        load_best_model_at_end=choose_best, metric_for_best_model="accuracy", use_cpu=True, report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    return transformers.Trainer(
        model, arguments, train_dataset=rows["train"], eval_dataset=rows["dev"],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda out: {"accuracy": float((out.predictions.argmax(-1) == out.label_ids).mean())},
    )  # fmt: skip


def classifier_in(folder: Path) -> SequenceClassifier:
    """What the Trainer saved, in our classes."""
    model = SequenceClassifier(Encoder(checkpoints.read_config(folder), device="meta"), len(corpus.TOPICS))
    checkpoints.load_weights(model, folder)
    return model.eval()


def one_epoch(side: str, clock: str) -> float:
    """Seconds to train on the 420 sentences once, without evaluation; the model is made before the clock starts."""
    now = CLOCKS[clock]
    if side != "ours":
        with tempfile.TemporaryDirectory() as folder:
            run = trainer(side, 0, Path(folder), choose_best=False)
            run.args.num_train_epochs = 1
            started = now()
            run.train()
            return now() - started
    train = encoded("en", "train")
    run = Run("small", len(corpus.TOPICS), 0, SETTINGS, Team("cpu"))
    run.model.train()
    started = now()
    for batch in batches_by_length([len(ids) for ids in train.ids], SETTINGS.batch_size, run.generator):
        run.step(train, batch)
    return now() - started


def speed(rounds: int, clock: str) -> dict:
    """Sentences a second, the sides taking turns; the best round of each, and the ratios of best and of middle."""
    taken = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            taken[side].append(one_epoch(side, clock))
    sentences = len(encoded("en", "train").ids)
    best, middle = ({s: f(t) for s, t in taken.items()} for f in (min, statistics.median))
    return {
        "sentences a second": {side: round(sentences / best[side], 1) for side in SIDES},
        "against defaults": round(best["defaults"] / best["ours"], 2),
        "against frozen": round(best["frozen"] / best["ours"], 2),
        "ratios of medians": [round(middle[side] / middle["ours"], 2) for side in ("defaults", "frozen")],
        "rounds": rounds,
        "clock": clock,
    }


def command(*arguments: str) -> dict:
    """`xlmr-course finetune` as a user runs it, in a process of its own: seconds, peak memory, accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        call = [sys.executable, "-m", "xlmr_course", "finetune", "--output", str(output), "--device", "cpu", *arguments]
        started = time.perf_counter()
        with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, resident_peak(process.pid))
                time.sleep(0.2)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"xlmr-course finetune {' '.join(arguments)} ended with {process.returncode}")
        written = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return {
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e9, 2),
        "en": round(written["languages"][0]["accuracy"], 4),
        "mean of 14": round(written["transfer"], 4),
        "run": {key: value for key, value in written["runs"][0].items() if key not in ("losses", "accuracy")},
    }


def resident_peak(pid: int) -> int:
    """The most memory a process has held so far, in bytes (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 if "VmHWM:" in status else 0


def accuracy(side: str, seed: int) -> dict:
    """Train once, then test in all languages. The Trainer's model is tested by our code: it gives the same logits."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "ours":
            model = finetuning.train_classifier(
                "small", encoded("en", "train"), encoded("en", "dev"), len(corpus.TOPICS), seed, SETTINGS
            )
        else:
            run = trainer(side, seed, Path(folder), choose_best=True)
            run.train()
            run.save_model(folder)
            model = classifier_in(Path(folder))
        found = {}
        for language in corpus.LANGUAGES:
            test = encoded(language, "test")
            right = finetuning.predict(model, test.ids).eq(torch.tensor(test.labels))
            found[language] = round(float(right.float().mean()), 4)
    others = [value for language, value in found.items() if language != "en"]
    return {"en": found["en"], "mean of 14": round(statistics.mean(others), 4), "by language": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["speed", "command", "features", "accuracy"], required=True)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu, one thread: on a busy machine")
    parser.add_argument("--rounds", type=int, default=2, help="of the part speed")
    given = parser.parse_args()
    given.threads = 1 if given.clock == "cpu" else given.threads
    torch.set_num_threads(given.threads)
    where = {
        "threads": given.threads, "load_average": round(os.getloadavg()[0], 2), "torch": torch.__version__,
        "transformers": transformers.__version__, "processor": platform.processor() or platform.machine(),
    }  # fmt: skip
    if given.part == "accuracy":
        figures = {given.side or "ours": {str(given.seed): accuracy(given.side or "ours", given.seed) | where}}
    elif given.part == "speed":
        figures = speed(given.rounds, given.clock) | where
    else:
        figures = command(*(["--method", "features"] if given.part == "features" else [])) | where
    keep({given.part: figures})


def keep(figures: dict) -> None:
    """Add figures to the file, those of other parts stay; then write the page from all of them."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    merge(stored, {"targets": TARGETS} | figures)
    RESULTS.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(page(stored), encoding="utf-8")
    print(json.dumps(figures, indent=1, ensure_ascii=False))


def page(stored: dict) -> str:
    """The figures as Markdown."""
    lines = [
        "# Fine-tuning, measured",
        "",
        "Written by `benchmarks/finetuning.py`. " + (__doc__ or "").split("\n\n")[-1],
        "",
    ]
    if found := stored.get("speed"):
        lines += ["| | sentences a second |", "|---|---|"]
        lines += [f"| {NAMES[side]} | {found['sentences a second'][side]} |" for side in SIDES]
        lines += [
            "",
            f"Ours is {found['against defaults']} times as fast as the Trainer's defaults (wanted: 1.8) and "
            f"{found['against frozen']} times as fast as the Trainer with frozen embeddings (wanted: 1.25); best of "
            f"{found['rounds']} rounds in turn, {found['clock']} time. {conditions(found)}",
            "",
        ]
    if found := stored.get("accuracy"):
        lines += ["| mean accuracy, 14 languages | seed 0 | seed 1 | seed 2 | mean |", "|---|---|---|---|---|"]
        for side in SIDES:
            values = {seed: run["mean of 14"] for seed, run in found.get(side, {}).items()}
            cells = [f"{values[seed]:.3f}" if seed in values else "not run" for seed in ("0", "1", "2")]
            mean = f"{statistics.mean(values.values()):.3f}" if len(values) == 3 else ""
            lines.append(f"| {NAMES[side]} | {' | '.join(cells)} | {mean} |")
        lines.append("")
    for part, text in (("command", "`xlmr-course finetune`"), ("features", "`xlmr-course finetune --method features`")):
        if found := stored.get(part):
            lines += [
                f"**{text}**: {found['seconds']} seconds, {found['peak_gb']} GB at most; English {found['en']:.3f}, "
                f"mean of the other fourteen {found['mean of 14']:.3f}. {conditions(found)}",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def conditions(found: dict) -> str:
    return (
        f"{found['threads']} threads, load average {found['load_average']} at the end; torch {found['torch']}, "
        f"transformers {found['transformers']}."
    )


def merge(old: dict, new: dict) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            merge(old[key], value)
        else:
            old[key] = value


TOKENIZER = checkpoints.load_tokenizer("small")

if __name__ == "__main__":
    main()
