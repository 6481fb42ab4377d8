"""The largest problems that end in ten minutes: `python tests/benchmarks --largest`, half an hour.

Two separable trajectories on two cores, with n = 20 and twice as many neurons in every run, or m = 50 and twice as many
samples, until one does not end, for want of time or memory. Writes largest.json beside this file.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from measure import make, solve_ours
from problems import SETTINGS, by_size

from flowsim.files import whole

SECONDS = 600.0
CORES = 2
RTOL = 1e-8
FROM = {"m": (20, 400), "n": (160, 50)}
FILE = Path(__file__).with_name("largest.json")


def find_largest(growing: str, seconds: float = SECONDS) -> list[dict[str, float]]:
    """The runs that ended: n, m, and how long it took."""
    (samples, width), found = FROM[growing], []
    while True:
        command = [sys.executable, __file__, str(samples), str(width)]
        started = time.perf_counter()
        try:
            ended = subprocess.run(command, timeout=seconds, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            ended = False
        if not ended:
            return found
        found.append({"n": samples, "m": width, "seconds": time.perf_counter() - started})
        print(found[-1], file=sys.stderr)
        samples, width = (samples, 2 * width) if growing == "m" else (2 * samples, width)


def run(samples: int, width: int) -> None:
    """One problem, to its end, in four fifths of the memory that is free."""
    memory = int(0.8 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    name, setting = by_size(samples, width)
    SETTINGS[name] = setting
    make(name, CORES)
    solve_ours(name, CORES, RTOL, threads=CORES)


def write_largest(seconds: float = SECONDS) -> None:
    """Find them, and write them."""
    found = {growing: find_largest(growing, seconds) for growing in FROM}
    with whole(FILE) as partial:
        partial.write_text(json.dumps({"seconds": seconds, "cores": CORES, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(*map(int, sys.argv[1:]))
