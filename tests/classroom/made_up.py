"""A small course of one chapter, made up for the tests of marking, and students' versions of it."""

import nbformat

from xlmr_course.classroom import build
from xlmr_course.classroom.chapters import Chapter

HEAD = """\
# %% [markdown]
# # 01 · Sums
#
# **You will build** sums. {{needs}}

# %% tags=["setup"]
import math

import numpy as np

LIMIT = 10

# %%
def doubled(x):
    return 2 * x

# %%
scale = 3
"""

EXERCISE = """
# %% [markdown]
# Write {name}.

# %% exercise={{"name": "{name}", "role": "answer", "points": {points}}}
def {name}(a, b):
    \"\"\"The sum.\"\"\"
    ### BEGIN SOLUTION
    {body}
    ### END SOLUTION

# %% exercise={{"name": "{name}", "role": "check"}}
pair = np.array([{name}(1, 2), {name}(2, 2)])
assert {name}(1, 2) != 2, "{name}: you multiplied"
assert np.allclose(pair, [3, 4]), f"{name}: expected [3, 4], yours {{pair.tolist()}}"
print({name}(1, 2), {name}(LIMIT, 1))

# %% exercise={{"name": "{name}", "role": "hidden"}}
assert {name}(5, 6) == 11, f"{name}: expected 11 for 5 and 6, yours {{{name}(5, 6)}}"

# %% exercise={{"name": "{name}", "role": "mistake", "expect": "multiplied"}}
def {name}(a, b):
    return a * b

# %% exercise={{"name": "{name}", "role": "mistake", "expect": "expected [3, 4]"}}
def {name}(a, b):
    return b - a
"""

QUESTION = """
# %% [markdown] exercise={"name": "why", "role": "manual", "points": 2, "rubric": "1 point: names a reason"}
# Why add?
#
# ### BEGIN SOLUTION
# Because sums are useful.
# ### END SOLUTION
"""

NAMES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
RIGHT = "return a + b"


def make(root, names=NAMES):
    """Write and build the chapter below `root`; the second exercise's model answer calls the first."""
    bodies = dict.fromkeys(names, RIGHT) | ({"second": "return first(a, b)"} if "first" in names else {})
    chapter = Chapter("01_sums", root)
    chapter.source.parent.mkdir(parents=True)
    exercises = "".join(EXERCISE.format(name=name, points=1 + (name == "first"), body=bodies[name]) for name in names)
    chapter.source.write_text(HEAD + exercises + QUESTION)
    (root / "pyproject.toml").write_text('[tool.xlmr_course]\nrepository = ""\n')
    build.build(chapter)
    return chapter


def student(chapter):
    """The student edition as a notebook that may be changed."""
    return nbformat.read(chapter.student, as_version=4)


def cell(notebook, key):
    return next(cell for cell in notebook.cells if cell.id == key)


def written(name, body=RIGHT):
    """An answer with this body."""
    return f"def {name}(a, b):\n    " + body.replace("\n", "\n    ")


def solved(chapter, **answers):
    """The student edition with right answers, but for `answers`: name → source, None for blank."""
    notebook = student(chapter)
    for other in notebook.cells:
        if build.role_of(other) == "answer":
            name = other.metadata.exercise["name"]
            other.source = answers.get(name, written(name)) or other.source
    return notebook


def save(notebook, path):
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path
