"""Types, checked at run time: examples of flowsim and theorems run with the shapes that are written beside them."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import flowsim
import theorems

ROOT = Path(__file__).parents[1]
COMPILED = "flowsim.integrators.event.compiled"
"""By numba, which has types of its own."""

CONTROL = '''"""
>>> import torch
>>> from flowsim.scaling import scaled_rows
>>> scaled_rows(torch.ones(3))  # doctest: +IGNORE_EXCEPTION_DETAIL
Traceback (most recent call last):
jaxtyping.TypeCheckError: it wants *batch x n x d

>>> from theorems.polynomial import lower_bound
>>> lower_bound(torch.ones(16))  # doctest: +IGNORE_EXCEPTION_DETAIL
Traceback (most recent call last):
jaxtyping.TypeCheckError: it wants nodes x columns
"""'''


def test_examples_have_the_types_and_shapes_that_are_written_there(tmp_path: Path) -> None:
    """In a process of its own, where modules are imported with their types checked, and wrong shapes are refused."""
    control = tmp_path / "control.py"
    control.write_text(CONTROL)
    checked = f"--jaxtyping-packages={','.join([*modules_of(flowsim), *modules_of(theorems)])},typed.check"
    path = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            *[sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "jaxtyping", checked],
            *["flowsim", "theorems", str(control)],
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def modules_of(package: ModuleType) -> list[str]:
    """Those that are not compiled, nor packages that hold some which are."""

    def refuse(name: str) -> None:
        raise ImportError(name)

    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=refuse)
    names = [module.name for module in found]
    return [name for name in names if not f"{COMPILED}.".startswith(f"{name}.") and not name.startswith(COMPILED)]
