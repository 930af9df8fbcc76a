"""Each limit ends a run and says so; nothing that a run starts outlives it."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from xlmr_course import sources
from xlmr_course.classroom import confine
from xlmr_course.classroom.guard import Limits

LIMITS = Limits(seconds=4, memory_gb=0.3, disk_gb=0.05, processes=20)
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def run(tmp_path, code, **arguments):
    """Run Python code that has the report's descriptor as `fd`."""
    head = "import os, subprocess, sys, time\nfd = int(sys.argv[1])\n"
    return confine.run([sys.executable, "-c", head + code, "{fd}"], tmp_path, LIMITS, namespace=False, **arguments)


def sleepers(seconds):
    """Processes that sleep for this unusual number of seconds."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline()[1:] == [str(seconds)] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_report_comes_through(tmp_path):
    ended = run(tmp_path, "os.write(fd, b'x' * 100_000); print('seen')")
    assert (ended.reason, ended.result, ended.strays) == ("", "x" * 100_000, 0)
    assert ended.log == "seen\n"


@POSIX
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "was not done after 4 seconds and was ended"),
        (
            "kept = []\nwhile True: kept.append(bytearray(20_000_000)); time.sleep(.02)",
            "used more than 0.3 GB of memory",
        ),
        (
            # In no single process much, in all of them too much.
            "code = 'x = bytearray(60_000_000); input()'\n"
            "for n in range(9): subprocess.Popen([sys.executable, '-c', code], stdin=-1)\n"
            "time.sleep(60)",
            "used more than 0.3 GB",
        ),
        ("for n in range(99): open(str(n), 'wb').write(bytes(5_000_000)); time.sleep(.1)", "wrote more than 0.05 GB"),
        ("while True: subprocess.Popen(['sleep', '71171'])", "started more than 20 processes"),
        ("os._exit(3)", "ended its marking with exit code 3"),
        ("os.kill(os.getpid(), 9)", "had its marking killed (SIGKILL)"),
        ("os.kill(os.getppid(), 9); time.sleep(60)", "lost the process that watched over it (killed: SIGKILL)"),
    ],
    ids=["time", "memory", "memory of many", "disk", "processes", "exit", "killed", "guard killed"],
)
def test_each_limit_ends_the_run_and_says_so(tmp_path, code, reason):
    start = time.monotonic()
    ended = run(tmp_path, code)
    assert reason in ended.reason
    assert time.monotonic() - start < 20
    assert not sleepers(71171)


@POSIX
def test_one_huge_file_is_refused(tmp_path):
    ended = run(tmp_path, "f = open('x', 'wb')\nwhile True: f.write(bytes(1_000_000))")
    assert "File too large" in ended.log
    assert (tmp_path / "work" / "x").stat().st_size <= 50_000_000


DAEMON = """
subprocess.Popen(["sleep", "72172"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "72172"], {})  # no mark in its environment
    os._exit(0)
time.sleep(.3)
"""


@LINUX
@pytest.mark.parametrize("guard_dies", [False, True])
def test_no_daemon_outlives_the_run(tmp_path, guard_dies):
    code = DAEMON.replace(", {}", ", os.environ") if guard_dies else DAEMON
    ended = run(tmp_path, code + ("os.kill(os.getppid(), 9)" if guard_dies else ""))
    assert not sleepers(72172)
    if not guard_dies:
        assert (ended.reason, ended.strays) == ("", 2)


@POSIX
def test_when_the_grader_is_killed_its_students_end_too(tmp_path):
    code = f"""
import sys
from pathlib import Path
from xlmr_course import sources
from xlmr_course.classroom import confine
confine.run(["sleep", "73173"], Path({str(tmp_path / "room")!r}), confine.Limits(), namespace=False)
"""
    (tmp_path / "room").mkdir()
    grader = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: sleepers(73173))
    grader.kill()
    grader.wait()
    wait_for(lambda: not sleepers(73173))
    wait_for(lambda: not (tmp_path / "room").exists())


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def test_the_environment_has_homes_of_its_own_and_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment = confine.environment(tmp_path, tmp_path / "tmp", "token", threads=1)
    assert "secret" not in " ".join(environment.values())
    assert environment["HOME"] == str(tmp_path)
    assert environment["TMPDIR"] == str(tmp_path / "tmp")
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["XLMR_COURSE_CACHE"] == str(sources.cache_folder()), "checkpoints are found, not made anew"


def test_stdin_is_closed(tmp_path):
    assert run(tmp_path, "os.write(fd, repr(sys.stdin.read()).encode())").result == "''"


@LINUX
def test_in_a_namespace_a_run_sees_itself_alone(tmp_path):
    if not confine.has_namespaces():
        pytest.skip("this system gives a user no namespaces")
    code = (
        "import os, sys; os.write(int(sys.argv[1]), ' '.join(n for n in os.listdir('/proc') if n.isdigit()).encode())"
    )
    assert confine.run([sys.executable, "-c", code, "{fd}"], tmp_path, LIMITS, namespace=True).result == "1"
    daemon = "import os, subprocess, sys, time\n" + DAEMON
    assert confine.run([sys.executable, "-c", daemon], tmp_path, LIMITS, namespace=True).reason == ""
    assert not sleepers(72172)
