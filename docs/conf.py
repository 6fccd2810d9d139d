"""Sphinx configuration: MyST pages, the furo theme, the API out of the docstrings."""

import eq_aimet

project = "eq_aimet"
author = "the eq_aimet authors"
release = version = eq_aimet.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"eq_aimet {release}"

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_use_ivar = True


def escape_bars(app, what, name, owner, options, lines):
    """Escape the bars of absolute values in docstrings, which Sphinx would take for substitutions."""
    for number, line in enumerate(lines):
        if "|" in line and "`" not in line and not line.lstrip().startswith((">>>", "...", "|")):
            lines[number] = line.replace("|", r"\|")


def setup(app):
    """Register the above."""
    app.connect("autodoc-process-docstring", escape_bars)
