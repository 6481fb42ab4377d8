"""Every test of the suite runs once by each kernel."""

import pytest

from conformance.kernels import KERNELS, take_turn


@pytest.fixture(autouse=True, params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    take_turn(request.param, monkeypatch)
    return request.param
