"""python-flint is an extra."""

import importlib.util
import subprocess
import sys

import pytest

from enclosure.runs import one_neuron
from flowsim import enclose


def test_importing_flowsim_does_not_import_flint() -> None:
    check = "import sys, flowsim; sys.exit('flint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_without_flint_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'^enclose needs python-flint: pip install "flowsim\[rigorous\]"$'):
        enclose(*one_neuron(), 1.0)
