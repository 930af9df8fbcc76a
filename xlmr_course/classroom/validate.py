"""Hold the solutions to their stored outputs with nbval, strictly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from xlmr_course.classroom.build import CELL_TIMEOUT, KERNEL_ENVIRONMENT
from xlmr_course.classroom.chapters import ROOT


def validate_solutions(folder: Path = ROOT / "notebooks" / "solutions", **environment: str) -> int:
    """Execute every solution notebook and compare each cell with its stored output; returns pytest's exit code.

    Args:
        environment: more variables for the kernels, such as `ATEN_CPU_CAPABILITY="default"`.
    """
    command = [
        *(sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider"),
        *(f"--nbval-cell-timeout={CELL_TIMEOUT}", str(folder)),
    ]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, **KERNEL_ENVIRONMENT, **environment})
