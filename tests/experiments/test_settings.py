import json

import numpy as np
import pytest

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments import Settings

COUNTS = {"train_images": 8, "valid_images": 8, "test_images": 8}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("width", 1e9, "`width`: received 1000000000.0; expected a number above 0 and at most 16."),
        ("width", "0.5", "`width`: received '0.5'; expected a number above 0 and at most 16."),
        ("epochs", 2.5, "`epochs`: received 2.5; expected an integer of at least 1."),
        ("epochs", "3", "`epochs`: received '3'; expected an integer of at least 1."),
        ("epochs", True, "`epochs`: received True; expected an integer of at least 1."),
        ("group", 4.0, "`group`: received 4.0; expected an integer from 1 to 64."),
        ("crop", "47", "`crop`: received '47'; expected an integer of at least 1."),
        ("learning_rate", float("inf"), "`learning_rate`: received inf; expected a number above 0."),
        ("compile", "no", "`compile`: received 'no'; expected True or False."),
        ("data", None, "`data`: received a NoneType; expected a str."),
        ("data", "a\0b", "expected the path of a file or a folder."),
        ("model", ["both"], "`model`: received ['both']; expected one of 'both'"),
        ("width", 0.0, "`width`: received 0.0; expected a number above 0 and at most 16. Try `width=0.5`"),
        ("width", float("nan"), "`width`: received nan; expected a number above 0 and at most 16."),
        ("epochs", 0, "`epochs`: received 0; expected an integer of at least 1. Leave it out"),
        ("batch_size", -1, "`batch_size`: received -1; expected an integer of at least 1."),
        ("group", 0, "`group`: received 0; expected an integer from 1 to 64."),
        ("train_images", 0, "`train_images`: received 0; expected an integer of at least 1."),
        ("calibration_images", 0, "`calibration_images`: received 0; expected an integer of at least 1."),
        (
            "learning_rate",
            -1.0,
            "`learning_rate`: received -1.0; expected a number above 0. Try `learning_rate=0.005`.",
        ),
        ("seed", -1, "`seed`: received -1; expected an integer from 0 to 9223372036854775807."),
        ("crop", 48, "`crop`: received 48; expected an odd number from 33 to 95. Try `crop=47`"),
        ("crop", 97, "`crop`: received 97; expected an odd number from 33 to 95. Try `crop=47`"),
        (
            "model",
            "resnet",
            "`model`: received 'resnet'; expected one of 'both', 'conventional', 'equivariant'.",
        ),
        ("device", "gpu", "`device`: received 'gpu'; expected one of 'cpu', 'cuda'. Try `device=\"cpu\"`."),
        ("depthwise", "x", "`depthwise`: received 'x'; expected one of 'channel', 'field'."),
        ("weights", "x", "`weights`: received 'x'; expected one of 'per-tensor', 'per-channel'."),
        ("precision", "8", "`precision`: received '8'; expected one of '32', 'bf16', '16'."),
        (
            "turns",
            "all",
            "`turns`: received 'all'; expected one of 'quarter', 'any'. Try `turns=\"quarter\"`.",
        ),
        ("precision", "16", "received '16' for a CPU; expected '16' on a CUDA device only. Take"),
    ],
)
def test_impossible_settings_name_the_option_and_the_remedy(name, value, text):
    with pytest.raises(InvalidArgumentError) as error:
        Settings(**{**COUNTS, name: value})
    assert text in str(error.value)


def test_cuda_without_a_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(
        InvalidArgumentError, match=r"torch finds no CUDA device.*Leave it out to train on the CPU"
    ):
        Settings(**COUNTS, device="cuda")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_images", 9),
        ("valid_images", 9),
        ("test_images", 9),
        ("data", "/somewhere/pcam"),
        ("crop", 95),
        ("model", "equivariant"),
        ("group", 4),
        ("width", 1.0),
        ("depthwise", "field"),
        ("epochs", 99),
        ("batch_size", 99),
        ("learning_rate", 0.1),
        ("weights", "per-channel"),
        ("calibration_images", 9),
        ("precision", "bf16"),
        ("turns", "any"),
        ("library", "escnn"),
        ("seed", 9),
    ],
)
def test_each_setting_shows_in_the_run_name(name, value):
    other = Settings(**{**COUNTS, name: value})
    assert other.run_name != Settings(**COUNTS).run_name
    assert not set(other.run_name) & set('/\\ :*?"<>|')


def test_settings_survive_json():
    settings = Settings(**COUNTS, width=0.75)
    assert Settings(**json.loads(json.dumps(settings.to_dict()))) == settings


def test_numbers_of_numpy_become_plain_ones():
    settings = Settings(**{**COUNTS, "epochs": np.int64(3), "width": np.float32(0.5)})
    assert json.loads(json.dumps(settings.to_dict()))["epochs"] == 3
    assert settings == Settings(**{**COUNTS, "epochs": 3, "width": 0.5})
