"""Run one student's notebook so that it ends in time, stays small, and leaves nothing behind.

For each student the grader starts a *guard* (`guard`), in a session of its own. The guard starts the marking as
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
import functools
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from xlmr_course.classroom.guard import (
    CLEANING,
    LINUX,
    MARK,
    MAX_RESULT,
    NAMESPACE,
    Ended,
    Limits,
    copy_stream,
    end_all,
    marked,
    signal_name,
)

# A teacher's tokens and keys are not in this list.
KEPT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "PATHEXT", "COMSPEC", "LD_LIBRARY_PATH", "PYTHONPATH"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "HF_HUB_OFFLINE", "XLMR_COURSE_CHECKPOINTS", "TQDM_DISABLE"),
    *("ATEN_CPU_CAPABILITY", "MKL_THREADING_LAYER", "KMP_DUPLICATE_LIB_OK", "OMP_WAIT_POLICY"),
)


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
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    guard = subprocess.Popen(
        [sys.executable, "-m", "xlmr_course.classroom.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
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
    with complaints:
        complaints.seek(0)
        said = complaints.read(100_000).decode("utf-8", "replace")[-4000:]
    try:
        return Ended(**json.loads(output))
    except (ValueError, TypeError):
        code = guard.returncode
        how = f"killed: {signal_name(code)}" if code < 0 else f"exit code {code}"
        return Ended(f"lost the process that watched over it ({how})", log=said)


@functools.cache
def has_namespaces() -> bool:
    """Whether this user may start a PID namespace here; many containers and some distributions say no."""
    if not LINUX or not shutil.which("unshare"):
        return False
    return not subprocess.run([*NAMESPACE, "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode


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
    reader = threading.Thread(target=copy_stream, args=(guard.stdout, parts, 2 * MAX_RESULT), daemon=True)
    reader.start()
    reader.join(seconds)
    return b"".join(parts)
