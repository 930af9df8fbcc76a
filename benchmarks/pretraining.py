"""Pretraining measured: `tiny` from nothing, the loop against transformers' Trainer, and what a token costs.

    python benchmarks/pretraining.py tiny [--ship] [--processes 2]  # minutes, memory, difference to data/tiny
    python benchmarks/pretraining.py speed [--steps 60]  # tokens a second and held-out loss, ours and theirs
    python benchmarks/pretraining.py growth  # time per token by width, depth, vocabulary and length

Each part adds to results/pretraining.json and writes results/pretraining.md anew. `--ship` puts the retrained model
into data/tiny. Ours and theirs are trained in one process, one after the other, with the same threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from xlmr_course import checkpoints, perplexity, recipes, streams, training
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import IGNORED, MaskedLM
from xlmr_course.pretraining import Settings, pretrain

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "pretraining.json"
TINY = ROOT / "data" / "tiny"
SHIPPED = (
    "README.md", "config.json", "fill_mask.json", "history.jsonl", "model.safetensors", "results.json", "run.json",
    "sentencepiece.bpe.model", "tokenizer_config.json",
)  # fmt: skip


def tiny(ship: bool, processes: int) -> dict:
    """Run the command in fresh processes: minutes, peak memory, and how far it ends from the shipped model.

    Matrices this small are computed faster by two processes with a thread each than by two threads. The peak is that
    of one process.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "tiny"
        started = time.perf_counter()
        launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
        launcher += ["--dynamo_backend", "no", "--num_processes", str(processes)]
        launch = launcher if processes > 1 else []
        command = [sys.executable, *launch, "-m", "xlmr_course", "pretrain", "--device", "cpu", "--output", str(output)]
        threads = {"OMP_NUM_THREADS": "1"} if processes > 1 else {}
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | threads)
        minutes = (time.perf_counter() - started) / 60
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # kilobytes on Linux
        results = json.loads((output / "results.json").read_text())
        found = {"minutes": round(minutes, 2), "peak GB": round(peak, 2), "processes": processes, "results": results}
        if (TINY / "history.jsonl").is_file():
            found["largest difference to the shipped curve"] = curve_gap(
                output / "history.jsonl", TINY / "history.jsonl"
            )
            ours, theirs = (checkpoints.read_tensors(path) for path in (output, TINY))
            gaps = [(ours[name] - theirs[name]).abs().max().item() for name in theirs]
            found["largest difference to the shipped weights"] = max(gaps)
        if ship:
            TINY.mkdir(exist_ok=True)
            for name in SHIPPED:
                shutil.copyfile(output / name, TINY / name)
    return found


def curve_gap(ours: Path, theirs: Path) -> float:
    """The largest difference between two training curves."""
    a, b = ([json.loads(line)["loss"] for line in path.read_text().splitlines()] for path in (ours, theirs))
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


# --- against the Trainer --------------------------------------------------------------------------------------------


def speed(steps: int, rounds: int) -> dict:
    """Both from the same weights on the same rows for the same tokens; the better of the rounds counts for each."""
    given = recipes.source()
    tokenizer = checkpoints.load_tokenizer("tiny")
    settings = dataclasses.replace(
        Settings(**json.loads((TINY / "run.json").read_text())["settings"]), steps=steps, eval_every=steps
    )
    config = checkpoints.read_config(TINY)
    held_out = perplexity.HeldOut.of(tokenizer, {name: part[:20] for name, part in given.dev.items()})
    rows = streams.Rows(
        tokenizer, given.train, settings.length, settings.alpha, settings.seed, pack=settings.pack
    )  # fmt: skip
    batches = [rows.batch(settings.batch_size)[0] for _ in range(steps)]
    ids = [[i for i in row if i != tokenizer.pad_token_id] for batch in batches for row in batch.tolist()]
    found: dict[str, list] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        found["ours"].append(ours_trains(tokenizer, config, given, settings, held_out))
        found["theirs"].append(theirs_trains(config, ids, settings, held_out, tokenizer))
    best = {name: max(run["tokens a second"] for run in runs) for name, runs in found.items()}
    return {
        "steps": steps, "tokens": sum(map(len, ids)), "threads": torch.get_num_threads(),
        "ours": found["ours"][0] | {"tokens a second": round(best["ours"])},
        "theirs": found["theirs"][0] | {"tokens a second": round(best["theirs"])},
        "ratio": round(best["ours"] / best["theirs"], 2),
        "ratio of medians": round(
            statistics.median(run["tokens a second"] for run in found["ours"])
            / statistics.median(run["tokens a second"] for run in found["theirs"]), 2
        ),
    }  # fmt: skip


SIDES = ("ours", "theirs")
WARM = 5  # first steps, which do not count


def ours_trains(tokenizer, config: XLMRConfig, given, settings: Settings, held_out) -> dict:
    marks = []
    few = {name: part[:1] for name, part in given.dev.items()}
    run = pretrain(
        tokenizer, config, given.train, few, settings, on_step=lambda step, model: marks.append(time.perf_counter())
    )
    tokens = run.history[-1]["tokens"] * (settings.steps - 1 - WARM) / settings.steps
    # The last mark comes before the evaluation, so nothing but steps lies between the two.
    taken = marks[settings.steps - 1] - marks[WARM]
    return {"tokens a second": tokens / taken, "held-out loss": round(perplexity.mean(held_out.loss(run.model)), 3)}


def theirs_trains(config: XLMRConfig, ids: list[list[int]], settings: Settings, held_out, tokenizer) -> dict:
    import datasets
    from transformers import (
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        XLMRobertaConfig,
        XLMRobertaForMaskedLM,
    )

    generator = torch.Generator().manual_seed(settings.seed)
    first = MaskedLM(Encoder(config, generator), generator)
    told = XLMRobertaConfig(**dataclasses.asdict(config), attn_implementation="sdpa")
    model = XLMRobertaForMaskedLM(told)
    missing = model.load_state_dict(checkpoints.to_hugging_face(first), strict=False).missing_keys
    assert set(missing) <= {"lm_head.decoder.weight", "lm_head.decoder.bias"}, missing
    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments, **more):
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=settings.steps, per_device_train_batch_size=settings.batch_size, use_cpu=True,
            learning_rate=settings.learning_rate, warmup_steps=round(settings.steps * settings.warmup),
            weight_decay=settings.weight_decay, adam_beta1=settings.betas[0], adam_beta2=settings.betas[1],
            adam_epsilon=settings.eps, max_grad_norm=settings.clip, lr_scheduler_type="linear", seed=settings.seed,
            save_strategy="no", report_to=[], logging_steps=10, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, callbacks=[Clock()],
            train_dataset=datasets.Dataset.from_dict({"input_ids": ids}),
            data_collator=DataCollatorForLanguageModeling(
                AutoTokenizer.from_pretrained(TINY), mlm_probability=settings.masking
            ),
        )  # fmt: skip
        trainer.train()
    tokens = sum(map(len, ids)) * (settings.steps - 1 - WARM) / settings.steps
    after = MaskedLM(Encoder(config, device="meta"))
    after.load_state_dict(checkpoints.translate(model.state_dict(), after)[1], assign=True)
    return {
        "tokens a second": tokens / (marks[settings.steps - 2] - marks[WARM - 1]),
        "held-out loss": round(perplexity.mean(held_out.loss(after)), 3),
    }


# --- what a token costs ---------------------------------------------------------------------------------------------

GROWTH = {
    "width": ("hidden_size", (64, 128, 256, 512)),
    "depth": ("num_hidden_layers", (2, 4, 8, 16)),
    "vocabulary": ("vocab_size", (2000, 8000, 32000, 128000)),
    "length": (None, (32, 64, 128, 256, 512)),
}
TOKENS = 2048  # in a step


def growth(rounds: int) -> dict:
    """Microseconds per token of a whole step, for shapes that differ from tiny in one number."""
    found = {}
    for name, (field, values) in GROWTH.items():
        found[name] = {}
        for value in values:
            changes = {field: value} if field else {}
            if field == "hidden_size":
                changes["intermediate_size"] = 4 * value
            config = XLMRConfig.tiny(max_position_embeddings=514, **changes)
            found[name][str(value)] = round(step_cost(config, value if field is None else 128, rounds), 1)
    return found


def step_cost(config: XLMRConfig, length: int, rounds: int) -> float:
    generator = torch.Generator().manual_seed(0)
    model = MaskedLM(Encoder(config, generator), generator).train()
    optimiser = training.adamw(model, 1e-3, fused=True)
    ids = torch.randint(4, config.vocab_size - 1, (TOKENS // length, length), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) > 0.15, IGNORED)
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        model(ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter() - started)
    return 1e6 * min(times[1:]) / TOKENS


def growth_figure(found: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    from xlmr_course.plots import BLUE, png, style

    with style():
        figure, grid = plt.subplots(1, len(found), figsize=(11, 2.8), sharey=True)
        for axes, (name, costs) in zip(grid, found.items(), strict=True):
            axes.loglog([int(value) for value in costs], list(costs.values()), "o-", color=BLUE)
            axes.set_xticks([int(value) for value in costs], list(costs), rotation=45)
            axes.minorticks_off()
            axes.set_xlabel(name)
        grid[0].set_ylabel("µs per token, one step")
        figure.tight_layout()
        path.write_bytes(png(figure))


# --- results --------------------------------------------------------------------------------------------------------


def report(found: dict) -> str:
    """The results as Markdown."""
    lines = [
        "# Pretraining, measured",
        "",
        "Made by `benchmarks/pretraining.py`; the numbers stand in the JSON file.",
        "",
    ]
    if "tiny" in found:
        part = found["tiny"]
        losses = part["results"]["losses"]
        lines += [
            "## `tiny` from nothing", "",
            f"{part['minutes']:.1f} minutes in {part['processes']} process(es), each with {part['peak GB']:.2f} GB "
            f"of memory at most, evaluation and baselines included. {part['results']['tokens']:,} tokens in "
            f"{part['results']['steps']:,} steps.", "",
        ]  # fmt: skip
        if "largest difference to the shipped curve" in part:
            curve, weights = (part[f"largest difference to the shipped {name}"] for name in ("curve", "weights"))
            lines += [f"Largest difference to the shipped run: loss {curve:.1e}, weights {weights:.1e}.", ""]
        for split, table in losses.items():
            rows = {name: perplexity.perplexities(table[name]) for name in ("model", "cloze", "bigram", "unigram")}
            lines += [
                f"Perplexity, {split}:",
                "",
                "| language | tiny | counts, both neighbours | counts, left neighbour | counts, frequency alone |",
                "|---|--:|--:|--:|--:|",
            ]
            lines += [
                f"| {language} | " + " | ".join(f"{rows[name][language]:.1f}" for name in rows) + " |"
                for language in table["model"]
            ]
            means = " | ".join(f"{perplexity.mean(table[name]):.3f}" for name in rows)
            lines += [f"| mean loss, nats | {means} |", ""]
    if "speed" in found:
        part = found["speed"]
        lines += [
            "## Against transformers' Trainer", "",
            f"{part['steps']} steps, {part['tokens']:,} tokens, {part['threads']} threads, the same rows and first "
            f"weights. Ratio of the best rounds {part['ratio']}, of the medians {part['ratio of medians']}.", "",
            "| | tokens a second | held-out loss after |", "|---|--:|--:|",
            *(f"| {who} | {part[who]['tokens a second']:,} | {part[who]['held-out loss']} |" for who in SIDES),
            "",
        ]  # fmt: skip
    if "growth" in found:
        lines += ["## What a token costs", "", f"Microseconds per token of a step of {TOKENS:,} tokens.", ""]
        for name, costs in found["growth"].items():
            if name != "machine":
                lines += [f"- {name}: " + ", ".join(f"{value}: {cost}" for value, cost in costs.items())]
        lines += ["", "![time per token](pretraining.png)", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["tiny", "speed", "growth"])
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    calls = {
        "tiny": lambda: tiny(given.ship, given.processes),
        "speed": lambda: speed(given.steps, given.rounds),
        "growth": lambda: growth(given.rounds),
    }
    load = os.getloadavg()[0]
    part = calls[given.part]()
    part["machine"] = {
        "threads": torch.get_num_threads(), "cpus": os.cpu_count(), "load before": round(load, 1),
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    found[given.part] = part
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    RESULTS.with_suffix(".md").write_text(report(found))
    if given.part == "growth":
        growth_figure({name: costs for name, costs in part.items() if name != "machine"}, RESULTS.with_suffix(".png"))
    print(json.dumps(part, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
