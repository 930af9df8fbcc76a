"""XLM-RoBERTa large: what it takes to load it and to train it, ours against a plain transformers Trainer.

    python benchmarks/large.py --part load     # memory while loading 2.24 GB of weights
    python benchmarks/large.py --part step     # one full training step at batch 1 × 128, on a CPU, within 16 GB
    python benchmarks/large.py --part gpu      # batch 32 × 128: peak memory and tokens a second, on a GPU

The weights are the real ones where `large` is on this machine; else random ones of its shape, and the results say so:
neither memory nor speed depends on the values. Every measurement has a process of its own; one that would take more
than 16 GB of the machine is ended by a watchdog. Figures go into results/large.json, and results/large.md is written
from it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers

from xlmr_course import checkpoints, memory, sources
from xlmr_course.batches import Encoded
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.fitting import Run, Settings
from xlmr_course.mlm import MaskedLM
from xlmr_course.team import Team

RESULTS = Path(__file__).parent / "results" / "large.json"
LIMIT = 16e9  # bytes that a process on the CPU may take
TARGETS = {"loading, share of the file": 1.2, "step on a CPU, GB": 16, "ours on a GPU, GB": 14}
TOKENS, BATCH, LABELS = 128, 32, 3


def write_random(folder: str) -> None:
    """Weights of large's shape, N(0, 0.02), in one file as the hub has it."""
    model = MaskedLM(Encoder(XLMRConfig.large(), torch.Generator().manual_seed(0)))
    checkpoints.save_pretrained(model, None, folder)


@contextlib.contextmanager
def weights(folder: str | None) -> Iterator[tuple[str, bool]]:
    """A folder with large's weights, and whether they are the real ones."""
    if folder is not None:
        yield folder, False
    elif sources.available("large") is not None:
        yield str(sources.locate("large")), True
    else:
        with tempfile.TemporaryDirectory() as made:
            child("--child", "write", "--folder", made)
            yield made, False


# --- what the processes do ------------------------------------------------------------------------------------------


def resident(key: str) -> int:
    """This process's memory in bytes: `VmRSS` now, `VmHWM` at its peak (Linux)."""
    return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) * 1024


def load(folder: str) -> dict:
    """Load the masked LM and read every page of it."""
    before, started = resident("VmHWM"), time.perf_counter()
    model = checkpoints.load_masked_lm(folder)
    seconds = time.perf_counter() - started
    for parameter in model.parameters():
        parameter.sum()
    size = (Path(folder) / sources.WEIGHTS).stat().st_size
    taken = resident("VmHWM") - before
    return {"file_gb": size / 1e9, "taken_gb": taken / 1e9, "share": taken / size, "seconds": seconds}


def random_batch(size: int) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(4, 250_001, (size, TOKENS), generator=generator).tolist()
    return Encoded([[0, *row[2:], 2] for row in rows], [i % LABELS for i in range(size)])


def our_steps(folder: str, size: int, steps: int, settings: Settings, device: str) -> Iterator[float]:
    """Losses of our loop, a step at a time."""
    run = Run(folder, LABELS, 0, settings, Team(device))
    run.model.train()
    batch = random_batch(size)
    for _ in range(steps):
        yield run.step(batch, list(range(size)))


def trainer_steps(folder: str, size: int, steps: int, device: str, half: bool) -> dict:
    """The same with a Trainer as it comes; `half` is its fp16=True."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=LABELS)
    batch = random_batch(size)
    rows = [{"input_ids": i, "labels": n} for i, n in zip(batch.ids, batch.labels, strict=True)] * steps
    with tempfile.TemporaryDirectory() as made:
        arguments = transformers.TrainingArguments(
            output_dir=made, per_device_train_batch_size=size, max_steps=steps, learning_rate=1e-5, fp16=half,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=device == "cpu",
        )  # fmt: skip
        found = transformers.Trainer(model, arguments, train_dataset=rows).train()
    return {"loss": found.training_loss, "seconds a step": found.metrics["train_runtime"] / steps}


def step(folder: str, side: str) -> dict:
    """One full step on the CPU at batch 1: forward, backward, AdamW."""
    started = time.perf_counter()
    if side == "ours":
        losses = list(our_steps(folder, 1, 1, Settings(), "cpu"))
        found = {"loss": losses[0], "seconds with loading": time.perf_counter() - started}
    else:
        found = trainer_steps(folder, 1, 1, "cpu", half=False)
        found = {"loss": found["loss"], "seconds with loading": time.perf_counter() - started}
    assert math.isfinite(found["loss"])
    return found | {"peak_gb": resident("VmHWM") / 1e9}


def gpu(folder: str, side: str) -> dict:
    """Batch 32 × 128 on a GPU: the peak of what PyTorch holds there, and tokens a second after two steps."""
    steps = 12
    if side.startswith("trainer"):
        found = trainer_steps(folder, BATCH, steps, "cuda", half=side == "trainer fp16")
        seconds = found["seconds a step"]
    else:
        settings = Settings(gradient_checkpointing=side.endswith("checkpointing"))
        losses = our_steps(folder, BATCH, steps, settings, "cuda")
        next(losses), next(losses)
        torch.cuda.synchronize()
        started = time.perf_counter()
        rest = len(list(losses))
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) / rest
    return {
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "tokens a second": BATCH * TOKENS / seconds,
        "device": torch.cuda.get_device_name(),
    }


# --- starting them, and writing down --------------------------------------------------------------------------------


def child(*arguments: str) -> dict:
    """This script in a process of its own, ended if it takes more than the limit."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status")
            held = status.read_text() if status.exists() else ""
            if "VmRSS:" in held and int(held.split("VmRSS:")[1].split()[0]) * 1024 > LIMIT:
                process.kill()
                return {"ended": f"more than {LIMIT / 1e9:.0f} GB"}
            time.sleep(0.05)
        out = process.stdout.read()
    if process.returncode:
        return {"ended": f"exit code {process.returncode}"}
    return rounded(json.loads(out.splitlines()[-1])) if out.strip() else {}


def rounded(found: dict) -> dict:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


def page(stored: dict) -> str:
    """The figures as Markdown."""
    lines = ["# XLM-RoBERTa large, measured", "", "Written by `benchmarks/large.py`.", ""]
    for part, found in stored.items():
        if part == "targets":
            continue
        kind = "The real weights" if found["real weights"] else "Random weights of the real shape"
        lines += [f"## {part}", "", f"{kind}; {found['device']}, torch {found['torch']}.", ""]
        rows = {side: figures for side, figures in found.items() if isinstance(figures, dict)}
        columns = list(dict.fromkeys(key for figures in rows.values() for key in figures if key != "device"))
        lines += [f"| | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
        lines += [f"| {side} | {' | '.join(str(f.get(key, '')) for key in columns)} |" for side, f in rows.items()]
        lines.append("")
    half = memory.of_step(XLMRConfig.large(), BATCH, TOKENS, half=True, freeze_embeddings=True)
    lines += [
        f"By arithmetic (`xlmr_course/memory.py`), batch {BATCH} × {TOKENS} in half precision with frozen embeddings "
        f"needs {half.total / 1e9:.1f} GB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["load", "step", "gpu"])
    parser.add_argument("--folder", help="a folder with weights of large's shape; else the real ones, or random ones")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        does = {"load": load, "step": step, "gpu": gpu}
        if given.child == "write":
            write_random(given.folder)
        else:
            arguments = [given.folder] + ([given.side] if given.side else [])
            print(json.dumps(does[given.child](*arguments)))
        return
    if given.part is None:
        parser.error("say which --part: load, step or gpu")
    if given.part == "gpu" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; the parts load and step run without one")
    sides = {
        "load": [None],
        "step": ["ours", "trainer"],
        "gpu": ["ours", "ours, gradient checkpointing", "trainer", "trainer fp16"],
    }[given.part]
    with weights(given.folder) as (folder, real):
        figures = {}
        for side in sides:
            chosen = ["--side", side] if side else []
            figures[side or "load_masked_lm"] = child("--child", given.part, "--folder", folder, *chosen)
    where = {
        "real weights": real, "device": torch.cuda.get_device_name() if given.part == "gpu" else "cpu",
        "threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 2), "torch": torch.__version__,
        "transformers": transformers.__version__, "processor": platform.processor() or platform.machine(),
    }  # fmt: skip
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    stored |= {"targets": TARGETS, given.part: figures | where}
    RESULTS.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(page(stored), encoding="utf-8")
    print(json.dumps({given.part: figures | where}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
