import logging

import pytest

# AIMET traces with torch.jit, which torch has deprecated; nothing here or there can be done about it.
THIRD_PARTY = ("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")


def pytest_collection_modifyitems(items):
    for item in items:
        if "aimet" in item.path.parts:
            for warning in THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def quiet_aimet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
