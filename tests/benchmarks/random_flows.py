"""Thousands of random small flows, each solved at two tolerances: how they end, and those that disagree most.

PYTHONPATH=.:tests python tests/benchmarks/random_flows.py [count] [first seed]
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter

import torch
from conformance.random_flows import Verdict, judge, random_flow


def look_at(seed: int) -> Verdict:
    try:
        return judge(*random_flow(seed))
    except ValueError as error:
        return Verdict(f"refused: {error}", 0.0, 0.0, True, [])
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Verdict("error", 0.0, 0.0, True, [f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"])


def main(count: int = 10_000, first: int = 0) -> None:
    torch.set_num_threads(1)
    endings: Counter[str] = Counter()
    doubtful: list[tuple[float, int, str]] = []
    for seed in range(first, first + count):
        started = time.perf_counter()
        verdict = look_at(seed)
        took = time.perf_counter() - started
        endings[verdict.ending.split(":")[0]] += 1
        if verdict.faults or not verdict.converges or took > 20:
            doubtful.append((verdict.difference, seed, "; ".join(verdict.faults) or f"took {took:.1f} s" * (took > 20)))
            print(
                f"seed {seed}: {verdict.ending}; difference {verdict.difference:.2g} {verdict.faults} {took:.1f} s",
                flush=True,
            )
    print(f"{count} flows")
    for ending, number in endings.most_common():
        print(f"{number:6d} {ending}")
    print(f"{len(doubtful)} doubtful; the largest differences:")
    for difference, seed, faults in sorted(doubtful, reverse=True)[:30]:
        print(f"{difference:10.2g} seed {seed} {faults}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
