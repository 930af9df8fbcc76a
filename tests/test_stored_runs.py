"""The runs that chapter 11 shows without repeating them: they are what their commands say, on this corpus."""

import json
import shlex

import pytest
import typer.main

from xlmr_course import cli, corpus

STORED = json.loads((corpus.corpus_folder() / "results" / "topics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("run", STORED["runs"], ids=lambda run: f"{run['train']}-{run['seed']}")
def test_a_stored_run_covers_the_corpus_and_its_command_can_be_given(run):
    assert list(run["accuracy"]) == list(corpus.LANGUAGES)
    for language, accuracy in run["accuracy"].items():
        n = len(corpus.load(language, "test"))
        assert accuracy * n == pytest.approx(round(accuracy * n), abs=1e-3), "a share of the test sentences"
    program, name, *options = shlex.split(run["command"])
    assert program == "xlmr-course"
    command = typer.main.get_command(cli.app).commands[name]
    given = command.make_context(name, options).params
    assert given["train"] == run["train"]
    assert given["epochs"] == run["epochs"]
    assert given["seeds"] == str(run["seed"])


def test_the_chapter_s_order_holds():
    order = [(run["train"], run["seed"]) for run in STORED["runs"]]
    assert order[:4] == [("en", 0), ("en", 1), ("en", 2), ("all", 0)], "chapter 11 takes the first three for its seeds"
