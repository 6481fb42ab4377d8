"""Simulate a problem of your own from the shell: `python -m flowsim simulate FILE.npz ... --output RUN.npz`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike, NDArray

import flowsim
from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    IntegrationError,
    SignFeedbackAlignment,
    Weights,
    solve,
)
from flowsim.files import PROBLEM_KEYS, read_npz, require_distinct, require_writable, write_npz
from flowsim.observables import conserved, network_alignment
from flowsim.rules import Rule
from flowsim.shell import add_version, complain, leave, say
from flowsim.solution import Solution
from flowsim.solve import INTEGRATORS
from flowsim.validation import as_finite, require_count, require_positive

FIRST = 1e-6
"""The first time after 0 that is reported, relative to t_final."""


SHAPES = {"inputs": "nd", "labels": "n", "hidden": "md", "output": "m", "feedback": "m"}
"""Dimensions of the arrays in a problem's file."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m flowsim", description="Simulate the flow of a learning rule.")
    add_version(main)
    commands = main.add_subparsers(required=True, metavar="simulate")
    simulate = commands.add_parser(
        "simulate",
        description="Simulate a two-layer network with scalar output from the initial weights in FILE.npz "
        "(keys inputs (n, d), labels (n) in {-1, +1}, hidden (m, d), output (m); for fa also feedback (m)).",
    )
    simulate.add_argument("file", metavar="FILE.npz")
    simulate.add_argument("--rule", choices=["fa", "sign-fa", "gd"], required=True)
    simulate.add_argument(
        "--slope", type=float, default=0.3, metavar="G", help="of the leaky ReLU, in [0, 1] (default 0.3)"
    )
    simulate.add_argument("--loss", choices=["exponential", "logistic", "squared"], default="exponential")
    simulate.add_argument("--t-final", type=float, required=True, metavar="T")
    simulate.add_argument("--times", type=int, default=200, metavar="N", help="number of times reported (default 200)")
    simulate.add_argument("--method", choices=INTEGRATORS, default="event")
    simulate.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    simulate.add_argument("--output", required=True, metavar="RUN.npz")
    return main


def read_problem(path: str, rule: str, loss: str, slope: float, device: str) -> tuple[Flow, Weights]:
    """Return flow and initial weights from an .npz file.

    Raises:
        ValueError: if the file cannot be read, lacks a key, or holds something that does not fit.
    """
    arrays = read_npz(path, (*PROBLEM_KEYS, "feedback") if rule == "fa" else PROBLEM_KEYS)

    def tensor(key: str) -> torch.Tensor:
        return as_finite(key, arrays[key]).to(device)

    inputs, labels = tensor("inputs"), tensor("labels")
    for key, shape in SHAPES.items():
        if key in arrays and arrays[key].ndim != len(shape):
            raise ValueError(f"{key} must have shape ({', '.join(shape)}), got {arrays[key].shape}")
    if rule == "fa":
        learning: Rule = FeedbackAlignment(tensor("feedback"))
    else:
        learning = GradientDescent() if rule == "gd" else SignFeedbackAlignment()
    weights = Weights(tensor("hidden"), tensor("output"))
    flow = Flow(Dataset(inputs, labels), learning, loss, slope)
    flow.require_fit(weights)
    return flow, weights


def observed(solution: Solution, times: int) -> dict[str, NDArray]:
    """The run as arrays: times (0, then logarithmically spaced up to t_final) and what is measured at them."""
    # from t_final downwards, so that t_final is there, exactly, for two times too
    positive = solution.t_final * torch.logspace(0, 1, times - 1, base=FIRST, dtype=torch.float64).flip(0)
    at = torch.cat([torch.zeros(1, dtype=torch.float64), positive])
    flow, weights = solution.flow, solution.evaluate(at)
    tensors = {
        "times": at,
        "loss": flow.risk(weights),
        "hidden": weights.layers[0],
        "output": weights.layers[1].squeeze(-2),
        "conserved": conserved(flow, weights)[0],
        "alignment": network_alignment(flow, weights),
        "event_times": solution.events.time,
    }
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def problem_of(options: argparse.Namespace) -> tuple[Flow, Weights]:
    """What to solve, read once all options are known to be right.

    Raises:
        ValueError: naming the option, the file or the array that is wrong.
    """
    require_positive("--t-final", options.t_final)
    require_count("--times", options.times, least=2)
    require_writable("--output", options.output)
    require_distinct({"--output": options.output}, {"FILE.npz": options.file})
    return read_problem(options.file, options.rule, options.loss, options.slope, device_of(options.device))


def simulated(options: argparse.Namespace, flow: Flow, weights: Weights) -> tuple[dict[str, ArrayLike], str]:
    """The arrays of the run, settings among them, and one line about it."""
    solution = solve(flow, weights, options.t_final, method=options.method, progress=True)
    run = observed(solution, options.times)
    settings = {
        "rule": options.rule,
        "slope": options.slope,
        "loss_function": options.loss,
        "t_final": options.t_final,
        "method": options.method,
        "version": flowsim.__version__,
    }
    line = (
        f"{options.output}: t = {solution.t_final:g}, loss {run['loss'][0]:.6g} -> {run['loss'][-1]:.6g}, "
        f"largest change of a conserved quantity {abs(run['conserved'] - run['conserved'][0]).max():.1e}, "
        f"{len(run['event_times'])} events, {int(solution.statistics['steps'])} steps"
    )
    return {**run, **settings}, line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    It is 0; 1 if the flow could not be solved; 2 for bad input, or an output that cannot be written.
    """
    options = parser().parse_args(arguments)
    try:
        problem = problem_of(options)
    except ValueError as error:
        complain(str(error))
        return 2
    try:
        run, line = simulated(options, *problem)
    except IntegrationError as error:
        complain(f"{error}; nothing was written")
        return 1
    try:
        write_npz(options.output, run)
    except ValueError as error:
        complain(str(error))
        return 2
    return 0 if say(line) else 2


def device_of(name: str) -> str:
    """Return the name of a device that works here.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} does not work here: {str(error).splitlines()[0]}") from None
    return name


if __name__ == "__main__":
    leave("simulate", main, "interrupted; nothing was written")
