"""Sweeps: all combinations of what a grid varies, solved on all cores or a cluster, as a table of observables.

A grid has a value, or a list of values, for each of these keys, and all combinations are solved:

    data          generators of `flowsim.data`, "orthogonally_separable" (with kappa; the default), "nearly_orthogonal"
                  (with rho) or "gaussian"; or files of data sets, as `flowsim.tables` reads them
    samples, dimension, kappa, rho      what generators need
    width         of the hidden layer, as 10, or of several, as [10, 10] in the list: [10, [10, 10]]
    rule          "gd", "fa" (the default), "adafa", "sign-fa"
    loss          "exponential" (the default), "logistic", "squared", "cross-entropy"
    slope         of the leaky ReLU (0.3)
    scale         of the initial weights, see `flowsim.initialization` (1)
    gap           that all conserved quantities have, if it is given; for one hidden layer, and not for adaFA
    seeds         so many, 0, 1, ... (1), or a list of them: of data, weights and feedback

and settings:

    t_final       the end of time
    times         at which there are rows: a list, or so many, 0 and others spaced logarithmically; without it there is
                  one row for each trajectory, at its end
    observables   see `flowsim.sweeps.columns` (loss)
    alpha         of the dominance ratio (1)
    label         the column of labels in files of data
    chunk         trajectories that are solved at once (64)

From here on what the extra `sweep` brings is needed.

    keys            what a grid has, read from a file or a dict
    grid            how it is divided into chunks
    trajectories    flow and initial weights of a trajectory
    columns         observables
    rows            a chunk as rows
    results         the folder
    sweeping        the sweep
    command         the command line
"""

from flowsim.extras import needed

with needed("flowsim.sweeps", "sweep"):
    from flowsim.sweeps.keys import read_grid
    from flowsim.sweeps.sweeping import sweep
    from flowsim.sweeps.trajectories import problem_of

__all__ = ["problem_of", "read_grid", "sweep"]
