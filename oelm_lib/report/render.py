"""Jinja templates of the pages and of the journal."""

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def environment(**options: Any) -> Any:
    """Return a jinja2 environment over templates/ in which an undefined name is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        **options,
    )
