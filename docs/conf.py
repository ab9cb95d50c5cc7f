"""Configuration of Sphinx: ``sphinx-build -W --keep-going -b html docs build/docs``."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

from recbole_missing.version import __version__  # noqa: E402

project = "recbole_missing"
copyright = "the authors of recbole_missing, MIT licence"  # noqa: A001
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "declared",
]
exclude_patterns = ["results/*.kept"]
templates_path: list[str] = []
html_theme = "furo"
smartquotes = False  # `--name` is an option, not a dash
html_title = f"recbole_missing {__version__}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # generated reports begin below the first level

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2

os.environ.setdefault("OMP_NUM_THREADS", "1")


def setup(app: Sphinx) -> None:
    """Let blocks of tables be plain text, for which Pygments has no lexer."""
    for name in ("csv", "tsv"):
        app.add_lexer(name, TextLexer)
