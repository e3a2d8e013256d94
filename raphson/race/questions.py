"""Problems by name: those of `raphson.problems`, and those that a user's file defines.

A `Question` travels to the worker that races on it, which loads the problem itself; of a user's
file the text travels, so that a worker on another machine need not have the file.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

from .. import problems
from ..problem import AbstractProblem


@dataclass(frozen=True)
class Question:
    """A problem that can be loaded anywhere.

    Attributes:
        name: such as `"cutest/ROSENBR"`, or the stem of a user's file, with `.variable` after it
            where the file defines several problems.
        path: the user's file; empty for a problem of ours.
        source: the text of that file.
        variable: what the problem is called in it.
    """

    name: str
    path: str = ""
    source: str = ""
    variable: str = ""

    def load(self) -> AbstractProblem:
        """The problem."""
        if not self.path:
            return problems.load(self.name)
        found = getattr(_executed(self.path, self.source), self.variable)
        return found if isinstance(found, AbstractProblem) else found()

    @property
    def fingerprint(self) -> str:
        """What the problem is beyond its name: the text of a user's file."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:12] if self.path else ""


def questions(names: list[str], sets: list[str] | None = None) -> list[Question]:
    """The problems of these names and sets, each once; a name may be a set's or a Python file's.

    Raises:
        ValueError: if a name is unknown, or a file defines no problem.
        NotImplementedError: if a problem is known, yet cannot be stated so far.
    """
    found: dict[str, Question] = {}
    for name in names:
        if name.endswith(".py"):
            members = of_file(Path(name))
        elif name in problems.sets():
            members = [Question(member) for member in problems.names(name)]
        else:
            if name not in problems.names():
                problems.load(name)  # one of several starts, or refused by a sentence
            members = [Question(name)]
        found |= {member.name: member for member in members}
    for name in sets or ():
        found |= {member: Question(member) for member in problems.names(name)}
    return list(found.values())


def of_file(path: Path) -> list[Question]:
    """The problems that a user's file defines.

    It is the variable `problem`, a problem or a function that returns one; else each problem that
    is a variable of the file.

    Raises:
        ValueError: if the file cannot be run, or defines no problem.
    """
    try:
        source = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"cannot read the file {path}: {reason}.") from None
    location = str(path.resolve())
    try:
        module = _executed(location, source)
        named = getattr(module, "problem", None)
        named = named() if isinstance(named, types.FunctionType) else named
    except Exception as error:
        raise ValueError(f"{path}{_line_of(error, location)}: {_sentence(error)}") from None
    if isinstance(named, AbstractProblem):
        return [Question(path.stem, location, source, "problem")]
    variables = [v for v, member in vars(module).items() if isinstance(member, AbstractProblem)]
    if not variables:
        held = "" if named is None else f"; its `problem` is {type(named).__name__}"
        raise ValueError(
            f"{path} must define a Raphson problem in a variable `problem`, such as "
            f"`problem = raphson.Minimize(fn, y0)`{held}."
        )
    return [Question(f"{path.stem}.{v}", location, source, v) for v in variables]


@functools.lru_cache(maxsize=8)
def _executed(path: str, source: str) -> types.ModuleType:
    """The user's file as a module, which can import what lies beside it."""
    module = types.ModuleType(f"raced_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    exec(compile(source, path, "exec"), vars(module))
    return module


def _line_of(error: Exception, location: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == location:
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == location]
    return f", line {lines[-1]}" if lines else ""


def _sentence(error: Exception) -> str:
    message = str(getattr(error, "msg", error)).strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {message}." if message else f"{type(error).__name__}."
