"""The map of packages on the page for contributors: it matches the imports, and no import runs back."""

import ast
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pytest

packages = pytest.importorskip("packages", reason="the site's tools are not installed")

ROOT = Path(__file__).resolve().parents[1]
IN_ORDER = ["weights", "rules", "flow", "integrators", "solution", "solving", "plot", "commands"]
"""Where data flow, from the first to the last, within flowsim."""


@pytest.fixture(scope="module")
def drawn() -> nx.DiGraph:
    return nx.freeze(packages.find_imports())


def read_imports(path: Path) -> Iterator[str]:
    """What a file of the project imports of it when it runs, wherever in the file, by its syntax alone."""
    tree = ast.parse(path.read_text())
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in guarded:
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom) and node not in guarded:
            assert node.module and not node.level
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                place = ROOT / inner.replace(".", "/")
                yield inner if place.is_dir() or place.with_suffix(".py").exists() else node.module


def test_the_map_has_the_imports_of_the_code(drawn: nx.DiGraph) -> None:
    """By reading the files, without the tool that the map is drawn with."""
    found = set()
    for package in packages.PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.name in ("__main__.py",) or path == ROOT / "flowsim/__init__.py":
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            importer = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for imported in read_imports(path):
                if imported.split(".")[0] in packages.PACKAGES:
                    found.add((packages.room(importer), packages.room(imported)))
    found = {(one, other) for one, other in found if one != other}
    within = {one for one, other in found if other == "flowsim" and one.startswith("flowsim.")}
    assert within <= {"flowsim.shell", "flowsim.commands", "flowsim.sweeps"}, "they ask for its version"
    assert {edge for edge in drawn.edges if edge[0] != "flowsim"} == {
        (one, other) for one, other in found if not (other == "flowsim" and one in within)
    }
    import flowsim  # noqa: PLC0415

    assert {other for one, other in drawn.edges if one == "flowsim"} == {
        packages.room(f"flowsim.{home}") for home in (*flowsim.HOMES.values(), "data")
    }


def test_data_flow_one_way(drawn: nx.DiGraph) -> None:
    assert nx.is_directed_acyclic_graph(drawn)
    for below, above in pairwise([*(f"flowsim.{name}" for name in IN_ORDER), "theorems", "figures"]):
        assert nx.has_path(drawn, above, below), f"{above} stands on {below}"
    circle = nx.DiGraph([*drawn.edges, ("flowsim.flow", "flowsim.solving")])
    with pytest.raises(nx.NetworkXUnfeasible):
        packages.find_rows(circle)


def test_everything_stands_above_what_it_imports_and_is_drawn_once(drawn: nx.DiGraph) -> None:
    row = {name: number for number, names in enumerate(packages.find_rows(drawn)) for name in names}
    assert all(row[one] < row[other] for one, other in drawn.edges)
    named = [element.get("id", "") for element in ET.fromstring(packages.draw_map()).iter()]
    assert sorted(name for name in named if name in row) == sorted(row)
