"""The check of docstrings finds what is left out, and accepts what is there."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "check_docstrings.py"
spec = importlib.util.spec_from_file_location("check_docstrings", SCRIPT)
check_docstrings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_docstrings)

GOOD = '''"""A module."""


class Base:
    """A base.

    Attributes:
        size: number of things.
    """

    size: int
    _hidden: int

    def step(self, params):
        """Return the next params.

        Args:
            params: where to begin.
        """
        return params

    @property
    def twice(self):
        """Two times the size."""
        return 2 * self.size


class Child(Base):
    """A child."""

    def step(self, params):
        return params


def divide(over, under, *rest, axis=0):
    """Divide.

    Args:
        over, under: numerator and denominator.
        *rest: ignored.
        axis: (0 or 1) of what.

    Returns:
        The quotient.

    Raises:
        ValueError: if `under` is 0.
    """
    if under == 0:
        raise ValueError("under is 0")

    def inner():
        raise KeyError

    return over / under


def _private(x):
    return x
'''

BAD = {
    "the module has no docstring": ('"""A module."""\n', "\n"),
    "Base has no docstring": (
        '"""A base.\n\n    Attributes:\n        size: number of things.\n    """',
        "",
    ),
    "Base: Attributes lack size": ("size: number", "length: number"),
    "Base.step has no docstring": (
        '        """Return the next params.\n\n        Args:\n            params: where to begin.\n'
        '        """\n',
        "",
    ),
    "Base.step: Args lack params": ("params: where", "param: where"),
    "Base.step: no Returns": ("Return the next", "The next"),
    "Base.twice has no docstring": ('        """Two times the size."""\n', ""),
    "divide: Args lack under": ("over, under: n", "over: n"),
    "divide: Args lack rest": ("        *rest: ignored.\n", ""),
    "divide: Args lack axis": ("axis: (0", "axes: (0"),
    "divide: no Returns": ("    Returns:\n        The quotient.\n", ""),
    "divide: Raises lack ValueError": ("ValueError: if", "TypeError: if"),
    "plain English: 'Nobody'": ("The quotient.", "Nobody knows."),
}


def _found(tmp_path, text):
    file = tmp_path / "module.py"
    file.write_text(text)
    classes = check_docstrings.Classes([file])
    return [finding.what for finding in check_docstrings.check_file(file, classes)]


def test_complete_docstrings_pass(tmp_path):
    assert _found(tmp_path, GOOD) == []


@pytest.mark.parametrize("what", BAD)
def test_each_omission_is_found(tmp_path, what):
    old, new = BAD[what]
    assert GOOD.count(old) == 1
    found = _found(tmp_path, GOOD.replace(old, new))
    assert what in found
    assert len(found) == 1 or "has no docstring" in what


def test_the_command_counts_by_subpackage_and_fails_if_there_is_a_finding(capsys, monkeypatch):
    findings = [check_docstrings.Finding(check_docstrings.PACKAGE / "batch" / "run.py", 3, "x")]
    monkeypatch.setattr(check_docstrings, "check", lambda paths, **only: findings)
    assert check_docstrings.main(["--counts"]) == 1
    assert capsys.readouterr().out.split() == ["1", "refinejax/batch/run.py"]
    assert check_docstrings.main(["--at-most", "1"]) == 0
    monkeypatch.setattr(check_docstrings, "check", lambda paths, **only: [])
    assert check_docstrings.main([]) == 0


def test_exported_names_are_those_that_an_init_re_exports(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "part.py").write_text(
        '"""Part."""\n\n\ndef shown(x):\n    return x\n\n\ndef other(x):\n    return x\n'
    )
    (package / "__init__.py").write_text("from package.part import shown as shown\n")
    only = check_docstrings.exported(package)
    assert only == {(package / "part.py", "shown")}
    classes = check_docstrings.Classes([package / "part.py"])
    found = [f.what for f in check_docstrings.check_file(package / "part.py", classes, only)]
    assert found == ["shown has no docstring"]
