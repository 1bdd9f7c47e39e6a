"""The documentation site: Sphinx with MyST-NB. Build it with ``make docs``."""

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import gallery  # noqa: E402
import reference  # noqa: E402
import statuses  # noqa: E402

project = "refinejax"
author = "The refinejax authors"
copyright = "The refinejax authors, Apache-2.0"  # noqa: A001
release = importlib.metadata.version("refinejax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
]
exclude_patterns = [
    "_build",
    "_executed",
    "_ext",
    "extend/damped_sine",
    "troubleshooting_statuses.md",
]

# pages that are made: from the façade and the subpackages, from Status, from notebooks/
reference.write(HERE / "api")
statuses.write(HERE / "troubleshooting_statuses.md")
nb_execution_excludepatterns = gallery.copy(HERE.parent / "notebooks", HERE / "gallery", HERE)

# notebooks are executed; an exception, a warning on stderr or a broken link fails `make docs`
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_output_stderr = "warn"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3
default_role = "py:obj"  # `name` links where it is a name of the API, and is code elsewhere

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True
autosummary_generate = False  # `reference` writes the pages
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries = False

html_theme = "sphinx_book_theme"
html_title = "refinejax"
html_static_path = ["_static"]
html_css_files = ["refinejax.css"]
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
}
html_sourcelink_suffix = ""
html_copy_source = False
# no page needs the network: mathjax is the one script from elsewhere
