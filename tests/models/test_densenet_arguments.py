"""What both DenseNets refuse."""

import pytest
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models import DenseNet, EquivariantDenseNet

SIZE = 33
WIDTH = 0.25


@pytest.mark.parametrize("make", [DenseNet, EquivariantDenseNet])
@pytest.mark.parametrize("shape", [(2, 3, 35, 35), (2, 1, 33, 33), (3, 33, 33), (2, 3, 33, 35)])
def test_another_shape_is_refused(make, shape):
    network = make(width=WIDTH, input_size=SIZE)
    with pytest.raises(InvalidArgumentError) as raised:
        network(torch.zeros(shape))
    assert str(raised.value) == (
        f"`x`: received shape {shape}; expected (batch, 3, 33, 33). Crop or resize the images to 33×33, or "
        "build the network with the `in_channels` and `input_size` of your images."
    )


@pytest.mark.parametrize("make", [DenseNet, EquivariantDenseNet])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_classes": 0}, "`num_classes`: received 0; expected an integer of at least 1."),
        ({"num_classes": 2.0}, "`num_classes`: received 2.0; expected an integer of at least 1."),
        ({"in_channels": True}, "`in_channels`: received True; expected an integer of at least 1."),
        ({"input_size": 0}, "`input_size`: received 0; expected an integer of at least 1."),
        (
            {"input_size": 31},
            "`input_size`: received 31; expected at least 32, which leaves a final grid of 2. "
            "Pad or resize the input to 32 or more.",
        ),
        ({"width": 0.03}, "`width`: received 0.03; expected at least 0."),
        ({"width": float("nan")}, "`width`: received nan; expected a number above 0 and at most 16."),
        ({"width": float("inf")}, "`width`: received inf; expected a number above 0 and at most 16."),
        ({"width": "wide"}, "`width`: received 'wide'; expected a number above 0 and at most 16."),
    ],
)
def test_wrong_arguments_are_refused(make, arguments, text):
    with pytest.raises(InvalidArgumentError) as raised:
        make(**arguments)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"group": 8},
            "`group`: received 8; expected 1, 2 or 4: turns by which 3×3 filters stay on their pixels. "
            "Take EquivariantMobileNetV2 for finer rotations.",
        ),
        (
            {"group": True},
            "`group`: received True; expected 1, 2 or 4: turns by which 3×3 filters stay on their pixels. "
            "Take EquivariantMobileNetV2 for finer rotations.",
        ),
        (
            {"reflections": "yes"},
            "`reflections`: received 'yes'; expected True or False. "
            "Take True where images have no handedness, as tissue has none.",
        ),
        (
            {"width": 0.1},
            "`width`: received 0.1; expected at least 0.109, at which a layer is one field of 8 "
            "channels. Widen the network or take a smaller group.",
        ),
    ],
)
def test_wrong_arguments_of_the_equivariant_one_are_refused(arguments, text):
    with pytest.raises(InvalidArgumentError) as raised:
        EquivariantDenseNet(**arguments)
    assert str(raised.value) == text
