"""The tokenizer against sentencepiece, tokenizers, transformers and bge-m3-lite, side by side in one run.

    python benchmarks/tokenizer.py [--parts training encoding ids] [--examples 100000] [--rounds 3] [--write]

- the same ids as sentencepiece: the classroom sentences, and random Unicode text;
- training on the classroom corpus: quality on held-out text, time in turns, peak memory in a fresh process; and what
  each step of the training is worth;
- encoding speed with XLM-R's vocabulary, in turns, and the cost of lines without a space.

`--write` replaces results/tokenizer.json and results/tokenizer.md; parts that did not run keep their last results.
bge-m3-lite is measured if Python finds it: `pip install --target peers bge-m3-lite` and `PYTHONPATH=peers`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import sentencepiece
import torch

from xlmr_course import corpus, sources, unigram, unigram_fast, unigram_training
from xlmr_course.tokenizer import XLMRTokenizer
from xlmr_course.unigram import UnigramModel

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "tokenizer.json"
VOCAB_SIZE = 8000
PARTS = ["training", "encoding", "ids"]


def sentencepiece_ids(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """What XLM-R's ids should be, from the reference implementation."""
    return [0, *(number + 1 if number else 3 for number in processor.encode(text)), 2]


def texts_of(splits: Sequence[str]) -> list[str]:
    """The classroom sentences of some splits, languages mixed row by row."""
    by_language = [
        [text for split in splits for text in corpus.load(language, split)["text"]]
        for language in corpus.languages_in()
    ]
    return [text for row in zip(*by_language, strict=True) for text in row]


# --- the same ids ---------------------------------------------------------------------------------------------------


def same_ids(folder: Path, examples: int) -> dict:
    """Differences from sentencepiece: 0 is what the tests ask for too."""
    from hypothesis import HealthCheck, Phase, given, settings

    sys.path.insert(0, str(HERE.parent / "tests"))
    from unicode_texts import texts

    ours = XLMRTokenizer.from_pretrained(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    sentences = texts_of(corpus.SPLITS)
    classroom = sum(ours.encode(text) != sentencepiece_ids(processor, text) for text in sentences)
    seen = {"texts": 0, "characters": 0, "differences": 0, "planes": set()}

    @given(texts(ours.model.pieces))
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def compare(text: str) -> None:
        seen["texts"] += 1
        seen["characters"] += len(text)
        seen["planes"].update(ord(character) >> 16 for character in text)
        seen["differences"] += ours.encode(text) != sentencepiece_ids(processor, text)

    compare()
    return {
        "classroom sentences": len(sentences), "languages": corpus.languages_in(), "classroom differences": classroom,
        "random texts": seen["texts"], "random characters": seen["characters"], "planes": sorted(seen["planes"]),
        "random differences": seen["differences"],
    }  # fmt: skip


# --- training -------------------------------------------------------------------------------------------------------


def train_sentencepiece(texts: list[str]) -> UnigramModel:
    """The reference, with the same settings."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, vocab_size=VOCAB_SIZE, model_type="unigram",
        normalization_rule_name="nmt_nfkc", character_coverage=0.9995, num_threads=os.cpu_count(), minloglevel=2,
    )  # fmt: skip
    return UnigramModel.from_sentencepiece(out.getvalue())


def train_tokenizers(texts: list[str]) -> Callable[[str], int]:
    """Hugging Face's trainer in Rust, with XLM-R's pipeline. Returns text -> number of tokens."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    spec = sentencepiece_model_pb2.NormalizerSpec.FromString(unigram.sentencepiece_file.nmt_nfkc())
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return lambda text: len(tokenizer.encode(text).tokens)


def quality(model: UnigramModel, reference: UnigramModel, held_out: list[str]) -> dict:
    """On text that was not trained on: characters per token and log-likelihood (natural log) per character."""
    characters = sum(map(len, held_out))
    return {
        "characters per token": round(characters / sum(len(model.segment(text)) for text in held_out), 4),
        "log-likelihood per character": round(sum(map(model.log_prob, held_out)) / characters, 5),
        "pieces shared": round(len(set(model.pieces) & set(reference.pieces)) / len(reference.pieces), 4),
    }


def training(rounds: int) -> dict:
    """The three trainers on the same text, in turns."""
    texts, held_out = texts_of(("train", "dev")), texts_of(("test",))
    trainers = {
        "ours": lambda texts: unigram.train(texts, VOCAB_SIZE),
        "sentencepiece": train_sentencepiece,
        "tokenizers": train_tokenizers,
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    models = {}
    for _ in range(rounds):
        for name, train in trainers.items():
            start = time.perf_counter()
            models[name] = train(texts)
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (quality(models[name], models["sentencepiece"], held_out) for name in ("ours", "sentencepiece"))
    tokens = sum(map(models["tokenizers"], held_out))
    result = {
        "text": {"languages": corpus.languages_in(), "sentences": len(texts), "characters": sum(map(len, texts))},
        "held out": {"sentences": len(held_out), "characters": sum(map(len, held_out))},
        "ours": ours,
        "sentencepiece": theirs,
        "tokenizers": {"characters per token": round(sum(map(len, held_out)) / tokens, 4)},
        "difference in %": {
            name: round(100 * (ours[name] / theirs[name] - 1), 3)
            for name in ("characters per token", "log-likelihood per character")
        },
        "pieces shared": ours["pieces shared"],
        "seconds": {name: round(statistics.median(taken), 2) for name, taken in seconds.items()},
        "memory": in_fresh_process("train"),
    }
    result["what each step is worth"] = ablation(texts, held_out, models["sentencepiece"])
    return result


@contextlib.contextmanager
def changed(module: object, **values: object) -> Iterator[None]:
    """Train with one thing of the trainer changed."""
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def ablation(texts: list[str], held_out: list[str], reference: UnigramModel) -> dict:
    """Quality after taking one step of the training away, or changing it."""
    whole = functools.partial(unigram_fast.count_substrings)
    by_characters = {"count_substrings": lambda *arguments: whole(*arguments[:3], False)}
    honest = {"FastTrainer": lambda words, log_probs, _: unigram_fast.FastTrainer(words, log_probs, False)}
    one_script = {"script_numbers": lambda characters: {c: -2 if c == "▁" else 1 for c in characters}}
    variants = {
        "as SentencePiece 0.2.3": contextlib.nullcontext(),
        "candidates from a suffix tree over characters": changed(
            unigram_training, unigram_fast=mock.Mock(wraps=unigram_fast, **by_characters)
        ),
        "an unknown part counts as unknown": changed(
            unigram_training, unigram_fast=mock.Mock(wraps=unigram_fast, **honest)
        ),
        "both (as_sentencepiece=False)": changed(
            unigram_training, unigram_fast=mock.Mock(wraps=unigram_fast, **by_characters, **honest)
        ),
        "1 EM step before each pruning": changed(unigram_training, EM_STEPS=1),
        "4 EM steps before each pruning": changed(unigram_training, EM_STEPS=4),
        "log for digamma": changed(torch, digamma=torch.log),
        "drop pieces expected less than 2 times": changed(unigram_fast, MINIMUM_COUNT=2.0),
        "prune half at a time": changed(unigram_training, SHRINKING_FACTOR=0.5),
        "prune a tenth at a time": changed(unigram_training, SHRINKING_FACTOR=0.9),
        "prune to the size itself, not 1.1 times": changed(unigram_training, OVERSHOOT=1.0),
        "pieces may mix scripts": changed(unigram_training, **one_script),
        "pieces of at most 8 characters": changed(unigram_training, LONGEST_PIECE=8),
    }
    results = {}
    for name, variant in variants.items():
        with variant:
            model = unigram.train(texts, VOCAB_SIZE)
        results[name] = quality(model, reference, held_out)
    return results


# --- encoding -------------------------------------------------------------------------------------------------------


def encoding(folder: Path, rounds: int) -> dict:
    """Million characters a second, one text at a time, one thread; the implementations take turns every 100 texts."""
    from transformers import AutoTokenizer

    texts = texts_of(corpus.SPLITS)
    start = time.perf_counter()
    ours = XLMRTokenizer.from_pretrained(folder)
    loading = time.perf_counter() - start
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    with tempfile.TemporaryDirectory() as saved:
        ours.save_pretrained(saved)
        theirs = AutoTokenizer.from_pretrained(saved)
    encoders: dict[str, Callable[[str], object]] = {
        "ours": ours.encode,
        "sentencepiece": functools.partial(sentencepiece_ids, processor),
        "transformers": lambda text: theirs(text)["input_ids"],
    }
    if importlib.util.find_spec("bge_m3_lite"):
        from bge_m3_lite.tokenizer import XLMRobertaTokenizer

        lite = XLMRobertaTokenizer.from_file(str(folder / "sentencepiece.bpe.model"))
        encoders["bge-m3-lite"] = lite.encode
    characters = sum(map(len, texts))
    taken: list[dict[str, float]] = []
    for _ in range(rounds + 1):
        taken.append(dict.fromkeys(encoders, 0.0))
        for place in range(0, len(texts), 100):
            for name, encode in encoders.items():
                start = time.perf_counter()
                for text in texts[place : place + 100]:
                    encode(text)
                taken[-1][name] += time.perf_counter() - start
    first, *warm = taken  # ours builds its trie as texts lead into it, in the first round
    result = {
        "characters": characters, "languages": corpus.languages_in(), "seconds to load": round(loading, 2),
        "million characters a second": {
            name: round(characters / statistics.median(times[name] for times in warm) / 1e6, 3) for name in encoders
        },
        "in the first round": {name: round(characters / first[name] / 1e6, 3) for name in encoders},
    }  # fmt: skip
    if "bge-m3-lite" in encoders:
        ratios = sorted(times["bge-m3-lite"] / times["ours"] for times in warm)
        result["times faster than bge-m3-lite"] = round(statistics.median(ratios), 2)
        result["lowest of the rounds"] = round(ratios[0], 2)
        result["in the first round, times"] = round(first["bge-m3-lite"] / first["ours"], 2)
    result["lines without a space"] = [in_fresh_process("line", str(size)) for size in (125_000, 500_000, 1_000_000)]
    return result


# --- fresh processes ------------------------------------------------------------------------------------------------


def in_fresh_process(*what: str) -> dict:
    """Run one measurement where nothing else has used memory."""
    command = [sys.executable, __file__, "--only", *what]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_megabytes(reset: bool = False) -> int:
    """Peak memory of this process, since the last reset where the system is Linux.

    Not `ru_maxrss`: a process inherits that from the one which started it.
    """
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20


def measure(what: str, size: str = "0") -> dict:
    """The body of `in_fresh_process`."""
    if what == "train":
        texts = texts_of(("train", "dev"))
        before = peak_megabytes(reset=True)
        start = time.perf_counter()
        unigram.train(texts, VOCAB_SIZE)
        seconds = time.perf_counter() - start
        return {"peak MB": peak_megabytes(), "MB before": before, "seconds": round(seconds, 2)}
    tokenizer = XLMRTokenizer.from_pretrained(sources.locate("small"))
    line = "".join("".join(corpus.load("zh")["text"]).split()) if "zh" in corpus.languages_in() else "世界你好"
    line = (line * (int(size) // len(line) + 1))[: int(size)]
    before = peak_megabytes(reset=True)
    start = time.perf_counter()
    tokens = len(tokenizer.encode(line))
    return {
        "characters": len(line), "bytes": len(line.encode()), "tokens": tokens,
        "seconds": round(time.perf_counter() - start, 2), "peak MB": peak_megabytes(), "MB before": before,
    }  # fmt: skip


def machine() -> dict:
    """What the numbers were measured on."""
    names = ("sentencepiece", "tokenizers", "transformers", "numpy", "torch", "hypothesis", "bge-m3-lite")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system(),
        "load average at the start": round(os.getloadavg()[0], 2), "python": platform.python_version(), **versions,
    }  # fmt: skip


def summary(results: dict) -> str:
    """The results in a page."""
    lines = ["# The tokenizer, measured", "", "Written by `benchmarks/tokenizer.py --write`.", ""]
    for part, body in (("ids", ids_summary), ("training", training_summary), ("encoding", encoding_summary)):
        if part in results:
            on = results[part]["machine"]
            lines += [*body(results[part]), ""]
            lines += [
                f"Measured on {on['cores']} cores, load average {on['load average at the start']} at the start; Python "
                f"{on['python']}, sentencepiece {on['sentencepiece']}, tokenizers {on['tokenizers']}, transformers "
                f"{on['transformers']}.",
                "",
            ]
    return "\n".join(lines)


def ids_summary(same: dict) -> list[str]:
    """Markdown lines."""
    return [
        f"**Same ids as sentencepiece:** {same['classroom differences']} differences on "
        f"{same['classroom sentences']:,} classroom sentences in {len(same['languages'])} languages, "
        f"{same['random differences']} on {same['random texts']:,} random Unicode texts "
        f"({same['random characters']:,} characters).",
    ]


def training_summary(train: dict) -> list[str]:
    """Markdown lines."""
    return [
        f"**Training** on {train['text']['characters']:,} characters in {len(train['text']['languages'])} languages, "
        f"{VOCAB_SIZE:,} pieces; quality on {train['held out']['characters']:,} characters held out.", "",
        "| trainer | seconds | characters per token | log-likelihood per character |", "|---|---|---|---|",
        *(
            f"| {name} | {train['seconds'][name]} | {train[name]['characters per token']} | "
            f"{train[name].get('log-likelihood per character', '')} |"
            for name in ("ours", "sentencepiece", "tokenizers")
        ), "",
        f"{train['pieces shared']:.1%} of the pieces are sentencepiece's. Peak memory {train['memory']['peak MB']} MB, "
        f"of which {train['memory']['MB before']} MB before training began.", "",
        "| one thing changed | characters per token | log-likelihood per character | shared with sentencepiece |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['characters per token']} | {row['log-likelihood per character']} | "
            f"{row['pieces shared']:.1%} |"
            for name, row in train["what each step is worth"].items()
        ),
    ]  # fmt: skip


def encoding_summary(encode: dict) -> list[str]:
    """Markdown lines."""
    return [
        f"**Encoding** with XLM-R's vocabulary, {encode['characters']:,} characters in {len(encode['languages'])} "
        "languages, one text at a time. In the first round ours builds its trie and has no word to remember.", "",
        "| | million characters a second | in the first round |", "|---|---|---|",
        *(
            f"| {name} | {speed} | {encode['in the first round'][name]} |"
            for name, speed in encode["million characters a second"].items()
        ), "",
        "| line without a space | seconds | peak MB | MB before |", "|---|---|---|---|",
        *(
            f"| {row['characters']:,} characters, {row['bytes']:,} bytes | {row['seconds']} | {row['peak MB']} | "
            f"{row['MB before']} |"
            for row in encode["lines without a space"]
        ),
    ]  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--examples", type=int, default=100_000, help="random texts to compare")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="replace the files in results/")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(*options.only)))
        return
    folder = sources.locate("small")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for part in options.parts:
        before = machine()
        if part == "training":
            results[part] = training(options.rounds)
        elif part == "encoding":
            results[part] = encoding(folder, options.rounds)
        else:
            results[part] = same_ids(folder, options.examples)
        results[part]["machine"] = before
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        RESULTS.with_suffix(".md").write_text(summary(results), encoding="utf-8")
    print(summary(results))


if __name__ == "__main__":
    main()
