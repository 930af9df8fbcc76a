"""The parts of README.md that come from runs: the course map with its minutes, and the final table.

`python -m xlmr_course.classroom.readme` writes them between their marks, from `notebooks/measured.json`, the sources'
first cells, and the results that the last `make course` left in `build/course/`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from xlmr_course.classroom.chapters import ROOT, all_chapters, measured


def course_map(root: Path = ROOT) -> str:
    """One row a chapter: what it builds, minutes and peak memory as measured."""
    figures = measured(root)
    rows = [
        f"| [{chapter.number} {chapter.title}](notebooks/{chapter.name}.ipynb) | {chapter.promise} | "
        f"{figures[chapter.name]['minutes']:.1f} | {figures[chapter.name]['memory_gb']:.1f} GB |"
        for chapter in all_chapters(root)
    ]
    total = sum(figures[chapter.name]["minutes"] for chapter in all_chapters(root))
    return "\n".join(
        [
            "| chapter | you will build | minutes | memory |",
            "|---|---|--:|--:|",
            *rows,
            "",
            f"{total:.1f} minutes in all, on two cores, measured by `make course`. On Linux x86-64 nothing is "
            "downloaded but the packages; elsewhere the checkpoint `small` comes from the hub, 471 MB.",
        ]
    )


def between(text: str, name: str, content: str) -> str:
    """`text` with `content` between `<!-- name -->` and `<!-- /name -->`."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no marks <!-- {name} --> … <!-- /{name} -->; put them where {name} belongs")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def write(root: Path = ROOT) -> None:
    """Bring README.md up to date."""
    file = root / "README.md"
    text = between(file.read_text(encoding="utf-8"), "map", course_map(root))
    results = root / "build" / "course"
    if (results / "results.json").is_file():
        from xlmr_course.results import Results

        text = between(text, "table", f"```\n{Results.load(results).table()}\n```")
        shutil.copyfile(results / "results.png", root / "docs" / "transfer.png")
    file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
