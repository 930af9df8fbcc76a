"""The process that watches over one student's notebook: see `confine`, which starts it.

    python -m xlmr_course.classroom.guard

reads a job as a line of JSON from its standard input and writes an `Ended` as JSON to its standard output. When its
input ends, the grader is gone; then it ends everything and itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MARK = "XLMR_COURSE_GRADING"
LINUX = sys.platform == "linux"
TICK = 0.1  # seconds between two looks
MAX_RESULT = 32_000_000  # bytes that the marking may report
STOPPED = "was running when the grader was stopped"
CLEANING = 10.0  # seconds that ending processes may take
NAMESPACE = ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Limits:
    """For one notebook with all its processes. `disk_gb` holds for a single file, and for its folder in all."""

    seconds: float = 300
    memory_gb: float = 4
    disk_gb: float = 1
    processes: int = 64


@dataclass(frozen=True)
class Ended:
    """How a run ended: `reason` is empty if it ended by itself with exit code 0, else a clear sentence.

    `result` is what it reported, `memory` its peak in bytes, `strays` how many processes it left, `log` the end of
    what it printed, `code` its exit code if it ended by itself.
    """

    reason: str
    result: str = ""
    seconds: float = 0.0
    memory: int = 0
    strays: int = 0
    log: str = ""
    code: int | None = None


def guard() -> None:
    """Read a job from stdin, run it, and write an `Ended` as JSON to stdout; end of stdin means: stop at once."""
    job = json.loads(sys.stdin.buffer.readline())
    limits = Limits(**job["limits"])
    _become_guard(limits)
    try:
        ended = _guarded(job, limits)
    except (OSError, psutil.Error) as error:
        end_all(functools.partial(_descendants, job["environment"][MARK]))
        ended = Ended(f"could not be run: {error}")
    if ended.reason == STOPPED:  # nobody is left to do it
        shutil.rmtree(job["folder"], ignore_errors=True)
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(asdict(ended)))
        sys.stdout.flush()


def _become_guard(limits: Limits) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        size = int(limits.disk_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become this process's children
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: others of this user can't open its pipes under /proc


def _guarded(job: dict, limits: Limits) -> Ended:
    start = time.monotonic()
    reading, writing = os.pipe()
    posix = os.name == "posix"  # elsewhere a child inherits only the three standard descriptors
    command = [part.replace("{fd}", str(writing) if posix else "1") for part in job["command"]]
    command = [*(NAMESPACE if job["namespace"] else ()), *command]
    log = tempfile.TemporaryFile(dir=job["folder"])  # noqa: SIM115 - stays open, and has no name to remove it by
    process = subprocess.Popen(
        command,
        cwd=job["work"],
        env=job["environment"],
        stdin=subprocess.DEVNULL,
        stdout=log if posix else writing,
        stderr=log,
        start_new_session=True,
        preexec_fn=_as_a_student if LINUX else None,
        pass_fds=(writing,) if posix else (),
    )
    os.close(writing)
    parts: list[bytes] = []
    with open(reading, "rb") as pipe:
        reader = threading.Thread(target=copy_stream, args=(pipe, parts, MAX_RESULT), daemon=True)
        reader.start()
        reason, peak = _watch(process, start, Path(job["folder"]), limits)
        psutil.wait_procs(psutil.Process().children(recursive=True), timeout=0.5)  # what is just about to end
        strays = end_all(functools.partial(_descendants, job["environment"][MARK]))
        process.wait()
        reader.join(CLEANING)
    code = None if reason else process.returncode
    if code:
        reason = _exit_text(code)
    with log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
        tail = log.read().decode("utf-8", "replace")
    result = b"".join(parts).decode("utf-8", "replace")
    return Ended(reason, result, round(time.monotonic() - start, 1), peak, 0 if reason else strays, tail, code)


def _as_a_student() -> None:
    """Die with the guard, and before anything else when the system runs out of memory; children inherit the latter."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _watch(process: subprocess.Popen, start: float, folder: Path, limits: Limits) -> tuple[str, int]:
    """Until the process is over or a limit is passed: the reason and the peak of memory in bytes."""
    peak, tick = 0, 0
    while process.poll() is None:
        tree = psutil.Process().children(recursive=True)
        used = _resident(tree)
        if used > limits.memory_gb * 1e9:
            used = _proportional(tree)
        peak = max(peak, used)
        if used > limits.memory_gb * 1e9:
            return f"used more than {limits.memory_gb:g} GB of memory and was ended", peak
        if time.monotonic() - start > limits.seconds:
            return f"was not done after {limits.seconds:g} seconds and was ended", peak
        if len(tree) > limits.processes:
            return f"started more than {limits.processes} processes and was ended", peak
        if tick % 10 == 9 and _folder_size(folder) > limits.disk_gb * 1e9:
            return f"wrote more than {limits.disk_gb:g} GB to disk and was ended", peak
        if _stdin_is_closed():
            return STOPPED, peak
        _reap(tree, process.pid)
        tick += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TICK)
    return "", peak


def _stdin_is_closed() -> bool:
    if os.name != "posix":
        return not psutil.pid_exists(os.getppid())
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def _resident(tree: Sequence[psutil.Process]) -> int:
    total = 0
    for process in tree:
        with contextlib.suppress(psutil.Error, OSError):
            total += process.memory_info().rss
    return total


def _proportional(tree: Sequence[psutil.Process]) -> int:
    """Like `_resident`, with pages that several processes share counted once: `pss` on Linux, `uss` elsewhere."""
    total = 0
    for process in tree:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
        except (psutil.Error, OSError):  # the marking lets nobody look
            total += _resident([process])
    return total


def _folder_size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).lstat().st_blocks * 512 if os.name == "posix" else 0
    return total


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"ended its marking with exit code {code} and without a result"
    return f"had its marking killed ({signal_name(code)})"


def signal_name(code: int) -> str:
    """`SIGKILL` for the exit code -9."""
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def copy_stream(stream, parts: list[bytes], most: int) -> None:
    size = 0
    with contextlib.suppress(OSError, ValueError):
        while size < most and (part := stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536)):
            parts.append(part)
            size += len(part)


# --- ending processes -----------------------------------------------------------------------------------------------


def marked(token: str) -> Iterator[psutil.Process]:
    """Every process of this machine that carries the mark."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == token:
                yield process


def _descendants(token: str) -> Iterator[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    yield from children
    seen = {child.pid for child in children}
    yield from (process for process in marked(token) if process.pid not in seen)


def end_all(find: Callable[[], Iterator[psutil.Process]]) -> int:
    """Kill what `find` gives until it gives nothing more; how many processes were alive at first.

    Each round stops all of them before it kills, so that none can start another in between.
    """
    first = None
    deadline = time.monotonic() + CLEANING
    while time.monotonic() < deadline:
        found = list(find())
        alive = [process for process in found if _is_alive(process)]
        first = len(alive) if first is None else first
        _reap(found, None)
        if not alive:
            break
        for act in ("suspend", "kill"):
            for process in alive:
                with contextlib.suppress(psutil.Error, OSError):
                    getattr(process, act)()
        psutil.wait_procs(alive, timeout=0.2)
    return first or 0


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _reap(processes: Sequence[psutil.Process], spare: int | None) -> None:
    """Let ended orphans go; `spare` is waited for by subprocess."""
    if os.name != "posix":
        return
    for process in processes:
        if process.pid != spare:
            with contextlib.suppress(OSError, psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)


if __name__ == "__main__":
    guard()
