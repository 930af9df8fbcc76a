"""Pretrain a masked language model in several languages, on a laptop or on many GPUs.

Texts → languages drawn with α → packed rows → dynamic masks → AdamW with a linear warm-up and decay → the held-out loss
of each language → snapshots. Killed at any step and started again with the same output folder, a run ends with the
same weights bit for bit.

Several processes (`accelerate launch -m xlmr_course pretrain …`) share each step: all of them draw the same batch and
the same masks, and each takes every n-th row. The loss is the mean over *all* hidden tokens of the batch. The mean of
the processes' means would weigh a token more where fewer were hidden.
"""

from __future__ import annotations

import json
import math
import platform
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from xlmr_course import checkpoints, training
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import IGNORED, MaskedLM, mask_tokens
from xlmr_course.perplexity import HeldOut, held_out_loss, perplexities
from xlmr_course.streams import LanguageSampler, Rows, Texts, is_streamed, packed
from xlmr_course.training import TrainingError, warmup_decay

__all__ = [
    "LanguageSampler", "Run", "Settings", "fill_mask", "held_out_loss", "packed", "perplexities", "pretrain",
    "warmup_decay",
]  # fmt: skip

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Settings:
    """How to train. Every field is kept in `run.json`; going on with another value is refused."""

    steps: int = 7500
    batch_size: int = 16  # rows a step, over all processes and all pieces
    length: int = 128  # ids in a row, at most
    learning_rate: float = 1.5e-3  # at the peak
    warmup: float = 0.03  # share of the steps
    weight_decay: float = 0.01
    alpha: float = 0.3
    masking: float = 0.4  # share of the tokens that are chosen; XLM-R has 0.15, and far more text
    pack: bool = False  # several texts a row, as XLM-R does; else one
    seed: int = 0
    accumulate: int = 1  # pieces that a process cuts its part of a batch into: less memory, same result
    precision: str = "auto"
    clip: float = 1.0  # longest gradient, as a norm
    # RoBERTa's 0.98 forgets in fifty steps, and a rare token comes up less often than that in batches this small.
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6  # RoBERTa's
    log_every: int = 10
    eval_every: int = 300
    eval_texts: int = 16  # held-out texts of each language that are measured along the way
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "eval_every", "eval_texts", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.length < 3:
            raise ValueError(f"length={self.length} leaves no room: <s> and </s> alone are 2")
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"alpha={self.alpha} lies outside [0, 1]; 1 follows the data, 0 treats all languages alike"
            )
        if not 0 < self.masking < 1:
            raise ValueError(f"masking={self.masking} must lie between 0 and 1; 0.15 is usual")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup={self.warmup} is a share of the steps, so between 0 and 1")


@dataclass
class Run:
    """What came out."""

    model: MaskedLM  # in evaluation mode, on the CPU
    history: list[dict[str, Any]]  # step, loss, learning_rate, tokens, tokens_per_second; at times also held_out
    settings: Settings
    versions: dict[str, str]
    is_main: bool = True  # of several processes, the one that writes

    @property
    def held_out(self) -> dict[str, float]:
        """The last held-out loss of each language, nats per hidden token."""
        return next(entry["held_out"] for entry in reversed(self.history) if "held_out" in entry)

    def plot(self, path: str | Path | None = None):
        """The training loss and each language's held-out loss over the steps, as a figure."""
        from xlmr_course.plots import training_curves

        return training_curves(self.history, path)


def pretrain(
    tokenizer,
    model: XLMRConfig | MaskedLM,
    texts: Mapping[str, Texts],
    held_out: Mapping[str, Sequence[str]],
    settings: Settings | None = None,
    output: str | Path | None = None,
    *,
    on_step: Callable[[int, MaskedLM], None] | None = None,
    device: str | None = None,
    tensorboard: bool = False,
    recipe: Mapping[str, Any] | None = None,
) -> Run:
    """Train, and go on where a killed run stood if `output` holds its snapshots.

    Args:
        tokenizer: an `XLMRTokenizer`.
        model: a shape, whose weights begin at random (its `vocab_size` is replaced by the tokenizer's); or a model to
            go on from, which is trained in place.
        texts: language → a list of texts, or a `datasets.IterableDataset` with a column `text`.
        held_out: language → texts to measure on. They are left out of streams; lists must not hold them.
        settings: how.
        output: the folder of this run: snapshots, `history.jsonl`, curves, and at the end the model in the Hugging Face
            layout. None keeps everything in memory.
        on_step: called as `on_step(steps done, model)` before the first step and after each; it must draw no random
            numbers from torch's global generator. Not called again for steps that were done before a kill.
        device: `"cpu"` to leave a GPU alone.
        tensorboard: also write curves for TensorBoard into `output`, which needs the package `tensorboard`.
        recipe: more that tells this run from others, kept in `run.json`.

    Raises:
        ValueError: settings that make no sense, text that fits no row, a model that doesn't fit the tokenizer.
        TrainingError: no text, another run in `output`, a batch larger than the memory, a loss that is no number, a
            full disk.
    """
    settings = settings or Settings()
    training_run = _Pretraining(tokenizer, model, texts, held_out, settings, output, device, recipe)
    return training_run.run(on_step, tensorboard)


class _Pretraining:
    """One run: what it needs, and the methods of its loop in the order in which they are called."""

    def __init__(self, tokenizer, model, texts, held_out, settings: Settings, output, device, recipe) -> None:
        from accelerate import Accelerator  # two seconds, and nothing else in the course needs it

        self.engine = Accelerator(cpu=True) if device == "cpu" else Accelerator()
        self.rank, self.processes = self.engine.process_index, self.engine.num_processes
        self.tokenizer, self.settings = tokenizer, settings
        self.output = None if output is None else Path(output)
        share = settings.batch_size // (self.processes * settings.accumulate)
        if share < 1:
            raise ValueError(
                f"batch_size={settings.batch_size} rows cannot be shared by {self.processes} processes with "
                f"{settings.accumulate} pieces each: raise it to {self.processes * settings.accumulate}"
            )
        self.precision = training.precision(self.engine.device, self._wanted_precision())
        self.model = self._model(model)
        if settings.length > self.model.config.max_tokens:
            raise ValueError(
                f"length={settings.length}, but the model has positions for {self.model.config.max_tokens} tokens; "
                "use a shorter length"
            )
        self.streamed = is_streamed(texts)
        self.rows = Rows(
            tokenizer, texts, settings.length, settings.alpha, settings.seed, pack=settings.pack, without=held_out,
            share=(self.rank, self.processes) if self.streamed else (0, 1),
        )  # fmt: skip
        if isinstance(model, XLMRConfig) and not self.streamed:  # begin by guessing what is frequent
            self.model.lm_head.bias.data.copy_(self.rows.frequencies(len(tokenizer)).log())
        self._claim(texts, held_out, recipe)
        watched = {language: found[: settings.eval_texts] for language, found in held_out.items()}
        self.held_out = HeldOut.of(tokenizer, watched, length=settings.length, seed=settings.seed)
        # Masks are the same in all processes when the batch is, and different when each reads its own part.
        self.masks = torch.Generator().manual_seed(settings.seed + 1 + (self.rank if self.streamed else 0))
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []  # since the last entry of the history
        self.step = self.tokens = 0

    def _wanted_precision(self) -> str:
        """What `accelerate launch --mixed_precision` says counts where the settings leave it open."""
        said = {"bf16": "bfloat16", "fp16": "float16"}.get(self.engine.mixed_precision)
        return said if said and self.settings.precision == "auto" else self.settings.precision

    def _model(self, given: XLMRConfig | MaskedLM) -> MaskedLM:
        if isinstance(given, XLMRConfig):
            generator = torch.Generator().manual_seed(self.settings.seed)
            config = replace(given, vocab_size=len(self.tokenizer))
            with torch.random.fork_rng(devices=[]):  # torch draws values for the head that are replaced at once
                return new_model(config, generator)
        if given.config.vocab_size != len(self.tokenizer):
            raise ValueError(
                f"the model has {given.config.vocab_size:,} word vectors and the tokenizer {len(self.tokenizer):,} "
                "ids: go on with the tokenizer that belongs to the checkpoint"
            )
        return given

    def _claim(self, texts, held_out, recipe) -> None:
        if self.output is None:
            return
        pieces = zip(self.tokenizer.model.pieces, self.tokenizer.model.scores, strict=True)
        weights = b"".join(parameter.detach().cpu().numpy().tobytes() for parameter in self.model.parameters())
        configuration = {
            "settings": asdict(self.settings),
            "model": asdict(self.model.config) | {"first weights": _digest(weights)},
            "tokenizer": _digest(repr(list(pieces)).encode()),
            "texts": {language: _described(found) for language, found in texts.items()},
            "held out": {language: _described(found) for language, found in held_out.items()},
            "processes": self.processes,
            "precision": str(self.precision).removeprefix("torch."),
            "recipe": dict(recipe or {}),
        }
        if self.engine.is_main_process:
            training.claim_folder(self.output, configuration)
            self.tokenizer.save_pretrained(self.output)
        self.engine.wait_for_everyone()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self, on_step, tensorboard: bool) -> Run:
        """All steps that are left, then the final files."""
        settings, main = self.settings, self.engine.is_main_process
        devices = [self.engine.device] if self.engine.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(settings.seed + self.rank)  # dropout has no generator of its own
            self.model.to(self.engine.device)
            self.optimiser = training.adamw(
                self.model, settings.learning_rate, settings.weight_decay, settings.betas, settings.eps, fused=True
            )
            self.scaler = torch.amp.GradScaler(self.engine.device.type, enabled=self.precision == torch.float16)
            self.restore()
            self.shared = self.engine.prepare_model(self.model) if self.processes > 1 else self.model
            self.writer = _tensorboard(self.output) if tensorboard and main else None
            if self.step == 0 and on_step is not None:
                on_step(0, self.model)
            quiet = {} if main else {"disable": True}
            bar = tqdm(total=settings.steps, initial=self.step, desc="pretraining", unit="step", **quiet)
            started, counted = time.perf_counter(), self.tokens
            while self.step < settings.steps:
                rate = settings.learning_rate * warmup_decay(self.step, settings.steps, settings.warmup)
                loss = self.guarded(self.learn, rate)
                self.step += 1
                self.losses.append(loss)
                if on_step is not None:
                    on_step(self.step, self.model)
                last = self.step == settings.steps
                evaluate = last or self.step % settings.eval_every == 0
                if evaluate or self.step % settings.log_every == 0 or self.step == 1:
                    speed = (self.tokens - counted) / (time.perf_counter() - started)
                    self.record(rate, speed, evaluate)
                    bar.set_postfix(loss=f"{self.history[-1]['loss']:.3f}", tokens_s=f"{speed:,.0f}", refresh=False)
                    started, counted = time.perf_counter(), self.tokens
                bar.update()
                if self.output is not None and (last or self.step % settings.save_every == 0):
                    self.save()
            bar.close()
        self.model.to("cpu").eval()
        run = Run(self.model, self.history, settings, versions(), main)
        if self.output is not None and main:
            checkpoints.save_pretrained(self.model, self.tokenizer, self.output)
            run.plot(self.output / "curves.png")
        self.engine.wait_for_everyone()
        return run

    def learn(self, rate: float) -> float:
        """One step. Returns the mean loss over all hidden tokens of the batch.

        DDP averages the gradients of the processes. Each scales its summed loss by processes / hidden tokens, so that
        the average is the gradient of the mean over all of them.
        """
        inputs, labels = self.batch()
        hidden = self.add_up((labels != IGNORED).sum())
        self.tokens += int(self.add_up((inputs != self.tokenizer.pad_token_id).sum()))
        self.shared.train()
        total = torch.zeros((), dtype=torch.float64)
        pieces = list(zip(*(x.tensor_split(self.settings.accumulate) for x in (inputs, labels)), strict=True))
        for number, (ids, answers) in enumerate(pieces):
            waits = self.processes > 1 and number < len(pieces) - 1  # gradients are exchanged once, with the last piece
            with self.engine.no_sync(self.shared) if waits else nullcontext():
                loss = self.summed_loss(ids, answers)
                self.scaler.scale(loss * (self.processes / hidden.item())).backward()
            total += loss.detach().double().cpu()
        mean_loss = self.add_up(total).item() / hidden.item()
        if not math.isfinite(mean_loss):
            raise TrainingError(self._diverged(mean_loss, rate))
        training.set_learning_rate(self.optimiser, rate)
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return mean_loss

    def batch(self) -> tuple[Tensor, Tensor]:
        """This process's rows of the next batch, `(rows, T)`: what is read, and the hidden tokens."""
        settings = self.settings
        rows = settings.batch_size
        if self.streamed:  # the processes' parts differ by a row when they don't come out even
            rows = len(range(self.rank, rows, self.processes))
        ids, _ = self.rows.batch(rows)
        inputs, labels = mask_tokens(ids, self.tokenizer, settings.masking, self.masks)
        if not self.streamed:
            inputs, labels = inputs[self.rank :: self.processes], labels[self.rank :: self.processes]
        return inputs.to(self.engine.device), labels.to(self.engine.device)

    def summed_loss(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The sum of the losses on the hidden tokens of some rows."""
        count = int((labels != IGNORED).sum())
        if count == 0:  # a few short rows; the gradients, all zero, are needed nevertheless
            labels = labels.clone()
            labels[:, 0] = ids[:, 0]
        with torch.autocast(ids.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.shared(ids, labels=labels).loss * count

    def record(self, rate: float, speed: float, evaluate: bool) -> None:
        """Add an entry to the history: the mean loss since the last entry, and at times the held-out loss."""
        entry = {
            "step": self.step,
            "loss": round(sum(self.losses) / len(self.losses), 6),
            "learning_rate": rate,
            "tokens": self.tokens,
            "tokens_per_second": round(speed, 1),
        }
        if evaluate:
            sums = self.add_up(self.held_out.sums(self.model, self.rank, self.processes))
            entry["held_out"] = {name: round(loss, 6) for name, loss in self.held_out.means(sums).items()}
        self.history.append(entry)
        self.losses = []
        if self.output is not None and self.engine.is_main_process:
            with open(self.output / HISTORY, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if self.writer is not None:
            self.writer.add_scalar("loss", entry["loss"], self.step)
            for language, loss in entry.get("held_out", {}).items():
                self.writer.add_scalar(f"held out/{language}", loss, self.step)
            self.writer.flush()

    # --- stopping and going on --------------------------------------------------------------------------------------

    def save(self) -> None:
        """A snapshot of everything that the next step depends on, in every process."""
        from accelerate.utils import gather_object

        mine = {"rows": self.rows.state(), "random": training.random_states({"masks": self.masks})}
        everyone = gather_object([mine])
        if self.engine.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "processes": everyone,
                "tokens": self.tokens,
                "losses": self.losses,
                "history": self.history,
            }
            training.save_snapshot(self.output, state, self.step)
        self.engine.wait_for_everyone()

    def restore(self) -> None:
        """Go back to the last good snapshot, if there is one."""
        state = None if self.output is None else training.load_snapshot(self.output)
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            mine = state["processes"][self.rank]
            self.rows.restore(mine["rows"])
            training.restore_random_states(mine["random"], {"masks": self.masks})
            self.step, self.tokens = state["step"], state["tokens"]
            self.losses, self.history = state["losses"], state["history"]
        if self.output is not None and self.engine.is_main_process:  # what was written after the snapshot comes again
            lines = "".join(json.dumps(entry) + "\n" for entry in self.history).encode()
            training.write_whole(self.output / HISTORY, lambda file: file.write(lines))
        self.engine.wait_for_everyone()

    def guarded(self, step: Callable[[float], float], rate: float) -> float:
        """Call a step, and say what to lower if the memory doesn't suffice."""
        try:
            return step(rate)
        except (RuntimeError, MemoryError) as error:
            text = str(error)
            if not isinstance(error, MemoryError) and "out of memory" not in text and "allocate memory" not in text:
                raise
            settings = self.settings
            raise TrainingError(
                f"a batch of {settings.batch_size} rows of {settings.length} ids in {settings.accumulate} piece(s) "
                f"does not fit into memory at step {self.step + 1:,}: raise accumulate (--accumulate "
                f"{2 * settings.accumulate}; same result, less memory), or lower --batch-size or --length"
            ) from None

    def _diverged(self, loss: float, rate: float) -> str:
        kept = "nothing was kept"
        if self.output is not None and (there := training.load_snapshot(self.output)) is not None:
            kept = f"the snapshot of step {there['step']:,} is kept"
        return (
            f"the loss is {loss} at step {self.step + 1:,}, at a learning rate of {rate:.2g}; {kept}. Start anew with "
            f"a learning rate below {self.settings.learning_rate:g} or a longer warm-up, in another output folder"
        )

    def add_up(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.processes == 1:
            return value
        return self.engine.reduce(value.to(self.engine.device), reduction="sum")


@torch.no_grad()
def new_model(config: XLMRConfig, generator: torch.Generator) -> MaskedLM:
    """A model with first weights: as XLM-R's, but for two things that a short training of a small model can't wait for.

    Positions begin as sines and cosines (Vaswani et al. 2017, 3.5). With random rows, "the token before this one" has
    to be learned anew at each position; with waves it is the same rotation everywhere. And the layers' matrices grow as
    the model gets narrower: N(0, 0.02) suits a width of 768, and at 128 a product passes on so little of a neighbour
    that attention takes long to find out that neighbours matter. Training moves all of it as it moves the rest.
    """
    model = MaskedLM(Encoder(config, generator), generator)
    rows = model.encoder.embeddings.position.weight  # (positions, H)
    places = torch.arange(len(rows) - config.pad_token_id - 1)[:, None]
    angles = places * torch.exp(-math.log(10_000) * torch.arange(0, config.hidden_size, 2) / config.hidden_size)
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : config.hidden_size]
    rows[config.pad_token_id + 1 :] = waves * (config.initializer_range * math.sqrt(2))
    for name, weight in model.encoder.layers.named_parameters():
        if name.endswith("weight") and weight.dim() == 2:
            weight *= math.sqrt(768 / config.hidden_size)
    return model


def fill_mask(model: MaskedLM, tokenizer, text: str, top: int = 5) -> list[tuple[str, float]]:
    """The most probable tokens for the one `<mask>` in a text, with their probabilities.

    Raises:
        ValueError: no `<mask>` in the text, or several.
    """
    ids = tokenizer(text)["input_ids"]
    places = (ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    if len(places) != 1:
        raise ValueError(f"{text!r} holds {len(places)} <mask>; give it one")
    training_mode = model.training
    with torch.no_grad():
        scores = model.eval()(ids).logits[0, places[0]]
    model.train(training_mode)
    scores[tokenizer.all_special_ids] = -math.inf
    found = scores.softmax(-1).topk(top)
    return [(tokenizer.tokens[i], p) for i, p in zip(found.indices.tolist(), found.values.tolist(), strict=True)]


def versions() -> dict[str, str]:
    """What decides about the last bits of a result."""
    import accelerate

    threads = str(torch.get_num_threads())
    return {
        "python": platform.python_version(), "torch": torch.__version__, "accelerate": accelerate.__version__,
        "threads": threads,
    }  # fmt: skip


def _described(texts: Texts) -> str:
    if not isinstance(texts, Sequence):
        return f"stream {texts.info.dataset_name or ''} {texts.info.config_name or ''} {texts.split or ''}".strip()
    return f"{len(texts):,} texts, {_digest(repr(list(texts)).encode())}"


def _digest(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def _tensorboard(folder: Path | None):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("curves for TensorBoard need its package: pip install tensorboard") from None
    return SummaryWriter(str((folder or Path("runs")) / "tensorboard"))
