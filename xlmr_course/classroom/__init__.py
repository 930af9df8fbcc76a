"""What runs the course rather than teaches it: building chapters, running them, marking what learners wrote.

This may use every module of the package; no module of the package uses this.
"""

import sys

from xlmr_course.classroom.show import show_source

# nbformat imports jsonschema, which compiles a grammar of web addresses that no notebook needs, in every process anew.
# That takes seconds. Without the package it does without the grammar.
sys.modules.setdefault("rfc3987_syntax", None)

__all__ = ["check_notebook", "show_progress", "show_source"]


def check_notebook(cell_timeout: float = 60) -> None:
    """Every check of the notebook that is running, in a fresh kernel: see `check.check_notebook`."""
    from xlmr_course.classroom import check

    check.check_notebook(cell_timeout)


def show_progress() -> None:
    """Which exercises of which chapters are done: see `progress.show_progress`."""
    from xlmr_course.classroom import progress

    progress.show_progress()
