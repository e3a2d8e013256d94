"""The catalogue: every paper, what implements it, which claims it has.

A paper is entered once, at the top of its file in `raphson.claims`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass

from . import claims
from .claims import Claim, Paper


@dataclass(frozen=True)
class Entry:
    """A paper and its claims."""

    paper: Paper
    claims: tuple[Claim, ...]


def catalogue() -> list[Entry]:
    """All papers, ordered by slug, each with its claims in the order of their file."""
    entries = []
    for module_info in pkgutil.iter_modules(claims.__path__):
        module = importlib.import_module(f"{claims.__name__}.{module_info.name}")
        members = vars(module).values()
        found = tuple(member for member in members if isinstance(member, Claim))
        entries += [
            Entry(paper, tuple(c for c in found if c.paper == paper.slug))
            for paper in members
            if isinstance(paper, Paper)
        ]
    return sorted(entries, key=lambda entry: entry.paper.slug)


def find(slugs: list[str]) -> list[Entry]:
    """The entries of these papers, all of them where none is named.

    Raises:
        ValueError: if a slug is not in the catalogue.
    """
    entries = catalogue()
    known = {entry.paper.slug for entry in entries}
    for slug in slugs:
        if slug not in known:
            near = difflib.get_close_matches(slug, known, 3) or sorted(known)
            raise ValueError(f"no paper `{slug}` in the catalogue; near it: {', '.join(near)}.")
    return [entry for entry in entries if not slugs or entry.paper.slug in slugs]
