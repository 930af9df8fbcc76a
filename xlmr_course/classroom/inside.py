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
import builtins
import io
import json
import linecache
import os
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator

OUTCOME = "application/vnd.xlmr-course.outcome+json"
LONGEST = 10_000  # characters of output or of an error's text that are kept
# Functions by which a check judges; a changed one is put back, and told.
WATCHED = (
    *("builtins", "math", "json", "io", "linecache", "numpy", "numpy.linalg", "numpy.testing", __name__),
    *("torch", "torch.functional", "torch.nn.functional", "torch.linalg", "torch.testing"),
)
JUDGES = frozenset(("allclose", "isclose", "equal", "array_equal", "assert_close", "assert_allclose", "all", "any"))
WATCHED_CLASSES = (
    ("torch", "Tensor"),
    ("numpy", "ndarray"),
    ("IPython.core.inputtransformer2", "TransformerManager"),
)


class Sink(io.TextIOBase):
    """Takes what an answer prints, and forgets all of it."""

    written = False

    def write(self, text: str) -> int:
        self.written = True
        return len(text)


class Stage:
    """The state before any of the student's code: the set-up's names, and everything that `WATCHED` names."""

    def __init__(self, namespace: dict[str, object]):
        self.shell = get_shell()
        self.names = {name: value for name, value in namespace.items() if name not in ("exit", "quit")}
        self.builtins = dict(vars(builtins))
        self.watched = {name: _callables(thing) for name, thing in self._watched_things()}
        self.hooks = self._hooks()
        self.publish = self.shell.display_pub.publish
        self.threads = set(threading.enumerate())
        self.folder = os.getcwd()
        torch = sys.modules.get("torch")
        self.torch_state = (torch.is_grad_enabled(), torch.get_default_dtype()) if torch else None

    def _watched_things(self) -> Iterator[tuple[str, object]]:
        names = {*WATCHED, *(name for name in sys.modules if name.startswith("xlmr_course."))}
        names |= {value.__name__ for value in self.names.values() if isinstance(value, types.ModuleType)}
        for name in sorted(names & set(sys.modules)):
            yield name, sys.modules[name]
            if name.startswith("xlmr_course."):
                for key, value in list(vars(sys.modules[name]).items()):
                    if isinstance(value, type) and value.__module__ == name:
                        yield f"{name}.{key}", value
        for module, name in WATCHED_CLASSES:
            if module in sys.modules:
                yield f"{module}.{name}", getattr(sys.modules[module], name)

    def _hooks(self) -> dict[str, object]:
        """What stands between a request and its reply: IPython's own attributes and lists, Python's hooks."""
        shell, hooks = self.shell, {}
        for owner in (shell, shell.display_pub, shell.kernel):
            kind = type(owner)
            members = {name: value for cls in reversed(kind.__mro__) for name, value in vars(cls).items()}
            methods = {name: value for name, value in members.items() if callable(value)}
            own = {name: value for name, value in vars(owner).items() if callable(value) or name in methods}
            hooks |= {f"{kind.__name__} {name}": value for name, value in (methods | own).items()}
        for name, found in shell.events.callbacks.items():
            # Matplotlib registers itself when a figure is first drawn.
            hooks[f"event {name}"] = tuple(f for f in found if not _module(f).startswith(("matplotlib", "IPython")))
        hooks["ast_transformers"] = tuple(shell.ast_transformers)
        hooks["input_transformers"] = tuple(shell.input_transformers_post)
        hooks["cleanup"] = tuple(shell.input_transformer_manager.cleanup_transforms)
        hooks["excepthook"] = sys.excepthook
        hooks["unraisablehook"] = sys.unraisablehook
        return hooks

    def reset(self) -> list[str]:
        """Put everything back; returns the names of what had been changed."""
        changed = []
        if sys.gettrace() is not None or sys.getprofile() is not None:
            sys.settrace(None)
            sys.setprofile(None)
            changed.append("sys.settrace")
        things = dict(self._watched_things_by_name())
        for name, before in self.watched.items():
            thing = things[name]
            now = vars(thing)
            for key, value in before.items():
                if not _same(now.get(key), value):
                    if _from_a_cell(now.get(key)) or key in JUDGES or name == "builtins":
                        changed.append(f"{name}.{key}")
                    setattr(thing, key, value)
        hooks = self._hooks()
        changed += [key for key in self.hooks if not _same(hooks.get(key), self.hooks[key])]
        changed += sorted(hooks.keys() - self.hooks.keys())
        return list(dict.fromkeys(changed))

    def _watched_things_by_name(self) -> Iterator[tuple[str, object]]:
        for name in self.watched:
            if name in sys.modules:
                yield name, sys.modules[name]
            else:
                module, _, key = name.rpartition(".")
                yield name, vars(sys.modules[module])[key]

    def settle(self) -> None:
        """Random numbers, gradients, the default type and the working folder as every exercise finds them."""
        os.chdir(self.folder)
        random.seed(0)
        if self.torch_state:
            import torch

            torch.manual_seed(0)
            torch.set_grad_enabled(self.torch_state[0])
            torch.set_default_dtype(self.torch_state[1])


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


def get_shell():
    from IPython.core.getipython import get_ipython

    return get_ipython()


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


def _callables(thing: object) -> dict[str, object]:
    """The functions and classes that a module or class holds; its other values may change."""
    return {
        key: value
        for key, value in vars(thing).items()
        if (callable(value) or isinstance(value, (property, staticmethod, classmethod)))
        and key not in ("__builtins__", "__dict__", "__loader__", "_stage")
    }


def readable(text: str) -> str:
    """Text that can be written as UTF-8; half of a surrogate pair can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _module(function: object) -> str:
    return str(getattr(function, "__module__", None))


def _from_a_cell(function: object) -> bool:
    """Not a function that a library's file defines: torch wraps some of its own when they are first used."""
    code = getattr(function, "__code__", None)
    return code is None or not os.path.isfile(code.co_filename)


def _same(now: object, before: object) -> bool:
    if now is before:
        return True
    if isinstance(before, tuple):
        return isinstance(now, tuple) and len(now) == len(before) and all(map(_same, now, before))
    # A method is a new object each time it is looked up.
    return type(now) is type(before) is types.MethodType and now == before
