"""Training that can be stopped: killed at any step and started again, it ends where it would have ended.

What every training loop of the course shares: the schedule, the optimiser's groups, the precision, and *snapshots*.
A snapshot holds all that the next step depends on: weights, the optimiser's moments, where the data stands, and the
state of every random generator. Leave out one of them and the run still goes on, to other weights.

A snapshot is there whole or not at all. It is written under another name, forced to the disk and then renamed, and a
rename either happened or didn't. Its name carries a checksum of its bytes, so that one that was damaged later is
noticed (`torch.load` alone doesn't notice a flipped bit), and the one before it is kept for that case.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

KEPT = 2  # snapshots in a folder: the last, and one to fall back on
RUN_FILE = "run.json"
SNAPSHOTS = "snapshots"


class TrainingError(ValueError):
    """Training cannot start, go on or be kept. The message says what to do."""


# --- one step -------------------------------------------------------------------------------------------------------


def warmup_decay(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: up from 0 over the first `warmup` share of the steps, then down to 0, in lines."""
    rise = max(1, round(steps * warmup))
    return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))


def adamw(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool | None = None,
) -> torch.optim.AdamW:
    """AdamW over what is trained; biases and LayerNorms are not decayed, as in BERT."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups this rate. Called before each step, it needs no scheduler whose state would have to be kept."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def precision(device: str | torch.device, wanted: str = "auto") -> torch.dtype:
    """The type to compute in.

    Args:
        device: such as `"cpu"` or `"cuda:0"`.
        wanted: `"float32"`, `"bfloat16"`, `"float16"`; `"auto"` is bfloat16 where a GPU computes in it, float16 (which
            needs loss scaling) on older ones such as the T4, and float32 on a CPU.

    Raises:
        ValueError: another word.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted in known:
        return known[wanted]
    if wanted != "auto":
        raise ValueError(f"precision={wanted!r} is unknown; use auto, {', '.join(known)}")
    device = torch.device(device)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


# --- randomness -----------------------------------------------------------------------------------------------------


def random_states(generators: Mapping[str, torch.Generator] | None = None) -> dict[str, Tensor]:
    """The state of these generators, of torch's global one (dropout draws from it) and of each GPU's."""
    states = {f"generator {name}": generator.get_state() for name, generator in (generators or {}).items()}
    states["torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        states |= {f"cuda {number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_states(
    states: Mapping[str, Tensor], generators: Mapping[str, torch.Generator] | None = None
) -> None:
    """Put everything back that `random_states` read; the generators change in place."""
    for name, generator in (generators or {}).items():
        generator.set_state(states[f"generator {name}"].cpu())
    torch.set_rng_state(states["torch"].cpu())
    for name, state in states.items():
        if name.startswith("cuda ") and int(name[5:]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state.cpu(), int(name[5:]))


# --- the folder of a run --------------------------------------------------------------------------------------------


def claim_folder(folder: str | Path, configuration: Mapping[str, Any]) -> None:
    """Make `folder` the place of this run, or check that it already is; its configuration is kept in `run.json`.

    Raises:
        TrainingError: the folder holds something else, or a run with another configuration. The message says what
            differs; nothing in the folder was changed.
    """
    folder, told = Path(folder), json.loads(json.dumps(configuration))
    file = folder / RUN_FILE
    if file.is_file():
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise TrainingError(f"{RUN_FILE} in {folder.name!r} is damaged; give another output folder") from None
        if difference := configuration_difference(old, told):
            raise TrainingError(
                f"the folder {folder.name!r} holds another run: {'; '.join(difference)}. Go on with the old values, "
                "or give another output folder"
            )
        return
    if folder.is_dir() and (found := sorted(path.name for path in folder.iterdir())):
        raise TrainingError(
            f"the folder {folder.name!r} holds {', '.join(found[:3])}{' …' if len(found) > 3 else ''} and no "
            f"{RUN_FILE}, so no run that could go on; give an empty or a new output folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda out: out.write((json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()))


def configuration_difference(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs, in words: `["settings.alpha: 0.3 before, 1.0 now"]`; an empty list when nothing does."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: list[str] = []
        for key in [*old, *(key for key in new if key not in old)]:
            path = f"{name}.{key}" if name else str(key)
            found += configuration_difference(old.get(key), new.get(key), path)
        return found
    return [] if old == new else [f"{name}: {_short(old)} before, {_short(new)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if value is not None else "nothing"
    return text if len(text) <= 60 else text[:57] + "…"


# --- snapshots ------------------------------------------------------------------------------------------------------


def save_snapshot(folder: str | Path, state: Mapping[str, Any], step: int) -> Path:
    """Write `state` into `folder/snapshots/`, whole or not at all, and delete all but the last two.

    Args:
        folder: the folder of the run.
        state: tensors, numbers, strings, None, and lists and dicts of them.
        step: steps done; it comes back as `state["step"]`.

    Raises:
        TrainingError: the disk is full or cannot be written to. The snapshots that were there are untouched.
    """
    folder = Path(folder) / SNAPSHOTS
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "snapshot.part"
    try:
        checksum = write_whole(part, lambda out: torch.save({**state, "step": step}, out), rename=False)
    except OSError as error:
        part.unlink(missing_ok=True)
        there = _snapshots(folder)
        kept = f"; the one of step {_step_of(there[-1]):,} is whole" if there else ""
        why = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise TrainingError(
            f"the snapshot of step {step:,} could not be written: {why}{kept}. Make room and start the same command "
            "again"
        ) from None
    target = folder / f"step-{step:010}-{checksum:08x}.pt"
    os.replace(part, target)
    _sync_folder(folder)
    others = [path for path in _snapshots(folder) if path != target]
    earlier = [path for path in others if _step_of(path) < step]
    for old in set(others) - set(earlier[-KEPT + 1 :]):  # later ones were damaged, or the run would stand there
        old.unlink(missing_ok=True)
    return target


def load_snapshot(folder: str | Path) -> dict[str, Any] | None:
    """The last good snapshot of a run, on the CPU, with `step` in it; None if there is none.

    A file that is cut off or damaged is passed over with a warning.

    Raises:
        TrainingError: there are snapshots, and none of them is good.
    """
    there = _snapshots(Path(folder) / SNAPSHOTS)
    for path in reversed(there):
        try:
            if _checksum(path) != int(path.stem.rsplit("-", 1)[1], 16):
                raise ValueError("its checksum differs")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
            log.warning("the snapshot of step %s is damaged; the one before it is used", f"{_step_of(path):,}")
            continue
        return state
    if there:
        raise TrainingError(
            f"all snapshots in {Path(folder).name!r} are damaged; start again with another output folder"
        )
    return None


def write_whole(path: Path, write, *, rename: bool = True) -> int:
    """Call `write(file)` so that `path` holds all of it or what it held before. Returns the bytes' checksum.

    With `rename=False` the file is written and forced to the disk, and renaming it is left to the caller.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    part = path.with_name(path.name + ".part") if rename else path
    with open(part, "wb") as file:
        counted = _Checked(file)
        try:
            write(counted)
        except (OSError, RuntimeError) as error:
            raise counted.error or error from None  # torch.save hides the disk's own error behind another
        file.flush()
        os.fsync(file.fileno())
    if rename:
        os.replace(part, path)
        _sync_folder(path.parent)
    return counted.checksum


class _Checked:
    """A file that sums up what passes through it, and remembers the error that stopped it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.checksum, self.error = file, 0, None

    def write(self, data: bytes) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.checksum = zlib.crc32(data, self.checksum)
        return written

    def flush(self) -> None:
        self.file.flush()


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _snapshots(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("step-*-*.pt"))


def _step_of(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk; where a folder cannot be opened (Windows) the system does it in its own time."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
