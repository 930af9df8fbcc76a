"""Running a small course made up for the test: pages, index, measurements, and a cell that fails."""

import json

import nbformat
import pytest

from xlmr_course.classroom import run
from xlmr_course.classroom.chapters import Chapter, CourseError

SOURCE = """\
# %% [markdown]
# # 01 · One
#
# **You will build** a result. *Needs:* {{needs}}

# %%
from xlmr_course.results import LanguageResult, Results

rows = [LanguageResult.of("en", [0.9], 10), LanguageResult.of("sw", [0.8], 10)]
_ = Results(rows, "en").save("runs/topics")

# %%
from IPython.display import display

png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwADAgH/p9qHmAAAAABJRU5ErkJggg=="
display({"image/png": png}, raw=True, metadata={"image/png": {"alt": "one <dot>"}})

# %% [markdown]
# The scale is $1/\\sqrt{d}$, but `$HOME` costs 5$ to 6$.
"""


@pytest.fixture
def course(tmp_path):
    chapter = Chapter("01_one", tmp_path)
    chapter.source.parent.mkdir(parents=True)
    chapter.source.write_text(SOURCE)
    (tmp_path / "pyproject.toml").write_text('[tool.xlmr_course]\nrepository = ""\n')
    return chapter


def test_pages_index_and_table_come_out(course, tmp_path):
    table = run.run_course(output=tmp_path / "out", record=True, root=tmp_path)
    assert "Swahili" in table
    index = (tmp_path / "out" / "index.html").read_text()
    assert '<a href="01_one.html">One</a>' in index
    assert "Swahili" in index
    assert (tmp_path / "out" / "results.png").is_file()
    page = (tmp_path / "out" / "01_one.html").read_text()
    assert 'alt="one &lt;dot&gt;"' in page
    recorded = json.loads((tmp_path / "notebooks" / "measured.json").read_text())["01_one"]
    assert recorded["memory_gb"] > 0


def test_pages_need_no_network(course, tmp_path):
    run.run_course(output=tmp_path / "out", root=tmp_path)
    for page in (tmp_path / "out").glob("*.html"):
        text = page.read_text()
        assert "<script src" not in text
        assert '<link href="http' not in text
        assert "cdnjs" not in text


def test_formulas_become_mathml_and_money_stays_money():
    text = run._formulas_to_mathml("$1/\\sqrt{d}$, `$HOME`, 5$ to 6$\n\n$$a^2$$\n\n```\n$x$\n```")
    assert text.count("<math") == 2
    assert "`$HOME`, 5$ to 6$" in text
    assert "```\n$x$\n```" in text


def test_a_failing_cell_stops_with_chapter_cell_and_error(course, tmp_path):
    course.source.write_text(SOURCE + "\n# %%\nraise KeyError('lost')\n")
    with pytest.raises(CourseError, match=r"chapter 01_one, cell cell-05 failed: KeyError: 'lost'"):
        run.run_course(output=tmp_path / "out", root=tmp_path)


def test_running_again_forgets_the_last_results(course, tmp_path):
    run.run_course(output=tmp_path / "out", root=tmp_path)
    course.source.write_text(SOURCE.replace('_ = Results(rows, "en").save("runs/topics")', "0"))
    assert run.run_course(output=tmp_path / "out", root=tmp_path) == ""


def test_the_stored_notebook_is_not_changed_by_the_export(course):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("$x$", id="a")])
    run.to_html(notebook, "x")
    assert notebook.cells[0].source == "$x$"
