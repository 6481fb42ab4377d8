"""One thread per test process: the tensors are small, and the tests run in parallel."""

import pytest
import torch

from flowsim.integrators.event import compiled

torch.set_num_threads(1)


@pytest.fixture
def batched_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solves by method="event" use the batched kernel, as on other devices."""
    monkeypatch.setattr(compiled, "has_compiled_series", lambda flow: False)
