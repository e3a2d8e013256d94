"""What every question has in common: oracles, measures of progress, known facts.

A method touches the user's function only through the oracles of its problem. An oracle is declared
with `@oracle`; because it is the only door, hand-written code can replace any of them, and a
wrapper (`raphson.wrappers`) that stands in the door sees every call that any method makes.
"""

from __future__ import annotations

import abc
import copy
import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jaxtyping import Array, ArrayLike, Float, PyTree

from .solution import Status
from .validate import Refusal, as_function, as_start


class Facts(eqx.Module):
    """What is known of a problem; claims and tests read it, methods never do.

    Each is None where it is not known; constants are numbers or scalar arrays.

    Attributes:
        optimum: least value of the objective.
        minimizer: a solution, shaped as the start.
        lipschitz: Lipschitz constant of the gradient (or operator).
        strong_convexity: modulus of strong convexity (or strong monotonicity).
        polyak_lojasiewicz: constant `mu` of `|gradient|^2 / 2 >= mu (f - optimum)`.
        hessian_lipschitz: Lipschitz constant of the Hessian.
        convex: whether the problem is convex (or monotone).
    """

    optimum: Any = None
    minimizer: Any = None
    lipschitz: Any = None
    strong_convexity: Any = None
    polyak_lojasiewicz: Any = None
    hessian_lipschitz: Any = None
    convex: bool | None = None


NOTHING_KNOWN = Facts()


class Known(eqx.Module):
    """What a method knows of its problem at the iterate without another oracle call.

    Attributes:
        value: the objective, if known.
        residual: the problem's optimality residual, if known.
    """

    value: Float[Array, ""] | None = None
    residual: PyTree[Array] | None = None


_F = TypeVar("_F", bound=Callable[..., Any])


def oracle(method: _F) -> _F:
    """Declare a method of a problem class to be an oracle: wrappers see it, users may replace it.

    Args:
        method: a method of a subclass of `AbstractProblem`, called with arrays only.

    Returns:
        The method, which asks the wrappers and the hand-written replacement first.

    Example:
        >>> import raphson as rp
        >>> class Constrained(rp.Minimize):
        ...     @rp.oracle
        ...     def violation(self, y):
        ...         return y - 1.0
        >>> problem = Constrained(lambda y, _: y**2, 3.0, violation=lambda y, args: y - 2.0)
        >>> float(problem.violation(problem.y0))
        1.0
    """
    name = method.__name__

    @functools.wraps(method)
    def call(self: AbstractProblem, *inputs: Any) -> Any:
        if self.wrappers:
            *inner, outermost = self.wrappers
            within = self.rewrapped(tuple(inner))
            return outermost(name, functools.partial(call, within), *inputs)
        if name in self.oracles:
            return self.oracles[name](*inputs, self.args)
        return method(self, *inputs)

    call.__is_oracle__ = True  # pyright: ignore[reportAttributeAccessIssue]
    return call  # pyright: ignore[reportReturnType]


class AbstractProblem(eqx.Module):
    """A question: where to start, what to ask of the function, what an answer must satisfy.

    Attributes:
        y0: the start, a PyTree of floating-point arrays.
        args: data passed to the user's function; answers can be differentiated by it.
        oracles: hand-written replacements of oracles by name, called as `oracle(*inputs, args)`.
        facts: what is known of the problem.
        wrappers: what stands in the door, innermost first (`raphson.wrappers`).
    """

    y0: eqx.AbstractVar[PyTree[Array]]
    args: eqx.AbstractVar[PyTree]
    oracles: eqx.AbstractVar[dict[str, Callable[..., Any]]]
    facts: eqx.AbstractVar[Facts]
    wrappers: eqx.AbstractVar[tuple[Any, ...]]

    # Lineax tags of the derivative of `optimality`, which choose its linear solver.
    optimality_tags: ClassVar[tuple[object, ...]] = ()

    @abc.abstractmethod
    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        """The residual whose zeros are the answers, shaped as `y` where answers are isolated."""

    @abc.abstractmethod
    def traced(self, y: PyTree[Array]) -> Self:
        """The same problem with the user's function traced once at `y`, and its output checked."""

    @abc.abstractmethod
    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        """The problem in the variable `y / y_scale` with its values times `value_scale`."""

    def scale(self, residual: PyTree[Array]) -> Float[Array, ""]:
        """The size that a relative tolerance refers to, from the residual at the start."""
        return otu.norm(residual)

    def verdict(self, known: Known) -> Any:
        """A `Status` that what is known at an iterate settles, else `Status.running`."""
        return Status.running

    def diagnosed(self, y: PyTree[Array], status: Any) -> Any:
        """A `Status` that says more of why the residual is not met at `y` than `status` does."""
        return status

    def measures(self, y: PyTree[Array]) -> dict[str, Float[Array, ""]]:
        """Natural measures of progress at `y`, the norm of the optimality residual first."""
        measures = {"residual": otu.norm(self.optimality(y))}
        if self.facts.minimizer is not None:
            measures["distance"] = otu.norm(otu.sub(y, self.facts.minimizer))
        value = self.minimized(y)
        if value is not None:
            measures["value"] = value
            if self.facts.optimum is not None:
                measures["gap"] = value - self.facts.optimum
        return measures

    def minimized(self, y: PyTree[Array]) -> Float[Array, ""] | None:
        """What is to be made least, at `y`; None where the question is another."""
        return None

    def rewrapped(self, wrappers: tuple[Any, ...]) -> Self:
        """The same problem with these wrappers in its door instead."""
        return self._with(wrappers=wrappers)

    @property
    def bare(self) -> Self:
        """The problem itself, with nothing in its door: what judges answers."""
        return self.rewrapped(()) if self.wrappers else self

    @property
    def without_facts(self) -> Self:
        """The problem as methods see it."""
        return self._with(facts=NOTHING_KNOWN)

    def _with(self, **fields: Any) -> Self:
        # Unlike `tree_at`, this also replaces fields that hold no leaves.
        changed = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(changed, name, value)
        return changed

    def __check_init__(self):
        if not self.oracles:  # to list them all takes as long as a small solve
            return
        known = [n for n, f in inspect.getmembers(type(self)) if hasattr(f, "__is_oracle__")]
        for name, replacement in self.oracles.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1) or known
                raise ValueError(
                    f"{type(self).__name__} has no oracle or argument `{name}`; "
                    f"did you mean `{near[0]}`?"
                )
            if not callable(replacement):
                raise ValueError(f"oracle `{name}` must be callable, got {replacement!r}.")


class AbstractObjective(AbstractProblem):
    """A scalar function to be minimized: `Minimize`, `FiniteSum`, `LeastSquares`."""

    optimality_tags: ClassVar[tuple[object, ...]] = (lx.symmetric_tag,)

    @abc.abstractmethod
    def objective(self, y: PyTree[Array]) -> Float[Array, ""]:
        """The function itself; methods call the oracles, never this."""

    @oracle
    def value(self, y: PyTree[Array]) -> Float[Array, ""]:
        """f(y)."""
        return self.objective(y)

    @oracle
    def gradient(self, y: PyTree[Array]) -> PyTree[Array]:
        """The gradient of f at y, shaped as y."""
        return jax.grad(self.value)(y)

    @oracle
    def value_and_gradient(self, y: PyTree[Array]) -> tuple[Float[Array, ""], PyTree[Array]]:
        """f(y) and its gradient, in one pass."""
        if "gradient" in self.oracles:
            return self.value(y), self.gradient(y)
        return jax.value_and_grad(self.value)(y)

    @oracle
    def hvp(self, y: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
        """The product of the Hessian at y with v."""
        return jax.jvp(self.gradient, (y,), (v,))[1]

    @oracle
    def hessian(self, y: PyTree[Array]) -> lx.AbstractLinearOperator:
        """The Hessian at y, a symmetric Lineax operator."""
        return lx.JacobianLinearOperator(lambda y, _: self.gradient(y), y, tags=lx.symmetric_tag)

    @oracle
    def sample(self, key: Array | None) -> PyTree[Array] | None:
        """What a stochastic method draws at each step: a batch, or None where f is exact."""
        return None

    @oracle
    def batch_value(self, y: PyTree[Array], batch: PyTree[Array] | None) -> Float[Array, ""]:
        """f estimated on a batch."""
        return self.value(y)

    @oracle
    def batch_value_and_gradient(
        self, y: PyTree[Array], batch: PyTree[Array] | None
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        """f and its gradient estimated on a batch."""
        return self.value_and_gradient(y)

    @oracle
    def batch_hessian(
        self, y: PyTree[Array], batch: PyTree[Array] | None
    ) -> lx.AbstractLinearOperator:
        """The Hessian estimated on a batch."""
        return self.hessian(y)

    @oracle
    def batch_hvp(
        self, y: PyTree[Array], v: PyTree[Array], batch: PyTree[Array] | None
    ) -> PyTree[Array]:
        """The product of the Hessian estimated on a batch with v."""
        return self.hvp(y, v)

    @property
    def stochastic(self) -> bool:
        """Whether `sample` draws at random."""
        return False

    def optimality(self, y: PyTree[Array]) -> PyTree[Array]:
        value, gradient = self.value_and_gradient(y)
        # Autodiff finds a zero gradient also where `where` has chosen a NaN for f.
        finite = jnp.isfinite(value)
        return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), gradient)

    def verdict(self, known: Known) -> Any:
        # An objective limit; 1e20 is representable in single precision and far below any
        # value that a bounded problem in sensible units takes.
        if known.value is None:
            return Status.running
        return Status.where(known.value < -1e20, Status.unbounded, Status.running)

    def minimized(self, y: PyTree[Array]) -> Float[Array, ""]:
        return self.value(y)


class AbstractSampled(AbstractProblem):
    """A question of a mean over a data set, of which a stochastic method draws batches.

    It stands before the question itself among the bases of a class.
    """

    data: eqx.AbstractVar[PyTree[Array]]
    batch_size: eqx.AbstractVar[int | None]

    @property
    def num_samples(self) -> int:
        """How many samples the data hold."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def stochastic(self) -> bool:
        """Whether `sample` draws at random."""
        return self.batch_size is not None

    @oracle
    def sample(self, key: Array | None) -> PyTree[Array] | None:
        """A batch of `batch_size` samples, or None for all of them."""
        return drawn(self.data, self.batch_size, key)


class AbstractEquations(AbstractProblem):
    """A vector function to be brought to zero, be it everywhere or within bounds."""

    @oracle
    def residual(self, y: PyTree[Array]) -> PyTree[Array]:
        """F(y)."""
        return self.mapping(y)

    @oracle
    def jacobian(self, y: PyTree[Array]) -> lx.AbstractLinearOperator:
        """The Jacobian of F at y, a Lineax operator."""
        return lx.JacobianLinearOperator(lambda y, _: self.residual(y), y)

    @oracle
    def jvp(self, y: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
        """The product of the Jacobian at y with v."""
        return jax.jvp(self.residual, (y,), (v,))[1]

    @oracle
    def vjp(self, y: PyTree[Array], w: PyTree[Array]) -> PyTree[Array]:
        """The product of the transposed Jacobian at y with w."""
        return jax.vjp(self.residual, y)[1](w)[0]

    @oracle
    def curvature(self, y: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
        """The second derivative of F at y along v, twice."""
        return jax.jvp(lambda y: self.jvp(y, v), (y,), (v,))[1]

    @abc.abstractmethod
    def mapping(self, y: PyTree[Array]) -> PyTree[Array]:
        """The function itself; methods call the oracles, never this."""


class AbstractResidual(AbstractEquations):
    """Equations without bounds: `RootFind`, `FixedPoint`, `LeastSquares`."""


class Rescaled(eqx.Module):
    """`value_scale * fn(y_scale * y, ...)`: a function in other units."""

    fn: Callable[..., Any]
    y_scale: PyTree[Array]
    value_scale: ArrayLike

    def __call__(self, y: PyTree[Array], *rest: Any) -> PyTree[Array]:
        return otu.scale(self.value_scale, self.fn(otu.mul(self.y_scale, y), *rest))


class AbstractFunctionProblem(AbstractProblem):
    """A question about one function `fn(y, args)`."""

    fn: Callable[..., Any]
    y0: PyTree[Array]
    args: PyTree
    oracles: dict[str, Callable[..., Any]]
    facts: Facts
    wrappers: tuple[Any, ...]

    def _stated(
        self, fn: Any, y0: PyTree[ArrayLike], args: PyTree, facts: Facts | None, oracles: Any
    ) -> None:
        # Each question has an `__init__` of its own that ends here: one that is inherited is
        # invisible to type checkers, for which every dataclass has its own. By `super()`, for a
        # method that Equinox binds takes it as long as the rest.
        self.fn, self.y0, self.args = as_function(fn), as_start(y0), args
        self.oracles, self.facts, self.wrappers = oracles, facts or NOTHING_KNOWN, ()

    @abc.abstractmethod
    def check_output(self, out: PyTree, y: PyTree[Array]) -> None:
        """Refuse a function whose output, described by shapes and dtypes, does not fit."""

    def traced(self, y: PyTree[Array]) -> Self:
        fn, out = trace_function(self.fn, y, self.args)
        self.check_output(out, y)
        return eqx.tree_at(lambda p: p.fn, self, fn)

    def rescaled(self, y_scale: PyTree[Array], value_scale: ArrayLike) -> Self:
        fn = Rescaled(self.fn, y_scale, value_scale)
        return type(self)(fn, self.y0, self.args)  # pyright: ignore[reportCallIssue]


def as_data(data: PyTree[ArrayLike], name: str = "data") -> PyTree[Array]:
    """Samples as arrays, refused where they have no common leading axis.

    Args:
        data: arrays whose leading axis counts the samples.
        name: the argument, as errors call it.
    """
    data = jax.tree.map(jnp.asarray, data)
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            f"`{name}` must hold arrays with one common leading axis of at least 1 sample, "
            f"got leading axes {sorted(sizes)}."
        )
    return data


def drawn(data: PyTree[Array], size: int | None, key: Array | None) -> PyTree[Array] | None:
    """`size` samples of the data, drawn with replacement; None, for all of them, without a size."""
    if size is None or key is None:
        return None
    chosen = jax.random.randint(key, (size,), 0, jax.tree.leaves(data)[0].shape[0])
    return jax.tree.map(lambda leaf: leaf[chosen], data)


def trace_function(
    fn: Callable[..., Any], *inputs: Any, name: str = "fn"
) -> tuple[Callable[..., Any], PyTree]:
    """`fn` traced once at `inputs`, so that no later use runs the user's Python, and its output.

    Args:
        fn: the user's function.
        *inputs: what it is called with.
        name: the argument that held it, as errors call it.

    Returns:
        The traced function, and shapes and dtypes of what it returns.

    Raises:
        ValueError: if `fn` does not take these inputs.
    """
    try:
        inspect.signature(fn).bind(*inputs)
    except TypeError as mismatch:
        raise Refusal(f"`{name}` is called with {len(inputs)} arguments: {mismatch}.") from None
    except ValueError:  # some builtins have no signature
        pass
    traced = eqx.filter_closure_convert(lambda *inputs: _as_arrays(fn(*inputs), name), *inputs)
    out = traced.out_struct  # pyright: ignore[reportFunctionMemberAccess]
    return Traced(traced, jnp.result_type(*jax.tree.leaves(inputs[0]))), out


class Traced(eqx.Module):
    """A function that was traced; it answers in the precision of the iterate."""

    fn: Callable[..., Any]
    dtype: Any = eqx.field(static=True)

    def __call__(self, *inputs: Any) -> PyTree[Array]:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, self.dtype), self.fn(*inputs))


def _as_arrays(out: PyTree, name: str) -> PyTree:
    try:
        return jax.tree.map(jnp.asarray, out)
    except (TypeError, ValueError):
        raise Refusal(f"`{name}` must return numbers or arrays, got {out!r}.") from None
