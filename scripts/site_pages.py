"""What the documentation's site takes from outside docs/: the benchmarks' READMEs and the changelog, as pages."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
TAKEN = {
    "benchmarks.md": ("benchmarks/README.md", "../docs/"),
    "paper.md": ("benchmarks/paper/README.md", "../../docs/"),
    "smollm2-135m.md": ("benchmarks/paper/smollm2-135m.md", "../../docs/"),
    "changelog.md": ("CHANGELOG.md", "docs/"),
    "security.md": ("SECURITY.md", "docs/"),
    "tour.ipynb": ("notebooks/tour.ipynb", "docs/"),
}
"""Page -> its file, and how that file names the folder of the pages."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for page, (file, docs) in TAKEN.items():
        text = (ROOT / file).read_text("utf-8").replace(f"]({docs}", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to the files lead to the pages."""
    for name, (file, _) in TAKEN.items():
        markdown = markdown.replace(f"](../{file}", f"]({name}")
    return markdown
