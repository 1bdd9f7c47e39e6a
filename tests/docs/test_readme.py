"""The README's code runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.notebook
def test_python_blocks_run_in_order_and_find_the_truth(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 6
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
        assert np.abs(names["result"].params - names["truth"]).max() < 1e-2
        assert np.mean(names["result"].converged) > 0.99
    assert "converged" in capsys.readouterr().out
