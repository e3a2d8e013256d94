"""What an experiment needs around a problem, written once for every method.

A wrapper stands in the door between a method and the function: it sees each oracle call by name and
may count it, spoil it or delay it. What it remembers between calls is carried by the run, so that
line searches and inner loops are seen too and a resumed run goes on where it stopped. Outside a run
a wrapper remembers nothing. Answers are judged by the bare problem.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax.tree as otu
from jaxtyping import Array, ArrayLike, PyTree

from .problem import AbstractProblem
from .validate import (
    as_start,
    in_range,
    random_key,
    require_number,
    require_structure,
    whole_number,
)

P = TypeVar("P", bound=AbstractProblem)

# Oracles that are counted under another name, or under two.
_COUNTED_AS = {
    "value_and_gradient": ("value", "gradient"),
    "batch_value": ("value",),
    "batch_value_and_gradient": ("value", "gradient"),
    "batch_hessian": ("hessian",),
    "batch_hvp": ("product",),
    "batch_operator": ("operator",),
    "coupling_x": ("coupling",),
    "coupling_y": ("coupling",),
    "mixed": ("product", "product"),
    "batch_mixed": ("product", "product"),
    "upper_product": ("product",),
    "lower_product": ("product",),
    "hvp": ("product",),
    "jvp": ("product",),
    "vjp": ("product",),
    "curvature": ("product", "product"),
    "mv": ("product",),
}
_FREE = ("sample",)
_SCALARS = ("value", "batch_value", "upper_value", "lower_value")
_LEVELS = (
    *("upper_gradient", "lower_gradient", "upper_product", "lower_product"),
    *("constraints", "constraint_product"),
)
_VECTORS = (
    *("gradient", "residual", "operator", "batch_operator", "apply", "mv", "hvp", "batch_hvp"),
    *("jvp", "vjp", "curvature", "mixed", "batch_mixed", "coupling_x", "coupling_y", *_LEVELS),
)
_PAIRS = ("value_and_gradient", "batch_value_and_gradient")


class AbstractWrapper(eqx.Module):
    """Something that stands in the door of a problem."""

    # Whether answers pass unchanged, so that the question may be stated otherwise behind it.
    only_looks: ClassVar[bool] = False

    # Mutable references to the memory while a step runs, else None.
    refs: Any = eqx.field(default=None, kw_only=True)

    @abc.abstractmethod
    def memory(self, problem: AbstractProblem, y: PyTree[Array]) -> PyTree[Array]:
        """What the wrapper remembers at the start of a run."""

    @abc.abstractmethod
    def __call__(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        """Answer the oracle `name` at `inputs`, where `call` is what stands further in."""

    def bound(self, refs: Any) -> AbstractWrapper:
        """The wrapper with its memory at hand."""
        return eqx.tree_at(lambda w: w.refs, self, refs, is_leaf=lambda x: x is None)


def Counted(problem: P) -> P:
    """Count oracle calls, in `Solution.stats.counts` and `Trace.counts`.

    Counted are what is evaluated: `value_and_gradient` is one value and one gradient; `hvp`,
    `jvp`, `vjp` and `mv` are products.

    Args:
        problem: any problem.

    Returns:
        The problem with a counter in its door.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(3))
        >>> counts = rp.solve(rp.Counted(problem), rp.smooth.GradientDescent(0.5)).stats.counts
        >>> int(counts["gradient"])
        2
    """
    return _wrapped(problem, _Count())


class _Count(AbstractWrapper):
    only_looks: ClassVar[bool] = True

    def memory(self, problem: AbstractProblem, y: PyTree[Array]) -> PyTree[Array]:
        names = [n for n, f in inspect.getmembers(type(problem)) if hasattr(f, "__is_oracle__")]
        counted = {c for n in names if n not in _FREE for c in _COUNTED_AS.get(n, (n,))}
        return {name: jnp.array(0, jnp.int32) for name in sorted(counted)}

    def __call__(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        if self.refs is not None and name not in _FREE:
            for counted in _COUNTED_AS.get(name, (name,)):
                self.refs[counted][...] = self.refs[counted][...] + 1
        return call(*inputs)


def counts_of(problem: AbstractProblem, memory: tuple[PyTree[Array], ...]) -> dict[str, Array]:
    """The oracle calls that a run's memory holds; empty where the problem is not counted."""
    for wrapper, remembered in zip(problem.wrappers, memory, strict=True):
        if isinstance(wrapper, _Count):
            return remembered
    return {}


def Noisy(problem: P, key: Array, *, noise: ArrayLike = 0.0, value_noise: ArrayLike = 0.0) -> P:
    """Add fresh Gaussian noise to each answer of the oracles.

    Args:
        problem: any problem.
        key: random key of the noise.
        noise: standard deviation in each entry of vectors (gradients, residuals, products).
        value_noise: standard deviation of values.

    Returns:
        The problem with noisy oracles.

    Raises:
        ValueError: if `key` is none, or a standard deviation is negative or not a number.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(3))
        >>> noisy = rp.Noisy(problem, jax.random.key(0), noise=0.1)
        >>> method = rp.smooth.GradientDescent(0.1)
        >>> bool(rp.solve(noisy, method, max_steps=100, throw=False).converged)
        False
    """
    random_key(key)
    return _wrapped(problem, _Noise(key, noise, value_noise))


class _Noise(AbstractWrapper):
    key: Array
    noise: ArrayLike
    value_noise: ArrayLike

    def __check_init__(self):
        in_range(self, "noise", 0, closed="left")
        in_range(self, "value_noise", 0, closed="left")

    def memory(self, problem: AbstractProblem, y: PyTree[Array]) -> PyTree[Array]:
        return jnp.array(0, jnp.int32)

    def __call__(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        vector_key, value_key = jax.random.split(jax.random.fold_in(self.key, _tick(self.refs)))

        def spoil(vector: PyTree[Array]) -> PyTree[Array]:
            return otu.add_scale(vector, self.noise, otu.random_like(vector_key, vector))

        def spoil_value(value: Array) -> Array:
            return value + self.value_noise * jax.random.normal(value_key, dtype=value.dtype)

        return _changed(name, call(*inputs), spoil, spoil_value)


def Inexact(problem: P, error: ArrayLike) -> P:
    """Make each vector that the oracles answer wrong by a known relative amount.

    The error always points the same way, all entries equal, so that it never averages out.

    Args:
        problem: any problem.
        error: norm of the error relative to the norm of the vector, at least 0.

    Returns:
        The problem with inexact oracles.

    Raises:
        ValueError: if `error` is negative or not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: y**2, 1.0)
        >>> inexact = rp.Inexact(problem, 0.5)
        >>> method = rp.smooth.GradientDescent(0.25)
        >>> float(rp.solve(inexact, method, max_steps=1, throw=False).value)
        0.25
    """
    return _wrapped(problem, _Error(error))


class _Error(AbstractWrapper):
    error: ArrayLike

    def __check_init__(self):
        in_range(self, "error", 0, closed="left")

    def memory(self, problem: AbstractProblem, y: PyTree[Array]) -> PyTree[Array]:
        return ()

    def __call__(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        def spoil(vector: PyTree[Array]) -> PyTree[Array]:
            ones = otu.ones_like(vector)
            size = self.error * otu.norm(vector) / otu.norm(ones)
            return otu.add_scale(vector, size, ones)

        return _changed(name, call(*inputs), spoil)


def Faulty(problem: P, at: int, *, raises: bool = False) -> P:
    """Make one oracle call fail on purpose.

    Args:
        problem: any problem.
        at: which call fails, counted from 0 over all oracles.
        raises: whether the call raises an exception; by default it answers NaN.

    Returns:
        The problem with the fault in its door.

    Raises:
        ValueError: if `at` is not a whole number of at least 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> faulty = rp.Faulty(rp.Minimize(lambda y, _: y**2, 1.0), at=2)
        >>> solution = rp.solve(faulty, rp.smooth.GradientDescent(0.25), throw=False)
        >>> rp.status_name(solution.status), float(solution.value)
        ('nonfinite', 0.5)
    """
    return _wrapped(problem, _Fault(whole_number(at, "at"), raises))


class _Fault(AbstractWrapper):
    at: int = eqx.field(static=True)
    raises: bool = eqx.field(static=True)

    def memory(self, problem: AbstractProblem, y: PyTree[Array]) -> PyTree[Array]:
        return jnp.array(0, jnp.int32)

    def __call__(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        if name in _FREE:
            return call(*inputs)
        struck = _tick(self.refs) == self.at
        if self.raises:
            sound = eqx.error_if(jnp.array(1.0), struck, f"the oracle `{name}` failed on purpose.")
        else:
            sound = jnp.where(struck, jnp.nan, 1.0)
        answer = call(*inputs)
        if isinstance(answer, lx.AbstractLinearOperator):
            return answer * sound.astype(jnp.result_type(*jax.tree.leaves(answer.out_structure())))
        return jax.tree.map(lambda leaf: leaf * sound.astype(leaf.dtype), answer)


def Delayed(problem: P, delay: int) -> P:
    """Answer gradients (residuals, operators) at the point asked for `delay` calls earlier.

    Until so many calls were made, the first point is answered for.

    Args:
        problem: any problem.
        delay: how many calls old the point is, at least 1.

    Returns:
        The problem with stale first-order oracles.

    Raises:
        ValueError: if `delay` is not a whole number of at least 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> delayed = rp.Delayed(rp.Minimize(lambda y, _: y**2, 1.0), 1)
        >>> method = rp.smooth.GradientDescent(0.25)
        >>> float(rp.solve(delayed, method, max_steps=2, throw=False).value)
        0.0
    """
    return _wrapped(problem, _Delay(whole_number(delay, "delay", 1)))


class _Delay(AbstractWrapper):
    delay: int = eqx.field(static=True)

    def memory(self, problem: AbstractProblem, y: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * (self.delay + 1)), y)

    def __call__(self, name: str, call: Callable[..., Any], *inputs: Any) -> Any:
        if self.refs is None or name not in (*_VECTORS, *_PAIRS):
            return call(*inputs)
        # Oracles of two levels are asked at x and y, all others at the iterate.
        size = 2 if name in _LEVELS else 1
        leaves, point = jax.tree.flatten(inputs[:size])
        refs = jax.tree.leaves(self.refs)
        for ref, leaf in zip(refs, leaves, strict=True):
            ref[...] = jnp.concatenate([ref[1:], leaf[None]])
        return call(*point.unflatten([ref[0] for ref in refs]), *inputs[size:])


def Scaled(problem: P, y_scale: ArrayLike | PyTree[ArrayLike] = 1.0, value_scale: float = 1.0) -> P:
    """State the same problem in other units: the unknown is `y / y_scale`.

    Multiply the answer by `y_scale` to have it in the old units. Hand-written oracles and facts
    belong to the old units and are left behind.

    Args:
        problem: any problem without wrappers.
        y_scale: one number, or numbers shaped as the start; none may be 0.
        value_scale: what the function's values are multiplied by, positive.

    Returns:
        The problem in the new units, its start converted.

    Raises:
        ValueError: if a scale is 0, not finite or not shaped as the start, or values change sign.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> meters = rp.Minimize(lambda y, _: (y - 2.0) ** 2, 0.0)
        >>> kilometers = rp.Scaled(meters, y_scale=1000.0)
        >>> round(1000 * float(rp.solve(kilometers).value), 3)
        2.0
    """
    if isinstance(y_scale, int | float):
        y_scale = jax.tree.map(lambda leaf: jnp.full_like(leaf, y_scale), problem.y0)
    y_scale = as_start(y_scale, "y_scale")
    require_structure(y_scale, problem.y0, "y_scale", "the start")
    if not all(bool(jnp.all(jnp.isfinite(s) & (s != 0))) for s in jax.tree.leaves(y_scale)):
        raise ValueError("`y_scale` must be finite and nowhere 0.")
    require_number(value_scale, "`value_scale`", 0)
    scaled = problem.bare.rescaled(y_scale, value_scale)
    start = jax.tree.map(jnp.divide, problem.y0, y_scale)
    return eqx.tree_at(lambda p: p.y0, scaled, start)


def _wrapped(problem: P, wrapper: AbstractWrapper) -> P:
    return problem.rewrapped((*problem.wrappers, wrapper))


def _tick(ref: Any) -> Array:
    """The number of calls so far, one more from now on."""
    if ref is None:
        return jnp.array(0, jnp.int32)
    count = ref[...]
    ref[...] = count + 1
    return count


def _changed(
    name: str,
    answer: Any,
    vector: Callable[[PyTree[Array]], PyTree[Array]],
    scalar: Callable[[Array], Array] = lambda value: value,
) -> Any:
    """The answer of the oracle `name` with its scalar and vector parts changed."""
    if name in _PAIRS:
        return scalar(answer[0]), vector(answer[1])
    if name in _SCALARS:
        return scalar(answer)
    return vector(answer) if name in _VECTORS else answer
