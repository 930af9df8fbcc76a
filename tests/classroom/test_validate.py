"""Strict nbval: a solution whose stored output no longer holds fails."""

import nbformat

from xlmr_course.classroom import validate


def notebook(folder, printed):
    cell = nbformat.v4.new_code_cell("print(1 + 1)", id="sum", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", text=f"{printed}\n")]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    folder.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), folder / "one.ipynb")
    return folder


def test_a_true_output_passes_and_a_stale_one_fails(tmp_path):
    assert validate.validate_solutions(notebook(tmp_path / "true", 2)) == 0
    assert validate.validate_solutions(notebook(tmp_path / "stale", 3)) == 1
