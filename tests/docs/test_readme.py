"""README and site: their code runs as it stands, and their links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MADE = {"_build", "_executed", "api", "damped_sine"}  # by the build; the example has its own test
SITE = [page for page in sorted((ROOT / "docs").rglob("*.md")) if not MADE & {*page.parts}]
PAGES = [README, ROOT / "CONTRIBUTING.md", *SITE]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.notebook
@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_python_blocks_run_in_order_and_find_the_truth(page, capsys):
    names = {"__name__": "page"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)
        if "truth" in names:
            assert np.abs(names["result"].params - names["truth"]).max() < 1e-2
            assert np.mean(names["result"].converged) > 0.99
    assert "truth" not in names or "converged" in capsys.readouterr().out


def test_the_code_that_left_the_readme_is_on_the_pages():
    found = {_name(page): len(BLOCK.findall(page.read_text())) for page in WITH_CODE}
    assert found["README.md"] == 1
    assert (found["docs/start.md"], found["docs/choose.md"]) == (2, 2)
    assert found["docs/guides/learning.md"] == found["docs/applications/latent.md"] == 1


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= 20_000


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text()):
        if "://" in link or "/gallery/" in f"/{link}" or "api/" in link:
            continue  # notebooks and the reference are there after the build, which checks them
        assert (page.parent / link).exists(), f"{_name(page)}: {link}"


def test_links_to_notebooks_are_to_those_there_are():
    for page in PAGES:
        for name in re.findall(r"gallery/(\w+\.ipynb)", page.read_text()):
            assert (ROOT / "notebooks" / name).exists(), f"{_name(page)}: {name}"


def test_the_walk_through_names_at_most_twelve_functions_which_exist():
    text = (ROOT / "docs" / "concepts" / "refine.md").read_text()
    names = re.findall(r"^\| \d+ \| `([\w.]+)`", text, re.MULTILINE)
    assert 5 < len(names) <= 12
    for name in names:
        parts = name.split(".")
        at = next(i for i in range(len(parts), 0, -1) if _module(".".join(parts[:i])))
        found = importlib.import_module(".".join(parts[:at]))
        for part in parts[at:]:
            found = getattr(found, part)
        assert callable(found), name


def _module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
