"""What the reference needs to know of how this library is written (an extension of Griffe)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe


class HouseStyle(griffe.Extension):
    """Habits of ours that Griffe does not know.

    `from .x import Y as Y` makes Y public, also where Y is called as its file is; an `eqx.Module`
    is a dataclass, so that its fields are the arguments of its class; what the docstring of a
    file cites is what its public names rest on; an `Example:` is an example; and `<g, h>` is an
    inner product, not a tag of HTML.
    """

    def __init__(self) -> None:
        self.exported: set[str] = set()

    def on_alias_instance(self, *, node: Any, alias: griffe.Alias, **_: Any) -> None:
        if any(name.asname == name.name == alias.name for name in getattr(node, "names", ())):
            # The page of a family shows its methods; problems are all on one page.
            alias.public = alias.parent.path == "raphson" or ".problem." not in alias.target_path
            self.exported.add(alias.target_path)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for member in list(_members(pkg)):
            if f"{member.path}.{member.name}" in self.exported:
                _stand_in(member)
            if member.docstring is not None:
                cited = _references(member.parent) if member.path in self.exported else ""
                member.docstring.value = _as_markdown(member.docstring.value) + cited
            if member.is_class and _is_equinox_module(member):
                # The name is all that Griffe's own extension for dataclasses looks at.
                name = griffe.ExprName("dataclasses.dataclass")
                member.decorators.append(griffe.Decorator(name, lineno=None, endlineno=None))
                for field in member.attributes.values():
                    if str(field.value).startswith("eqx.field("):
                        field.value.function = griffe.ExprName("dataclasses.field")


def _members(parent: griffe.Module | griffe.Class) -> Iterator[Any]:
    yield parent
    for member in parent.members.values():
        if member.is_alias:
            continue
        if member.is_module or member.is_class:
            yield from _members(member)
        else:
            yield member


def _stand_in(file: griffe.Module) -> None:
    """Let what is called as its file is stand for the file, among all that comes from there."""
    for name, path in file.parent.imports.items():
        source, _, original = path.rpartition(".")
        if source == file.path:
            alias = griffe.Alias(name, file[original], parent=file.parent)
            alias.public = True
            file.parent.set_member(name, alias)


def _references(module: Any) -> str:
    """The works that the docstring of a file cites, as a section of a docstring."""
    paragraphs = module.docstring.value.split("\n\n")[1:] if module.docstring else []
    cited = [paragraph for paragraph in paragraphs if re.search(r"\(\d{4}\)", paragraph)]
    lines = "\n\n".join(cited).replace(";\n", ".\n\n").splitlines()
    return "".join(["\n\nReferences:\n", *(f"    {line}\n" for line in lines)]) if lines else ""


def _as_markdown(docstring: str) -> str:
    text = re.sub(r"^Example:$", "Examples:", docstring, flags=re.M)
    # Lines of code and what stands between backquotes are left alone.
    return re.sub(
        r"^\s*(?:>>>|\.\.\.).*$|`[^`]*`|<(?=\w)",
        lambda found: "&lt;" if found[0] == "<" else found[0],
        text,
        flags=re.M,
    )


def _is_equinox_module(cls: griffe.Class) -> bool:
    for base in cls.bases:
        path = base if isinstance(base, str) else base.canonical_path
        if path in ("equinox.Module", "lineax.AbstractLinearSolver"):
            return True
        if path.startswith("raphson."):
            # By the name that it has here: its module's may be that of a function as well.
            parent = cls.module.members[path.rpartition(".")[2]]
            if _is_equinox_module(parent.final_target if parent.is_alias else parent):
                return True
    return False
