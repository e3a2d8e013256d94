"""Who can race, by name: our own methods as their families list them, and the field's."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from .. import defaults, squares, train
from ..bilevel import _default as of_levels
from ..families import FAMILIES, methods
from ..lifts import OptaxMethod, as_method
from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..saddle import _default as of_saddles
from .peers import PEERS, RATE

# Families whose methods take a step size that no theory gives: it is tuned, and is named so.
TUNED = {"saddle": ("step_size",), "bilevel": ("upper", "step_size", "upper_step_size")}
RATE_OF_VARIANTS = 0.1
# What chooses where no method is named.
CHOICE = (defaults, squares, of_saddles, of_levels)
# What races under a name of its own beside the method with its defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "Extragradient.past": {"variant": "past"},
    "Extragradient.reflected": {"variant": "reflected"},
    "Extragradient.optimistic": {"variant": "optimistic"},
    "CompetitiveGradient.optimistic": {"optimistic": True},
    "AcceleratedPrimalDual.linearized": {"accelerated": False},
}


@dataclass(frozen=True)
class Entrant:
    """A method that can be named on the command line.

    Attributes:
        name: such as `"LazyNewton"` or `"optimistix.BFGS"`.
        family: ours, such as `"smooth"`, `"raphson"` of none of them, or the peer's library.
        summary: what it is, in one line.
        make: the method or solver, with its default settings but for the learning rate, if any.
        ours: whether it is Raphson's.
        usual: whether it races where no methods are named.
        version: what its results depend on: the text of its own file, or its library's version.
        rate: the learning rate that it races with where none is tuned; None if it has none.
        rated: the hyperparameter that this is, of a method of ours.
    """

    name: str
    family: str
    summary: str
    make: Callable[..., Any]
    ours: bool
    usual: bool
    version: str
    rate: float | None = None
    rated: str | None = None

    def method(self, rate: float | None = None) -> AbstractMethod | None:
        """The method, ready to run, at its own learning rate if none is given.

        None of the entrant `default`, which leaves the choice to `solve`.
        """
        if self.rate is None:
            made = self.make()
            return None if made is None else as_method(made)
        rate = self.rate if rate is None else rate
        if self.rated is not None:
            return self.make(**{self.rated: rate})
        return Rated(self.make, jnp.asarray(rate))

    @property
    def question(self) -> type[AbstractProblem]:
        """The class of problems that it answers."""
        method = self.method()
        return AbstractProblem if method is None else method.question

    def answers(self, problem: AbstractProblem) -> bool:
        """Whether it can be raced on a problem."""
        method = self.method()
        if method is None and getattr(problem, "stochastic", False):
            return False  # the choice is Adam, at a rate that nobody tuned
        if not isinstance(problem, self.question):
            return False
        if method is None or self.family in TUNED:
            # What suits their question may be refused still: sets, or batches, or a pair of steps.
            with contextlib.suppress(ValueError):
                method = as_method(defaults.choose(problem)[0] if method is None else method)
                eqx.filter_eval_shape(method.init, problem, problem.y0, jax.random.key(0))
                return True
            return False
        return True

    def draws(self, problem: AbstractProblem) -> bool:
        """Whether its run on a problem depends on the seed."""
        method = self.method()
        if method is None:
            return False
        return method.stochastic or (method.samples and getattr(problem, "stochastic", False))


class Rated(AbstractMethod[Any]):
    """An optimizer whose learning rate is a number of the run: another one does not recompile."""

    make: Callable[[Any], optax.GradientTransformation] = eqx.field(static=True)
    rate: Array

    question: ClassVar[type[AbstractProblem]] = OptaxMethod.question
    samples: ClassVar[bool] = OptaxMethod.samples

    @property
    def made(self) -> OptaxMethod:
        """The optimizer at its rate."""
        return OptaxMethod(self.make(self.rate))

    def init(self, problem: Any, y: Any, key: Array | None) -> Any:
        return self.made.init(problem, y, key)

    def step(self, problem: Any, y: Any, state: Any) -> tuple[Any, Any]:
        return self.made.step(problem, y, state)

    def known(self, problem: Any, y: Any, state: Any) -> Known:
        return self.made.known(problem, y, state)


def entrants() -> dict[str, Entrant]:
    """All methods and peers by name, ours first."""
    ours = [
        _ours(name, family, make) for family in FAMILIES for name, make in methods(family).items()
    ]
    by_name = {entrant.name: entrant for entrant in ours}
    ours += [
        _variant(name, by_name[method], options)
        for name, options in VARIANTS.items()
        if (method := name.split(".")[0]) in by_name
    ]
    ours += [
        _ours(name, "train", make, RATE)
        for name, make in vars(train).items()
        if inspect.isfunction(make)
        and next(iter(inspect.signature(make).parameters), "") == "learning_rate"
    ]
    # Whatever method changes, the choice may be that one.
    whole = "".join([entrant.version for entrant in ours] + [inspect.getsource(m) for m in CHOICE])
    summary = "what `solve` chooses where no method is named"
    first = Entrant("default", "raphson", summary, lambda: None, True, True, _hash(whole))
    peers = [_theirs(name) for name in PEERS]
    return {entrant.name: entrant for entrant in (first, *ours, *peers)}


def entrant(name: str) -> Entrant:
    """The method or peer of that name.

    Raises:
        ValueError: if there is none; the nearest names are told.
    """
    known = entrants()
    if name in known:
        return known[name]
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, 3, cutoff=0.5)
    hint = " or ".join(by_lower[other] for other in near)
    raise ValueError(
        f"no method is called `{name}`; "
        + (f"did you mean {hint}?" if hint else "`raphson methods` lists them.")
    )


def _ours(name: str, family: str, make: Callable[..., Any], rate: float | None = None) -> Entrant:
    rated = None
    if family in TUNED:
        # A step size whose default is None the method finds by itself.
        given = {n: p.default for n, p in inspect.signature(make).parameters.items()}
        rated = next((f for f in TUNED[family] if isinstance(given.get(f), float)), None)
        rate = given[rated] if rated else None
    version = _hash(inspect.getsource(sys.modules[make.__module__]))
    summary = _with_rate(_first_line(make), rate)
    return Entrant(name, family, summary, make, True, True, version, rate, rated)


def _variant(name: str, of: Entrant, options: dict[str, Any]) -> Entrant:
    """A method with other settings; no variant finds its step size by itself."""
    hyperparameters = inspect.signature(of.make).parameters
    rated = next((f for f in TUNED[of.family] if f in hyperparameters), None)
    rate = (of.rate or RATE_OF_VARIANTS) if rated else None
    make = functools.partial(of.make, **options)
    summary = _with_rate(f"{_first_line(of.make)}; {name.split('.')[1]}", rate)
    return dataclasses.replace(of, name=name, summary=summary, make=make, rate=rate, rated=rated)


def _theirs(name: str) -> Entrant:
    library, peer = name.split(".")[0], PEERS[name]
    version = metadata.version(library)
    summary = _with_rate(peer.summary, peer.rate)
    return Entrant(name, library, summary, peer.make, False, peer.usual, version, peer.rate)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _with_rate(summary: str, rate: float | None) -> str:
    return summary if rate is None else f"{summary}; rate {rate:g} where none is tuned"


def _first_line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0].rstrip(".")
