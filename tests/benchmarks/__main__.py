"""Benchmarks against other solvers; needs the extra `bench`: `python tests/benchmarks [--quick]`, that in 22 minutes.

Everything runs with one thread. Libraries read from the environment how many they may use when they are imported, so
that what measures is a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ENVIRONMENT = {
    **dict.fromkeys(THREADS, "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE))),
}

if __name__ == "__main__":
    command = [sys.executable, str(HERE / "run.py"), *sys.argv[1:]]
    sys.exit(subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=False).returncode)
