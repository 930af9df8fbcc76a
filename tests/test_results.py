"""Results by language: intervals, table, file, picture."""

import json
import math

import pytest
from scipy.stats import binomtest

from xlmr_course.results import LanguageResult, Results, wilson


@pytest.fixture
def results():
    rows = [LanguageResult.of("en", [0.9, 0.92], 210), LanguageResult.of("sw", [0.8, 0.7], 210)]
    runs = [{"seed": 0, "accuracy": {"en": 0.9, "sw": 0.8}}, {"seed": 1, "accuracy": {"en": 0.92, "sw": 0.7}}]
    return Results(rows, "en", {"epochs": 5}, {"torch": "2"}, 12.5, runs)


@pytest.mark.parametrize(("right", "n"), [(178, 210), (0, 21), (21, 21), (1, 2)])
def test_the_interval_is_scipy_s_wilson_interval(right, n):
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_seeds_are_averaged_and_their_spread_is_kept(results):
    assert results.accuracy("sw") == pytest.approx(0.75)
    assert results.languages[1].spread == pytest.approx(math.sqrt(2 * 0.05**2))
    assert results.transfer_spread == pytest.approx(math.sqrt(2 * 0.05**2))


def test_transfer_leaves_the_training_language_out(results):
    assert results.transfer == pytest.approx(0.75)
    assert math.isnan(Results(results.languages[:1], "en").transfer)


def test_the_file_holds_what_was_saved(results, tmp_path):
    file = results.save(tmp_path / "new" / "folder")
    assert Results.load(file.parent) == results
    written = json.loads(file.read_text())
    assert list(written["languages"][0]) == ["language", "accuracy", "n", "low", "high"]
    assert written["transfer"] == pytest.approx(0.75)
    assert written["spread"]["sw"] == pytest.approx(math.sqrt(2 * 0.05**2))
    only = Results(results.languages[:1], "en")
    only.save(file.parent)
    assert json.loads(file.read_text())["transfer"] is None  # NaN is no JSON


def test_the_table_names_every_language_once(results):
    lines = results.table().splitlines()
    assert [line.split()[0] for line in lines] == ["language", "English", "Swahili", "mean,"]
    assert "0.910 ± 0.014" in lines[1]
    assert lines[1].endswith("←")
    assert "0.750 ± 0.071" in lines[3]


def test_one_seed_has_no_spread(results):
    alone = Results(results.languages, "en", runs=results.runs[:1])
    assert "±" not in alone.table()
    assert alone.transfer_spread == 0.0


def test_an_unknown_language_and_no_sentences_are_named(results):
    with pytest.raises(KeyError, match="'ur' was not evaluated; there are en, sw"):
        results.accuracy("ur")
    with pytest.raises(ValueError, match="n=0"):
        wilson(0.5, 0)


def test_the_picture_is_a_png(results, tmp_path):
    results.plot(tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
