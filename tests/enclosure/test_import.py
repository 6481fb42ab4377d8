"""python-flint is an extra."""

import importlib.util

import pytest

from enclosure.runs import one_neuron
from flowsim import enclose


def test_without_flint_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'^enclose needs python-flint: pip install "\.\[rigorous\]"$'):
        enclose(*one_neuron(), 1.0)
