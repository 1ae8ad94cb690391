"""Every link of a disc's pages, followed in a folder of a file system that tells upper from lower case."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif name in ("href", "src") and value is not None:
                self.links.append(value)


def dead_links(root: Path) -> Iterator[str]:
    """Every link below a disc's root that leads to no file, to a folder, off the disc, or to no place of a page.

    What follows a `#` to a page of the viewer is a number for its script.
    """
    pages = {path: _Page() for path in root.rglob("*.HTM")}
    for path, page in pages.items():
        page.feed(path.read_text())
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = not parts.scheme and not parts.netloc and target.is_relative_to(root.resolve())
            if not (there and target.is_file()):
                yield f"{path.relative_to(root)}: {link}"
            elif parts.fragment and target.parent.name != "VIEW" and parts.fragment not in pages[target].places:
                yield f"{path.relative_to(root)}: {link} is no place there"
