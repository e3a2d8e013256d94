"""Risk parity by cyclical coordinate descent on correlations, rescaled after each sweep.

Choi, Chen (2022), Improved Iterative Methods for Solving Risk Parity Portfolio; Griveau-Billion,
Richard, Roncalli (2013), A Fast Algorithm for Computing High-Dimensional Risk Parity Portfolios.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..solution import Status
from ..validate import one_of
from .risk_parity import RiskParity

# So many coordinates share one pass over their rows of C. XLA runs a loop over so small a block as
# plain machine code, one over a larger block operation by operation, several times as slowly.
BLOCK = 8


class RiskParityCCDState(eqx.Module):
    product: PyTree[Array]  # C y
    at_rest: Bool[Array, ""]


class RiskParityCCD(AbstractMethod[RiskParityCCDState]):
    """Cyclical coordinate descent for risk parity: one coordinate after another at its minimum.

    A step is a sweep: for i = 1, ..., n, by the newest values of the other coordinates,

        y_i+ = (sqrt(a^2 + C_ii b_i) - a) / C_ii    with    a = sum_{j != i} C_ij y_j / 2,

    and then y is rescaled to y'C y = sum b, which holds at the solution. The `"original"` method
    does not rescale, yet takes v b_i for b_i, where v = sqrt(y'C y / sum b) is the volatility of
    the portfolio at hand. The time of a sweep is that of a product with C.

    Args:
        variant: `"improved"` or `"original"`.

    Raises:
        ValueError: if `variant` is neither.

    Example:
        >>> import raphson as rp
        >>> problem = rp.problems.risk_parity()
        >>> solution = rp.solve(problem, rp.smooth.RiskParityCCD())
        >>> problem.weights(solution.value).round(3).tolist()
        [0.125, 0.047, 0.083, 0.613, 0.132]
    """

    variant: str = eqx.field(default="improved", static=True)

    question: ClassVar[type[AbstractProblem]] = RiskParity

    def __check_init__(self):
        one_of(self, "variant", ("improved", "original"))

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> RiskParityCCDState:
        return RiskParityCCDState(problem.mv(y), jnp.array(False))

    def step(
        self, problem: Any, y: PyTree[Array], state: RiskParityCCDState
    ) -> tuple[PyTree[Array], RiskParityCCDState]:
        flat, unravel = ravel_pytree(y)
        C, b = problem.matrix(), ravel_pytree(problem.budget)[0]
        after, product = self._sweep(C, b, flat, ravel_pytree(state.product)[0])
        if self.variant == "improved":
            scale = jnp.sqrt(jnp.sum(b) / jnp.vdot(after, product))
            after, product = scale * after, scale * product
        rounding = jnp.finfo(flat.dtype).eps * flat
        at_rest = jnp.all(jnp.abs(after - flat) <= rounding)
        return unravel(after), RiskParityCCDState(unravel(product), at_rest)

    def terminate(self, problem: Any, y: PyTree[Array], state: RiskParityCCDState) -> Any:
        return Status.where(state.at_rest, Status.stalled, Status.running)

    def known(self, problem: Any, y: PyTree[Array], state: RiskParityCCDState) -> Known:
        return Known(residual=problem.slope(y, state.product))

    def _sweep(
        self,
        C: Float[Array, "n n"],
        b: Float[Array, " n"],
        y: Float[Array, " n"],
        product: Float[Array, " n"],
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """y and C y after each coordinate was set to its minimum, in blocks."""
        n, size, total = y.size, min(BLOCK, y.size), jnp.sum(b)
        here = jnp.arange(size)

        def block(k: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            y, product, *risk = carry
            # The last block reaches back to be whole, but does not repeat what was done.
            first = jnp.minimum(k * size, n - size)
            cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, size)
            square, budget = jax.lax.dynamic_slice(C, (first, first), (size, size)), cut(b)

            def coordinate(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
                y, product, *risk = carry
                c, budgeted = square[i, i], budget[i]
                if risk:
                    budgeted = jnp.sqrt(risk[0] / total) * budgeted
                a = (product[i] - c * y[i]) / 2
                root = jnp.sqrt(a * a + c * budgeted)
                # (root - a) / c, without its cancellation where the others bear most of the risk.
                d = jnp.where(a > 0, budgeted / (root + a), (root - a) / c) - y[i]
                risk = [r + d * (2 * product[i] + c * d) for r in risk]
                return jnp.where(here == i, y + d, y), product + d * square[i], *risk

            inner = (cut(y), cut(product), *risk)
            new, _, *risk = jax.lax.fori_loop(k * size - first, size, coordinate, inner)
            moved = new - cut(y)
            # Written out, for XLA reads the rows where they are; a product would copy them.
            for i in range(size):
                row = jax.lax.dynamic_slice(C, (first + i, 0), (1, n))[0]
                product = product + moved[i] * row
            return jax.lax.dynamic_update_slice(y, new, (first,)), product, *risk

        risk = [jnp.vdot(y, product)] if self.variant == "original" else []
        y, product, *_ = jax.lax.fori_loop(0, -(-n // size), block, (y, product, *risk))
        return y, product
