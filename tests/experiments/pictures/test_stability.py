import json
import math

import pytest
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures import measure_stability


class Constant(torch.nn.Module):
    """Whatever the image, the same logits."""

    def forward(self, x):
        return torch.tensor([[1.0, 3.0]], dtype=x.dtype).expand(len(x), 2)


class Corner(torch.nn.Module):
    """The logits are two pixels: above and below the centre."""

    def forward(self, x):
        return torch.stack([x[:, 0, 0, x.shape[-1] // 2], x[:, 0, -1, x.shape[-1] // 2]], 1)


class Quarters(torch.nn.Module):
    """Invariant under quarter turns only: the mean of the centre's row and column, and of the diagonals."""

    def forward(self, x):
        size = x.shape[-1]
        cross = (x[:, 0, size // 2].mean(1) + x[:, 0, :, size // 2].mean(1)) / 2
        diagonals = (x[:, 0].diagonal(dim1=1, dim2=2) + x[:, 0].flip(-1).diagonal(dim1=1, dim2=2)).mean(1) / 2
        return torch.stack([cross, diagonals], 1)


def image_with(row, column, size=9):
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1.0
    return image


def test_a_model_that_ignores_its_input_is_stable_at_every_angle():
    found = measure_stability(Constant(), torch.rand(5, 3, 9, 9))
    assert found.angles == tuple(float(angle) for angle in range(0, 360, 5))
    assert found.agreement == (1.0,) * 72
    assert found.logit_change == (0.0,) * 72
    assert found.images == 5


def test_a_model_that_looks_at_one_side_is_not():
    images = torch.cat([image_with(0, 4), image_with(8, 4)])  # above, below
    found = measure_stability(Corner(), images, step=90)
    # By 180° what is above comes below, which exchanges the logits: |1 - 0| / mean(1, 0) = 2.
    assert found.agreement[0] == 1.0
    assert found.agreement[2] == 0.0
    assert found.logit_change[0] == 0.0
    assert found.logit_change[2] == 2.0
    # By 90° both logits are 0, of which the first is taken: right for one of the two images.
    assert found.agreement[1] == 0.5
    assert found.logit_change[1] == 1.0


def test_turns_are_counter_clockwise_by_the_named_angle():
    class Side(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 4, 0], x[:, 0, 4, 8]], 1)  # left, right

    # What is on the right goes to the top by 90°, and to the left by 180°.
    found = measure_stability(Side(), image_with(4, 8), step=45)
    shares = dict(zip(found.angles, found.agreement, strict=True))
    assert (shares[0.0], shares[180.0]) == (1.0, 0.0)


def test_invariance_under_quarter_turns_shows_at_these_alone():
    torch.manual_seed(0)
    found = measure_stability(Quarters(), torch.rand(8, 1, 9, 9), step=15)
    change = dict(zip(found.angles, found.logit_change, strict=True))
    for angle, value in change.items():
        if angle % 90 == 0:
            assert value < 1e-15
        else:
            assert value > 1e-2
    # A turn by 90° more is a permutation of the pixels, so the figures repeat.
    for angle in range(0, 270, 15):
        assert math.isclose(change[angle], change[angle + 90], abs_tol=1e-14)


def test_corners_outside_the_circle_do_not_count():
    class Corners(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 0, 0], 1 + x[:, 0, 0, -1]], 1)

    found = measure_stability(Corners(), image_with(0, 0), step=90)
    assert found.logit_change == (0.0,) * 4


def test_batches_do_not_matter_and_the_model_stays_as_it_is():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(81, 3)).train()
    images = torch.rand(7, 1, 9, 9)
    together, apart = (measure_stability(model, images, step=30, batch_size=size) for size in (64, 2))
    assert together.agreement == apart.agreement
    assert together.logit_change == pytest.approx(apart.logit_change, rel=1e-12)
    assert model.training
    assert model[2].weight.dtype == torch.float32
    assert min(together.agreement) < 1.0


def test_json_has_the_worst():
    found = measure_stability(Corner(), image_with(8, 4), step=90)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["angles"] == [0.0, 90.0, 180.0, 270.0]
    assert plain["worst_agreement"] == 0.0
    assert plain["worst_logit_change"] == 2.0


IMAGES = torch.rand(2, 1, 9, 9)


@pytest.mark.parametrize("step", [0, -5, 7, 100, math.nan, "5", None])
def test_a_step_that_misses_the_exact_turns_is_refused(step):
    with pytest.raises(InvalidArgumentError, match=r"`step`: .* divides 90\. Take 5"):
        measure_stability(Constant(), IMAGES, step=step)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        ([1.0], "a list"),
        (IMAGES.to(torch.uint8), "a tensor of torch.uint8"),
        (IMAGES[0], r"shape \(1, 9, 9\)"),
        (IMAGES[..., :8], r"shape \(2, 1, 9, 8\)"),
        (IMAGES[:0], r"shape \(0, 1, 9, 9\)"),
        (IMAGES * math.inf, "NaN or infinite"),
    ],
)
def test_unfit_images_are_refused(images, received):
    with pytest.raises(InvalidArgumentError, match=f"`images`: received {received}"):
        measure_stability(Constant(), images)


def test_unfit_models_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"`model`: received a dict; .*sim\.model"):
        measure_stability({}, IMAGES)
    with pytest.raises(InvalidArgumentError, match=r"`model`: .*shape \(2, 1, 9, 9\).*Pass a classifier"):
        measure_stability(torch.nn.Identity(), IMAGES)
    with pytest.raises(InvalidArgumentError, match="on which the model fails with RuntimeError"):
        measure_stability(torch.nn.Linear(5, 2), IMAGES)
