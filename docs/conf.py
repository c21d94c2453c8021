"""Settings of the documentation site; `make docs` builds it."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import mht  # noqa: E402
from tools.site_pages import write_pages  # noqa: E402

project = "MHT"
author = "the MHT authors"
release = version = mht.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"MHT {version}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
python_use_unqualified_type_names = True


def setup(app):
    """Write the generated pages before Sphinx looks for pages."""
    app.connect("config-inited", lambda *_: write_pages(ROOT / "docs"))
