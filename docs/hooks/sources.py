"""Pages whose source is elsewhere in the repository: theory, method, benchmarks, figures, help texts, changes."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib
from docstrings import escaped
from sections import Section, numbered, slug

from figures.command import EXPERIMENTS
from flowsim import commands

ROOT = Path(__file__).resolve().parents[2]

SECTIONED = ("theorems/README.md", "flowsim/README.md")

DOCUMENTS = {
    "theorems/README.md": "theory/index.md",
    "flowsim/README.md": "theory/10.md",
    "tests/benchmarks/results.md": "results/benchmarks.md",
    "tests/benchmarks/scale.md": "results/scale.md",
    "tests/benchmarks/gpu.md": "results/gpu.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Documents of the repository, and the pages where they begin."""

MAP = (
    "<!-- the map of packages -->",
    """![Modules and packages, each above what it imports](packages.svg)

Drawn from the imports: each module or package (bold) stands above all that it imports.
A line is an import that no path of other lines stands for.
Blue is `flowsim`, and "import flowsim" the names that it hands out; orange is `theorems`, green `figures`.""",
)
"""What stands for the map in a document, which only the site has, and the map."""


def pages() -> Iterator[tuple[str, str]]:
    """Every page that is made, with its Markdown."""
    yield from theory()
    yield "results/benchmarks.md", _titled("Benchmarks", "tests/benchmarks/results.md")
    yield "results/scale.md", _titled("How far it goes", "tests/benchmarks/scale.md")
    yield "results/gpu.md", _titled("On a GPU", "tests/benchmarks/gpu.md")
    for document in ("CHANGELOG.md", "CONTRIBUTING.md"):
        page = DOCUMENTS[document]
        yield page, linked((ROOT / document).read_text(), document, page).replace(*MAP)
    yield "gallery.md", gallery()
    yield "command_line.md", command_line()


def images() -> Iterator[tuple[str, Path]]:
    """Every picture that those pages show, and where it is."""
    yield "results/work_precision.png", ROOT / "tests/benchmarks/work_precision.png"
    for path in sorted((ROOT / "figures/gallery").glob("*.png")):
        yield f"gallery/{path.name}", path


# --- the theory ---


def theory() -> Iterator[tuple[str, str]]:
    """A page for each section, and one for what is before the first."""
    for document in SECTIONED:
        text = (ROOT / document).read_text()
        if document == "theorems/README.md":
            before = text[: text.index("Contents:")]
            yield "theory/index.md", before + "\n".join(_contents())
        for section in numbered(text):
            body = re.sub(r"^#(#+ )", r"\1", section.body, flags=re.M)
            page = page_of(section)
            yield page, f"# {section.number} {section.title} {{ #{section.anchor} }}\n\n{linked(body, document, page)}"


def _contents() -> Iterator[str]:
    sections = [section for document in SECTIONED for section in numbered((ROOT / document).read_text())]
    yield "\n## Sections\n"
    for section in sorted(sections, key=lambda section: [int(part) for part in section.number.split(".")]):
        indent = "    " * (section.level - 2)
        yield f"{indent}- [{section.number} {section.title}]({os.path.relpath(page_of(section), 'theory')})"


def page_of(section: Section) -> str:
    """Where a section stands on the site."""
    return f"theory/{section.number.replace('.', '-')}.md"


def _anchors(document: str) -> dict[str, str]:
    """What GitHub calls the headings of a document, and where they are on the site."""
    found = {}
    for section in numbered((ROOT / document).read_text()):
        found[slug(f"{section.number} {section.title}")] = f"{page_of(section)}#{section.anchor}"
    return found


LIST = re.compile(r"^(?![-\s#|])(.+)\n(?=- )", re.MULTILINE)
"""A line before a list: GitHub needs none between the two that is empty, and Python-Markdown does."""

LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<heading>[^)\s]*))?\)")


def linked(text: str, document: str, page: str) -> str:
    """The text of a document, with its links to documents that have pages; other files are named only."""

    def target(match: re.Match[str]) -> str:
        path = os.path.normpath(Path(document).parent / match["path"]) if match["path"] else document
        if path not in DOCUMENTS:
            return f"] (`{path}`)"
        found = DOCUMENTS[path]
        if match["heading"]:
            found = _anchors(path)[match["heading"]]
        return f"]({os.path.relpath(found, Path(page).parent)})"

    return re.sub(r"\[([^\]]+)\] \((`[^)]+`)\)", r"\1 (\2)", LINK.sub(target, LIST.sub(r"\1\n\n", text)))


# --- documents ---


def _titled(title: str, document: str) -> str:
    text = (ROOT / document).read_text()
    return f"# {title}\n\n{text}"


# --- the gallery ---


def gallery() -> str:
    """Every figure of figures/gallery, with its caption and the code that draws it."""
    parts = [GALLERY]
    for module in _figure_modules():
        parts.append(_figure(module))
    return "\n".join(parts)


GALLERY = """# Gallery

`flowsim draw` draws these figures as PNG and PDF into `figures/gallery/`;
`flowsim draw signs --output DIR` draws one.
Those of the experiments are drawn from tables
that `flowsim draw noisy_digits` and `flowsim draw deep_networks` write.
Each caption is the docstring of the module that draws the figure; the file's metadata have its seeds.
"""


def _figure_modules() -> list[Path]:
    """Modules that have a figure in the gallery, those of experiments last."""
    folders = [ROOT / "figures", *(ROOT / "figures" / name for name in EXPERIMENTS)]
    modules = [module for folder in folders for module in sorted(folder.glob("*.py"))]
    return [module for module in modules if (ROOT / "figures/gallery" / f"{_name(module)}.png").exists()]


def _name(module: Path) -> str:
    """That of a module's figure."""
    folder = module.parent.name
    return module.stem if folder == "figures" else f"{folder}_{module.stem}"


def _figure(module: Path) -> str:
    source = module.read_text()
    title, _, caption = cleandoc(ast.get_docstring(ast.parse(source)) or "").partition("\n")
    name, path = _name(module), module.relative_to(ROOT)
    code = "\n".join("    " + line for line in source.splitlines())
    return f"""
## {title.rstrip(".")} {{ #{name} }}

![{title}](gallery/{name}.png){{ width="510" loading=lazy }}

{escaped(caption.strip())}

??? quote "{path}"
    ```python
{code}
    ```
"""


# --- the command line ---

COMMAND_LINE = """# Command line

    flowsim COMMAND [OPTION ...]

`python -m theorems` is `flowsim check`, `python -m figures` is `flowsim draw`.
A wrong value or file is an error on stderr that names the option, the value and the rule.
What the command cannot read, such as an option that there is not, comes with its usage.
The exit status is then 2."""


def command_line() -> str:
    """The help texts of all commands, as their parsers print them."""
    texts = [f"## flowsim {name}\n\n```text\n{_help(name)}\n```" for name in commands.commands()]
    return "\n\n".join([COMMAND_LINE, *texts]) + "\n"


def _help(name: str) -> str:
    """What `flowsim NAME --help` prints, without starting Python once more."""
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="84", NO_COLOR="1"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        commands.commands()[name].load()(["--help"])
    return printed.getvalue().rstrip()


# --- plots ---


def overview() -> bytes:
    """The picture that the example of docs/plots.md makes, as PNG."""
    matplotlib.use("agg")
    names: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples((ROOT / "docs/plots.md").read_text()):
        exec(compile(example.source, "docs/plots.md", "single"), names)
    picture = io.BytesIO()
    names["figure"].savefig(picture, format="png", dpi=150)
    return picture.getvalue()
