"""The page itself."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from ..environment import environment
from ..record import Run
from .results import Results
from .tables import agents_table, claims_table, settings


def page(results: Results) -> str:
    """Render all there is as HTML with the pictures in it; what there are no runs for is left out."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["inline"] = _inline
    return templates.get_template("template.html").render(
        results=results,
        tables=results.paper_tables(),
        mechanisms=results.mechanisms_tables(),
        claims=claims_table(results.claims),
        adversaries=results.adversaries_tables(),
        agreement=results.agreement_tables(),
        cost=results.cost_table(),
        agents={f.name: agents_table(f.heading, f.runs, f.summaries) for f in results.federations},
        settings={f.name: settings(f.experiment) for f in results.federations},
        environment=environment(),
        origins=sorted({_origin(run) for run in results.every}),
    )


def _origin(run: Run) -> str:
    return ", ".join(f"{name} {run.origin[name]}" for name in ("torch", "device") if name in run.origin)


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
