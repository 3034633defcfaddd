"""``make docs``: render the Markdown of the repository to ``build/docs`` and fail on a broken link.

Only links inside the repository are followed: the build works offline and says the same everywhere.
"""

import html
import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

PROJECT = Path(__file__).parents[1]
OUT = PROJECT / "build" / "docs"
FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "changelog/README.md")
FOLDERS = ("quickstart", "tutorials", "howto", "reference", "explanation", "adr")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} · nexus-marketing</title>
<style>
body {{ margin: 0; font: 16px/1.6 system-ui, sans-serif; color: #1d2733; display: flex; }}
nav {{ flex: 0 0 15rem; padding: 1.5rem; background: #f3f6f9; min-height: 100vh; box-sizing: border-box; }}
nav h2 {{ font-size: .8rem; text-transform: uppercase; letter-spacing: .05em; color: #5c6b7a; margin: 1.2rem 0 .2rem; }}
nav a {{ display: block; color: inherit; text-decoration: none; padding: .1rem 0; }}
nav a[aria-current] {{ font-weight: 600; }}
main {{ padding: 1.5rem 2.5rem; max-width: 52rem; min-width: 0; }}
pre {{ background: #f3f6f9; padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; }}
code {{ font-size: .92em; }} table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #d5dde5; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
</style>
<nav>{navigation}</nav><main>{body}</main></html>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file: where it is, its first heading, its tokens and the anchors of its headings."""

    path: Path
    title: str
    tokens: list[Token]
    anchors: frozenset[str]

    @property
    def target(self) -> Path:
        """The HTML file, relative to the output folder."""
        return Path("index.html") if self.path == Path("README.md") else self.path.with_suffix(".html")


def read(path: Path, parser: MarkdownIt) -> Page:
    """Parse a file and give each heading the anchor that code hosts give it."""
    tokens = parser.parse((PROJECT / path).read_text(encoding="utf-8"))
    title, anchors = path.stem, []
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            if opening.tag == "h1" and title == path.stem:
                title = re.sub(r"[`*]", "", inline.content)
            anchors.append(anchor(inline.content))
            opening.attrSet("id", anchors[-1])
    return Page(path, title, tokens, frozenset(anchors))


def anchor(heading: str) -> str:
    """``Set up, again`` → ``set-up-again``."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def resolve_links(page: Page, pages: dict[Path, Page]) -> list[str]:
    """Point links at rendered pages; answers a complaint for each that leads nowhere."""
    complaints = []
    for token in (child for each in page.tokens for child in each.children or ()):
        name = {"link_open": "href", "image": "src"}.get(token.type)
        link = str(token.attrGet(name)) if name else ""
        if not link or re.match(r"[a-z]+:", link):
            continue
        location, _, fragment = link.partition("#")
        file = (PROJECT / page.path.parent / unquote(location)).resolve() if location else PROJECT / page.path
        relative = file.relative_to(PROJECT) if file.is_relative_to(PROJECT) else None
        other = pages.get(relative) if relative else None
        if relative is None or not file.exists():
            complaints.append(f"{page.path}: {link} does not exist")
        elif other and fragment and fragment not in other.anchors:
            complaints.append(f"{page.path}: {link}: no such heading")
        elif other and location:
            up = "../" * (len(page.target.parts) - 1)
            token.attrSet(str(name), f"{up}{other.target.as_posix()}" + (f"#{fragment}" if fragment else ""))
    return complaints


def navigation(pages: dict[Path, Page], current: Page) -> str:
    """Links to every page, grouped by folder."""
    up = "../" * (len(current.target.parts) - 1)
    parts, group = [], ""
    for page in pages.values():
        folder = page.path.parts[1] if page.path.parts[0] == "docs" and len(page.path.parts) > 2 else ""
        if folder != group:
            parts.append(f"<h2>{html.escape(folder)}</h2>")
            group = folder
        mark = ' aria-current="page"' if page is current else ""
        parts.append(f'<a href="{up}{page.target.as_posix()}"{mark}>{html.escape(page.title)}</a>')
    return "".join(parts)


def paths() -> list[Path]:
    """The Markdown files in the order of the navigation."""
    found = [Path(name) for name in FRONT if (PROJECT / name).exists()]
    for folder in FOLDERS:
        found += sorted(path.relative_to(PROJECT) for path in (PROJECT / "docs" / folder).rglob("*.md"))
    return found


def build(out: Path) -> list[str]:
    """Write every page; answers the complaints."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    pages = {path: read(path, parser) for path in paths()}
    complaints = [complaint for page in pages.values() for complaint in resolve_links(page, pages)]
    for page in pages.values():
        target = out / page.target
        target.parent.mkdir(parents=True, exist_ok=True)
        body = parser.renderer.render(page.tokens, parser.options, {})
        target.write_text(
            PAGE.format(title=html.escape(page.title), navigation=navigation(pages, page), body=body), encoding="utf-8"
        )
    return complaints


def main() -> int:
    """Build the site; 1 when a link leads nowhere."""
    complaints = build(OUT)
    sys.stdout.write("".join(f"{complaint}\n" for complaint in complaints))
    sys.stdout.write(f"{OUT.relative_to(PROJECT)}/index.html: {len(paths())} pages, {len(complaints)} broken links\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
