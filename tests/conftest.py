import pytest
import torch

import eq_aimet  # noqa: F401 - before escnn, which then finds a stand-in for lie_learn


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same random numbers, alone or among others."""
    torch.manual_seed(0)
