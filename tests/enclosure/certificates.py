"""Certificates that several tests share, each made once."""

import random
from copy import deepcopy
from fractions import Fraction
from functools import lru_cache
from typing import Any

from flowsim.enclosure.certificate import Claim, certificate, infimum_claim
from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.exact import exact_problem
from flowsim.enclosure.run import enclose_problem


def gaussian(seed: int, n: int = 5, d: int = 3, m: int = 2) -> dict[str, Any]:
    """Gaussian inputs and weights, arbitrary labels."""
    draw = random.Random(seed)
    return {
        "inputs": [[draw.gauss(0, 1) for _ in range(d)] for _ in range(n)],
        "labels": [draw.choice([-1, 1]) for _ in range(n)],
        "hidden": [[draw.gauss(0, 0.5) for _ in range(d)] for _ in range(m)],
        "output": [draw.gauss(0, 0.5) for _ in range(m)],
    }


SLIDE = {
    "inputs": [[1, 0], [Fraction(3, 5), Fraction(6, 5)]],
    "labels": [-1, 1],
    "hidden": [[0, 1]],
    "output": [Fraction(1, 2)],
}
"""Solution 2 of theorems/README.md, section 8: it starts on a kink, slides, and leaves."""

RUNS = {
    "fa": (gaussian(100) | {"feedback": [1, -1], "slope": 0.3, "loss": "exponential"}, 4.0),
    "sign-fa": (gaussian(107) | {"scale": Fraction(3, 4), "slope": 0.3, "loss": "logistic"}, 1.5),
    "gd": (gaussian(100) | {"slope": 0.3, "loss": "exponential"}, 3.0),
    "squared": (gaussian(101) | {"slope": 0, "loss": "squared"}, 2.0),
    "linear": (gaussian(102) | {"feedback": [1, -1], "slope": 1, "loss": "exponential"}, 1.0),
    "slide": (SLIDE | {"feedback": [1], "slope": Fraction(3, 10), "loss": "exponential"}, 5.0),
    "two slides": (
        SLIDE
        | {"hidden": [[0, Fraction(1, 2)], [0, 1]], "output": [Fraction(1, 4)] * 2}
        | {"feedback": [1, Fraction(1, 2)], "slope": Fraction(3, 10), "loss": "exponential"},
        5.0,
    ),
    "twins": (
        {
            "inputs": [[1, 0], [Fraction(3, 5), Fraction(6, 5)]],
            "labels": [1, 1],
            "hidden": [[Fraction(-1, 2), Fraction(3, 10)], [Fraction(-1, 4), Fraction(3, 20)], [-1, Fraction(1, 4)]],
            "output": [Fraction(1, 2), Fraction(1, 4), Fraction(3, 4)],
        }
        | {"feedback": [1, Fraction(1, 2), 1], "slope": Fraction(3, 10), "loss": "exponential"},
        4.0,
    ),
    "two signs": (
        {"inputs": [[1, 0], [Fraction(3, 5), Fraction(6, 5)]], "labels": [-1, -1]}
        | {"hidden": [[Fraction(1, 2), Fraction(3, 10)]] * 2, "output": [Fraction(1, 50), Fraction(1, 2)]}
        | {"scale": Fraction(1, 2), "slope": Fraction(3, 10), "loss": "exponential"},
        3.0,
    ),
    "near": (
        {"inputs": [[1, 0], [Fraction(-3, 5), Fraction(6, 5)]], "labels": [1, 1], "hidden": [[Fraction(1, 2**150), 1]]}
        | {"output": [Fraction(1, 2)], "feedback": [1], "slope": Fraction(3, 10), "loss": "exponential"},
        0.05,
    ),
    "exact": (
        {"inputs": [[1.0, 2.0]], "labels": [1], "hidden": [[0.6, 0.2]], "output": [0.3]}
        | {"feedback": [1], "slope": 0.3, "loss": "exponential"},
        2.0,
    ),
    "equal": (
        {
            "inputs": [[1, 0], [1, 0], [-2, 0], [1, 1]],
            "labels": [1, 1, -1, 1],
            "hidden": [[1, -0.5]] * 2,
            "output": [0.5] * 2,
        }
        | {"feedback": [1, 1], "slope": 0.25, "loss": "exponential"},
        4.0,
    ),
}

CLAIMS = {
    "fa": [
        Claim("dominance"),
        Claim("risk", lower=Fraction(1, 10), upper=Fraction(9, 10), time=4.0),
        Claim("descent", lower=Fraction(-1)),
        Claim("alignment", lower=Fraction(-3, 5), upper=Fraction(-2, 5), time=1),
        Claim("gap", neuron=1, lower=Fraction(-33245, 100000)),
        Claim("gap", neuron=1, lower=Fraction(33235, 100000), negated=True),
    ],
    "exact": [
        Claim("sign", lower=Fraction(1, 4)),
        Claim("alignment", lower=Fraction(99, 100)),
        Claim("dominance", lower=Fraction(1, 2), alpha=1),
    ],
}


@lru_cache
def enclosed(name: str) -> Enclosure:
    given, t_final = RUNS[name]
    return enclose_problem(exact_problem(**given), t_final, bits=96)


@lru_cache
def _made(name: str) -> dict[str, Any]:
    claims = CLAIMS.get(name, [])
    return certificate(enclosed(name), [c if c.lower is not None else infimum_claim(enclosed(name), c) for c in claims])


def certified(name: str) -> dict[str, Any]:
    """A copy of the certificate of a run."""
    return deepcopy(_made(name))
