"""The statements of the paper as measurements: one module per statement, `python -m theorems` runs them all.

The paper: "Implicit Regularization in Feedback Alignment Learning Mechanisms for Neural Networks" (Zachary Robertson,
Sanmi Koyejo). The mathematics, in the project's own words: README.md beside this file.

Statements of the paper: equation_1 .. proposition_5_7. Beyond it: any_start, margin_growth, no_plateau, weight_decay,
discrete_signs, never_obtuse, linear_networks, kernel_regime, direct_feedback, implicit_bias, weight_sharing. Each has
hypotheses, claims, cases and controls. What they are made of, each of what stands above it:

    thresholds   what counts as zero, as equal, as decided
    polynomial   polynomials through the nodes of a piece of time, and their bounds
    pieces       pieces of time, and numbers on them along trajectories
    observation  a run at its nodes, with the mode of each piece
    integrals    of what is observed
    measurement  claims, and their margins over a whole run
    hypothesis   what a statement assumes, as a number; constants: those of the data and the start that it takes
    validity     what every statement assumes: that the run is a solution of its flow
    check        statements, cases, verdicts; one_claim: cases on what are no ensembles of runs
    ensembles    the runs that cases are on; controls: a run in two parts

and are checked by

    cases        all cases, in several processes; guarded: what stands where one fails
    findings     conclusions that survive a broken hypothesis
    own_data     the statements on a problem of your own
    search       for counterexamples: targets, the instances that points of a cube are, descents
    rigorous     the statements proved, in ball arithmetic
    command      flowsim check: options, outcome, tables for the terminal, report and pictures for JSON and HTML
"""
