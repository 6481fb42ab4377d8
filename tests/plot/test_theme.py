"""One style: it is left as it was found, and its serif letters exist."""

import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager, pyplot
from matplotlib.text import Text
from sample_problems import gaussian_data, separable

from flowsim import plot, solve
from flowsim.plot import theme


def test_style_is_left_as_it_was_found() -> None:
    before = dict(matplotlib.rcParams)
    with plot.style(serif=True):
        assert matplotlib.rcParams["font.size"] == 8
    assert dict(matplotlib.rcParams) == before


def test_serif_letters_are_computer_modern_and_pdfs_of_them_are_written_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with plot.style(serif=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = font_manager.findfont(font_manager.FontProperties(family=["cmr10"]))
        assert found.endswith("cmr10.ttf")
        plot.overview(solve(*separable(1), 10.0)).savefig(tmp_path / "run.pdf")
    assert capfd.readouterr().err == ""
    assert b"Cmr10" in (tmp_path / "run.pdf").read_bytes()


def test_flowsim_is_imported_without_matplotlib_and_says_what_plots_need() -> None:
    code = (
        "import sys, flowsim; assert 'matplotlib' not in sys.modules; sys.modules['matplotlib'] = None\n"
        "try: from flowsim import plot\nexcept ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "flowsim.plot needs matplotlib: pip install '.[plot]'\n"


def test_axes_of_time_show_0_and_powers_of_ten_that_are_no_crowd() -> None:
    for last, shown in [(1e2, 6), (1e6, 6), (1e8, 5)]:
        axes = pyplot.subplots()[1]
        theme.time_axis(axes, 0.01, last)
        ticks = axes.get_xticks()
        assert ticks[0] == 0 and len(ticks) == shown and ticks[-1] <= last == axes.get_xlim()[1]
        assert ((np.log10(ticks[1:]) % 1) == 0).all()


def test_letters_outside_of_formulas_are_such_as_computer_modern_has() -> None:
    """Its font has other letters at the places of these."""
    for run in (solve(*gaussian_data("fa", 30, 6, 4, 8), 1.0), solve(*separable(1), 2.0, time="log")):
        figure = plot.overview(run)
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            assert not set("".join(text.get_text().split("$")[::2])) & set('<>|_{}\\"^~²½µ'), text.get_text()
