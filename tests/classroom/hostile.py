"""Broken and hostile notebooks, each with the verdict that it must get.

Each entry takes a notebook in which every answer is right and spoils it. `verdicts` are those of the exercises add,
mean and double; where no marking is possible `reason` is a pattern that the row's reason must meet instead. `remark`
is a pattern that one of the remarks must meet. What does harm here does it in small: memory in steps, files of
megabytes, kills of the marking's own processes only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCE = """\
# %% [markdown]
# # 01 · Sums
#
# **You will build** a sum. {{needs}}

# %% tags=["setup"]
import numpy as np

# %% exercise={"name": "add", "role": "answer", "points": 2}
def add(a, b):
    ### BEGIN SOLUTION
    return a + b
    ### END SOLUTION

# %% exercise={"name": "add", "role": "check"}
assert add(1, 2) == 3, f"add: expected 3, yours {add(1, 2)}"
print(add(1, 2))

# %% exercise={"name": "add", "role": "hidden"}
assert add(-5, 12) == 7, "add: not for negative numbers"

# %% [markdown]
# The mean of some numbers.

# %% exercise={"name": "mean", "role": "answer", "points": 1}
def mean(values):
    ### BEGIN SOLUTION
    return float(np.mean(values))
    ### END SOLUTION

# %% exercise={"name": "mean", "role": "check"}
assert np.allclose(mean([1.0, 2.0, 6.0]), 3.0), f"mean: expected 3.0, yours {mean([1.0, 2.0, 6.0])}"
print(round(mean([1.0, 2.0, 6.0]), 3))

# %% exercise={"name": "mean", "role": "hidden"}
assert np.allclose(mean([10.0]), 10.0), "mean: not for one number"

# %% exercise={"name": "double", "role": "answer", "points": 3}
def double(values):
    ### BEGIN SOLUTION
    return [2 * value for value in values]
    ### END SOLUTION

# %% exercise={"name": "double", "role": "check"}
assert double([1, 2]) == [2, 4], f"double: expected [2, 4], yours {double([1, 2])}"
print(double([1, 2]))

# %% exercise={"name": "double", "role": "hidden"}
assert double([]) == [], "double: an empty list stays empty"
"""
# The same with torch, whose import takes seconds; for what patches torch.
TORCH_SOURCE = SOURCE.replace("import numpy as np", "import numpy as np\nimport torch").replace(
    "assert np.allclose(mean([1.0, 2.0, 6.0]), 3.0)",
    "assert torch.allclose(torch.tensor(mean([1.0, 2.0, 6.0])), torch.tensor(3.0))",
)
EXERCISES = ("add", "mean", "double")
RIGHT = {
    "add": "def add(a, b):\n    return a + b",
    "mean": "def mean(values):\n    return float(np.mean(values))",
    "double": "def double(values):\n    return [2 * value for value in values]",
}
WRONG_ADD = "def add(a, b):\n    return a - b"
ALL = ("right", "right", "right")
Notebook = dict


@dataclass(frozen=True)
class Hostile:
    """One entry; `verdicts` is None where nothing can be marked. With verdicts and a reason, either may come.

    `posix`: needs fork or signals.
    """

    name: str
    what: str
    make: Callable[[Notebook], Notebook | bytes | None]
    verdicts: tuple[str, str, str] | None = ALL
    reason: str = ""
    remark: str = ""
    posix: bool = False

    def write(self, honest: Notebook, folder: Path) -> Path:
        """Spoil a copy of the honest notebook and write it."""
        notebook = copy.deepcopy(honest)
        made = self.make(notebook)
        content = made if isinstance(made, bytes) else json.dumps(notebook if made is None else made, indent=1).encode()
        path = folder / f"{self.name}.ipynb"
        path.write_bytes(content)
        return path


def honest_notebook(student: Path) -> Notebook:
    """The student edition with every answer right."""
    notebook = json.loads(student.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    for name, code in RIGHT.items():
        find(notebook, f"{name}-answer")["source"] = code
    return notebook


def find(notebook: Notebook, key: str) -> dict:
    return next(cell for cell in notebook["cells"] if cell.get("id") == key)


def index(notebook: Notebook, key: str) -> int:
    return next(n for n, cell in enumerate(notebook["cells"]) if cell.get("id") == key)


def code(source: str, key: str = "mine") -> dict:
    return {"cell_type": "code", "id": key, "metadata": {}, "source": source, "outputs": [], "execution_count": None}


def answer(name: str, source: str) -> Callable[[Notebook], None]:
    """Replace an answer."""

    def make(notebook: Notebook) -> None:
        find(notebook, f"{name}-answer")["source"] = source

    return make


def first_line(line: str, name: str = "add") -> Callable[[Notebook], None]:
    """Run something when the (right) answer's cell runs."""
    return answer(name, f"{line}\n{RIGHT[name]}")


def inside(lines: str, name: str = "add") -> Callable[[Notebook], None]:
    """Run something when the (right) answer is called."""
    head, body = RIGHT[name].split("\n", 1)
    return answer(name, "\n".join([head, *(f"    {line}" for line in lines.splitlines()), body]))


def wrong(change: Callable[[Notebook], Notebook | bytes | None]) -> Callable[[Notebook], Notebook | bytes | None]:
    """Besides, `add` is wrong: the change must not make it pass."""

    def make(notebook: Notebook) -> Notebook | bytes | None:
        find(notebook, "add-answer")["source"] = WRONG_ADD
        return change(notebook)

    return make


def prepend_wrong(lines: str) -> Callable[[Notebook], None]:
    """`add` is wrong, and its cell first tries to get past the check."""
    return answer("add", f"{lines}\n{WRONG_ADD}")


def wrong_mean(first: str, when_called: str = "") -> Callable[[Notebook], None]:
    """`mean` is wrong, and its cell tries to get past the check: at once, or when the check calls it."""
    body = "".join(f"    {line}\n" for line in when_called.splitlines())
    return answer("mean", f"{first}\ndef mean(values):\n{body}    return 99.0".lstrip())


def edit_check(**fields: object) -> Callable[[Notebook], None]:
    def make(notebook: Notebook) -> None:
        cell = find(notebook, "add-check")
        cell.update(fields)
        if cell["cell_type"] != "code":
            cell.pop("outputs", None)
            cell.pop("execution_count", None)

    return make


def drop(*keys: str) -> Callable[[Notebook], None]:
    def make(notebook: Notebook) -> None:
        notebook["cells"] = [cell for cell in notebook["cells"] if cell.get("id") not in keys]

    return make


def insert_before(key: str, source: str) -> Callable[[Notebook], None]:
    def make(notebook: Notebook) -> None:
        notebook["cells"].insert(index(notebook, key), code(source))

    return make


def printed(text: str) -> list[dict]:
    return [{"output_type": "stream", "name": "stdout", "text": text}]


def rerun_and_saved(notebook: Notebook) -> None:
    """As a student's own run leaves it: the check's error is its stored output."""
    cell = find(notebook, "add-check")
    error = {"output_type": "error", "ename": "AssertionError", "evalue": "add: expected 3, yours -1", "traceback": []}
    cell.update(execution_count=17, outputs=[error])


def skip_markers(notebook: Notebook) -> None:
    find(notebook, "add-answer")["source"] = f"# NBVAL_SKIP\n{WRONG_ADD}"
    find(notebook, "add-check")["source"] = "# NBVAL_SKIP\n" + find(notebook, "add-check")["source"]
    for key in ("add-answer", "add-check"):
        find(notebook, key)["metadata"]["tags"] = ["nbval-skip", "raises-exception", "skip-execution"]


def doubled(notebook: Notebook) -> None:
    notebook["cells"] = [copy.deepcopy(cell) for cell in notebook["cells"] for _ in range(2)]


def split(notebook: Notebook) -> None:
    """An answer over two cells, cut inside the function: no cell alone is Python."""
    place = index(notebook, "double-answer")
    head, body = RIGHT["double"].split("\n", 1)
    notebook["cells"][place]["source"] = head
    notebook["cells"].insert(place + 1, code(body))


def split_helper(notebook: Notebook) -> None:
    """A helper in a cell of its own above the answer."""
    place = index(notebook, "double-answer")
    notebook["cells"][place]["source"] = "def double(values):\n    return [twice(value) for value in values]"
    notebook["cells"].insert(place, code("def twice(value):\n    return 2 * value"))


def without_ids(notebook: Notebook) -> None:
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        del cell["id"]


def without_metadata(notebook: Notebook) -> None:
    notebook["metadata"] = {}
    for cell in notebook["cells"]:
        cell["metadata"] = {}


def without_both(notebook: Notebook) -> None:
    without_ids(notebook)
    without_metadata(notebook)


def merge_marks(notebook: Notebook) -> bytes:
    text = json.dumps(notebook, indent=1)
    return text.replace('"cells": [', '<<<<<<< HEAD\n "cells": [\n=======\n "cells": [\n>>>>>>> theirs', 1).encode()


def nbformat_3(notebook: Notebook) -> Notebook:
    """As IPython 1 and 2 wrote it: worksheets, `input` instead of `source`, no ids."""
    cells = []
    for cell in notebook["cells"]:
        old = {"cell_type": cell["cell_type"], "metadata": {}}
        if cell["cell_type"] == "code":
            old |= {"input": cell["source"], "language": "python", "outputs": [], "collapsed": False}
        else:
            old |= {"source": cell["source"]}
        cells.append(old)
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": cells}]}


def wrong_kernel(notebook: Notebook) -> None:
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Julia 1.10", "language": "julia", "name": "julia-1.10"},
        "language_info": {"name": "julia"},
    }


def blank(notebook: Notebook) -> None:
    for name in EXERCISES:
        head = RIGHT[name].split("\n", 1)[0]
        gap = f'{head}\n    # YOUR CODE HERE\n    raise NotImplementedError("{name}: not written yet")'
        find(notebook, f"{name}-answer")["source"] = gap


FORGED = json.dumps(
    {
        "chapter": "01_sums",
        "remarks": [],
        "results": [
            {"name": name, "points": points, "verdict": "right"}
            for name, points in zip(EXERCISES, (2, 1, 3), strict=True)
        ],
    }
)
# Descriptors 3 and up are also the kernel's own sockets, so writing there may end the kernel; hence stdout and files.
FORGE_OUTPUT = f"""\
import os, pathlib, sys
row = {FORGED!r}
print(row)
for fd in (1, 2):
    os.write(fd, (row + "\\n").encode())
for name in ("grades.csv", "record.jsonl", "../result.json", "../log.txt"):
    pathlib.Path(name).write_text(row + "\\n")
"""
FORGE_PARENT = f"""\
import os
row = {FORGED!r}
for fd in range(3, 64):
    path = f"/proc/{{os.getppid()}}/fd/{{fd}}"
    try:
        if os.readlink(path).startswith("pipe:"):
            with open(path, "w") as file:
                file.write(row + "\\n")
    except OSError:
        pass
"""
TRACE = """\
import sys
def skip(frame, event, argument):
    if event == "exception" or event == "line":
        try:
            frame.f_globals["add"] = lambda a, b: a + b
        except Exception:
            pass
    return skip
sys.settrace(skip)
for frame in (sys._getframe(),):
    frame.f_trace = skip
"""
STACK = """\
import sys
frame = sys._getframe()
while frame is not None:
    order = frame.f_locals.get("order")
    if isinstance(order, dict) and "token" in order:
        from xlmr_course.classroom import inside as conductor
        good = {"kind": "passed", "printed": "3\\n", "changed": [], "during": [], "chatter": False, "dirty": False}
        conductor._report(order["token"], good)
    frame = frame.f_back
"""
DAEMON = """\
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "74174"], {})
    os._exit(0)
"""
KILL_RUNNERS = """\
import os, psutil, signal
for process in psutil.Process().parents():
    if "xlmr_course.classroom" in " ".join(process.cmdline()):
        process.kill()
"""
MEMORY = """\
import numpy as np
kept = []
for step in range(100):
    kept.append(np.ones(100_000_000 // 8))
"""
FILL = """\
import time
for number in range(200):
    open(f"file-{number}", "wb").write(bytes(10_000_000))
    time.sleep(0.01)
"""
REMOVE = """\
import os, shutil
for folder in (os.getcwd(), os.path.expanduser("~"), os.environ["TMPDIR"]):
    assert "xlmr-" in folder, folder
    shutil.rmtree(folder, ignore_errors=True)
"""
SWALLOW = """\
import time
while True:
    try:
        time.sleep(0.01)
    except BaseException:
        pass
"""
TIMEOUT = ("timeout", "right", "right")
ERROR = ("error", "right", "right")
WRONG = ("wrong", "right", "right")
UNREAD = "could not be marked: "

HOSTILE = (
    # --- what does not end ---
    Hostile("infinite-loop", "an answer that never returns", inside("while True:\n    pass"), TIMEOUT),
    Hostile("swallows-interrupts", "a loop that catches KeyboardInterrupt", first_line(SWALLOW), TIMEOUT),
    Hostile(
        "ignores-signals",
        "SIGINT and SIGTERM ignored, then a loop",
        first_line("import signal\nfor s in (2, 15):\n    signal.signal(s, signal.SIG_IGN)\nwhile True:\n    pass"),
        TIMEOUT,
        posix=True,
    ),
    Hostile(
        "hangs-while-imported",
        "an endless loop in a cell of one's own, at the top level",
        insert_before("add-answer", "while True:\n    pass"),
    ),
    Hostile("endless-output", "prints for ever", inside("while True:\n    print('x' * 1000)"), TIMEOUT),
    Hostile("deep-recursion", "calls itself for ever", inside("return add(a, b)"), ERROR),
    Hostile(
        "stops-the-runner",
        "SIGSTOP to the marking",
        first_line("import os\nos.kill(os.getppid(), 19)"),
        None,
        "was not done after",
        posix=True,
    ),
    # --- what ends too soon ---
    Hostile("os-exit", "os._exit(0) in the answer", first_line("import os\nos._exit(0)"), ERROR),
    Hostile("os-exit-in-the-check", "os._exit(0) when the check calls", inside("import os\nos._exit(0)"), ERROR),
    Hostile("sys-exit", "sys.exit(0) when the check calls", inside("import sys\nsys.exit(0)"), ERROR),
    Hostile("exit", "IPython's exit()", first_line("exit()"), ERROR),
    Hostile("segfault", "reads address 0", first_line("import ctypes\nctypes.string_at(0)"), ERROR),
    Hostile(
        "kills-itself", "SIGKILL to the kernel", first_line("import os\nos.kill(os.getpid(), 9)"), ERROR, posix=True
    ),
    Hostile(
        "kills-the-runner",
        "SIGKILL to its parent, the marking",
        first_line("import os\nos.kill(os.getppid(), 9)"),
        None,
        "had its marking killed",
        posix=True,
    ),
    Hostile(
        "kills-all-runners",
        "SIGKILL to the marking and the process that watches it",
        first_line(KILL_RUNNERS),
        None,
        "killed",
        posix=True,
    ),
    Hostile("asks", "input()", inside("input('your answer? ')"), ERROR, remark=""),
    Hostile("raises-base-exception", "a BaseException of its own", inside("raise BaseException('ha')"), ERROR),
    # --- what is too much ---
    Hostile("much-output", "24 MB of output", inside("print('x' * 24_000_000)")),
    Hostile(
        "much-stored-output",
        "24 MB of output in the file",
        lambda notebook: find(notebook, "add-answer").update(outputs=printed("x" * 24_000_000)),
    ),
    Hostile(
        "many-cells",
        "1,000 cells of one's own",
        lambda notebook: notebook["cells"].extend(code(f"def f{n}():\n    pass", f"mine-{n}") for n in range(1000)),
    ),
    Hostile("memory", "an array of 10 GB, in steps", first_line(MEMORY), None, "used more than 0.6 GB of memory"),
    Hostile(
        "memory-at-once",
        "2 GB in one request",
        first_line("import numpy as np\nkept = np.ones(2_000_000_000 // 8)"),
        None,
        "used more than 0.6 GB of memory",
    ),
    Hostile("fills-the-disk", "2 GB in many files", first_line(FILL), None, "to disk", posix=True),
    Hostile(
        "one-huge-file",
        "a file without end",
        first_line("f = open('x', 'wb')\nwhile True:\n    f.write(bytes(1_000_000))"),
        ERROR,
        reason="to disk",
        posix=True,
    ),
    Hostile(
        "fork-bomb",
        "processes without end",
        first_line("import subprocess\nwhile True:\n    subprocess.Popen(['sleep', '75175'])"),
        None,
        "started more than",
        posix=True,
    ),
    # --- what stays behind ---
    Hostile("shell-commands", "! and % lines in cells and answers", first_line("!echo hello\n%time 1 + 1")),
    Hostile(
        "stray-child",
        "a background process",
        first_line("import subprocess\nsubprocess.Popen(['sleep', '74174'])"),
        posix=True,
    ),
    Hostile("stray-daemon", "forks twice, new session, empty environment", first_line(DAEMON), posix=True),
    Hostile(
        "stray-thread",
        "a thread that never ends",
        first_line("import threading, time\nthreading.Thread(target=time.sleep, args=(999,)).start()"),
    ),
    Hostile(
        "removes-folders",
        "empties its working folder, home and temporary folder",
        first_line(REMOVE),
        reason="without a result|no kernel starts",
    ),
    Hostile("changes-folder", "os.chdir('/')", first_line("import os\nos.chdir('/')")),
    # --- the check ---
    Hostile("check-deleted", "its check is gone", wrong(drop("add-check")), WRONG, remark="add: the check was deleted"),
    Hostile(
        "check-edited",
        "its check asserts nothing",
        wrong(edit_check(source="print(3)")),
        WRONG,
        remark="add: the check was edited",
    ),
    Hostile(
        "check-to-markdown", "its check is text", wrong(edit_check(cell_type="markdown")), WRONG, remark="no code cell"
    ),
    Hostile("check-to-raw", "its check is raw", wrong(edit_check(cell_type="raw")), WRONG, remark="no code cell"),
    Hostile("output-edited", "the stored output says what it should", wrong(edit_check(outputs=printed("3\n"))), WRONG),
    Hostile("run-and-saved", "its own error is the stored output", wrong(rerun_and_saved), WRONG),
    Hostile("output-cleared", "no stored output", wrong(edit_check(outputs=[], execution_count=None)), WRONG),
    Hostile(
        "nbval-skip", "markers and tags that would skip the check", wrong(skip_markers), WRONG, remark="NBVAL_SKIP"
    ),
    # --- the notebook's shape ---
    Hostile("cells-twice", "every cell stands there twice", doubled, remark="twice"),
    Hostile("cells-reversed", "last cell first", lambda notebook: notebook["cells"].reverse(), remark="another order"),
    Hostile("answer-split", "an answer over two cells", split, remark="split into 2 cells"),
    Hostile("helper-split-off", "a helper function in a cell of its own", split_helper),
    Hostile("ids-stripped", "nbformat 4.4, no cell ids", without_ids),
    Hostile("metadata-stripped", "no metadata at all", without_metadata),
    Hostile("ids-and-metadata-stripped", "neither ids nor metadata", without_both, remark="lost its cell ids"),
    Hostile("answer-deleted", "an answer's cell is gone", drop("add-answer"), ("look", "right", "right")),
    Hostile("blank", "nothing written", blank, ("not written yet",) * 3),
    Hostile("syntax-error", "an answer that is no Python", answer("add", "def add(a, b)\n    return a + b"), ERROR),
    Hostile("wrong-kernel", "metadata of a Julia kernel", wrong_kernel),
    Hostile("nbformat-3", "the format of 2013", nbformat_3, remark="old format 3"),
    Hostile("byte-order-mark", "as Windows editors save it", lambda n: b"\xef\xbb\xbf" + json.dumps(n).encode()),
    Hostile(
        "invalid-json", "cut off in the middle", lambda n: json.dumps(n).encode()[:-300], None, UNREAD + ".*JSON breaks"
    ),
    Hostile("merge-marks", "git's marks inside", merge_marks, None, UNREAD + ".*unfinished git merge"),
    Hostile("empty-file", "no bytes", lambda n: b"", None, UNREAD + ".*is empty"),
    Hostile(
        "not-text", "a picture with another name", lambda n: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), None, UNREAD
    ),
    Hostile("no-notebook", "JSON, but a list", lambda n: b"[1, 2]", None, UNREAD + ".*no notebook"),
    Hostile("no-cells", "a notebook with no cell", lambda n: n.update(cells=[]), ("look",) * 3),
    Hostile("nested", "JSON a hundred thousand deep", lambda n: b"[" * 100_000, None, UNREAD),
    Hostile(
        "odd-types",
        "numbers where text should be",
        lambda n: n["cells"].extend([{"cell_type": 3, "source": 7}, None, "x"]),
    ),
    # --- cheating ---
    Hostile(
        "allclose-patched",
        "numpy.allclose says yes",
        wrong_mean("np.allclose = lambda *a, **k: True"),
        ("right", "wrong", "right"),
        remark="numpy.allclose",
    ),
    Hostile(
        "allclose-patched-late",
        "numpy.allclose says yes from within the answer",
        wrong_mean("", "np.allclose = lambda *a, **k: True"),
        ("right", "wrong", "right"),
        "",
        "numpy.allclose",
    ),
    Hostile(
        "print-redefined",
        "print shows the reference",
        prepend_wrong("import builtins\nbuiltins.print = lambda *a, **k: None\nprint = builtins.print"),
        WRONG,
        remark="print",
    ),
    Hostile(
        "looks-up-the-stack",
        "reads its request's token from the caller and reports for itself",
        prepend_wrong(STACK),
        WRONG,
    ),
    Hostile(
        "talks-in-errors",
        "an exception whose text never ends",
        inside("class Odd(Exception):\n    def __str__(self):\n        while True:\n            pass\nraise Odd()"),
        TIMEOUT,
    ),
    Hostile(
        "trace", "sys.settrace repairs the answer while the check runs", prepend_wrong(TRACE), WRONG, remark="settrace"
    ),
    Hostile(
        "assertion-error-patched",
        "builtins.AssertionError is another class",
        prepend_wrong("import builtins\nbuiltins.AssertionError = type('AssertionError', (BaseException,), {})"),
        WRONG,
        remark="AssertionError",
    ),
    Hostile(
        "no-asserts",
        "an IPython transformer takes asserts out",
        prepend_wrong(
            "ip = get_ipython()\nip.input_transformers_cleanup.append(lambda ls: [l for l in ls if 'assert' not in l])"
        ),
        WRONG,
    ),
    Hostile(
        "custom-exception-handler",
        "IPython swallows errors",
        prepend_wrong("get_ipython().set_custom_exc((BaseException,), lambda *a, **k: None)"),
        WRONG,
    ),
    Hostile(
        "own-check-function",
        "the check's module is replaced",
        prepend_wrong(
            "import sys\nmodule = sys.modules['xlmr_course.classroom.inside']\nmodule.attempt = lambda *a: None"
        ),
        WRONG,
        remark="attempt",
    ),
    Hostile("forged-output", "prints and writes rows as the marking would", prepend_wrong(FORGE_OUTPUT), WRONG),
    Hostile(
        "forged-report",
        "writes rows into the marking's pipes",
        prepend_wrong(FORGE_PARENT),
        WRONG,
        "ended without a result",
        posix=True,
    ),
)

TORCH_ALLCLOSE = Hostile(
    "torch-allclose-patched",
    "torch.allclose says yes",
    wrong_mean("torch.allclose = torch.Tensor.allclose = np.allclose = lambda *a, **k: True"),
    ("right", "wrong", "right"),
    remark="torch",
)
