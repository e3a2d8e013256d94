"""Gradient regularization: a penalty on the length of the gradient, by a second gradient.

Karakida, Takase, Hayase, Osawa (2022), Understanding Gradient Regularization in Deep Learning:
Efficient Finite-Difference Computation and Implicit Bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import optax.tree as otu

from ..validate import as_function, require_number
from ._core import like, single

Mode = Literal["forward", "backward", "central", "exact"]


def regularized_value_and_grad(
    fn: Callable[..., Any],
    gamma: float,
    epsilon: float,
    mode: Mode = "forward",
    has_aux: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad` whose gradient is that of fn + gamma/2 |grad fn|^2, or near it.

    With the gradient g at x and h(s) that at x + s g, it is g + gamma d with d

        forward: (h(epsilon) - g) / epsilon
        backward: (g - h(-epsilon)) / epsilon
        central: (h(epsilon) - h(-epsilon)) / (2 epsilon)
        exact: H g, the product with the Hessian

    The paper finds that forward differences with a large epsilon, up to 1, generalize better than
    the exact penalty. With gamma = epsilon the forward gradient is h(epsilon), that of
    sharpness-aware minimization without normalization. Steps are stable only where gamma times the
    largest curvature is not much above 1.

    Args:
        fn: of the parameters, a PyTree of arrays, and any further arguments, to a real scalar (and
            to what else is returned with it, where `has_aux`).
        gamma: strength of the penalty, at least 0.
        epsilon: how many gradients ahead the second one is taken, positive.
        mode: see above.
        has_aux: whether `fn` returns a pair of the scalar and anything else.

    Returns:
        A function of the arguments of `fn` that gives its value, without the penalty, or the pair,
        and the regularized gradient in the first of these arguments.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> loss = lambda x: jnp.sum(jnp.array([1.0, 3.0]) * x**2) / 2
        >>> value, gradient = rp.train.regularized_value_and_grad(loss, 0.5, 0.5)(jnp.ones(2))
        >>> value.tolist(), gradient.tolist()
        (2.0, [1.5, 7.5])
    """
    as_function(fn)
    require_number(gamma, "`gamma` of regularized_value_and_grad", 0, closed="left")
    require_number(epsilon, "`epsilon` of regularized_value_and_grad", 0)
    if mode not in get_args(Mode):
        listed = ", ".join(map(repr, get_args(Mode)))
        raise ValueError(f"`mode` must be one of {listed}, got {mode!r}.")

    def value_and_grad(params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        def gradient(x: Any) -> Any:
            found = jax.grad(fn, has_aux=has_aux)(x, *args, **kwargs)
            return single(found[0] if has_aux else found)

        def ahead(steps: Any) -> Any:
            return gradient(like(otu.add_scale(single(params), steps, g), params))

        out, g = jax.value_and_grad(fn, has_aux=has_aux)(params, *args, **kwargs)
        g = single(g)
        if mode == "exact":
            d = jax.jvp(gradient, (params,), (like(g, params),))[1]
        else:
            last = g if mode == "backward" else ahead(epsilon)
            first = g if mode == "forward" else ahead(-epsilon)
            d = otu.scale(1 / (2 * epsilon if mode == "central" else epsilon), otu.sub(last, first))
        return out, like(otu.add_scale(g, gamma, d), params)

    return value_and_grad
