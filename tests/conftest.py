from pathlib import Path

import pytest
import torch

import eq_aimet  # noqa: F401 - before escnn, which then finds a stand-in for lie_learn

TESTS = Path(__file__).parent
# Files and folders that train networks, export large ones, or try many random ones.
SLOW = [
    TESTS / name
    for name in (
        "adapters/test_modules_page.py",
        "adapters/test_networks.py",
        "adapters/test_published_networks.py",
        "adapters/test_random_networks.py",
        "aimet/equalization/test_regions.py",
        "aimet/onnx",
        "aimet/rounding",
        "aimet/test_real_network.py",
        "experiments/training",
        "models",
        "recipes",
        "test_docs.py",
    )
]


def pytest_collection_modifyitems(items):
    missing = [path for path in SLOW if not path.exists()]
    assert not missing, f"SLOW in {__file__} names what is gone: {missing}"
    for item in items:
        if any(item.path.is_relative_to(path) for path in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same random numbers, alone or among others."""
    torch.manual_seed(0)
