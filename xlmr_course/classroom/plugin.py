"""The pytest plugin that marks: nbval's file and cell, with one item for each exercise instead of one for each cell.

nbval starts the kernel, sends the cell, collects its outputs and compares them with the reference. What differs here:

- a cell is an exercise: `inside.conduct` runs the answer and its checks, and only what a check itself prints is
  compared, so that a `print` left in an answer costs nothing;
- a kernel that ends is noticed at once, one that runs too long is killed (a loop may swallow an interrupt), and the
  next exercise gets a fresh one;
- output other than the outcome is thrown away as it comes, so that endless output fills no memory;
- an outcome counts only with the token of its request, which no earlier code could know.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass, field
from queue import Empty

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbval.kernel import RunningKernel, start_new_kernel
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from xlmr_course.classroom.build import KERNEL_ENVIRONMENT
from xlmr_course.classroom.chapters import CourseError
from xlmr_course.classroom.inside import OUTCOME
from xlmr_course.classroom.marking import ExerciseResult
from xlmr_course.classroom.verdicts import ENDED, Exercise, judge, not_written

SETUP_TIMEOUT = 600  # seconds: the first time a set-up may download a checkpoint
POLL = 0.05  # seconds between two looks whether the kernel still lives


class KernelEnded(Exception):
    """The kernel's process is gone."""


class OutOfTime(Exception):
    """The kernel did not answer in time and was killed."""


@dataclass
class Plan:
    """What the plugin runs: set-up cells, the cells around the exercises, the exercises in order.

    Of the student's own cells only imports, functions and classes run. Of the other cells around the exercises nothing
    runs, unless an answer misses a name that one of them sets: then that one does.
    """

    setup: list[tuple[str, str]]
    own: list[tuple[str, str]]
    around: list[tuple[str, str]]
    exercises: list[Exercise]
    folder: str
    paths: list[str] = field(default_factory=list)


class Kernel(RunningKernel):
    """nbval's kernel, with no way to this process's output, and with an end that is noticed."""

    def __init__(self, plan: Plan):
        environment = {**os.environ, **KERNEL_ENVIRONMENT, "XLMR_COURSE_MARKING": "1", "MPLBACKEND": "agg"}
        environment["IPYTHONDIR"] = os.path.join(plan.folder, "ipython")  # no start-up files, no history of anybody's
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [*plan.paths, os.environ.get("PYTHONPATH", "")]))
        self.km, self.kc = start_new_kernel(
            startup_timeout=120,
            kernel_name=":nbval-parent-env",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=plan.folder,
            env=environment,
            extra_arguments=["--HistoryManager.enabled=False", "--log-level=50"],
        )
        self.process = self.km.provisioner.process
        self.kept: list[dict] = []
        self._ensure_iopub_up()

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        end = time.monotonic() + (timeout or 60)
        while time.monotonic() < end:
            try:
                message = self.kc.get_shell_msg(timeout=POLL)
            except Empty:
                if self.process.poll() is not None:
                    raise KernelEnded from None
                self._keep_what_counts(until=min(end, time.monotonic() + 1))
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return
        raise OutOfTime

    def _keep_what_counts(self, until: float) -> None:
        with contextlib.suppress(Empty):
            while time.monotonic() < until:
                message = self.kc.get_iopub_msg(timeout=0)
                if _counts(message):
                    self.kept.append(message)

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        if stream == "iopub" and self.kept:
            return self.kept.pop(0)
        end = time.monotonic() + (timeout or 60)
        while stream == "iopub" and time.monotonic() < end:
            message = self.kc.get_iopub_msg(timeout=timeout)
            if _counts(message):
                return message
        if stream == "iopub":
            raise Empty
        return super().get_message(stream, timeout=timeout)

    def stop(self) -> None:
        """Kill the kernel and whatever it started in its session."""
        self.kc.stop_channels()
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.km.shutdown_kernel(now=True)
        del self.km


def _counts(message: dict) -> bool:
    kind, content = message["msg_type"], message["content"]
    return kind == "status" or (kind == "display_data" and OUTCOME in content.get("data", {}))


class Plugin:
    """Collects the one notebook of a run and gathers its results. Pass an instance to `pytest.main`."""

    def __init__(self, plan: Plan, cell_timeout: float):
        self.plan, self.cell_timeout = plan, cell_timeout
        self.results: list[ExerciseResult] = []
        self.remarks: list[str] = []
        self.problem = ""  # why the chapter can't be marked here at all

    def pytest_collect_file(self, file_path, parent):
        return ExerciseFile.from_parent(parent, path=file_path, plugin=self) if file_path.suffix == ".ipynb" else None


class ExerciseFile(IPyNbFile):
    """A restored notebook: a kernel with the set-up in it, and the exercises as items."""

    def __init__(self, *args, plugin: Plugin, **kwargs):
        super().__init__(*args, **kwargs)
        self.plugin, self.plan = plugin, plugin.plan
        # An answer may use another one that comes later, so all of them are defined from the start.
        self.fresh = True  # whether no answer has run in this kernel
        self.answers = [(exercise.name, exercise.answer) for exercise in self.plan.exercises]

    def setup(self) -> None:
        """The kernel starts with the first exercise that needs one."""

    def collect(self):
        for number, exercise in enumerate(self.plan.exercises):
            # The reference's words become the outputs that nbval compares with.
            outputs = [new_output("stream", name="stdout", text=exercise.reference)] if exercise.reference else []
            cell = NotebookNode(source="", outputs=outputs, execution_count=1, metadata={})
            options = {"check": bool(outputs), "skip": False, "check_exception": False}
            yield ExerciseCell.from_parent(
                self, name=exercise.name, cell_num=number, cell=cell, options=options, exercise=exercise
            )

    def ready(self, number: int) -> None:
        """A living kernel with the set-up, the student's definitions and the model answers before exercise `number`."""
        if self.kernel is not None:
            return
        self.kernel, self.fresh = self._start(), True
        try:
            outcome = self.request("prepare", SETUP_TIMEOUT, setup=self.plan.setup)
        except (KernelEnded, OutOfTime, Empty):
            raise CourseError("the chapter's set-up ends the kernel or takes too long on this machine") from None
        if outcome["kind"] != "passed":
            raise CourseError(f"the chapter's set-up fails on this machine: {outcome['error']}: {outcome['text']}")
        models = [(e.name, e.model) for e in self.plan.exercises[:number] if e.model]
        cells = [*self.plan.own, *self.answers]
        try:
            outcome = self.request("define", self.plugin.cell_timeout, cells=cells, models=models)
            self._tell_changes("a cell outside the exercises", outcome["changed"])
        except (KernelEnded, OutOfTime, Empty):
            if not cells:
                raise
            self.plugin.remarks.append("a function or import outside the checks ends the kernel or hangs; left out")
            self.plan.own, self.answers = [], []
            self.discard()
            self.ready(number)

    def _start(self) -> Kernel:
        try:
            return Kernel(self.plan)
        except Exception:  # another kernel took the port, or the machine was too busy
            time.sleep(1)
        try:
            return Kernel(self.plan)
        except Exception as error:
            raise CourseError(f"no kernel starts on this machine ({type(error).__name__}: {error})") from None

    def request(self, function: str, timeout: float, **order: object) -> dict:
        """Send a trusted request of our own and return its outcome."""
        token = secrets.token_hex(16)
        msg_id = self.kernel.execute_cell_input(code_of(function, token=token, **order), allow_stdin=False)
        self.kernel.await_reply(msg_id, timeout=timeout)
        while True:
            message = self.kernel.get_message("iopub", timeout=5)
            outcome = message["content"].get("data", {}).get(OUTCOME, {})
            if isinstance(outcome, dict) and outcome.get("token") == token:
                return outcome

    def discard(self) -> None:
        if self.kernel is not None:
            self.kernel.stop()
        self.kernel = None

    def teardown(self) -> None:
        self.discard()

    def _tell_changes(self, where: str, changed: list[str]) -> None:
        if changed:
            self.plugin.remarks.append(f"{where} changed {', '.join(changed[:3])}; it was put back")


def code_of(function: str, **order: object) -> str:
    """The cell that asks `inside` for something."""
    return f"import xlmr_course.classroom.inside\nxlmr_course.classroom.inside.{function}({json.dumps(order)!r})"


class ExerciseCell(IPyNbCell):
    """One exercise. It passes as an nbval cell does, when its check ran through and printed what the reference did."""

    def __init__(self, *args, exercise: Exercise, **kwargs):
        super().__init__(*args, **kwargs)
        self.exercise = exercise
        self.outcome: dict = {}
        self.printed_differently = False

    def setup(self) -> None:
        """nbval marks cells after a timeout as expected failures; here each exercise is judged."""

    def runtest(self) -> None:
        file, plugin = self.parent, self.parent.plugin
        if plugin.problem:
            pytest.skip(plugin.problem)
        result = self._run()
        if result.message == ENDED and not file.fresh:
            # Something that an earlier answer left behind may have ended the kernel.
            file.discard()
            result = self._run()
        plugin.results.append(result)
        if self.outcome.get("changed"):
            file._tell_changes(self.exercise.name, self.outcome["changed"])
        if self.outcome.get("dirty", True):
            file.discard()
        elif not self.exercise.blank:
            file.fresh = False
        if result.verdict != "right":
            raise ExerciseFailed(result)

    def _run(self) -> ExerciseResult:
        exercise, plugin = self.exercise, self.parent.plugin
        if exercise.blank:
            self.outcome = {"dirty": False}
            return judge(exercise, not_written(exercise))
        try:
            self.parent.ready(self.cell_num)
        except CourseError as error:
            plugin.problem = str(error)
            pytest.skip(plugin.problem)
        self.token = secrets.token_hex(16)
        self.cell.source = code_of(
            "conduct",
            token=self.token,
            name=exercise.name,
            answer=exercise.answer,
            checks=exercise.checks,
            binds=exercise.binds,
            model=exercise.model,
            cells=self.parent.plan.around,
        )
        self.config.option.nbval_cell_timeout = plugin.cell_timeout
        try:
            super().runtest()
        except NbCellError:
            self.printed_differently = bool(self.outcome)
        except OutOfTime:
            return judge(exercise, {"kind": "timeout", "seconds": plugin.cell_timeout})
        except (KernelEnded, RuntimeError, Empty):
            return judge(exercise, {"kind": "ended"})
        if not self.outcome:
            return judge(exercise, {"kind": "ended"})
        return judge(exercise, self.outcome, differs=self.printed_differently)

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        """Compare what the check printed, and that only. An outcome without this request's token is a forged one."""
        found = [output.get("data", {}).get(OUTCOME, {}) for output in test]
        found = [outcome for outcome in found if isinstance(outcome, dict) and outcome.get("token") == self.token]
        if found:
            self.outcome = dict(found[-1])
        if len(found) > 1:  # the answer got hold of the token
            self.outcome |= {"changed": ["the report of its own check"], "dirty": True}
            self.outcome["during"] = self.outcome["changed"]
        if self.outcome.get("kind") != "passed":
            return True
        printed = [new_output("stream", name="stdout", text=self.outcome["printed"])]
        return super().compare_outputs(printed if self.outcome["printed"] else [], ref, skip_compare)

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, ExerciseFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, self.exercise.name


class ExerciseFailed(Exception):
    """Anything but right."""

    def __init__(self, result: ExerciseResult):
        super().__init__(f"{result.name}: {result.verdict}. {result.message} {result.hint}".strip())
