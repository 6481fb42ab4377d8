"""Certificates of all kinds of runs are verified, in a process of its own and by a file that stands alone."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from enclosure.certificates import CLAIMS, RUNS, certified, enclosed
from flowsim.enclosure import checker
from flowsim.enclosure.certificate import Claim, certificate, write_certificate
from flowsim.enclosure.points import risk
from flowsim.enclosure.roots import Unseparated


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_all_rules_and_losses_are_verified(name: str) -> None:
    lines = checker.verify(certified(name))
    assert len(lines) == 1 + len(CLAIMS.get(name, []))
    assert all(line.startswith("verified: ") for line in lines)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("fa", {"crossing", "sliding entry", "sliding exit"}),
        ("sign-fa", {"crossing", "sign change"}),
        ("gd", {"sliding entry"}),
        ("slide", {"sliding exit"}),
    ],
)
def test_the_runs_have_events_of_every_kind(name: str, kinds: set[str]) -> None:
    assert kinds <= {event.kind for event in enclosed(name).events}
    assert any(record["event"] for record in certified(name)["steps"])


def test_the_certificate_encloses_what_the_enclosure_does() -> None:
    """The balls at the starts of steps overlap, with the same weights in both."""
    for record, step in zip(certified("fa")["steps"], enclosed("fa").steps, strict=True):
        balls = [*(entry for row in step.state.hidden for entry in row), *step.state.output]
        with checker.digits(96):
            assert all(checker.ball(text).overlaps(ball) for text, ball in zip(record["start"], balls, strict=True))


def test_a_file_is_checked_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_certificate(enclosed("slide"), path, [Claim("sign", lower=Fraction(1, 10))])
    module = [sys.executable, "-m", "flowsim.enclosure.checker"]
    done = subprocess.run([*module, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "verified: sign, neuron 0 is at least 1/10 at all times"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "flowsim certificate 1", "bits": 64}'])
def test_other_files_are_rejected_in_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert checker.main(str(path)) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("rejected: ") and printed.count("\n") == 1


def test_the_checker_needs_flint_and_the_standard_library_only(tmp_path: Path) -> None:
    """Its file alone, in a process that sees nothing of flowsim."""
    alone, path = tmp_path / "checker.py", tmp_path / "run.json"
    alone.write_text(Path(checker.__file__).read_text())
    path.write_text(json.dumps(certified("slide")))
    code = "import sys, checker; sys.exit(checker.main('run.json') or 'flowsim' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    path.write_text(json.dumps(certified("slide") | {"t_final": "6"}))
    done = subprocess.run([sys.executable, alone, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "rejected: end: the steps do not reach t_final = 6\n")


def test_what_is_not_so_is_not_certified() -> None:
    with pytest.raises(Unseparated, match="sign"):
        certificate(enclosed("fa"), [Claim("dominance", lower=Fraction(0))])


def test_a_margin_below_floats_is_proved() -> None:
    """The infimum of the risk sits at the end, 1e-25 above the bound."""
    run = enclosed("exact")
    with checker.digits(run.bits):
        lowest = run.infimum(risk, digits=27).lower
        bound = Fraction(str(lowest.fmpq())) - Fraction(1, 10**25)
    assert len(checker.verify(certificate(run, [Claim("risk", lower=bound)]))) == 2
