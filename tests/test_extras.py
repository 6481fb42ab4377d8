"""What an extra brings is loaded by those who use it only, and where it is missing one line says what to install."""

import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
from flowsim.extras import needed

ROOT = Path(__file__).parent.parent
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
IMPORTED_AS = {"python-flint": "flint", "scikit-learn": "sklearn"}
OWN = "flowsim["


def packages(extra: str) -> set[str]:
    """Names to import, of all that an extra brings."""
    found = set()
    for requirement in EXTRAS[extra]:
        if requirement.startswith(OWN):
            for other in requirement.removeprefix(OWN).removesuffix("]").split(","):
                found |= packages(other)
        else:
            name = requirement.split(">")[0]
            found.add(IMPORTED_AS.get(name, name))
    return found


SCRIPT = """
import sys, flowsim, flowsim.executor
assert not {"torch", "numpy"} & sys.modules.keys()
assert set(flowsim.__all__) <= set(dir(flowsim))
import flowsim.solving
assert flowsim.solve is flowsim.solving.solve and callable(flowsim.solve)
for name in flowsim.__all__:
    assert getattr(flowsim, name) is not None, name
assert "scipy.optimize" not in sys.modules
assert flowsim.losses.named("logistic").name == "logistic"
assert not hasattr(flowsim, "nothing")
print(*{name.split(".")[0] for name in sys.modules})

optional = sys.argv[1:]
sys.modules.update(dict.fromkeys(optional))
import torch, flowsim.modules
from flowsim import Dataset, FeedbackAlignment, Flow, Weights, load, solve
flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
for method in ("event", "dopri5"):
    solution = solve(flow, Weights(torch.ones(1, 1), torch.tensor([0.5])), 1.0, method=method, progress=True)
    solution.save("run.npz")
    print(torch.equal(load("run.npz").evaluate(1.0).hidden, solution.evaluate(1.0).hidden))
for name in optional:
    del sys.modules[name]

import figures.command
print(*{name.split(".")[0] for name in sys.modules})

import runpy
for module, package in [("theorems", "rich"), ("theorems", "jinja2"), ("figures", "rich"), ("figures", "matplotlib")]:
    for name in list(sys.modules):
        if name.split(".")[0] in (package, "theorems", "figures"):
            del sys.modules[name]
    sys.modules[package], sys.argv = None, [module, "--version"]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as leaving:
        print(leaving.code, module, package)
    del sys.modules[package]
"""
"""A process that loads more and more, as each takes seconds to start; in the second part there is nothing optional."""


@functools.cache
def said(folder: Path) -> tuple[list[list[str]], str]:
    """The words of each line of the script's output, and what stands on stderr."""
    command = [sys.executable, "-c", SCRIPT, *packages("all")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return [line.split() for line in found.stdout.splitlines()], found.stderr


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[str]], str]:
    return said(tmp_path_factory.getbasetemp())


def test_flowsim_loads_what_is_asked_for_and_nothing_of_an_extra_and_figures_nothing_of_experiments(
    script: tuple[list[list[str]], str],
) -> None:
    (by_flowsim, _, _, by_figures, *_), _ = script
    optional = packages("all")
    assert {"matplotlib", "rich", "jinja2", "latex2mathml", "pandas", "pyarrow", "dask", "xarray", "flint"} <= optional
    assert optional & set(by_flowsim) == set()
    assert {"pandas", "mlxtend", "sklearn"} & set(by_figures) == set()


def test_solving_and_saving_need_nothing_of_an_extra(script: tuple[list[list[str]], str]) -> None:
    assert script[0][1:3] == [["True"], ["True"]]


def test_all_that_users_may_want_is_in_all_and_tests_have_it() -> None:
    theirs = {name for name in EXTRAS if name not in ("all", "test", "bench", "docs", "dev")}
    assert packages("all") == set().union(*(packages(name) for name in theirs))
    assert packages("all") < packages("test")


@pytest.mark.parametrize(("extra", "package"), [("tables", "pandas"), ("xarray", "xarray"), ("rigorous", "flint")])
def test_without_an_extra_one_line_says_what_to_install(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    weights = Weights(torch.ones(1, 1), torch.tensor([0.5]))
    solution = solve(flow, weights, 0.1)
    calls = {
        "tables": solution.events.to_dataframe,
        "xarray": lambda: solution.to_xarray([0.0]),
        "rigorous": lambda: __import__("flowsim").enclose(flow, weights, 0.1),
    }
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs .*: pip install .\.\[{extra}\].$") as caught:
        calls[extra]()
    assert "\n" not in str(caught.value)


def test_without_an_extra_a_command_says_so_in_one_line(script: tuple[list[list[str]], str]) -> None:
    lines, errors = script
    asked = lines[-4:]
    assert [status for status, *_ in asked] == ["2"] * 4
    assert errors == "".join(f"error: {module} needs {package}: pip install '.[all]'\n" for _, module, package in asked)


def test_a_mistake_of_another_kind_is_left_as_it_is() -> None:
    with pytest.raises(ImportError, match=r"^cannot be loaded$"), needed("this", "check"):
        raise ImportError("cannot be loaded")
