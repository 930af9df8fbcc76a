"""The commands: what they print, and that what the user can mend is one sentence."""

import pytest
from typer.testing import CliRunner

from xlmr_course import cli

COMMANDS = ("doctor", "course", "run", "notebooks", "lab", "test", "lint", "checkpoints", "fetch", "finetune", "grade")


def run(monkeypatch, capsys, *arguments):
    """(exit code, what was printed) of `xlmr-course …`, through `main` as a user starts it."""
    monkeypatch.setattr("sys.argv", ["xlmr-course", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    return end.value.code or 0, printed.out + printed.err


def test_help_names_every_command():
    text = CliRunner().invoke(cli.app, ["--help"]).output
    assert all(command in text for command in COMMANDS)


def test_an_unknown_chapter_is_one_sentence(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "run", "42")
    assert code == 1
    assert text.startswith("Error: there is no chapter '42'; the chapters are 00_start_here")
    assert "Traceback" not in text


def test_an_unknown_checkpoint_is_one_sentence(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "finetune", "--checkpoint", "huge")
    assert (code, text.count("\n")) == (1, 1)
    assert "'huge' is no checkpoint: use small, base, large" in text


def test_checkpoints_lists_all(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "checkpoints")
    assert code == 0
    assert "no MLM head" in text
    assert "560 M parameters" in text


def test_grading_nothing_is_one_sentence(monkeypatch, capsys, tmp_path):
    code, text = run(monkeypatch, capsys, "grade", str(tmp_path), "--chapter", "04")
    assert (code, text.count("\n")) == (1, 1)
    assert "holds no notebook" in text
