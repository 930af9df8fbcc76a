"""Each line of the report, on machines that have and that lack a thing."""

import importlib.metadata
from collections import namedtuple

import pytest

from xlmr_course.classroom import doctor

Memory = namedtuple("Memory", "available total")
Disk = namedtuple("Disk", "free")


def finding(name):
    return next(f for f in doctor.examine() if f.what == name)


def test_every_line_is_ok_warning_or_missing_and_says_what_to_do():
    findings = doctor.examine()
    whats = [f.what for f in findings]
    assert {"Python", "torch", "cores", "memory", "GPU", "disk", "hub", "small", "large", "fonts"} <= set(whats)
    for f in findings:
        assert f.state in doctor.SIGNS
        assert f.state == "ok" or f.advice, f"{f.what} says nothing to do"
        assert f.what in f.line()


def test_a_missing_package_is_missing(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "bertviz":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert finding("bertviz").state == "missing"


def test_another_version_than_the_tested_one_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "pinned_versions", lambda: {"numpy": "1.0"})
    assert finding("numpy").state == "warning"
    assert "tested with 1.0" in finding("numpy").line()


@pytest.mark.parametrize(("free", "state"), [(8e9, "ok"), (1e9, "warning")])
def test_little_memory_is_a_warning(monkeypatch, free, state):
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(free, 16e9))
    assert doctor._memory().state == state


def test_a_full_disk_is_a_warning(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(1e9))
    assert doctor._disk().state == "warning"


def test_fonts_that_lack_a_script_are_named(monkeypatch):
    monkeypatch.setattr(doctor, "scripts_without_font", lambda: ["Thai"])
    assert "Thai" in doctor._fonts().line()
