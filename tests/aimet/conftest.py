import logging

import pytest


@pytest.fixture(autouse=True)
def quiet_aimet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
