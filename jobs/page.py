"""What the reports of all jobs share: one HTML page that needs nothing else, not even a network.

A template in this directory includes `page.css` and `page.js`, embeds its data as JSON in the
element `data`, and draws from that as inline SVG. It forbids its own network access by a content
security policy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from connectors.files.atomic import replacing

REPORT = "report.html"


def embed(value: object) -> str:
    r"""Return JSON that is safe inside a ``<script>`` element.

    Raises:
        ValueError: a number is not finite.

    >>> embed({"name": "</script>&"})
    '{"name":"\\u003c/script\\u003e\\u0026"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def write_page(directory: Path, template: str, *, data: object, **values: Any) -> Path:
    """Write `report.html` into a run's directory from a template; return its path.

    An earlier report is replaced at one stroke.

    Args:
        directory: of the run.
        template: name of a file in this directory.
        data: what the page's script draws, as JSON.
        values: what the template names; a name it lacks is an error.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("jobs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(
        data=Markup(embed(data)),  # embed() has escaped what could end the element
        title=directory.resolve().name,
        **values,
    )
    path = directory / REPORT
    with replacing(path) as file:
        file.write(page.encode())
    return path
