"""Types, checked at run time: all examples of docstrings run with the shapes that are written beside them."""

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
"""'''


def test_examples_of_all_docstrings_have_the_types_and_shapes_that_are_written_there(tmp_path: Path) -> None:
    """In a process of its own: modules are imported with their types checked."""
    control = tmp_path / "control.py"
    control.write_text(CONTROL)
    checked = f"--jaxtyping-packages={','.join([*modules_of(flowsim), *modules_of(theorems)])},typed.check"
    done = subprocess.run(
        [
            *[sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "jaxtyping", checked],
            *["flowsim", "theorems", str(control)],
        ],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def modules_of(package: ModuleType) -> list[str]:
    """Those that are not compiled, nor packages that hold some which are."""
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in names if not f"{COMPILED}.".startswith(f"{name}.") and not name.startswith(COMPILED)]
