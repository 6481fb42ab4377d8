"""The command `flowsim check`, as `python -m theorems`."""

from flowsim.commands import run_package

if __name__ == "__main__":
    run_package("theorems")
