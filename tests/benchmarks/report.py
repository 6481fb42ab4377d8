"""What was measured, as JSON, as tables in markdown, as a figure, and as the table in docs/solvers.md."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accuracy import Convergence, Exact
from drawing import draw
from limits import Arithmetic, Memory
from matplotlib import rc_context
from measure import Point, Row
from results import Results
from telling import tell, tell_readers

from figures.style import STYLE
from flowsim.files import whole

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/solvers.md"
BEGIN, END = "<!-- benchmarks: written by tests/benchmarks -->\n", "<!-- end of benchmarks -->\n"


def read(path: Path) -> Results:
    """What `write` wrote."""
    content = json.loads(path.read_text())
    rows = [Row(**{**row, "points": tuple(Point(**point) for point in row["points"])}) for row in content.pop("rows")]
    kinds: dict[str, Any] = {"arithmetic": Arithmetic, "memory": Memory, "exact": Exact, "convergence": Convergence}
    others = {name: [kind(**item) for item in content.pop(name)] for name, kind in kinds.items()}
    return Results(rows=rows, **others, **content)


def write(results: Results, folder: Path = HERE, page: Path = PAGE) -> None:
    """results.json, results.md, work_precision.png, and the table in docs/solvers.md."""
    with whole(folder / "results.json") as partial:
        partial.write_text(json.dumps(asdict(results), indent=1) + "\n")
    with whole(folder / "results.md") as partial:
        partial.write_text(tell(results))
    with rc_context(STYLE), whole(folder / "work_precision.png") as partial:
        draw(results).savefig(partial, format="png")
    text = put_into(page.read_text(), tell_readers(results))
    with whole(page) as partial:
        partial.write_text(text)


def put_into(text: str, table: str) -> str:
    """The page with the table between its marks.

    Raises:
        ValueError: if they are not there once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page must have {BEGIN.strip()} and {END.strip()} once")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1]
