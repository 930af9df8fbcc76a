"""`xlmr-course …`: one command for each thing a learner, teacher or contributor does.

Imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses an old Python, a copied folder doesn't
    sys.exit(f"The course needs Python 3.11 or newer; this is {sys.version.split()[0]}.")

import typer

app = typer.Typer(
    name="xlmr-course",
    help="Build XLM-RoBERTa from scratch: run, read and check the course.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ROOT = Path(__file__).resolve().parents[1]
Chapters = Annotated[list[str] | None, typer.Argument(help="numbers or names, such as 5 or 05_the_encoder")]


@app.command()
def doctor() -> None:
    """Look at this machine: what is ready, what is missing, what to do about it."""
    from xlmr_course.classroom.doctor import examine

    findings = examine()
    for finding in findings:
        typer.echo(finding.line())
    raise typer.Exit(any(finding.state == "missing" for finding in findings))


@app.command()
def course(
    record: Annotated[
        bool, typer.Option(help="keep the measured minutes and memory in notebooks/measured.json")
    ] = False,
) -> None:
    """Run every chapter, write build/course/index.html, and print the final table."""
    _run([], record)


@app.command()
def run(chapters: Chapters = None) -> None:
    """Run some chapters as HTML into build/course/."""
    _run(chapters or [], record=False)


@app.command()
def notebooks(
    chapters: Chapters = None,
    execute: Annotated[bool, typer.Option(help="run the cells; without, outputs are kept from the last run")] = True,
) -> None:
    """Rebuild the student and solution notebooks from their sources."""
    from tqdm import tqdm

    from xlmr_course.classroom import build
    from xlmr_course.classroom.chapters import find

    for chapter in find(chapters or []):
        with tqdm(desc=chapter.name, unit="cell", dynamic_ncols=True) as bar:
            build.build(chapter, run=execute, progress=lambda index, cell, bar=bar: bar.update(index + 1 - bar.n))


@app.command()
def lab() -> None:
    """Open JupyterLab on chapter 00."""
    first = next(iter(sorted((ROOT / "notebooks").glob("00_*.ipynb"))), ROOT / "notebooks")
    _call("-m", "jupyterlab", str(first))


@app.command("test")
def run_tests(
    quick: Annotated[bool, typer.Option(help="leave out executing the chapters")] = False,
) -> None:
    """Everything: the package's tests, strict nbval on the solutions, the checks of the student editions."""
    failed = _call("-m", "pytest", "tests", stop=False)
    if not quick:
        from xlmr_course.classroom.validate import validate_solutions

        failed = validate_solutions() or failed
    raise typer.Exit(failed)


@app.command()
def lint() -> None:
    """Check style with ruff, over the package, the tests and the chapters' sources."""
    failed = _call("-m", "ruff", "check", ".", stop=False)
    failed = _call("-m", "ruff", "format", "--check", ".", stop=False) or failed
    raise typer.Exit(failed)


@app.command()
def check(
    notebook: Annotated[Path, typer.Argument(help="a notebook of the course that you saved")],
    chapter: Annotated[str | None, typer.Option(help="its number, if the notebook doesn't tell")] = None,
    cell_timeout: Annotated[float, typer.Option(min=1, help="seconds that one exercise may take")] = 60,
) -> None:
    """Run the checks of your notebook in a fresh kernel: one line for each exercise. Your file is only read."""
    from xlmr_course.classroom.check import check as run_checks

    report = run_checks(notebook, chapter, cell_timeout=cell_timeout)
    typer.echo(report.text(colour=sys.stdout.isatty()))
    raise typer.Exit(not report.complete)


@app.command()
def progress(
    folder: Annotated[Path | None, typer.Option(help="where your notebooks lie; here, or the course's own")] = None,
) -> None:
    """Show which exercises of which chapters are done, as the last check of each notebook found them."""
    from xlmr_course.classroom import progress as done

    typer.echo(done.text(done.progress(folder)))


@app.command()
def release(
    chapter: Annotated[str, typer.Option(help="number or name, such as 04")],
    out: Annotated[Path | None, typer.Option(help="the folder to write; build/release/CHAPTER otherwise")] = None,
    nbgrader: Annotated[bool, typer.Option("--nbgrader", help="add nbgrader's metadata and source")] = False,
    wheel: Annotated[bool, typer.Option(help="put the course itself into the folder")] = True,
) -> None:
    """Write the folder that a teacher hands out: notebook, course, one page of instructions."""
    from xlmr_course.classroom.chapters import find
    from xlmr_course.classroom.release import release as write_release

    done = write_release(find([chapter])[0], out, nbgrader=nbgrader, wheel=wheel)
    typer.echo(f"{done.folder}: " + ", ".join(sorted(path.name for path in done.folder.iterdir())))
    for line in done.remarks:
        typer.echo(f"note: {line}")
    if done.source_assignment:
        typer.echo(f"for nbgrader, with solutions, not to be handed out: {done.source_assignment}")


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="a folder or zip of notebooks, as Moodle, Canvas or git give it")],
    chapter: Annotated[str, typer.Option(help="number or name, such as 04")],
    out: Annotated[Path, typer.Option(help="the table; pages go into a folder of the same name")] = Path("grades.csv"),
    jobs: Annotated[int, typer.Option(min=1, help="students at the same time")] = 2,
    cell_timeout: Annotated[float, typer.Option(min=1, help="seconds that one exercise may take")] = 60,
    limit: Annotated[float, typer.Option(min=5, help="seconds that one notebook may take")] = 300,
    memory: Annotated[
        float, typer.Option(min=0.2, help="GB that one notebook may use, all its processes together")
    ] = 4,
) -> None:
    """Mark a class, hidden checks included: a table, JUnit XML, a page for each student. Run again to go on."""
    from xlmr_course.classroom.chapters import find
    from xlmr_course.classroom.grading import Settings
    from xlmr_course.classroom.grading import grade as grade_class
    from xlmr_course.classroom.guard import Limits

    settings = Settings(cell_timeout, Limits(limit, memory), jobs)
    book = grade_class(
        submissions,
        find([chapter])[0],
        out,
        settings,
        on_grade=lambda row, done, total: typer.echo(f"{done}/{total}  {row.line()}"),
    )
    for note in book.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{book.summary()} Table: {out}. Pages: {out.with_suffix('') / 'index.html'}")


@app.command()
def checkpoints() -> None:
    """List the pretrained models: what they are, and where each would come from on this machine."""
    from xlmr_course import sources

    for checkpoint in sources.CHECKPOINTS.values():
        typer.echo(
            f"{checkpoint.name:6} {checkpoint.parameters / 1e6:6.0f} M parameters {checkpoint.megabytes:6,} MB  "
            f"{'with' if checkpoint.has_lm_head else 'no'} MLM head  {checkpoint.licence}  {checkpoint.description}\n"
            f"       {sources.available(checkpoint.name) or 'not here; needs the Hugging Face hub'}"
        )


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="tiny, small, base or large")]) -> None:
    """Get a checkpoint onto this machine, and compare its weights with their SHA-256. An interrupted one goes on."""
    from xlmr_course import sources

    typer.echo(f"{name}: {sources.locate(name)}\n{sources.verify(name)}")


@app.command()
def finetune(
    task: Annotated[str, typer.Option(help="what to learn")] = "topics",
    checkpoint: Annotated[str, typer.Option(help="tiny, small, base, large, or a folder")] = "small",
    train: Annotated[str, typer.Option(help="languages to train on, such as en or en,sw; or all")] = "en",
    evaluate: Annotated[str, typer.Option(help="languages to test on, such as sw,ur; or all")] = "all",
    data: Annotated[Path | None, typer.Option(help="a folder of your own in the corpus's layout")] = None,
    dataset: Annotated[str | None, typer.Option(help="facebook/xnli, Davlan/sib200, or a folder with a copy")] = None,
    method: Annotated[
        str, typer.Option(help="finetune, or features: a frozen encoder with logistic regression")
    ] = "finetune",
    output: Annotated[
        Path | None, typer.Option(help="where results.json and the model go; a stopped run goes on")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="sentences a step, over all processes")] = 16,
    learning_rate: Annotated[float | None, typer.Option(help="the highest one; else by the model's size")] = None,
    max_length: Annotated[int, typer.Option(min=4, help="tokens of a sentence; longer ones are cut")] = 128,
    patience: Annotated[
        int, typer.Option(min=0, help="stop after so many epochs without a better dev score; 0: never")
    ] = 3,
    freeze_embeddings: Annotated[
        bool | None, typer.Option("--freeze-embeddings/--train-embeddings", help="else frozen if there are many")
    ] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="compute a batch in so many parts: less memory")] = 1,
    gradient_checkpointing: Annotated[bool, typer.Option(help="compute layers twice: far less memory")] = False,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; else a GPU if there is one")] = None,
    seeds: Annotated[str, typer.Option(help="one run each, such as 0,1,2")] = "0",
    snapshot_seconds: Annotated[
        float, typer.Option(min=0, help="how often the output folder is brought up to date")
    ] = 120.0,
) -> None:
    """Fine-tune on one language and print the accuracy in all of them. Also under `accelerate launch -m`."""
    from xlmr_course.finetuning import Settings
    from xlmr_course.finetuning import finetune as train_and_test

    numbers = [seed.strip() for seed in seeds.split(",")]
    if not all(number.isdigit() for number in numbers):
        raise ValueError(f"--seeds {seeds} is no list of whole numbers, such as 0,1,2")
    results = train_and_test(
        task,
        checkpoint,
        train,
        evaluate if evaluate == "all" else evaluate.split(","),
        data,
        dataset=dataset,
        method=method,
        seeds=[int(number) for number in numbers],
        settings=Settings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            max_length=max_length,
            patience=patience or None,
            freeze_embeddings=freeze_embeddings,
            accumulate=accumulate,
            gradient_checkpointing=gradient_checkpointing,
            precision=precision,
        ),
        output=output,
        device=device,
        snapshot_seconds=snapshot_seconds,
    )
    if os.environ.get("RANK", "0") == "0":  # of several processes one prints
        typer.echo(results.table())
        if output is not None:
            results.plot(output / "results.png")


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option(help="the folder of this run; the same command again goes on where it stood")],
    data: Annotated[
        Path | None, typer.Option(help="a folder of <language>.txt, or in the corpus's layout; else the classroom's")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="of the Hugging Face hub, streamed: wikimedia/wikipedia")] = None,
    languages: Annotated[str, typer.Option(help="some only, such as sw,ur; --dataset needs them")] = "",
    subset: Annotated[str, typer.Option(help="of the dataset, such as 20231101.{language}")] = "{language}",
    split: Annotated[str, typer.Option(help="of the dataset")] = "train",
    column: Annotated[str, typer.Option(help="of the dataset: the one that holds the text")] = "text",
    held_out: Annotated[int, typer.Option(min=1, help="texts of a language to measure on, at most")] = 200,
    config: Annotated[str, typer.Option(help="the shape of a new model: tiny, small, base or large")] = "tiny",
    dropout: Annotated[float | None, typer.Option(help="instead of the shape's own")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="go on from this one: tiny, base, large, or a folder")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="of this checkpoint or folder; else a new one is trained")
    ] = None,
    vocab_size: Annotated[int, typer.Option(min=10, help="ids of a new tokenizer")] = 4000,
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="rows a step, over all processes")] = None,
    length: Annotated[int | None, typer.Option(min=3, help="ids in a row")] = None,
    pack: Annotated[bool | None, typer.Option(help="several texts a row; else one")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="at the peak")] = None,
    warmup: Annotated[float | None, typer.Option(help="share of the steps in which the rate rises")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    alpha: Annotated[float | None, typer.Option(help="1 follows the data, 0 treats all languages alike")] = None,
    masking: Annotated[float | None, typer.Option(help="share of the tokens to choose")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="compute a batch in so many parts: less memory")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None,
    eval_every: Annotated[int | None, typer.Option(min=1, help="steps between held-out losses")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="steps between snapshots")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="cpu leaves a GPU alone")] = None,
    tensorboard: Annotated[bool, typer.Option(help="also write curves for TensorBoard")] = False,
) -> None:
    """Pretrain a masked language model in several languages. Also under `accelerate launch -m`."""
    from xlmr_course import recipes
    from xlmr_course.pretraining import Settings

    told = {
        "steps": steps, "batch_size": batch_size, "length": length, "pack": pack, "learning_rate": learning_rate,
        "warmup": warmup, "weight_decay": weight_decay, "alpha": alpha, "masking": masking, "accumulate": accumulate,
        "precision": precision, "eval_every": eval_every, "save_every": save_every, "seed": seed,
    }  # fmt: skip
    settings = Settings(**{name: value for name, value in told.items() if value is not None})
    names = [name.strip() for name in languages.split(",") if name.strip()]
    run = recipes.pretrain_folder(
        output,
        recipes.source(data, dataset, names, subset, split, column, held_out),
        settings,
        config=config,
        dropout=dropout,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        device=device,
        tensorboard=tensorboard,
    )
    if run.is_main:
        typer.echo(recipes.summary(output))


def main() -> None:
    """Run a command; what the user can mend is one sentence, not a traceback ($XLMR_COURSE_DEBUG shows it)."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("XLMR_COURSE_DEBUG"):
            raise
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _run(chapters: list[str], record: bool) -> None:
    from xlmr_course.classroom.run import run_course

    table = run_course(chapters, record=record)
    typer.echo(f"\n{table}\n" if table else "")
    typer.echo(f"Open {Path('build/course/index.html')} in a browser.")


def _call(*arguments: str, stop: bool = True) -> int:
    """Run this Python with arguments, in the checkout; with `stop` its exit code ends the command."""
    code = subprocess.call([sys.executable, *arguments], cwd=ROOT)
    if stop and code:
        raise typer.Exit(code)
    return code
