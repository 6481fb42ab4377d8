"""Verdicts that are proved: the statements of the paper on runs enclosed in ball arithmetic (README.md, section 12).

    decimals    ends of intervals as decimal strings, rounded outwards
    instance    a problem in rational numbers, and the constants of the statements, exactly
    claims      what a statement assumes and claims, and how inequalities are decided
    equality    how equalities are
    statement   statements, cases, verdicts
    ensembles   instances
    constants, alignment  what statements share
    equation_1 .. proposition_5_7  the statements, under the names of the modules that measure them
    own_data    a problem of your own
    certificates  what the verdicts on a problem of your own rest on, to be checked again
    report      tables, versions

Importing this package does not import python-flint; its modules need it.
"""
