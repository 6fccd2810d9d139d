"""The adapter to escnn. Importing it mends escnn on current torch and numpy.

Code that needs escnn's own modules or spaces takes `enn` (`escnn.nn`) and `gspaces` from here.
"""

from eq_aimet.adapters.escnn.installation import import_escnn

import_escnn()

from eq_aimet.adapters.escnn import compatibility  # noqa: E402

compatibility.apply()

from escnn import gspaces  # noqa: E402
from escnn import nn as enn  # noqa: E402

from eq_aimet.adapters.additions.checkpoint import keep_weights_only  # noqa: E402
from eq_aimet.adapters.escnn.convolution import ChannelwiseR2Conv  # noqa: E402
from eq_aimet.adapters.escnn.groups import planar_space  # noqa: E402
from eq_aimet.adapters.escnn.mask import CircularMask  # noqa: E402

build_batch_norm = enn.InnerBatchNorm
build_convolution = enn.R2Conv

__all__ = [
    "enn",
    "gspaces",
    "ChannelwiseR2Conv",
    "CircularMask",
    "build_batch_norm",
    "build_convolution",
    "keep_weights_only",
    "planar_space",
]
