"""Certificates of one short step in modes that are given, whatever the truth is: all else in them is right."""

from typing import Any

from flint import arb

from flowsim.enclosure import checker
from flowsim.enclosure.certificate import _ball, _dyadic

BITS, ORDER, DISC, T_FINAL, ROUNDS = 64, 12, "1p-5", "1/64", 15


def forge(data: dict[str, Any], modes: list[str], signs: str) -> dict[str, Any]:
    """A certificate that says that a run goes on in these modes from its start to T_FINAL.

    Raises:
        checker.Rejected: if such modes are refused whatever the rest says.
    """
    with checker.digits(BITS):
        problem = checker.CertifiedProblem(data)
        weights = [entry for neuron in problem.neurons for entry in neuron.hidden]
        weights += [neuron.output for neuron in problem.neurons]
        record: dict[str, Any] = {
            "modes": modes, "signs": signs, "start": [_ball(arb(entry)) for entry in weights], "order": ORDER,
            "disc": DISC, "length": ["1p-1", "1p-1"], "event": None, "pieces": {}, "tails": ["0p0"] * len(weights),
        }  # fmt: skip
        step = checker.Step(problem, record)
        for _ in range(ROUNDS):
            step.expand([(tail * 1.01).upper() for tail in step.image()])
        record["tails"] = [_dyadic(one.tail) for one in step.weights]
    return {
        "format": checker.FORMAT, "bits": BITS, "data": data, "t_final": T_FINAL, "steps": [record], "claims": [],
    }  # fmt: skip


def problem_of(inputs: list[list[str]], labels: list[int], hidden: list[str], slope: str) -> dict[str, Any]:
    """One neuron with v(0) = 1/2 under FA with b = 1 and the exponential loss, as certificates have it."""
    return {
        "inputs": inputs, "labels": labels, "hidden": [hidden], "output": ["1/2"], "feedback": ["1"], "scale": None,
        "slope": slope, "loss": "exponential",
    }  # fmt: skip
