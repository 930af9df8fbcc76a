"""Run one student's notebook so that it ends in time, stays small, and leaves nothing behind.

For each student the grader starts this module as a *guard*, in a session of its own. The guard starts the marking as
its child, looks at all descendants ten times a second, and ends them all when a limit is passed, when the marking is
over, or when the grader itself is gone. What the marking reports comes through a pipe that the kernel never inherits.

Memory is watched, not limited by the system: RLIMIT_AS counts address space, of which torch reserves many times what
it uses, and it counts each process alone; control groups need rights that a teacher's laptop seldom gives. So the
guard adds up resident memory over the tree, and where that passes the limit, the proportional set size, which counts
a page shared by two processes once. Between two looks a notebook may pass the limit by some hundred MB; on Linux its
processes are the first that the system would end.

Strays: on Linux the guard is the "child subreaper" (prctl), so whoever forks twice or takes a new session is still its
child. Besides, each process carries a mark in its environment, and the whole machine is searched for it at the end.
On macOS and Windows only the mark and the tree are there: a daemon that also clears its environment may stay.

Where Linux lets a user have one, the notebook runs in a PID namespace (unshare): it sees its own processes alone, can
kill no others, and all of them end with it.

Same user, same machine: this stops accidents and casual cheating. docs/grading.md has the container for the rest.
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
import site
import subprocess
import sys
import tempfile
import threading
import time
import uuid
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
_NAMESPACE = ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc")
# A teacher's tokens and keys are not in this list.
KEPT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "PATHEXT", "COMSPEC", "LD_LIBRARY_PATH", "PYTHONPATH"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "HF_HUB_OFFLINE", "XLMR_COURSE_CHECKPOINTS", "TQDM_DISABLE"),
    *("ATEN_CPU_CAPABILITY", "MKL_THREADING_LAYER", "KMP_DUPLICATE_LIB_OK", "OMP_WAIT_POLICY"),
)


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


# --- the grader's side ----------------------------------------------------------------------------------------------


def run(
    command: Sequence[str],
    folder: Path,
    limits: Limits,
    *,
    threads: int = 1,
    namespace: bool | None = None,
    on_start: Callable[[subprocess.Popen], None] | None = None,
) -> Ended:
    """Run `command` guarded, with a home in `folder`; each `{fd}` in it becomes the number of the report's pipe.

    Args:
        folder: an empty folder; `folder/work` is the working folder, and may hold files already.
        threads: for torch and numpy.
        namespace: a PID namespace, so that the notebook sees and can kill its own processes only; by default where
            the system lets a user have one.
        on_start: is given the guard; closing its `stdin` ends everything.
    """
    token = uuid.uuid4().hex
    work, home, temporary = folder / "work", folder / "home", folder / "tmp"
    for path in (work, home, temporary):
        path.mkdir(parents=True, exist_ok=True)
    job = {
        "command": list(command),
        "work": str(work),
        "folder": str(folder),
        "environment": environment(home, temporary, token, threads),
        "limits": asdict(limits),
        "namespace": has_namespaces() if namespace is None else namespace,
    }
    guard = subprocess.Popen(
        [sys.executable, "-m", "xlmr_course.classroom.confine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_python_paths()},
        start_new_session=True,
    )
    output = b""
    try:
        if on_start:
            on_start(guard)
        with contextlib.suppress(OSError):
            guard.stdin.write(json.dumps(job).encode() + b"\n")
            guard.stdin.flush()
        output = _read_all(guard, limits.seconds + 2 * CLEANING)
    finally:
        with contextlib.suppress(OSError, ValueError):
            guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(2 * CLEANING if output or guard.poll() is None else 0)
        guard.kill()
        guard.wait()
        guard.stdout.close()
        end_all(functools.partial(marked, token))
    try:
        return Ended(**json.loads(output))
    except (ValueError, TypeError):
        return Ended("killed the process that watched over it")


@functools.cache
def has_namespaces() -> bool:
    """Whether this user may start a PID namespace here; many containers and some distributions say no."""
    if not LINUX or not shutil.which("unshare"):
        return False
    return not subprocess.run([*_NAMESPACE, "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode


def environment(home: Path, temporary: Path, token: str, threads: int) -> dict[str, str]:
    """Variables of a student's processes: what the course needs, no secrets, and a home of their own."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    caches = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    figures = home / "matplotlib"
    figures.mkdir(exist_ok=True)
    for fonts in _font_lists():  # to search the fonts anew takes seconds
        shutil.copy(fonts, figures)
    return kept | {
        MARK: token,
        **dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(home)),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)),
        **dict.fromkeys(("USER", "LOGNAME"), "student"),  # in a container the user may have no name
        "MPLCONFIGDIR": str(figures),
        # As sources.cache_folder() has it, whose import would cost each run of the grader seconds.
        "XLMR_COURSE_CACHE": os.environ.get("XLMR_COURSE_CACHE") or str(Path.home() / ".cache" / "xlmr-course"),
        "HF_HOME": str(caches),
        "HF_TOKEN_PATH": str(home / "no-token"),
        "OMP_NUM_THREADS": str(threads),
        **_python_paths(),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }


def _python_paths() -> dict[str, str]:
    """Where Python finds modules: this checkout and the user's packages, though cwd and home are others now.

    A file json.py that a notebook writes into its folder must not become the marking's json: hence the safe path.
    """
    root = Path(__file__).resolve().parents[2]
    own = [str(root)] if (root / "pyproject.toml").is_file() else []
    paths = os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONSAFEPATH": "1", "PYTHONUSERBASE": site.getuserbase(), **({"PYTHONPATH": paths} if paths else {})}


@functools.cache
def _font_lists() -> tuple[Path, ...]:
    import matplotlib

    return tuple(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))


def _read_all(guard: subprocess.Popen, seconds: float) -> bytes:
    """The guard's report; what there is after `seconds`."""
    parts: list[bytes] = []
    reader = threading.Thread(target=_copy, args=(guard.stdout, parts, 2 * MAX_RESULT), daemon=True)
    reader.start()
    reader.join(seconds)
    return b"".join(parts)


def _copy(stream, parts: list[bytes], most: int) -> None:
    size = 0
    with contextlib.suppress(OSError, ValueError):
        while size < most and (part := stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536)):
            parts.append(part)
            size += len(part)


# --- the guard ------------------------------------------------------------------------------------------------------


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
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # inherited: ended before the grader
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become this process's children
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: others of this user can't open its pipes under /proc


def _guarded(job: dict, limits: Limits) -> Ended:
    start = time.monotonic()
    reading, writing = os.pipe()
    command = [part.replace("{fd}", str(writing)) for part in job["command"]]
    command = [*(_NAMESPACE if job["namespace"] else ()), *command]
    log = tempfile.TemporaryFile(dir=job["folder"])  # noqa: SIM115 - stays open, and has no name to remove it by
    process = subprocess.Popen(
        command,
        cwd=job["work"],
        env=job["environment"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_the_guard if LINUX else None,
        **({"pass_fds": (writing,)} if os.name == "posix" else {"close_fds": False}),
    )
    os.close(writing)
    parts: list[bytes] = []
    with open(reading, "rb") as pipe:
        reader = threading.Thread(target=_copy, args=(pipe, parts, MAX_RESULT), daemon=True)
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


def _die_with_the_guard() -> None:
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
    with contextlib.suppress(ValueError):
        return f"had its marking killed ({signal.Signals(-code).name})"
    return f"had its marking killed (signal {-code})"


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
