"""The command `flowsim`, as `python -m flowsim`."""

from flowsim.commands import run

if __name__ == "__main__":
    run()
