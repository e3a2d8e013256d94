"""The families of methods: what the command line lists and the battery tests."""

from __future__ import annotations

import inspect
from types import ModuleType

from . import bilevel, composite, linear, roots, saddle, smooth
from .method import AbstractMethod

FAMILIES: dict[str, ModuleType] = {
    "linear": linear,
    "roots": roots,
    "smooth": smooth,
    "composite": composite,
    "saddle": saddle,
    "bilevel": bilevel,
}


def methods(family: str | None = None) -> dict[str, type[AbstractMethod]]:
    """The public methods by name, of one family or of all.

    Args:
        family: such as `"smooth"`; all by default.

    Raises:
        ValueError: if there is no such family.

    Example:
        >>> "LazyNewton" in methods("smooth")
        True
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"`family` must be one of {', '.join(FAMILIES)}, got {family!r}.")
    return {
        name: member
        for module in ([FAMILIES[family]] if family else FAMILIES.values())
        for name, member in vars(module).items()
        if inspect.isclass(member) and issubclass(member, AbstractMethod)
    }
