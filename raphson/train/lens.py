"""Lenses: networks, losses and optimizers as pieces of one kind, and learning as their composition.

Fong, Spivak, Tuyeras (2019), Backprop as Functor: A compositional perspective on supervised
learning;
Cruttwell, Gavranovic, Ghani, Wilson, Zanasi (2022), Categorical Foundations of Gradient-Based
Learning;
Spivak (2021), Learners' Languages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
import optax.tree as otu

from ..validate import as_function
from ._core import like, require_given


class Lens(eqx.Module):
    """A map there and a map back: `get` of a to b, `put` of a and what comes back for b to a.

    `f >> g` is g after f, and `f * g` both side by side, on pairs:

        (f >> g).get(a) = g.get(f.get(a)),  (f >> g).put(a, c) = f.put(a, g.put(f.get(a), c))

    With derivatives for `put` that is the chain rule, read from the end. An optimizer is a lens,
    too, of its state and the parameters to the point at which the gradient is taken: `get` is where
    momentum looks ahead. So a whole step of training is the `put` of one lens of the state, the
    parameters and the input, (optimizer * Lens()) >> model >> loss.

    Args:
        get: function of a; the identity by default.
        put: function of a and of what comes back; what comes back itself by default.

    Example:
        >>> import raphson as rp
        >>> from raphson.train import Lens
        >>> double = Lens(lambda a: 2 * a, lambda a, db: 2 * db)
        >>> square = Lens(lambda a: a**2, lambda a, db: 2 * a * db)
        >>> both = double >> square
        >>> both.get(3.0), both.put(3.0, 1.0)
        (36.0, 24.0)
    """

    get: Callable[[Any], Any] = eqx.field(static=True, default=lambda a: a)
    put: Callable[[Any, Any], Any] = eqx.field(static=True, default=lambda a, b: b)

    def __check_init__(self):
        as_function(self.get, "get")
        as_function(self.put, "put")

    def __rshift__(self, after: Lens) -> Lens:
        return Lens(
            lambda a: after.get(self.get(a)),
            lambda a, c: self.put(a, after.put(self.get(a), c)),
        )

    def __mul__(self, beside: Lens) -> Lens:
        return Lens(
            lambda a: (self.get(a[0]), beside.get(a[1])),
            lambda a, b: (self.put(a[0], b[0]), beside.put(a[1], b[1])),
        )


class Learner(Lens):
    """A lens from pairs of parameters and input (p, a), composed along the inputs.

    Where `put` gives derivatives it is a layer; where it gives the updated parameters and the input
    that would have been better, it learns. `f >> g` has the parameters (p, q) of both, and `f * g`
    those and pairs of inputs. What goes back through f is found with the old parameters of g.

    Args:
        get: function of (p, a), the output.
        put: function of (p, a) and of what comes back for the output, to what comes back for both.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> scale = rp.train.reverse_derivative(lambda x: x[0] * x[1], rp.train.Learner)
        >>> twice = scale >> scale
        >>> twice.get(((3.0, 5.0), 1.0)), jnp.array(twice.put(((3.0, 5.0), 1.0), 1.0)[0]).tolist()
        (15.0, [5.0, 3.0])
    """

    def __rshift__(self, after: Lens) -> Learner:
        def get(x: Any) -> Any:
            (p, q), a = x
            return after.get((q, self.get((p, a))))

        def put(x: Any, c: Any) -> Any:
            (p, q), a = x
            q, b = after.put((q, self.get((p, a))), c)
            p, a = self.put((p, a), b)
            return (p, q), a

        return Learner(get, put)

    def __mul__(self, beside: Lens) -> Learner:
        def get(x: Any) -> Any:
            (p, q), (a, b) = x
            return self.get((p, a)), beside.get((q, b))

        def put(x: Any, c: Any) -> Any:
            (p, q), (a, b) = x
            p, a = self.put((p, a), c[0])
            q, b = beside.put((q, b), c[1])
            return (p, q), (a, b)

        return Learner(get, put)


def reverse_derivative(fn: Callable[[Any], Any], kind: type[Lens] = Lens) -> Any:
    """The lens of a function f and its reverse derivative: a, db to J' db, J that of f at a.

    Args:
        fn: of one PyTree to another; for a learner, of a pair of parameters and input.
        kind: `Lens`, or `Learner` to be composed along the inputs.

    Returns:
        A lens of that kind.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> lens = rp.train.reverse_derivative(lambda a: a[0] * a[1])
        >>> [float(slope) for slope in lens.put((3.0, 4.0), 1.0)]
        [4.0, 3.0]
    """
    as_function(fn)
    return kind(fn, lambda a, db: jax.vjp(fn, a)[1](db)[0])


def gradient_learner(
    fn: Callable[[Any], Any],
    rate: Any,
    slope: Callable[[Any, Any], Any] | None = None,
    toward: Callable[[Any, Any], Any] | None = None,
) -> Learner:
    """The learner of a parametrized function that learns by gradient descent.

    Shown an output b for f(p, a), with the error e summed over all entries, E(p, a, b) = the sum
    of e(f(p, a), b):

        p = p - rate dE/dp,  a = the point with de/dx(a, that) = dE/da

    the latter being what the function before is shown. With e = (x - y)^2 / 2 that is a - dE/da.
    The composite of such learners is the learner of the composite function: this is what is meant
    by backpropagation being a functor. All of them must have the same e.

    Args:
        fn: of a pair (p, a) to the output; PyTrees.
        rate: of learning.
        slope: de/dx of x and y, for each entry; by default x - y.
        toward: its inverse in y, of x and the slope; by default x - slope.

    Returns:
        A learner, whose `put` takes the output it is shown.

    Raises:
        ValueError: if only one of `slope` and `toward` is given.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> learner = rp.train.gradient_learner(lambda x: x[0] * x[1], rate=0.25)
        >>> p, better = learner.put((jnp.array(2.0), jnp.array(1.0)), jnp.array(4.0))
        >>> float(p), float(better)
        (2.5, 5.0)
    """
    if (slope is None) != (toward is None):
        raise ValueError("`slope` and `toward` must be given together.")
    if slope is None or toward is None:
        slope, toward = (lambda x, y: x - y), (lambda x, s: x - s)

    def put(x: Any, b: Any) -> Any:
        out, pull = jax.vjp(fn, x)
        ((dp, da),) = pull(jax.tree.map(slope, out, b))
        return otu.add_scale(x[0], -rate, dp), jax.tree.map(toward, x[1], da)

    return Learner(fn, put)


def from_optax(optimizer: optax.GradientTransformation) -> Lens:
    """An Optax transformation as a lens of (state, parameters) to the parameters.

    Its `put` takes a gradient. The state at the start, `optimizer.init(params)`, is no part of it.

    Args:
        optimizer: the transformation.

    Returns:
        The lens.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = optax.sgd(0.5)
        >>> x = jnp.array(3.0)
        >>> state, x = rp.train.from_optax(optimizer).put((optimizer.init(x), x), 2 * x)
        >>> float(x)
        0.0
    """

    def put(x: Any, gradient: Any) -> Any:
        state, params = x
        updates, state = optimizer.update(gradient, state, params)
        return state, optax.apply_updates(params, updates)

    return Lens(lambda x: x[1], put)


def to_optax(optimizer: Lens, init: Callable[[Any], Any]) -> optax.GradientTransformationExtraArgs:
    """A lens of (state, parameters) to where the gradient is taken, as an Optax transformation.

    Args:
        optimizer: the lens; its `put` takes a gradient, which must have been taken at its `get` of
            the state and the parameters.
        init: function of the parameters, to the state at the start.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> def put(x, gradient):
        ...     velocity, params = x
        ...     velocity = 0.9 * velocity - 0.1 * gradient
        ...     return velocity, params + velocity
        >>> nesterov = rp.train.Lens(lambda x: x[1] + 0.9 * x[0], put)
        >>> optimizer = rp.train.to_optax(nesterov, jnp.zeros_like)
        >>> x = jnp.array([3.0, -2.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     gradient = 2 * nesterov.get((state, x))
        ...     updates, state = optimizer.update(gradient, state, x)
        ...     x = x + updates
        >>> bool(jnp.all(jnp.abs(x) < 0.01))
        True
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        require_given("to_optax", params=params)
        state, after = optimizer.put((state, params), updates)
        return like(otu.sub(after, params), updates), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore
