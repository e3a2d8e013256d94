"""Fully first-order bilevel descent: a second copy of the lower unknown instead of Hessians.

Kwon, Kwon, Wright, Nowak (2023), A Fully First-Order Method for Stochastic Bilevel Optimization.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jaxtyping import Array, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import in_range, one_of, whole_number
from ._shared import estimated, scan_keys
from .problem import AbstractBilevel

# The powers of 1 / k by which the steps a and b fall, without and with momentum.
POWERS = {
    False: {"both": (5 / 7, 4 / 7), "upper": (3 / 5, 2 / 5), "none": (1 / 3, 0.0)},
    True: {"both": (3 / 5, 2 / 5), "upper": (1 / 2, 1 / 4), "none": (1 / 3, 0.0)},
}


class FullyFirstOrderState(eqx.Module):
    z: PyTree[Array]  # follows the minimum of f alone
    estimates: PyTree[Array]  # of the gradients by y and by x, where there is momentum
    before: PyTree[Array]  # the points x, y, z of these estimates, likewise
    count: Int[Array, ""]
    key: Array | None


class FullyFirstOrder(AbstractMethod[FullyFirstOrderState]):
    """The fully first-order method: z follows the minimum of f, y that of F + w f.

    At step k = 0, 1, ..., with N inner steps of y and z each, and w = b / (2 a):

        a  =  step_size (k + offset)^-p           b  =  lower_step_size (k + offset)^-q
        y  =  y - a (F_y(x, y) + w f_y(x, y))     z  =  z - b f_y(x, z)
        x  =  x - ratio a (F_x(x, y) + w (f_x(x, y) - f_x(x, z)))

    The step of x tends to the hypergradient as w grows, which it does like (k + offset)^(p - q);
    its bias falls like 1 / w. At the first step 2 w should exceed what the ratio of the curvature
    of F to that of f can be. In single precision the difference loses its digits where w exceeds
    1e4.

    Args:
        step_size: of a, positive.
        lower_step_size: of b, positive; below 2 / L where f is L-smooth.
        ratio: how much longer the upper step is, positive.
        inner_steps: N, at least 1; 1 is enough if `ratio` is small.
        offset: positive.
        noise: which powers p and q to take, those for gradients that are sampled in "both" levels,
            5/7 and 4/7; in the "upper" one, 3/5 and 2/5; or in "none", 1/3 and 0. By default as the
            problem is.
        momentum: whether each gradient is estimated as g + (1 - m) (estimate - g_before), both
            g on one batch and m = (k + offset)^-2q; the powers are then 3/5 and 2/5, 1/2 and 1/4,
            1/3 and 0.

    Raises:
        ValueError: if a hyperparameter is outside its range.

    Example:
        >>> import raphson as rp
        >>> upper = lambda x, y, _: (y - 1.0) ** 2 + x**2
        >>> lower = lambda x, y, _: (y - 2.0 * x) ** 2
        >>> problem = rp.Bilevel(upper, lower, 0.0, 0.0)
        >>> run = rp.solve(problem, rp.bilevel.FullyFirstOrder(), max_steps=3000, throw=False)
        >>> round(float(run.value[0]), 1)
        0.4
    """

    step_size: float = 0.1
    lower_step_size: float = 0.2
    ratio: float = 1.0
    inner_steps: int = 5
    offset: float = 10.0
    noise: str | None = eqx.field(static=True, default=None)
    momentum: bool = eqx.field(static=True, default=False)

    question: ClassVar[type[AbstractProblem]] = AbstractBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        one_of(self, "momentum", (False, True))
        for name in ("step_size", "lower_step_size", "ratio", "offset"):
            in_range(self, name, 0)
        whole_number(self.inner_steps, "inner_steps", 1)
        one_of(self, "noise", (None, "both", "upper", "none"))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> FullyFirstOrderState:
        x, y = y
        z = problem.project((x, y))[1]
        estimates = before = None
        if self.momentum:
            before = (x, y, z), (x, y, z)
            estimates = otu.zeros_like(((y, y, y), (x, x, x)))
        key = key if problem.stochastic else None
        return FullyFirstOrderState(z, estimates, before, jnp.array(0, jnp.int32), key)

    def step(
        self, problem: Any, y: PyTree[Array], state: FullyFirstOrderState
    ) -> tuple[PyTree[Array], FullyFirstOrderState]:
        (x, y), z = y, state.z
        key, last, keys = scan_keys(state.key, self.inner_steps)
        p, q = POWERS[self.momentum][self.noise or ("both" if problem.stochastic else "none")]
        dtype = jnp.result_type(*jax.tree.leaves(x))
        k = state.count.astype(dtype) + jnp.asarray(self.offset, dtype)
        a = jnp.asarray(self.step_size, dtype) * k**-p
        b = jnp.asarray(self.lower_step_size, dtype) * k**-q
        w, m = b / (2 * a), jnp.where(state.count == 0, 1, k ** (-2 * q))
        by_y, by_x = state.estimates or (None, None)
        before_y, before_x = state.before or (None, None)

        def inner(carry: Any, key: Array | None) -> tuple[Any, None]:
            y, z, estimate, before = carry
            now = x, y, z
            batches = _batches(problem, key)
            F_y, f_y, f_z = estimate = estimated(problem, 1, now, batches, before, estimate, m)
            y = otu.add_scale(y, -a, otu.add_scale(F_y, w, f_y))
            z = otu.add_scale(z, -b, f_z)
            y, z = (problem.project((x, each))[1] for each in (y, z))
            return (y, z, *((estimate, now) if self.momentum else (None, None))), None

        start = y, z, by_y, before_y
        (y, z, by_y, before_y), _ = jax.lax.scan(inner, start, keys, self.inner_steps)

        now = x, y, z
        batches = _batches(problem, last)
        F_x, f_x, f_z = by_x = estimated(problem, 0, now, batches, before_x, by_x, m)
        moved = otu.add_scale(F_x, w, otu.sub(f_x, f_z))
        after = problem.project((otu.add_scale(x, -self.ratio * a, moved), y))[0]
        estimates = before = None
        if self.momentum:
            estimates, before = (by_y, by_x), (before_y, now)
        return (after, y), FullyFirstOrderState(z, estimates, before, state.count + 1, key)

    def known(self, problem: Any, y: PyTree[Array], state: FullyFirstOrderState) -> Known:
        return Known()


def _batches(problem: Any, key: Array | None) -> tuple[Any, Any, Any]:
    """For F and f at (x, y) and for f at (x, z), each of its own."""
    keys = (None, None) if key is None else jax.random.split(key)
    (upper, lower), (_, apart) = (problem.sample(each) for each in keys)
    return upper, lower, apart
