"""Every test of the suite runs once by each kernel."""

import pytest

from conformance.kernels import KERNELS, take_turn


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What goes by a Runge-Kutta method goes by no kernel, and runs once."""
    items[:] = [item for item in items if not _is_repeated(item)]


def _is_repeated(item: pytest.Item) -> bool:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return parameters.get("kernel", KERNELS[0]) != KERNELS[0] and parameters.get("method", "event") != "event"


@pytest.fixture(autouse=True, params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    take_turn(request.param, monkeypatch)
    return request.param
