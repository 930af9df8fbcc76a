"""What runs in the kernel that marks a notebook: it conducts one exercise at a time and reports what became of it.

A check is not run as a cell of IPython's. `conduct` runs the answer and then, in the same call, its checks, so that no
hook which the answer left in IPython sees a check. A check gets globals of its own: Python's builtins and the set-up's
names as they were before any code of the student's ran, and from the student only what the answer must define.
Before a check everything it relies on is put back as it was; after it the same things are looked at again.

What this doesn't stop: the answer runs in the same process as the check. Code that walks up the stack, searches the
garbage collector, or returns objects that claim to equal everything can still fool it. Reading the answer shows that.
"""

from __future__ import annotations

import ast
import io
import json
import linecache
import sys
import threading
from collections.abc import Callable

from xlmr_course.classroom.stage import Stage, get_shell

OUTCOME = "application/vnd.xlmr-course.outcome+json"
LONGEST = 10_000  # characters of output or of an error's text that are kept


class Sink(io.TextIOBase):
    """Takes what an answer prints, and forgets all of it."""

    written = False

    def write(self, text: str) -> int:
        self.written = True
        return len(text)


_stage: Stage | None = None


def prepare(request: str) -> None:
    """Run the set-up and remember the state after it. `request`: JSON, {"token", "setup": [[name, code], …]}."""
    global _stage
    order = json.loads(request)
    namespace = get_shell().user_ns
    outcome = {"kind": "passed"}
    with quiet():
        for name, code in order["setup"]:
            error = attempt(code, name, namespace)
            if error:
                outcome = error
                break
    _stage = Stage(namespace)
    _report(order["token"], outcome)


def define(request: str) -> None:
    """Run the imports, functions and classes of cells, nothing else; then the model answers on top.

    `request`: JSON, {"token", "cells": [[name, code], …], "models": [[name, code], …]}. What fails is left out.
    """
    order = json.loads(request)
    namespace = _stage.shell.user_ns
    with quiet():
        for name, code in order["cells"]:
            for statement in definitions(code):
                attempt(statement, name, namespace)
        changed = _stage.reset()
        namespace.update(_stage.names)
        for name, code in order["models"]:
            attempt(code, name, namespace)
    _report(order["token"], {"kind": "passed", "changed": changed})


def conduct(request: str) -> None:
    """Run one answer and its checks, report, and leave the model answer in place.

    `request`: JSON, {"token", "name", "answer", "checks": [[name, code], …], "binds": [name, …], "model",
    "cells": [[name, code], …]}. Of `cells` those run that set a name which the answer turns out to miss.
    """
    order = json.loads(request)
    stage, publish = _stage, _stage.publish
    namespace = stage.shell.user_ns
    spare = list(order["cells"])
    while True:
        outcome = _one_run(order, stage, namespace)
        missing = outcome.pop("missing", None)
        helper = next((cell for cell in spare if missing and missing in bound(cell[1])), None)
        if helper is None:
            break
        spare.remove(helper)
        with quiet():
            for statement in definitions(helper[1]):
                attempt(statement, helper[0], namespace)
            if missing not in namespace:
                attempt(helper[1], helper[0], namespace)
    if order["model"]:
        with quiet():
            stage.settle()
            attempt(order["model"], order["name"], namespace)
    outcome["dirty"] = bool(outcome["changed"]) or bool(set(threading.enumerate()) - stage.threads)
    _report(order["token"], outcome, publish)


def _one_run(order: dict, stage: Stage, namespace: dict[str, object]) -> dict[str, object]:
    reset = stage.reset  # looked up before the answer could replace it
    namespace.update(stage.names)
    namespace["exit"] = namespace["quit"] = sys.exit  # IPython's own would end the kernel
    stage.settle()
    printed = io.StringIO()
    with quiet() as sink:
        error = attempt(order["answer"], order["name"], namespace)
        before = reset()
        if error is None:
            globals_of_check = dict(stage.names)
            globals_of_check |= {name: namespace[name] for name in order["binds"] if name in namespace}
            stage.settle()
            for name, code in order["checks"]:
                facts = io.StringIO() if name.endswith("-hidden") else printed  # only the visible check's are compared
                globals_of_check["__builtins__"] = {**stage.builtins, "print": _printer(facts)}
                error = attempt(code, name, globals_of_check, plain=True)
                if error is not None:
                    break
        during = reset()
    return {
        **(error or {"kind": "passed"}),
        "printed": readable(printed.getvalue()[:LONGEST]),
        "changed": list(dict.fromkeys(before + during)),
        "during": during,
        "chatter": sink.written,
    }


def attempt(code: str, name: str, namespace: dict[str, object], *, plain: bool = False) -> dict[str, object] | None:
    """Run code; None, or what went wrong: the error's class and text, and where it was raised.

    `plain`: it has nothing of IPython's own syntax.
    """
    filename = f"<{name}>"
    try:
        code = code if plain else _plain_python(code)
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        exec(compile(code, filename, "exec", dont_inherit=True, optimize=0), namespace)
    except BaseException as error:
        return _describe(error)
    return None


def _describe(error: BaseException) -> dict[str, object]:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    cells = [(file[1:-1], line) for file, line in frames if file[:1] == "<" and not file.startswith("<frozen")]
    where, line = cells[-1] if cells else ("", 0)
    if isinstance(error, SyntaxError) and not cells:
        where, line = str(error.filename or "").strip("<>"), error.lineno or 0
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)[:LONGEST]
    except BaseException:
        text = ""
    kind, source = readable(type(error).__name__), linecache.getline(f"<{where}>", line).strip()
    described = {"kind": "failed", "error": kind, "text": readable(text), "where": where, "line": line}
    described["code"] = readable(source)
    described["inner"] = bool(frames) and bool(cells) and frames[-1][0] == f"<{where}>"
    if isinstance(error, NameError) and isinstance(error.name, str):
        described["missing"] = error.name
    return described


class quiet:
    """While it lasts, standard output and error go nowhere."""

    def __enter__(self) -> Sink:
        self.before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = sink = Sink()
        return sink

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self.before


def definitions(code: str) -> list[str]:
    """The imports, functions and classes at the top of a cell, each as code; none for a cell that isn't Python."""
    try:
        tree = ast.parse(_plain_python(code))
    except Exception:  # whatever the parser says to what was handed in
        return []
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [ast.unparse(statement) for statement in tree.body if isinstance(statement, kinds)]


def bound(code: str) -> set[str]:
    """The names that a cell sets at its top level."""
    try:
        tree = ast.parse(_plain_python(code))
    except Exception:
        return set()
    names: set[str] = set()
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            pending.extend(ast.iter_child_nodes(node))
    return names


def _plain_python(code: str) -> str:
    """IPython's own syntax (`%time`, `!ls`) as Python, by a transformer that nobody has changed."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(code)


def _printer(file: io.StringIO) -> Callable[..., None]:
    original = print

    def check_print(*values: object, sep: str = " ", end: str = "\n", **_: object) -> None:
        if file.tell() < LONGEST:
            original(*values, sep=sep, end=end, file=file)

    return check_print


def _report(token: str, outcome: dict[str, object], publish: Callable | None = None) -> None:
    (publish or _stage.publish)(data={OUTCOME: {**outcome, "token": token}}, metadata={})


def readable(text: str) -> str:
    """Text that can be written as UTF-8; half of a surrogate pair can't."""
    return text.encode("utf-8", "replace").decode("utf-8")
