"""The outcome of an evaluation by language: a table, a picture, a file.

With 210 test sentences an accuracy of 0.85 could have been 0.80 or 0.89 on another 210. So every figure comes with its
95 % Wilson interval (Wilson 1927), which stays inside [0, 1] and is honest for small n. It answers what other sentences
would have given. What other seeds would have given is another question, and the spread over seeds stands beside it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from xlmr_course.corpus import LANGUAGES
from xlmr_course.training import write_whole

Z95 = 1.959964  # the standard normal's 97.5 % point


@dataclass(frozen=True)
class LanguageResult:
    """Accuracy on one language's `n` sentences, averaged over seeds; `low` and `high` bound it at 95 %."""

    language: str
    accuracy: float
    n: int
    low: float
    high: float
    spread: float = 0.0  # standard deviation over seeds

    @classmethod
    def of(cls, language: str, accuracies: list[float], n: int) -> LanguageResult:
        """From the accuracy of each seed on the same n sentences."""
        mean = sum(accuracies) / len(accuracies)
        return cls(language, mean, n, *wilson(mean, n), deviation(accuracies))


@dataclass(frozen=True)
class Results:
    """What a fine-tuning run found: one entry a language, and the settings, seeds and versions that led there."""

    languages: list[LanguageResult]
    train_language: str
    settings: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    seconds: float = 0.0
    runs: list[dict] = field(default_factory=list)  # one a seed: its accuracies and how training went

    @property
    def transfer(self) -> float:
        """Mean accuracy over the languages that were not trained on; nan if there are none."""
        others = [row.accuracy for row in self.languages if row.language not in self.train_language.split(",")]
        return sum(others) / len(others) if others else math.nan

    def accuracy(self, language: str) -> float:
        """The accuracy on one language."""
        for row in self.languages:
            if row.language == language:
                return row.accuracy
        raise KeyError(f"{language!r} was not evaluated; there are {', '.join(r.language for r in self.languages)}")

    @property
    def transfer_spread(self) -> float:
        """Standard deviation over seeds of their mean over the languages that were not trained on."""
        trained = self.train_language.split(",")
        means = [[value for language, value in run["accuracy"].items() if language not in trained] for run in self.runs]
        return deviation([sum(values) / len(values) for values in means if values])

    def table(self) -> str:
        """A table to print: language, accuracy, its spread over seeds if there are several, interval, and a bar."""
        several = len(self.runs) > 1
        lines = [f"{'language':14} {'accuracy':>8}{'   seeds' if several else ''}   95 % interval    n"]
        for row in self.languages:
            name = LANGUAGES.get(row.language, row.language)
            spread = f" ± {row.spread:.3f}" if several else ""
            bar = "█" * round(row.accuracy * 20)
            trained = " ←" if row.language in self.train_language.split(",") else ""
            figures = f"{row.accuracy:8.3f}{spread}   {row.low:.3f} – {row.high:.3f} {row.n:5}"
            lines.append(f"{name:14} {figures}  {bar:20}{trained}".rstrip())
        if not math.isnan(self.transfer):
            spread = f" ± {self.transfer_spread:.3f}" if several else ""
            lines.append(f"{'mean, unseen':14} {self.transfer:8.3f}{spread}")
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None):
        """Draw the bars with their intervals; with a path also write the picture there. Returns the figure."""
        from xlmr_course import plots

        return plots.results_by_language(self, path)

    def save(self, folder: str | Path) -> Path:
        """Write `results.json` into a folder, which is made if need be; the file is there whole or not at all.

        A language's entry has five fields: language, accuracy, n, low, high. Everything else stands beside the list.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        told = asdict(self)
        spread = {row["language"]: row.pop("spread") for row in told["languages"]}
        transfer = None if math.isnan(self.transfer) else self.transfer
        text = json.dumps(told | {"transfer": transfer, "spread": spread}, indent=2, ensure_ascii=False)
        write_whole(folder / "results.json", lambda file: file.write((text + "\n").encode()))
        return folder / "results.json"

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read what `save` wrote."""
        stored = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        stored.pop("transfer", None)
        spread = stored.pop("spread", {})
        rows = [LanguageResult(**({"spread": spread.get(row["language"], 0.0)} | row)) for row in stored["languages"]]
        return cls(**(stored | {"languages": rows}))


def deviation(values: list[float]) -> float:
    """The sample standard deviation; 0 of fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion measured on n sentences."""
    if n < 1:
        raise ValueError(f"an accuracy on n={n} sentences has no interval")
    centre = accuracy + Z95**2 / (2 * n)
    width = Z95 * math.sqrt(accuracy * (1 - accuracy) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return (centre - width) / scale, (centre + width) / scale
