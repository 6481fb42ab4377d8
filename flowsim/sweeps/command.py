"""Solve all combinations of what a grid varies, and write a table of what is observed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from flowsim.files import unwritten
from flowsim.shell import INTERRUPTED, CommandLine, complain, report, say
from flowsim.sweeps.keys import EXAMPLE, read_grid
from flowsim.sweeps.results import Results, open_results
from flowsim.sweeps.sweeping import Outcome, solve_missing
from flowsim.validation import require_count


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = CommandLine(prog="flowsim sweep", description=__doc__)
    main.add_argument("grid", metavar="GRID.toml", nargs="?", help="what is varied; --example prints one")
    main.add_argument(
        "--output", metavar="DIR", help="where the rows go, as parquet files; with those that are there it goes on"
    )
    main.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    main.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, to use its workers")
    main.add_argument("--example", action="store_true", help="print a grid, and exit")
    return main


def prepare(options: argparse.Namespace) -> Results:
    """The folder, and the grid whose rows go there.

    Raises:
        ValueError: naming the option or the key that is wrong.
    """
    for option, value in (("GRID.toml", options.grid), ("--output", options.output)):
        if value is None:
            raise ValueError(f"{option} must be given; flowsim sweep --example prints a grid")
    if options.workers is not None:
        require_count("--workers", options.workers)
        if options.scheduler is not None:
            raise ValueError(f"--workers does not go with --scheduler, which has its own, got {options.workers}")
    return open_results(options.output, read_grid(options.grid))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    It is 0 if all trajectories have been tried; 1 if some chunks failed, which the same command tries again, or the
    scheduler was lost; 2 for bad input, or rows that cannot be written; 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    if options.example:
        return 0 if say(EXAMPLE.rstrip()) else 2
    try:
        results = prepare(options)
        outcome = solve_missing(results, options.workers, options.scheduler, progress=True)
    except ValueError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain(f"interrupted; the same command goes on with what is in {options.output}")
        return INTERRUPTED
    except ConnectionError as error:
        complain(f"{error}; the same command goes on with what is in {options.output}")
        return 1
    except OSError as error:
        complain(f"{unwritten(options.output, error)}; the same command goes on with what is there")
        return 2
    for found in outcome.mistakes[:1]:
        report(found)
    return (1 if outcome.failed else 0) if say(summary(results, outcome)) else 2


def summary(results: Results, outcome: Outcome) -> str:
    """What there is now, and how trajectories ended, in one line."""
    new = sum(outcome.status.values())
    ends = [
        f"{count} {status}" + (f" (the first: {outcome.reasons[status]})" if status in outcome.reasons else "")
        for status, count in sorted(outcome.status.items())
    ]
    there = f"{results.folder}: {results.grid.trajectories} trajectories, {new} of them new"
    return f"{there}: {', '.join(ends)}" if new else there
