"""The map of packages on the page for contributors, drawn from the imports that grimp finds."""

from __future__ import annotations

import io
from pathlib import Path

import grimp
import igraph
import networkx as nx
from matplotlib import rc_context
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]

FACE = "flowsim"
PACKAGES = (FACE, "theorems", "figures")
COLOURS = {"flowsim": "#dce9f7", "theorems": "#fbe3cf", "figures": "#dff2df"}
WIDE, HIGH = 1.12, 0.62
"""Inches of a place in a row, and from row to row."""


def find_imports() -> nx.DiGraph:
    """Who imports whom: modules and packages right under `flowsim` and `figures`; `theorems` is one place.

    What only type checkers read is left out, but for the names that `flowsim` itself loads when they are asked for. Who
    stands within it asks it for nothing but its version, which is left out as well; so are entries (`__main__`).
    """
    found = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    imports = nx.DiGraph()
    for module in found.modules:
        for imported in found.find_modules_directly_imported_by(module):
            imports.add_edge(room(module), room(imported))
    within = [(name, FACE) for name in imports if name.startswith(f"{FACE}.")]
    imports.remove_edges_from([*nx.selfloop_edges(imports), *within])
    imports.remove_nodes_from([name for name in imports if name.endswith("__main__")])
    named = grimp.build_graph(FACE).find_modules_directly_imported_by(FACE)
    imports.add_edges_from((FACE, room(module)) for module in named)
    return imports


def room(module: str) -> str:
    """Where a module is on the map.

    >>> room("flowsim.plot.curves"), room("theorems.rigorous.cases"), room("figures.signs")
    ('flowsim.plot', 'theorems', 'figures')
    """
    package, *inner = module.split(".")
    if package == "theorems" or (package == "figures" and len(inner) < 2):
        return package
    return ".".join([package, *inner[:1]])


def find_rows(imports: nx.DiGraph) -> list[list[str]]:
    """The places of the map from top to bottom: everything above all that it imports, in as few rows as possible.

    Within a row the order is that in which few lines cross, by igraph's layout of Sugiyama.

    Raises:
        networkx.NetworkXUnfeasible: if imports run in a circle.
    """
    rows = [sorted(row) for row in nx.topological_generations(imports)]
    names = [name for row in rows for name in row]
    graph = igraph.Graph(
        len(names), [(names.index(one), names.index(other)) for one, other in imports.edges], directed=True
    )
    layers = [number for number, row in enumerate(rows) for _ in row]
    across = dict(zip(names, (x for x, _ in graph.layout_sugiyama(layers=layers, maxiter=1000).coords), strict=False))
    return [sorted(row, key=across.__getitem__) for row in rows]


def draw_map() -> bytes:
    """The map, as SVG: a line for every import that no path of other imports stands for, folders in bold."""
    imports = nx.transitive_reduction(find_imports())
    rows = find_rows(imports)
    widest = max(map(len, rows))
    place = {
        name: (WIDE * (column + 0.5 + (widest - len(row)) / 2), -HIGH * number)
        for number, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "map", "font.family": "sans-serif"}):
        figure = Figure((WIDE * widest, HIGH * len(rows)))
        axes = figure.add_axes((0, 0, 1, 1), frameon=False)
        axes.set(xlim=(0, WIDE * widest), ylim=(-HIGH * (len(rows) - 0.5), HIGH / 2))
        axes.set_axis_off()
        for one, other in imports.edges:
            (x, y), (x_below, y_below) = place[one], place[other]
            axes.plot([x, x_below], [y - 0.1, y_below + 0.1], color="0.65", linewidth=0.8, zorder=1)
        for name, (x, y) in place.items():
            package, _, inner = name.partition(".")
            weight = "bold" if (ROOT / name.replace(".", "/")).is_dir() else "normal"
            label = "import flowsim" if name == FACE else inner or package
            axes.text(
                x, y, label, ha="center", va="center", fontsize=9, weight=weight, zorder=2, gid=name,
                bbox={"boxstyle": "round", "facecolor": COLOURS[package], "edgecolor": "0.3", "linewidth": 0.8},
            )  # fmt: skip
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
