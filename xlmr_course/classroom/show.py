"""Show the package's own source inside a chapter, so that nothing is written twice."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path


def show_source(*objects: object) -> None:
    """Display the source of functions, classes or methods as highlighted code, read from the installed file."""
    from IPython.display import Markdown, display

    for thing in objects:
        source = textwrap.dedent(inspect.getsource(thing)).rstrip()
        file = Path(inspect.getsourcefile(thing)).name
        display(Markdown(f"`xlmr_course/{file}` · `{thing.__qualname__}`\n\n```python\n{source}\n```"))
