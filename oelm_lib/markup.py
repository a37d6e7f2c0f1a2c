"""HTML that notebooks and pages show: marked-up text, and the tables of text."""

import re
from collections.abc import Iterable, Sequence
from html import escape, unescape
from typing import Any


class Html(str):
    """Text that notebooks show as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def as_html(value: object) -> Html:
    """Return Html as it is, and the text of any other value escaped."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def plain_text(html: str) -> str:
    """Return the text of an HTML fragment, without its tags."""
    return unescape(re.sub(r"<[^>]*>", "", html)).strip()


def unbroken(html: str) -> Html:
    """Return HTML in which no line ends between a number and its %, nor inside an interval."""
    return Html(re.sub(r"(?<=\d) (?=%)|(?<=\d,) (?=[+−]\d[\d.]*\])", "\u00a0", html))


def html_table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    styles: Sequence[str] = (),
    css_class: str = "",
    caption: str = "",
) -> Html:
    """Return a table in the style of the pages.

    Args:
        head: Cells of the heading, or () for none. A cell that is not Html is escaped.
        rows: Cells of each row, likewise.
        styles: CSS of each column.
        css_class: Class of the table, if it has one.
        caption: Line above the table; escaped unless it is Html.
    """
    top = f"<caption style='text-align:left'>{as_html(caption)}</caption>" if caption else ""
    heading = f"<thead>{_row('th', head, styles)}</thead>" if head else ""
    body = "".join(_row("td", row, styles) for row in rows)
    start = f"<table class='{css_class}'>" if css_class else "<table>"
    return Html(f"{start}{top}{heading}<tbody>{body}</tbody></table>")


def fold(summary: str, *parts: Any) -> Html:
    """Return parts that a reader opens with a click on `summary`.

    Args:
        parts: Html, or other objects that notebooks show as HTML, e.g. of view.table.
    """
    body = "".join(part._repr_html_() for part in parts)
    return Html(f"<details><summary>{escape(summary)}</summary>{body}</details>")


def _row(tag: str, cells: Sequence[object], styles: Sequence[str]) -> str:
    parts = []
    for number, cell in enumerate(cells):
        style = f" style='{styles[number]}'" if styles else ""
        parts.append(f"<{tag}{style}>{as_html(cell)}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>"
