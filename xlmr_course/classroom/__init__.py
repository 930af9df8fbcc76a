"""What runs the course rather than teaches it: building chapters, running them, checking the machine.

This may use every module of the package; no module of the package uses this.
"""

from xlmr_course.classroom.show import show_source

__all__ = ["show_source"]
