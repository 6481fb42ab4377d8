"""Solve the flow of a learning rule on a data set of your own, and write the run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flowsim
from flowsim.commands.start import add_init, add_label, init_of
from flowsim.errors import IntegrationError
from flowsim.files import require_distinct, require_writable, whole
from flowsim.flow import SLOPE
from flowsim.losses import LOSSES, Loss, polynomial
from flowsim.problems import RULES, Problem, made_up, problem, read_source, slope_of
from flowsim.runs import observe, write_run
from flowsim.shell import INTERRUPTED, Attempts, CommandLine, add_version, complain, say
from flowsim.solution import Solution
from flowsim.solving import INTEGRATORS, solve
from flowsim.validation import device_of, require_count, require_positive

FILES = """\
FILE has the data:
  .npz            inputs (n, d), labels (n) in {-1, +1}, or classes = k and labels 0 .. k-1
                  and maybe the weights hidden (m, d), output (m), and for fa feedback (m); slope
  .csv, .parquet  a header, a column of labels, all other columns the inputs; of two labels the
                  smaller one, or the first in the alphabet, becomes -1, more of them are classes

RUN.npz gets, at T times:
  times (T), loss (T), hidden (T, m, d), output (T, m), conserved (T, m), alignment (T);
  with several hidden layers layers[0], layers[1], .. and conserved[0], .. in their place
and of E events:
  event_times, event_kinds, event_layers, event_samples, event_neurons
beside the settings, and the solution itself, which flowsim.load reads.

example:
  flowsim simulate mine.csv --label species --init gaps --width 16 --rule fa --t-final 100 \\
      --plot run.png --output run.npz"""

RUN = ".npz"
"""How a run's file ends, if its name has an ending."""

PLOTS = (".png", ".pdf", ".svg")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = CommandLine(
        prog="flowsim simulate",
        description=__doc__,
        epilog=FILES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(main)
    main.add_argument("file", metavar="FILE", help="data, .npz, .csv or .parquet, see below")
    add_label(main)
    main.add_argument("--rule", choices=RULES, required=True, help="that the weights learn by")
    main.add_argument(
        "--loss", metavar="NAME",
        help=f"{', '.join(LOSSES)}, or polynomial:P for (1 + u)^-P (default exponential; cross-entropy for classes)",
    )  # fmt: skip
    main.add_argument("--slope", type=float, metavar="G", help=f"of the leaky ReLU (default the file's, or {SLOPE})")
    main.add_argument("--t-final", type=float, required=True, metavar="T", help="end of time")
    main.add_argument("--times", type=int, default=200, metavar="N", help="number of times reported (default 200)")
    main.add_argument("--method", choices=INTEGRATORS, default="event", help="default event")
    main.add_argument("--rtol", type=float, default=1e-10, metavar="X", help="of each step, relative (default 1e-10)")
    main.add_argument("--atol", type=float, default=1e-12, metavar="X", help="of each step, absolute (default 1e-12)")
    main.add_argument("--max-steps", type=int, default=100_000, metavar="N", help="allowed (default 100000)")
    main.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    main.add_argument("--plot", metavar="FILE", help="draw the run, too: .png, .pdf or .svg")
    main.add_argument("--output", required=True, metavar="RUN.npz", help="what the run is written to, see below")
    add_init(main)
    return main


def loss_of(name: str | None, classes: int | None) -> str | Loss:
    """The loss of a name, or the one that fits the labels.

    Raises:
        ValueError: if there is no such loss.

    >>> loss_of(None, None), loss_of("polynomial:2", None).name
    ('exponential', 'polynomial(2)')
    """
    if name is None:
        return "exponential" if classes is None else "cross-entropy"
    kind, _, power = name.partition(":")
    if kind == "polynomial":
        try:
            return polynomial(float(power))
        except ValueError:
            raise ValueError(f"--loss polynomial:P must have a number P above 0, got {name!r}") from None
    if name not in LOSSES:
        raise ValueError(f"--loss must be one of {', '.join(LOSSES)} or polynomial:P, got {name!r}")
    return name


def read_problem(options: argparse.Namespace) -> tuple[Problem, list[str]]:
    """What to solve, read once all options are known to be right, and what is said of it.

    Raises:
        ValueError: naming the option, the file or the array that is wrong.
        ImportError: naming the package that is missing.
    """
    for option in ("t_final", "rtol", "atol"):
        require_positive(f"--{option.replace('_', '-')}", getattr(options, option))
    if options.slope is not None and not 0 <= options.slope <= 1:
        raise ValueError(f"--slope must lie in [0, 1], got {options.slope:g}")
    require_count("--times", options.times, least=2)
    require_count("--max-steps", options.max_steps)
    init, device = init_of(options), device_of(options.device)
    if options.plot is not None:
        require_plot(options.plot)
    if Path(options.output).suffix not in ("", RUN):
        raise ValueError(f"--output must end in {RUN}, got {options.output!r}")
    outputs = {"--output": options.output, "--plot": options.plot}
    for option, path in outputs.items():
        require_writable(option, path)
    require_distinct(outputs, {"FILE": options.file})
    source = read_source(options.file, options.label, device, standardize=options.standardize)
    loss = loss_of(options.loss, source.dataset.classes)
    start = "" if init is None else made_up(init, options.rule)
    said = [line for line in (source.said, start) if line]
    slope = slope_of(source) if options.slope is None else options.slope
    return problem(source, options.rule, loss, slope, init), said


def require_plot(path: str) -> None:
    """Check that a plot can be drawn, and to such a file.

    Raises:
        ValueError: if the file has another ending.
        ImportError: if matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in PLOTS:
        raise ValueError(f"--plot must end in {', '.join(PLOTS)}, got {path!r}")
    from flowsim import plot  # noqa: F401, PLC0415, optional


def draw(solution: Solution, path: str) -> None:
    """Write a page of plots of a run."""
    from flowsim import plot  # noqa: PLC0415, optional

    figure = plot.overview(solution)
    with whole(path) as partial:
        figure.savefig(partial, format=Path(path).suffix.lower().removeprefix("."))


def described(path: str, solution: Solution, run: dict[str, Any]) -> str:
    """A run in one line."""
    changes = [abs(c - c[0]).max() for key, c in run.items() if key.startswith("conserved")]
    return (
        f"{path}: t = {solution.t_final:g}, loss {run['loss'][0]:.6g} -> {run['loss'][-1]:.6g}, "
        f"largest change of a conserved quantity {max(changes):.1e}, "
        f"{len(run['event_times'])} events, {int(solution.statistics['steps'])} steps"
    )


def write(options: argparse.Namespace, said: list[str], solution: Solution) -> int:
    """Write the run and its plot, and say so; return the exit status."""
    run: dict[str, Any] = observe(solution, options.times)
    settings = {
        "rule": options.rule, "slope": solution.flow.slope, "loss_function": options.loss or solution.flow.loss,
        "t_final": options.t_final, "method": options.method, "version": flowsim.__version__,
        "start": said[-1] if options.init else "",
    }  # fmt: skip
    try:
        write_run(options.output, solution, {**run, **settings})
    except ValueError as error:
        complain(str(error))
        return 2
    failed, lines = Attempts(), [*said, described(options.output, solution, run)]
    if options.plot is not None:
        with failed.at(f"--plot {options.plot}"):
            draw(solution, options.plot)
            lines.append(f"{options.plot}: its plot")
    told = say("\n".join(lines))
    failed.report()
    return failed.status if told else 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    It is 0; 1 if the flow could not be solved; 2 for bad input, or an output that cannot be written; 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    try:
        (flow, weights), said = read_problem(options)
    except (ValueError, ImportError) as error:
        complain(str(error))
        return 2
    try:
        solution = solve(
            flow, weights, options.t_final, method=options.method, rtol=options.rtol, atol=options.atol,
            max_steps=options.max_steps, progress=True,
        )  # fmt: skip
    except IntegrationError as error:
        complain(f"{error}; nothing was written")
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    return write(options, said, solution)
