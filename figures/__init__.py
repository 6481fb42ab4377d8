"""Figures for papers, one module each, from runs of the library: `python -m figures`.

A module's docstring is its figure's title and caption. `measure` runs the library and returns what is plotted, `draw`
plots it in the shared style of `figures.style`.
"""
