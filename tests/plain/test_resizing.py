"""Bilinear upsampling as a constant convolution computes what torch's `interpolate` computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain import BilinearUpsampling


@settings(max_examples=40, deadline=None)
@given(
    factor=st.integers(2, 6),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 3),
    is_double=st.booleans(),
)
def test_any_whole_factor_is_torchs(factor, height, width, channels, is_double):
    dtype = torch.float64 if is_double else torch.float32
    x = torch.randn(2, channels, height, width, dtype=dtype)
    by_factor = BilinearUpsampling(channels, factor, dtype=dtype)(x)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear")
    bound = 1e-12 if is_double else 1e-6
    assert float((by_factor - expected).abs().max()) <= bound * float(expected.abs().max())
    to_corners = BilinearUpsampling(channels, factor, True, dtype=dtype)(x)
    size = ((height - 1) * factor + 1, (width - 1) * factor + 1)
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    assert float((to_corners - expected).abs().max()) <= bound * float(expected.abs().max())


@pytest.mark.parametrize("align_corners", [False, True])
def test_it_turns_with_its_input(align_corners):
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    module = BilinearUpsampling(2, 3, align_corners, dtype=torch.float64)
    for flip in (False, True):
        turned, output = (t.flip(3) if flip else t for t in (x, module(x)))
        torch.testing.assert_close(
            module(turned.rot90(1, (2, 3))), output.rot90(1, (2, 3)), rtol=0, atol=1e-14
        )


def test_refusals_say_why():
    with pytest.raises(InvalidArgumentError, match=r"`factor`: received 1.*from 2 on"):
        BilinearUpsampling(1, 1)
    fixed = BilinearUpsampling(1, 2, output_size=(6, 6))
    with pytest.raises(InvalidArgumentError, match=r"4×4 pixels, which upsamples to 8×8.*to 6×6"):
        fixed(torch.zeros(1, 1, 4, 4))
