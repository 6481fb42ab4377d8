"""The command `flowsim draw`, as `python -m figures`."""

from flowsim.commands import run_package

if __name__ == "__main__":
    run_package("figures")
