"""The parts of the site that are made: the reference has every public name, once; statuses."""

import importlib
import pkgutil
import sys
from collections import Counter
from pathlib import Path

import pytest

import refinejax as rj

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def extensions():
    sys.path.insert(0, str(DOCS / "_ext"))
    yield {name: importlib.import_module(name) for name in ("docstrings", "reference", "statuses")}
    sys.path.remove(str(DOCS / "_ext"))


def _public():
    """Yield every public class and function: what the modules that can be imported define."""
    for module in pkgutil.walk_packages(rj.__path__, "refinejax."):
        parts = module.name.split(".")[1:]
        if any(part.startswith("_") for part in parts) or parts[0] in ("cli", "commands", "doctor"):
            continue
        found = importlib.import_module(module.name)
        for name, value in vars(found).items():
            home = getattr(value, "__module__", None)
            here = home == found.__name__ and getattr(value, "__qualname__", name) == name
            if here and callable(value) and not name.startswith("_"):
                yield value


def test_the_reference_has_every_public_name_once(extensions):
    pages = extensions["reference"].collect()
    documented = Counter(
        id(getattr(module, name))
        for sections in pages.values()
        for module, names in sections
        for name in names
    )
    assert set(documented.values()) == {1}
    assert [value for value in _public() if id(value) not in documented] == []
    facade = {name for _, names in pages["refinejax"] for name in names}
    assert facade == set(rj.__all__)


def test_a_page_documents_its_names_and_lists_them(extensions, tmp_path):
    extensions["reference"].write(tmp_path)
    page = (tmp_path / "refinejax.rst").read_text()
    for name in rj.__all__:
        kind = "class" if isinstance(getattr(rj, name), type) else "function"
        assert f".. auto{kind}:: {name}\n" in page
    assert "(refinejax.apps.metalens.rst)" in (tmp_path / "index.md").read_text()
    (tmp_path / "refinejax.gone.rst").write_text("of a module that is gone")
    extensions["reference"].write(tmp_path)
    assert not (tmp_path / "refinejax.gone.rst").exists()


def test_statuses_are_explained_in_the_words_of_the_package(extensions):
    table = extensions["statuses"].table()
    for status in rj.Status:
        assert f"`{status.name}` ({int(status)})\n: {status.explain()}\n" in table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a norm |x| and *args", r"a norm \|x\| and \*args"),
        ("code ``|x|`` and `a|b`", "code ``|x|`` and `a|b`"),
        ("several `Gradient`s", r"several `Gradient`\ s"),
        ("x_ is a name, x_1 too", r"x\_ is a name, x_1 too"),
        ("code::\n\n    |x|\n\n|y|", "code::\n\n    |x|\n\n\\|y\\|"),
        ("``two\nlines|``", "``two\nlines|``"),
    ],
)
def test_docstrings_are_read_as_plain_text(extensions, text, expected):
    assert "\n".join(extensions["docstrings"].escape(text.split("\n"))) == expected
