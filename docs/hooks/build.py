"""What MkDocs calls while it builds the site: pages made of other files, formulas as MathML, links to sections."""

from __future__ import annotations

import io
from importlib.metadata import distribution

import formulas
import packages
import sources
from citations import Citations
from fontTools.ttLib import TTFont
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FONT = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Citations become links on pages and in docstrings alike."""
    config.markdown_extensions.append(Citations())  # pyright: ignore[reportArgumentType]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, pictures, and the font of formulas."""
    for place, text in sources.pages():
        files.append(File.generated(config, place, content=text))
    for place, path in sources.images():
        files.append(File.generated(config, place, abs_src_path=str(path)))
    files.append(File.generated(config, "plots/overview.png", content=sources.overview()))
    files.append(File.generated(config, "packages.svg", content=packages.draw_map()))
    files.append(File.generated(config, "style/formulas.woff", content=_font()))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML."""
    return formulas.as_mathml(html)


def _font() -> bytes:
    """STIX Two Math for the web: what a browser shows formulas with, whatever its system has."""
    with TTFont(str(FONT)) as font, io.BytesIO() as packed:
        font.flavor = "woff"
        font.save(packed)
        return packed.getvalue()
