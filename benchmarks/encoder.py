"""The encoder and the MLM step against transformers: same weights, same batch, one process, taking turns.

    python benchmarks/encoder.py [--rounds 7] [--device cpu] [--clock wall] [--write]

`--write` replaces results/encoder.json. A ratio is theirs / ours, so above 1 the course is faster: that of the best
rounds, because other work on a shared machine only ever slows a round down, with the median beside it. On a machine
that is busy all the time, `--clock cpu` counts one thread's processor time instead. Memory is measured in a fresh
process for each number, on Linux.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM, XLMRobertaModel

from xlmr_course import checkpoints, corpus, sources
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import IGNORED, MaskedLM

RESULTS = Path(__file__).parent / "results" / "encoder.json"
TARGETS = {"forward": 1.0, "forward and backward": 1.0, "32 sentences": 1.3, "MLM step": 3.3, "MLM peak memory": 0.6}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def take_turns(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, device: str, clock: str
) -> dict[str, float]:
    """Run both in turn, after a first round that does not count: milliseconds each, and theirs / ours."""
    times = ([], [])
    for round_ in range(rounds + 1):
        for run, taken in zip((ours, theirs), times, strict=True):
            synchronise(device)
            start = CLOCKS[clock]()
            run()
            synchronise(device)
            if round_:
                taken.append(1000 * (CLOCKS[clock]() - start))
    best, middle = [min(t) for t in times], [statistics.median(t) for t in times]
    return {
        "ours_ms": round(best[0], 1),
        "theirs_ms": round(best[1], 1),
        "ratio": round(best[1] / best[0], 2),
        "ratio_of_medians": round(middle[1] / middle[0], 2),
    }


def forward(model, ids, mask) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            model(ids, mask)

    return run


def training(model, ids, mask) -> Callable[[], None]:
    """Forward and backward as fine-tuning does them: dropout on, word table frozen."""
    weights = torch.randn(*ids.shape, model.config.hidden_size, device=ids.device) * mask[..., None]

    def run() -> None:
        model.zero_grad()
        (model(ids, mask).last_hidden_state * weights).sum().backward()

    return run


def mlm_step(model, ids, mask, labels) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def mlm_models(side: str, device: str) -> MaskedLM | XLMRobertaForMaskedLM:
    config = XLMRConfig.small()
    if side == "ours":
        return MaskedLM(Encoder(config, torch.Generator().manual_seed(0))).to(device).train()
    told = XLMRobertaConfig(**dataclasses.asdict(config), attn_implementation="sdpa")
    return XLMRobertaForMaskedLM(told).to(device).train()


def mlm_batch(device: str) -> list[torch.Tensor]:
    """8 × 128 random tokens, 15 % of them chosen."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 250_001, (8, 128), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) > 0.15, IGNORED)
    return [ids.to(device), torch.ones_like(ids).to(device), labels.to(device)]


def sentence_batch(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """32 classroom sentences of different content, in turn from every language of the corpus."""
    languages = corpus.languages_in()
    texts = {language: corpus.load(language, "train")["text"] for language in languages}
    mixed = [texts[languages[n % len(languages)]][n] for n in range(32)]
    given = checkpoints.load_tokenizer("small")(mixed, padding=True, return_tensors="pt")
    return given["input_ids"].to(device), given["attention_mask"].to(device)


def resident(key: str) -> float:
    """This process's memory, MB: `VmRSS` now, `VmHWM` at its peak."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) * 1024 / 1e6


def peak_of_step(side: str, device: str) -> dict[str, float]:
    """Megabytes at the peak of three MLM steps: resident memory, or the GPU's."""
    run = mlm_step(mlm_models(side, device), *mlm_batch(device))
    for _ in range(3):
        run()
    return {"mb": resident("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / 1e6}


def cost_of(size: int, length: int, clock: str) -> dict[str, float]:
    """Milliseconds of a forward and backward pass, and the megabytes it adds to the model."""
    model = checkpoints.load_encoder("small").train()
    model.embeddings.word.requires_grad_(False)
    passes = []
    for shape in ((1, 8), (size, length)):  # the first one so that weights and gradients are in memory
        ids = torch.randint(4, 250_001, shape)
        passes.append(training(model, ids, torch.ones_like(ids)))
    passes[0]()
    before = resident("VmRSS")
    passes[1]()
    added = resident("VmHWM") - before
    times = []
    for _ in range(2):
        start = CLOCKS[clock]()
        passes[1]()
        times.append(1000 * (CLOCKS[clock]() - start))
    return {"batch": size, "length": length, "ms": round(min(times), 1), "added_mb": round(added, 1)}


def in_fresh_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="2, or 1 with --clock cpu")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--peak", choices=["ours", "theirs"], help="only this side's peak memory")
    parser.add_argument("--cost", type=int, nargs=2, metavar=("BATCH", "LENGTH"), help="only this shape's cost")
    given = parser.parse_args()
    given.threads = given.threads or (1 if given.clock == "cpu" else 2)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = given.device
    if given.peak:
        print(json.dumps(peak_of_step(given.peak, device)))
        return
    if given.cost:
        print(json.dumps(cost_of(*given.cost, given.clock)))
        return

    load_at_start = os.getloadavg()[0]
    measured: dict[str, dict[str, float]] = {}
    folder = sources.locate("small")
    ours = checkpoints.load_encoder("small").to(device)
    theirs = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa").to(device)
    theirs.eval()
    equal = torch.randint(4, 250_001, (8, 128), device=device)
    batches = {"8 × 128 tokens": (equal, torch.ones_like(equal)), "32 sentences": sentence_batch(device)}
    for name, (ids, mask) in batches.items():
        gap = (ours(ids, mask).last_hidden_state - theirs(ids, mask).last_hidden_state)[mask.bool()].abs().max()
        assert gap < 1e-3, f"{name}: the two models differ by {gap}"
        measured[f"forward, {name}"] = take_turns(
            forward(ours, ids, mask), forward(theirs, ids, mask), given.rounds, device, given.clock
        )
    ours.embeddings.word.requires_grad_(False)
    theirs.embeddings.word_embeddings.requires_grad_(False)
    for name, (ids, mask) in batches.items():
        for mode, training_now in (("dropout off", False), ("dropout on", True)):
            ours.train(training_now)
            theirs.train(training_now)
            measured[f"forward and backward, {name}, {mode}"] = take_turns(
                training(ours, ids, mask), training(theirs, ids, mask), given.rounds, device, given.clock
            )
    del ours, theirs

    steps = [mlm_step(mlm_models(side, device), *mlm_batch(device)) for side in ("ours", "theirs")]
    measured["MLM step, 8 × 128 tokens, 250,002 words"] = take_turns(
        *steps, max(2, given.rounds // 2), device, given.clock
    )
    del steps
    options = ("--device", device, "--threads", given.threads, "--clock", given.clock)
    peaks = {side: in_fresh_process("--peak", side, *options)["mb"] for side in ("ours", "theirs")}
    measured["MLM step, peak memory"] = {
        "ours_mb": round(peaks["ours"]),
        "theirs_mb": round(peaks["theirs"]),
        "share": round(peaks["ours"] / peaks["theirs"], 3),
    }
    cost = []
    if device == "cpu":
        shapes = [(8, length) for length in (32, 64, 128, 256, 512)] + [(n, 64) for n in (1, 2, 4, 16, 32, 64)]
        cost = [in_fresh_process("--cost", *shape, *options) for shape in shapes]
    result = {
        "what": "encoder and MLM step against transformers with sdpa; shape and weights of small",
        "targets": TARGETS,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "processor": platform.processor() or platform.machine(),
        "threads": given.threads,
        "clock": given.clock,
        "load_average_at_start": round(load_at_start, 2),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rounds": given.rounds,
        "sentence_lengths": sorted(batches["32 sentences"][1].sum(dim=1).tolist()),
        "measured": measured,
        "growth": cost,
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
