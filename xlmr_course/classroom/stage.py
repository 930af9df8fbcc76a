"""What a check relies on, remembered before any of the student's code has run: so it can be put back, and told.

A `Stage` is part of `inside`, which runs in the kernel that marks.
"""

from __future__ import annotations

import builtins
import os
import random
import sys
import threading
import types
from collections.abc import Iterator

# Functions by which a check judges; a changed one is put back, and told.
WATCHED = (
    *("builtins", "math", "json", "io", "linecache", "numpy", "numpy.linalg", "numpy.testing"),
    *("torch", "torch.functional", "torch.nn.functional", "torch.linalg", "torch.testing"),
)
JUDGES = frozenset(("allclose", "isclose", "equal", "array_equal", "assert_close", "assert_allclose", "all", "any"))
WATCHED_CLASSES = (
    ("torch", "Tensor"),
    ("numpy", "ndarray"),
    ("IPython.core.inputtransformer2", "TransformerManager"),
)


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
        hooks["IPython's ast_transformers"] = tuple(shell.ast_transformers)
        hooks["IPython's input_transformers"] = tuple(shell.input_transformers_post)
        hooks["IPython's cleanup_transforms"] = tuple(shell.input_transformer_manager.cleanup_transforms)
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


def get_shell():
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _callables(thing: object) -> dict[str, object]:
    """The functions and classes that a module or class holds; its other values may change."""
    return {
        key: value
        for key, value in vars(thing).items()
        if (callable(value) or isinstance(value, (property, staticmethod, classmethod)))
        and key not in ("__builtins__", "__dict__", "__loader__", "_stage")
    }


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
