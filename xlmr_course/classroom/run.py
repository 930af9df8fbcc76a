"""The main job: execute every chapter's solution, write it as HTML, and end with the result table."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from xlmr_course.classroom import build
from xlmr_course.classroom.chapters import ROOT, Chapter, CourseError, find

GB = 1e9


@dataclass(frozen=True)
class Measured:
    """What one chapter took: wall minutes, the kernel's peak memory in GB, and on how many cores."""

    minutes: float
    memory_gb: float
    cores: int


def run_course(
    names: Sequence[str] = (), *, output: Path = ROOT / "build" / "course", record: bool = False, root: Path = ROOT
) -> str:
    """Execute chapters in order, write `<output>/<chapter>.html` and `<output>/index.html`.

    Args:
        names: chapters by number or name; all of them for none.
        record: keep the measured minutes and memory in `notebooks/measured.json`, which the chapters' heads and the
            README show.

    Returns:
        The final table by language as text; empty if no chapter wrote one.

    Raises:
        CourseError: a cell failed; the message names chapter, cell and error.
    """
    chapters = find(names, root)
    output.mkdir(parents=True, exist_ok=True)
    work = output / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    measured: dict[str, Measured] = {}
    for chapter in chapters:
        measured[chapter.name] = _run_chapter(chapter, work, output)
    if record:
        _record(measured, root)
    results = sorted(work.glob("runs/*/results.json"), key=lambda path: path.stat().st_mtime)
    table, picture = "", ""
    if results:
        from xlmr_course.finetuning import Results

        final = Results.load(results[-1].parent)
        table = final.table()
        shutil.copyfile(results[-1], output / "results.json")
        final.plot(output / "results.png")
        picture = "results.png"
    _write_index(chapters, measured, output, table, picture)
    return table


def _run_chapter(chapter: Chapter, work: Path, output: Path) -> Measured:
    notebook = build.solution_notebook(chapter)
    started = time.perf_counter()
    with tqdm(total=len(notebook.cells), desc=chapter.name, unit="cell", dynamic_ncols=True) as bar:

        def advance(index: int, cell: NotebookNode) -> None:
            bar.update(index + 1 - bar.n)

        try:
            peak = build.execute(notebook, work, progress=advance)
        except CourseError as error:
            raise CourseError(f"chapter {chapter.name}, {error}") from None
        bar.update(bar.total - bar.n)
    minutes = (time.perf_counter() - started) / 60
    (output / f"{chapter.name}.html").write_text(to_html(notebook, chapter.title), encoding="utf-8")
    return Measured(round(minutes, 1), round(peak / GB, 1), os.cpu_count() or 1)


def to_html(notebook: NotebookNode, title: str) -> str:
    """A page that needs no network: formulas as MathML, no scripts from elsewhere, pictures with their alt text."""
    from nbconvert import HTMLExporter

    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _formulas_to_mathml(cell.source)
    notebook.cells = [cell for cell in notebook.cells if cell.get("id") != "install-course"]
    exporter = HTMLExporter(require_js_url="", mathjax_url="", jquery_url="", mermaid_js_url="")
    exporter.log.setLevel("ERROR")  # it warns of missing alt texts, which are put in below
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    # What the template leaves of its loaders: empty addresses, and the set-up of MathJax and Mermaid.
    page = re.sub(r"<script[^>]*\bsrc=[^>]*>\s*</script>", "", page)
    page = re.sub(r"<script[^>]*x-mathjax-config.*?</script>", "", page, flags=re.DOTALL)
    page = re.sub(r'<script type="module">(?:(?!</script>).)*mermaid.*?</script>', "", page, flags=re.DOTALL)
    alts = iter(
        output.get("metadata", {}).get("image/png", {}).get("alt", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    )
    marker = 'alt="No description has been provided for this image"'
    page = re.sub(re.escape(marker), lambda _: f'alt="{html.escape(next(alts, ""))}"', page)
    return page.replace("</head>", f"<style>{PAGE_STYLE}</style></head>", 1)


def _formulas_to_mathml(markdown: str) -> str:
    """`$…$` and `$$…$$` as MathML, which browsers draw themselves; code spans and blocks are left alone."""
    from latex2mathml.converter import convert

    pattern = re.compile(
        r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|(?<![\\\w$])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)", re.DOTALL
    )

    def replace(match: re.Match) -> str:
        if match[1]:
            return match[1]
        return convert(match[2] or match[3], display="block" if match[2] else "inline")

    return pattern.sub(replace, markdown)


def _record(measured: dict[str, Measured], root: Path) -> None:
    file = root / "notebooks" / "measured.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept |= {name: asdict(figures) for name, figures in measured.items()}
    file.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n", encoding="utf-8", newline="\n")


def _write_index(
    chapters: list[Chapter], measured: dict[str, Measured], output: Path, table: str, picture: str
) -> None:
    rows = "\n".join(
        f'<tr><td>{chapter.number}</td><td><a href="{chapter.name}.html">{html.escape(chapter.title)}</a>'
        f"<p>You will build {html.escape(chapter.promise)}</p></td><td>{measured[chapter.name].minutes:.1f}</td>"
        f"<td>{measured[chapter.name].memory_gb:.1f} GB</td></tr>"
        for chapter in chapters
    )
    total = sum(figures.minutes for figures in measured.values())
    result = (
        f"<h2>What came out</h2><p>Fine-tuned on English alone, tested in every language. Bars: 95 % intervals.</p>"
        f'<img src="{picture}" alt="Accuracy by language, as in the table below"><pre>{html.escape(table)}</pre>'
        if table
        else ""
    )
    page = INDEX.format(style=INDEX_STYLE, rows=rows, total=total, result=result)
    (output / "index.html").write_text(page, encoding="utf-8")


PAGE_STYLE = """
.jp-Notebook { max-width: 68rem; margin: 0 auto; padding: 1rem; }
.jp-RenderedHTMLCommon p, .jp-RenderedHTMLCommon li { line-height: 1.6; }
.jp-RenderedHTMLCommon .highlight pre { white-space: pre; word-break: normal; overflow-x: auto; }
pre, code, .highlight, .highlight * { font-family: var(--jp-code-font-family, monospace); }
.jp-RenderedImage img { max-width: 100%; height: auto; }
.jp-InputPrompt, .jp-OutputPrompt { flex-basis: 3.2rem; min-width: 3.2rem; }
@media (max-width: 48rem) { .jp-InputPrompt, .jp-OutputPrompt { display: none; } }
"""

INDEX_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; }
body { font: 1.05rem/1.55 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 2.2rem; line-height: 1.15; margin-bottom: .3rem; }
table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .55rem .6rem .55rem 0; border-bottom: 1px solid var(--line); }
td:nth-child(n+3), th:nth-child(n+3) { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td p { margin: .1rem 0 0; color: var(--quiet); font-size: .95rem; }
a { font-weight: 600; text-decoration-thickness: 1px; text-underline-offset: 3px; }
img { max-width: 100%; background: #fff; border-radius: 6px; }
pre { overflow-x: auto; line-height: 1.35; }
"""

INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Build XLM-RoBERTa from scratch</title><style>{style}</style></head>
<body><h1>Build XLM-RoBERTa from scratch</h1>
<p>Every chapter below was executed on this machine just now, {total:.1f} minutes in all.</p>
<table><thead><tr><th></th><th>Chapter</th><th>Minutes</th><th>Peak memory</th></tr></thead>
<tbody>
{rows}
</tbody></table>
{result}
</body></html>
"""
