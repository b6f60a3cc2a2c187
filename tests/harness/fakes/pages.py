"""Hostile text, and a reader of HTML pages that shows whether it stayed text and fits a narrow screen."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;owned\x07",
    "a | b | c |",
    "`; rm -rf`",
    "[click](javascript:alert(1))",
    "![pixel](http://example.org/p.png)",
    "[bold red]markup[/bold red]",
    "[/]",
    "new\nline\r# heading",
    "\u202egnp.exe",
    "\x9b31m",
    "**loud** _soft_ ~~gone~~",
    "&lt;b&gt; &amp;",
    "$x$",
    "' onmouseover='alert(1)",
    '"><svg onload=x>',
    "{{ 7 * 7 }} {% raw %}",
    "\u2028para",
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.wide: list[str] = []
        """Tables outside a box that scrolls, and cells that lack a heading where their table folds."""
        self._boxes: list[str] = []
        """The classes of the open `div` elements and tables."""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        known = dict(attrs)
        if tag == "table" and "scroll" not in self._boxes:
            self.wide.append(f"table {self.getpos()}")
        if tag == "td" and "fold" in (self._boxes[-1:] or [""])[0].split() and not known.get("data-heading"):
            self.wide.append(f"td {self.getpos()}")
        if tag in ("div", "table"):
            self._boxes.append(known.get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("div", "table"):
            self._boxes.pop()

    def handle_data(self, data: str) -> None:
        self.words += data
