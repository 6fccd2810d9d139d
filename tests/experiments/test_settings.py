import json

import pytest

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments import Settings

COUNTS = {"train_images": 8, "valid_images": 8, "test_images": 8}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("width", 0.0, "`--width`: received 0.0; expected a number above 0. Try 0.5"),
        ("width", float("nan"), "`--width`: received nan; expected a number above 0."),
        ("epochs", 0, "`--epochs`: received 0; expected an integer of at least 1. Leave it out"),
        ("batch_size", -1, "`--batch-size`: received -1; expected an integer of at least 1."),
        ("group", 0, "`--group`: received 0; expected an integer of at least 1."),
        ("train_images", 0, "`--train-images`: received 0; expected an integer of at least 1."),
        ("calibration_images", 0, "`--calibration-images`: received 0; expected an integer of at least 1."),
        ("learning_rate", -1.0, "`--learning-rate`: received -1.0; expected a number above 0. Try 0.005."),
        ("seed", -1, "`--seed`: received -1; expected an integer from 0 to 2**63 - 1."),
        ("crop", 48, "`--crop`: received 48; expected an odd number from 33 to 95. Try 47"),
        ("crop", 97, "`--crop`: received 97; expected an odd number from 33 to 95. Try 47"),
        ("model", "resnet", "`--model`: received 'resnet'; expected one of both, conventional, equivariant."),
        ("device", "gpu", "`--device`: received 'gpu'; expected one of cpu, cuda. Try --device cpu."),
        ("depthwise", "x", "`--depthwise`: received 'x'; expected one of channel, field."),
        ("weights", "x", "`--weights`: received 'x'; expected one of per-tensor, per-channel."),
        ("precision", "8", "`--precision`: received '8'; expected one of 32, bf16, 16."),
        ("turns", "all", "`--turns`: received 'all'; expected one of quarter, any. Try --turns quarter."),
        ("precision", "16", "received 16 with --device cpu; expected 16 on a CUDA device only. Take"),
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
