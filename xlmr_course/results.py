"""The outcome of an evaluation by language: a table, a picture, a file.

With 210 test sentences an accuracy of 0.85 could have been 0.80 or 0.89 on another 210. So every figure comes with its
95 % Wilson interval (Wilson 1927), which stays inside [0, 1] and is honest for small n.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from xlmr_course.corpus import LANGUAGES

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
        spread = math.sqrt(sum((value - mean) ** 2 for value in accuracies) / max(1, len(accuracies) - 1))
        return cls(language, mean, n, *wilson(mean, n), spread)


@dataclass(frozen=True)
class Results:
    """What a fine-tuning run found: one entry a language, and the settings, seeds and versions that led there."""

    languages: list[LanguageResult]
    train_language: str
    settings: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    seconds: float = 0.0

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

    def table(self) -> str:
        """A table to print: language, accuracy, interval, and a bar of twenty cells."""
        lines = [f"{'language':14} {'accuracy':>8}   95 % interval    n"]
        for row in self.languages:
            name = LANGUAGES.get(row.language, row.language)
            bar = "█" * round(row.accuracy * 20)
            trained = " ←" if row.language in self.train_language.split(",") else ""
            lines.append(
                f"{name:14} {row.accuracy:8.3f}   {row.low:.3f} – {row.high:.3f} {row.n:5}  {bar:20}{trained}".rstrip()
            )
        if not math.isnan(self.transfer):
            lines.append(f"{'mean, unseen':14} {self.transfer:8.3f}")
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None):
        """Draw the bars with their intervals; with a path also write the picture there. Returns the figure."""
        from xlmr_course import plots

        return plots.results_by_language(self, path)

    def save(self, folder: str | Path) -> Path:
        """Write `results.json` into a folder, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self) | {"transfer": self.transfer}, indent=2, ensure_ascii=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        return folder / "results.json"

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read what `save` wrote."""
        stored = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        stored.pop("transfer", None)
        return cls(**{**stored, "languages": [LanguageResult(**row) for row in stored["languages"]]})


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion measured on n sentences."""
    if n < 1:
        raise ValueError(f"an accuracy on n={n} sentences has no interval")
    centre = accuracy + Z95**2 / (2 * n)
    width = Z95 * math.sqrt(accuracy * (1 - accuracy) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return (centre - width) / scale, (centre + width) / scale
