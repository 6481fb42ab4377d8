"""What says the same in several places: the version, the versions of Python, and what is installed."""

import re
import tomllib
from pathlib import Path

import flowsim

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


def test_the_citation_is_of_this_version_its_authors_and_licence() -> None:
    said = dict(re.findall(r"^(version|license): (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert said == {"version": flowsim.__version__, "license": PROJECT["license"]}
    (author,) = PROJECT["authors"]
    assert f"\n  - name: {author['name']}\n" in (ROOT / "CITATION.cff").read_text()
    assert author["name"] in (ROOT / "LICENSE").read_text()


def test_the_workflow_runs_on_the_versions_of_python_that_the_package_names() -> None:
    (matrix,) = re.findall(r"python-version: \[(.*)\]", (ROOT / ".github/workflows/tests.yml").read_text())
    assert matrix == ", ".join(f'"{version}"' for version in PYTHONS)
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_every_dependency_has_a_lowest_version() -> None:
    extras = PROJECT["optional-dependencies"].values()
    requirements = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    assert [line for line in requirements if ">=" not in line and not line.startswith("flowsim[")] == []
