"""The training loop: one classifier, one seed, from pretrained weights to its best epoch.

Batches of similar length, AdamW with a linear warm-up and decay, mixed precision on a GPU, the best epoch on the
*training* language's dev set kept, and an early stop when it does not come. Choosing on the other languages' dev sets
would no longer be zero-shot.

The loop can be killed at any step. Its state goes into a folder from time to time, and the same call goes on from
there to the same weights, bit for bit. Several processes share each batch (`team.py`); the losses are those of one.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from xlmr_course import checkpoints, memory, training
from xlmr_course.batches import Encoded, batches_by_length, pad, shares, shortest_first
from xlmr_course.encoder import XLMRConfig
from xlmr_course.heads import SequenceClassifier
from xlmr_course.team import Team
from xlmr_course.training import warmup_decay

# Peak learning rates that work at each size; larger models need smaller steps (fairseq #1367, #2057; SIB-200).
LEARNING_RATES = {128: 5e-4, 384: 2e-4, 768: 2e-5, 1024: 1e-5}  # by hidden size
# From this many rows on the word embeddings are frozen by default. XLM-R's 250,002 are most of `small`, `base` and
# `large`; a few hundred sentences touch hardly any of them, and moving those would leave the other languages' rows
# where they were. Frozen they need no gradient and no optimiser. `tiny` has 4,000, which cost nothing to train.
MANY_WORDS = 100_000
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16"}  # accelerate's words for ours


class FinetuningError(ValueError):
    """Training did not work; what came out is no result. The message says what to try."""


@dataclass(frozen=True)
class Settings:
    """How to train. Every field ends up in `results.json`, with what None and "auto" stood for.

    `accumulate` computes a batch in so many parts, one after the other: less memory, the same step. `patience` stops
    after so many epochs without a better dev score.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float | None = None  # None: by the size of the model
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 0.01
    max_length: int = 128
    freeze_embeddings: bool | None = None  # None: if there are many
    gradient_checkpointing: bool = False
    accumulate: int = 1
    precision: str = "auto"
    clip: float = 1.0
    patience: int | None = 3

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")

    def resolved(self, config: XLMRConfig, device: str = "cpu") -> Settings:
        """With every choice that was left to the model or the machine made."""
        told = PRECISIONS.get(os.environ.get("ACCELERATE_MIXED_PRECISION", ""), "auto")
        wanted = told if self.precision == "auto" else self.precision
        frozen = config.vocab_size >= MANY_WORDS if self.freeze_embeddings is None else self.freeze_embeddings
        return replace(
            self,
            learning_rate=self.learning_rate or LEARNING_RATES.get(config.hidden_size, 2e-5),
            freeze_embeddings=frozen,
            precision=str(training.precision(device, wanted)).removeprefix("torch."),
        )


@dataclass
class Progress:
    """How far a run has come: what a snapshot holds beside weights and random states."""

    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    losses: list[float] = field(default_factory=list)  # one a step
    scores: list[tuple[float, float]] = field(default_factory=list)  # one an epoch: accuracy on dev, minus the loss
    seconds: float = 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch, from 0, with the best score; of equals the first."""
        return max(range(len(self.scores)), key=lambda epoch: self.scores[epoch])

    def done(self, settings: Settings) -> bool:
        waited = len(self.scores) - 1 - self.best_epoch if self.scores else 0
        return self.epoch >= settings.epochs or (settings.patience is not None and waited >= settings.patience)


def train_classifier(
    checkpoint: str | Path,
    train: Encoded,
    dev: Encoded,
    num_labels: int,
    seed: int = 0,
    settings: Settings | None = None,
    device: str | None = "cpu",
    *,
    folder: str | Path | None = None,
    snapshot_seconds: float = 120.0,
    team: Team | None = None,
) -> SequenceClassifier:
    """Train one classifier and return it as it was after its best epoch on `dev`, in evaluation mode.

    Args:
        checkpoint: a name of the course or a folder.
        train, dev: in the language of training. Without dev sentences the last epoch is returned.
        num_labels: the number of classes.
        seed: draws the head's first weights, the order of the sentences and the dropout.
        device: None picks a GPU if there is one.
        folder: keep snapshots here, and go on from one that is here.
        snapshot_seconds: how often.
        team: several processes; None finds out.

    Returns:
        The model; its attribute `progress` says what happened on the way.

    Raises:
        FinetuningError: the loss never left ln(classes), stopped being a number, or the GPU's memory is too small.
    """
    team = team or Team.here(device)
    run = Run(checkpoint, num_labels, seed, settings or Settings(), team)
    settings, progress = run.settings, run.progress
    steps = settings.epochs * math.ceil(len(train.ids) / settings.batch_size)
    with torch.random.fork_rng(devices=[team.device] if team.device.startswith("cuda") else []):
        torch.manual_seed(seed + 1_000_003 * team.rank)  # dropout has no generator of its own
        if folder is not None:
            run.load(folder)
        written = time.monotonic()
        bar = bar_of(team, total=steps, initial=len(progress.losses), desc=f"training, seed {seed}", unit="step")
        while not progress.done(settings):
            run.model.train()
            run.epoch_start = run.generator.get_state()
            batches = batches_by_length([len(ids) for ids in train.ids], settings.batch_size, run.generator)
            for batch in list(batches)[progress.batch :]:
                factor = warmup_decay(len(progress.losses), steps, settings.warmup)
                training.set_learning_rate(run.optimiser, settings.learning_rate * factor)
                try:
                    progress.losses.append(run.step(train, batch))
                except torch.OutOfMemoryError as error:
                    raise out_of_memory(run, [len(train.ids[i]) for i in batch]) from error
                progress.batch += 1
                bar.update()
                if folder is not None and team.agreed(time.monotonic() - written >= snapshot_seconds):
                    run.save(folder)
                    written = time.monotonic()
            run.end_of_epoch(dev)
        bar.close()
    refuse_collapse(progress.losses, num_labels, settings.learning_rate)
    return run.best()


class Run:
    """What one run is made of, and what of it a snapshot holds."""

    def __init__(self, checkpoint: str | Path, num_labels: int, seed: int, settings: Settings, team: Team):
        self.team, self.generator = team, torch.Generator().manual_seed(seed)
        encoder = checkpoints.load_encoder(checkpoint)
        self.model = SequenceClassifier(encoder, num_labels, self.generator).to(team.device)
        self.settings = settings.resolved(self.model.config, team.device)
        self.model.encoder.gradient_checkpointing = self.settings.gradient_checkpointing
        self.model.encoder.embeddings.requires_grad_(not self.settings.freeze_embeddings)
        self.together = team.join(self.model)
        self.optimiser = training.adamw(self.model, self.settings.learning_rate, self.settings.weight_decay, fused=True)
        self.precision = training.precision(team.device, self.settings.precision)
        # float16 has no gradients below 6e-8: the loss is scaled up before the backward pass, and they down after it.
        self.scaler = torch.amp.GradScaler(team.device.split(":")[0], enabled=self.precision == torch.float16)
        self.progress, self.best_weights, self.epoch_start = Progress(), None, self.generator.get_state()
        self.started = time.monotonic()

    def step(self, train: Encoded, batch: list[int]) -> float:
        """One step on a batch of sentence numbers; its loss, the mean over the batch."""
        parts = shares(batch, self.team.rank, self.team.size, self.settings.accumulate)
        # A process without a sentence computes one that counts nothing: the others wait for its gradients.
        weights = [len(part) * self.team.size / len(batch) for part in parts] or [0.0]
        total = 0.0
        for number, (part, weight) in enumerate(zip(parts or [batch[:1]], weights, strict=True), start=1):
            inputs = pad([train.ids[i] for i in part], self.model.config.pad_token_id).to(self.team.device)
            labels = torch.tensor([train.labels[i] for i in part], device=self.team.device)
            with self.team.silent(self.together, until=number == len(weights)):
                with autocast(self.team.device, self.precision):
                    loss = self.together(inputs, labels=labels).loss * weight
                self.scaler.scale(loss).backward()
            total += loss.detach()
        loss = sum(self.team.gather(float(total))) / self.team.size
        if not math.isfinite(loss):
            raise FinetuningError(
                f"the loss is {loss} at step {len(self.progress.losses) + 1}; lower the learning rate from "
                f"{self.settings.learning_rate:g}"
            )
        self.scaler.unscale_(self.optimiser)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return loss

    def end_of_epoch(self, dev: Encoded) -> None:
        """Score the model on dev and remember it if it is the best so far."""
        progress = self.progress
        progress.scores.append(score(self.model, dev, self.team, self.precision) if dev.ids else (progress.epoch, 0.0))
        if progress.best_epoch == progress.epoch:
            self.best_weights = self.trained_weights()
        progress.epoch, progress.batch = progress.epoch + 1, 0

    def best(self) -> SequenceClassifier:
        self.model.load_state_dict(self.best_weights, strict=False)
        self.model.progress = self.progress
        self.progress.seconds += time.monotonic() - self.started
        return self.model.eval()

    def trained_weights(self) -> dict[str, Tensor]:
        """A copy of what training changes, on the CPU; the frozen tables need none."""
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        state = self.model.state_dict()
        return {name: value.detach().to("cpu", copy=True) for name, value in state.items() if name in trained}

    def save(self, folder: str | Path) -> None:
        """Write a snapshot; the main process does it, with everyone's random states."""
        random = self.team.gather(training.random_states())
        if not self.team.main:
            return
        now = time.monotonic()
        told = self.progress.__dict__ | {"seconds": self.progress.seconds + now - self.started}
        state = {
            "weights": self.trained_weights(), "best_weights": self.best_weights, "progress": told, "random": random,
            "optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict(), "epoch": self.epoch_start,
        }  # fmt: skip
        training.save_snapshot(folder, state, len(self.progress.losses))

    def load(self, folder: str | Path) -> None:
        """Go on from the last snapshot, if there is one."""
        state = training.load_snapshot(folder)
        if state is None:
            return
        self.model.load_state_dict(state["weights"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_weights = state["best_weights"]
        vars(self.progress).update(state["progress"])
        self.generator.set_state(state["epoch"])  # the epoch's batches are drawn again, those that are done passed over
        training.restore_random_states(state["random"][self.team.rank])


def predict(
    model: SequenceClassifier,
    ids: list[list[int]],
    batch_size: int = 64,
    *,
    team: Team | None = None,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """The most likely class of each sentence, `(len(ids),)`, in the order given; a team shares the work."""
    return logits_of(model, ids, batch_size, team, precision).argmax(-1)


@torch.inference_mode()
def logits_of(
    model: SequenceClassifier,
    ids: list[list[int]],
    batch_size: int = 64,
    team: Team | None = None,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """`(len(ids), C)` on the CPU, in the order given."""
    model.eval()
    team = team or Team(str(next(model.parameters()).device))
    batches = shortest_first([len(row) for row in ids], batch_size)
    mine = {}
    for number in range(team.rank, len(batches), team.size):
        inputs = pad([ids[i] for i in batches[number]], model.config.pad_token_id).to(team.device)
        try:
            with autocast(team.device, precision):
                mine[number] = model(inputs).logits.float().cpu()
        except torch.OutOfMemoryError:
            if batch_size == 1 or team.size > 1:
                raise
            return logits_of(model, ids, batch_size // 2, team, precision)
    found: dict[int, Tensor] = {}
    for part in team.gather(mine):
        found |= part
    order = torch.tensor([i for batch in batches for i in batch])
    return torch.cat([found[number] for number in range(len(batches))])[order.argsort()]


def score(model: SequenceClassifier, dev: Encoded, team: Team, precision: torch.dtype) -> tuple[float, float]:
    """Accuracy on dev, then minus the loss, which decides between equals."""
    logits, labels = logits_of(model, dev.ids, team=team, precision=precision), torch.tensor(dev.labels)
    return float(logits.argmax(-1).eq(labels).float().mean()), -float(F.cross_entropy(logits, labels))


def autocast(device: str, precision: torch.dtype) -> torch.autocast:
    """Compute matrix products in `precision` inside this block."""
    return torch.autocast(device.split(":")[0], precision, enabled=precision != torch.float32)


def bar_of(team: Team, **options) -> tqdm:
    """A progress bar, on the main process."""
    return tqdm(**options, **({} if team.main else {"disable": True}))


def refuse_collapse(losses: list[float], num_labels: int, rate: float) -> None:
    """Raise FinetuningError when the last fifth of the losses is that of guessing."""
    last = losses[-max(1, len(losses) // 5) :]
    mean, guessing = sum(last) / len(last), math.log(num_labels)
    if len(losses) >= 20 and mean > 0.97 * guessing:
        raise FinetuningError(
            f"the loss stayed at {mean:.3f}, which is guessing (ln {num_labels} = {guessing:.3f}); "
            f"the run collapsed: use another seed or a learning rate below {rate:g}"
        )


def out_of_memory(run: Run, lengths: list[int]) -> FinetuningError:
    """The error that says what to lower, and by how much, after a batch of these lengths did not fit."""
    device = run.team.device
    total = torch.cuda.get_device_properties(device).total_memory if device.startswith("cuda") else None
    at_once = math.ceil(len(lengths) / run.team.size / run.settings.accumulate)
    return FinetuningError(memory.advice(run.model.config, run.settings, at_once, max(lengths), device, total))
