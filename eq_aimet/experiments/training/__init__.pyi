from .classifier import ImageClassifier
from .datamodule import ImageDataModule, PatchDataModule
from .evaluation import measure_accuracy
from .fit import best_weights, train_classifier
from .history import EpochRecord
from .processes import is_first_process
from .quiet import quiet_libraries

__all__ = [
    "PatchDataModule",
    "ImageDataModule",
    "ImageClassifier",
    "train_classifier",
    "best_weights",
    "EpochRecord",
    "measure_accuracy",
    "is_first_process",
    "quiet_libraries",
]
