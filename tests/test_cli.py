"""The commands: what they print, and that what the user can mend is one sentence."""

import json

import nbformat
import pytest
from toys import toy_checkpoint
from typer.testing import CliRunner

from xlmr_course import cli
from xlmr_course.sources import CHECKPOINTS

COMMANDS = (
    *("doctor", "course", "run", "notebooks", "lab", "test", "lint", "checkpoints", "fetch", "finetune"),
    *("check", "progress", "release", "grade"),
)


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
    assert f"'huge' is no checkpoint: use {', '.join(CHECKPOINTS)}, or a folder" in text


def test_checkpoints_lists_all(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "checkpoints")
    assert code == 0
    assert "no MLM head" in text
    assert "560 M parameters" in text


def test_grading_nothing_is_one_sentence(monkeypatch, capsys, tmp_path):
    code, text = run(monkeypatch, capsys, "grade", str(tmp_path), "--chapter", "04")
    assert (code, text.count("\n")) == (1, 1)
    assert "holds no notebook" in text


def test_finetune_writes_the_folder_and_prints_the_table(monkeypatch, capsys, own_corpus, tmp_path):
    checkpoint = toy_checkpoint(tmp_path / "toy")
    out = tmp_path / "out"
    code, text = run(
        monkeypatch, capsys, "finetune", "--checkpoint", str(checkpoint), "--data", str(own_corpus),
        "--output", str(out), "--epochs", "1", "--batch-size", "4", "--seeds", "0,1", "--device", "cpu",
        "--train-embeddings",
    )  # fmt: skip
    assert code == 0, text
    assert "mean, unseen" in text
    assert " ± " in text
    assert {"results.json", "results.png", "model.safetensors", "config.json"} <= {file.name for file in out.iterdir()}
    assert json.loads((out / "results.json").read_text())["settings"]["freeze_embeddings"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--seeds", "one"), "Error: --seeds one is no list of whole numbers, such as 0,1,2"),
        (("--task", "names"), "Error: there is no task 'names'; the tasks are topics"),
        (("--data", "nowhere"), "Error: the folder 'nowhere' holds no sentences/<language>.tsv"),
        (("--dataset", "facebook/xnli"), "Error: the data set 'facebook/xnli' (configurations) could not be read"),
        (("--precision", "half"), "Error: precision='half' is unknown; use auto, float32"),
    ],
)
def test_what_finetune_cannot_do_is_one_sentence(monkeypatch, capsys, small, arguments, sentence):
    code, text = run(monkeypatch, capsys, "finetune", "--device", "cpu", *arguments)
    assert code == 1
    assert text.startswith(sentence)
    assert text.count("\n") == 1


def test_fetch_says_where_it_is_and_that_it_is_whole(monkeypatch, capsys, small):
    code, text = run(monkeypatch, capsys, "fetch", "small")
    assert code == 0
    assert text.splitlines()[0] == f"small: {small}"
    code, text = run(monkeypatch, capsys, "fetch", "huge")
    assert (code, text.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "there is no file"), ("", "is empty"), ("{", "its JSON breaks at line 1"), ('{"cells": []}', "no chapter")],
)
def test_checking_something_else_than_a_chapter_is_one_sentence(monkeypatch, capsys, tmp_path, content, sentence):
    notebook = tmp_path / "mine.ipynb"
    if content is not None:
        notebook.write_text(content)
    code, text = run(monkeypatch, capsys, "check", str(notebook))
    assert (code, text.count("\n")) == (1, 1)
    assert text.startswith("Error: ")
    assert sentence in text


def test_a_blank_chapter_is_checked_and_ends_with_1(monkeypatch, capsys, tmp_path):
    from xlmr_course.classroom.chapters import find
    from xlmr_course.classroom.restore import released_notebook

    monkeypatch.setenv("XLMR_COURSE_CACHE", str(tmp_path / "cache"))
    notebook = tmp_path / "mine.ipynb"
    notebook.write_text(nbformat.writes(released_notebook(find(["00"])[0])))
    code, text = run(monkeypatch, capsys, "check", str(notebook))
    assert code == 1
    assert "· code-points  0/1  not written yet" in text
    assert text.rstrip().endswith("visible checks passed: 0 of 2 (0 of 2 points)")
