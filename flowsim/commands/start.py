"""Options for data and start that commands share."""

from __future__ import annotations

import argparse

from flowsim.problems import GAP, INITS, SCALE, Init
from flowsim.validation import require_count, require_finite, require_positive, require_seed


def add_label(parser: argparse.ArgumentParser) -> None:
    """Let a command take the column of labels, and inputs of columns that are alike."""
    parser.add_argument("--label", metavar="COLUMN", help="column of a table that holds the labels (default label)")
    parser.add_argument(
        "--standardize", action="store_true", help="shift and scale each column of the inputs to mean 0 and variance 1"
    )


def add_init(parser: argparse.ArgumentParser) -> None:
    """Let a command take weights that are made up."""
    made = parser.add_argument_group(
        "weights that are made up, for a file without them",
        "gaussian: all of them Gaussian of variance scale^2 / fan-in, the feedback of fa alike. gaps: hidden weights "
        "likewise, output weights of random signs such that every conserved c_j is the gap, the feedback of fa these "
        "signs; for one hidden layer and labels of two values.",
    )
    made.add_argument("--init", choices=INITS, help="how they are made up")
    sizes = made.add_mutually_exclusive_group()
    sizes.add_argument("--width", type=int, metavar="M", help="neurons of the hidden layer")
    sizes.add_argument("--widths", metavar="M,M,..", help="neurons of each hidden layer, from the first one on")
    made.add_argument("--seed", type=int, metavar="S", help="of all that is random (default 0)")
    made.add_argument("--scale", type=float, metavar="X", help=f"of the Gaussian weights (default {SCALE:g})")
    made.add_argument("--gap", type=float, metavar="C", help=f"of the neurons, with --init gaps (default {GAP:g})")


def init_of(options: argparse.Namespace) -> Init | None:
    """How weights are made up; None if they are not.

    Raises:
        ValueError: naming the option that is wrong, or does not go with the others.
    """
    made = {name: getattr(options, name) for name in ("width", "widths", "seed", "scale", "gap")}
    given = [name for name, value in made.items() if value is not None]
    if options.init is None:
        if given:
            raise ValueError(
                f"--{given[0]} goes with --init {' or --init '.join(INITS)}, got {made[given[0]]} without it"
            )
        return None
    if options.init != "gaps" and made["gap"] is not None:
        raise ValueError(f"--gap goes with --init gaps, got {made['gap']} with --init {options.init}")
    return Init(
        options.init,
        _widths(made["width"], made["widths"]),
        require_seed(made["seed"] or 0, "--seed"),
        SCALE if made["scale"] is None else require_positive("--scale", made["scale"]),
        GAP if made["gap"] is None else require_finite("--gap", made["gap"]),
    )


def _widths(one: int | None, several: str | None) -> tuple[int, ...]:
    if one is not None:
        return (require_count("--width", one),)
    if several is None:
        raise ValueError("--init needs --width M, or --widths M,M,.. for several hidden layers")
    try:
        widths = [int(width) for width in several.split(",")]
    except ValueError:
        raise ValueError(f"--widths must be integers with commas between them, got {several!r}") from None
    return tuple(require_count("--widths", width) for width in widths)
