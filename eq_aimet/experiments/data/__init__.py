"""The data sets of the experiments: PatchCamelyon, synthetic tissue in its layout, and rotated MNIST.

A new data set goes into a module of its own here. `eq_aimet.experiments.datasets` chooses it by name.
"""

from eq_aimet.experiments.data.augmentation import rotate, rotate_and_flip, turn, turn_and_flip
from eq_aimet.experiments.data.download import download_pcam
from eq_aimet.experiments.data.layout import SplitFiles, check_split
from eq_aimet.experiments.data.pcam import PCamDataset
from eq_aimet.experiments.data.rotated_mnist import RotatedMnist, check_mnist
from eq_aimet.experiments.data.synthetic import write_synthetic_pcam
from eq_aimet.experiments.data.tissue import SyntheticPatch, synthetic_patch

__all__ = [
    "PCamDataset",
    "SplitFiles",
    "check_split",
    "download_pcam",
    "RotatedMnist",
    "check_mnist",
    "turn",
    "turn_and_flip",
    "rotate",
    "rotate_and_flip",
    "write_synthetic_pcam",
    "SyntheticPatch",
    "synthetic_patch",
]
