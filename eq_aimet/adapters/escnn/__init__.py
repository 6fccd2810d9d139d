"""The adapter to escnn. Importing it mends escnn on current torch and numpy.

Code that needs escnn's own modules or spaces takes `enn` (`escnn.nn`) and `gspaces` from here.
"""

from eq_aimet.adapters.escnn.installation import import_escnn

import_escnn()

from eq_aimet.adapters.escnn import compatibility  # noqa: E402

compatibility.apply()

from escnn import gspaces  # noqa: E402
from escnn import nn as enn  # noqa: E402

__all__ = ["enn", "gspaces"]
