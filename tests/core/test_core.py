"""The core's functions one by one: in a process of their own, in which numba compiles nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.codegen import CPUCodeLibrary

from flowsim.integrators.event.compiled import compiling

FOLDER = Path(__file__).parent


def test_the_functions_of_the_core_in_python() -> None:
    environment = {
        **os.environ,
        "NUMBA_DISABLE_JIT": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those that are installed take longer to import than all tests to run
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider",
         "--noconftest", str(FOLDER / "in_python.py")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_what_is_stored_is_named_by_every_file_of_the_core_and_by_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = Path(compiling.__file__).parent, tmp_path / "event" / "compiled"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source.parent / "tolerances.py", folder.parent)
    name = compiling._name(folder)
    assert name != compiling._name(source)  # numba would not find what it stored for another place
    files = [*folder.glob("*.py"), folder.parent / "tolerances.py"]
    assert len(files) > 10
    for file in files:
        text, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        file.write_bytes(text + b"#")
        os.utime(file, ns=times)
        assert compiling._name(folder) != name, file.name
        file.write_bytes(text)
        os.utime(file, ns=(times[0], times[1] + 1))
        assert compiling._name(folder) != name, file.name
        os.utime(file, ns=times)
        assert compiling._name(folder) == name, file.name
    for module in (numba, compiling.np):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "another")
            assert compiling._name(folder) != name


def test_other_functions_are_stored_where_numba_stores_them() -> None:
    assert str(numba.config.CACHE_DIR) != str(compiling.STORED)  # type: ignore[attr-defined]


def test_only_what_python_calls_is_optimized_and_everything_again_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    optimized = []
    monkeypatch.setattr(CPUCodeLibrary, "_optimize_final_module", lambda library: optimized.append(library.name))
    before = CPUCodeLibrary._optimize_final_module

    @numba.njit
    def below(x):
        return 2.0 * x

    @numba.njit
    def above(x):
        return 1.0 + below(x)

    monkeypatch.setattr(compiling, "ENTRIES", [above.py_func.__qualname__])
    with compiling._only_entries_optimized():
        assert above(3.0) == 7.0
    assert optimized == [above.py_func.__qualname__]
    assert CPUCodeLibrary._optimize_final_module is before


def note_process() -> None:
    """Stands for what compiles: says which process it is called in, and where it stores."""
    (compiling.STORED / "process").write_text(str(os.getpid()))


def test_another_process_compiles_once_and_this_one_loads_what_it_stored_as_all_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a process compiles and links itself has other bits, in the last place, than what is loaded.

    Another flowsim in the current directory is not the one that compiles: it would store elsewhere.
    """
    (tmp_path / "flowsim").mkdir()
    (tmp_path / "flowsim" / "__init__.py").write_text("raise ImportError('another flowsim')\n")
    monkeypatch.chdir(tmp_path)
    stored = tmp_path / compiling.STORED.name
    stored.mkdir()
    monkeypatch.setattr(compiling, "STORED", stored)
    compiling.compile_once(note_process)
    assert int((stored / "process").read_text()) != os.getpid()
    assert capfd.readouterr().err.startswith("flowsim: compiling")
    (stored / "process").unlink()
    compiling.compile_once(note_process)
    assert not (stored / "process").exists()
    assert capfd.readouterr().err == ""


def test_one_version_is_compiled_for_all_constants() -> None:
    @compiling.compiled
    def below(x, n):
        return x + n

    @numba.njit
    def above(n):
        return below(1.0, 0) + below(1.0, 1) + below(1.0, n)

    assert above(2) == 6.0
    assert len(below.signatures) == 1
