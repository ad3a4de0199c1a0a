"""Pages of HTML from templates, by Jinja: whatever text they are given stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill_page(template: Path, **values: Any) -> str:
    """Return the page that a template gives with some values; `tojson` keeps the order of names."""
    pages = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return pages.get_template(template.name).render(values)
