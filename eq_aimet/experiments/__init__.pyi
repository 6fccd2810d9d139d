from .datasets import count_images, open_data
from .deployment import deploy
from .experiment import NetworkFindings, quantize_and_measure
from .networks import CLASS_NAMES, build_network, check_network
from .quantization import EQUALIZATIONS, equalize, simulate
from .trained import count_parameters, train_network

__all__ = [
    "CLASS_NAMES",
    "build_network",
    "check_network",
    "count_images",
    "open_data",
    "count_parameters",
    "train_network",
    "EQUALIZATIONS",
    "equalize",
    "simulate",
    "deploy",
    "NetworkFindings",
    "quantize_and_measure",
]
