import os
from pathlib import Path

import nbformat
import pytest
from children import PATIENCE

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS


@each
def test_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert "execution" not in cell.metadata  # times of a run


@each
@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_core")
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")  # on Windows
def test_runs(path, tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": tmp_path}},
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    drawn = [any(name in cell.source for name in ("plot.", "figures.")) for cell in notebook.cells]
    assert len(figures) == sum(drawn)
    if folder := os.environ.get("EXECUTED_NOTEBOOKS"):  # for `make docs`
        Path(folder).mkdir(exist_ok=True)
        nbformat.write(notebook, Path(folder) / path.name)
    errors = [output.text for output in outputs if output.get("name") == "stderr"]
    assert errors == []  # warnings and the like
