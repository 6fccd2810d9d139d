"""The adapter to e2cnn. Importing it mends e2cnn on current torch and numpy.

Code that needs e2cnn's own modules or spaces takes `enn` (`e2cnn.nn`) and `gspaces` from here.
"""

from eq_aimet.adapters.e2cnn import compatibility

compatibility.apply()

from e2cnn import gspaces  # noqa: E402
from e2cnn import nn as enn  # noqa: E402

from eq_aimet.adapters.additions.checkpoint import keep_weights_only  # noqa: E402
from eq_aimet.adapters.e2cnn.convolution import ChannelwiseR2Conv, build_convolution  # noqa: E402
from eq_aimet.adapters.e2cnn.fast_batch_norm import build_batch_norm  # noqa: E402
from eq_aimet.adapters.e2cnn.groups import planar_space  # noqa: E402
from eq_aimet.adapters.e2cnn.initialization import generalized_he_init  # noqa: E402
from eq_aimet.adapters.e2cnn.mask import CircularMask  # noqa: E402

__all__ = [
    "enn",
    "gspaces",
    "ChannelwiseR2Conv",
    "CircularMask",
    "build_batch_norm",
    "build_convolution",
    "generalized_he_init",
    "keep_weights_only",
    "planar_space",
]
