"""One thread per test process: the tensors are small, and the tests run in parallel."""

import gc
import signal

import pytest
import torch

from flowsim.integrators.event import compiled
from flowsim.integrators.event.compiled.kernel import compile_core

torch.set_num_threads(1)

gc.disable()  # until all that tests import is there, and stays

# a shell that runs the tests in the background has Ctrl-C ignored, by them and by what they start; some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """The core is compiled before there are workers, each of which would compile it for itself."""
    if not hasattr(config, "workerinput"):
        compile_core()


def pytest_collection_finish() -> None:
    """What was imported is not looked through whenever garbage is collected, which begins now."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def batched_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solves by method="event" use the batched kernel, as on other devices."""
    monkeypatch.setattr(compiled, "has_compiled_series", lambda flow: False)
