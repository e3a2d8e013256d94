"""Blockwise variance reduction: many lower levels, of which each step asks only a few.

Hu, Qiu, Guo, Zhang, Yang (2023), Blockwise Stochastic Variance-Reduced Methods with Parallel
Speedup for Multi-Block Bilevel Optimization.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax.tree as otu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..method import AbstractMethod
from ..problem import AbstractProblem, Known
from ..validate import Refusal, in_range, one_of
from ._shared import as_transformation, descended, require_steps
from .blocks import MultiBlockBilevel, drawn_blocks, of_blocks


class BlockwiseVarianceReductionState(eqx.Module):
    upper: PyTree[Array]  # of the upper transformation
    v: PyTree[Array]  # in product form: follows f_yy^-1 F_y of each block
    hessian: PyTree[Array]  # in dense form: H of each block, now and a step earlier
    slope: PyTree[Array]  # s, f_y of each block
    left: PyTree[Array]  # u, f_yy v - F_y of each block
    direction: PyTree[Array]  # z, the hypergradient
    chosen: Int[Array, " I"]  # the blocks that move next
    key: Array | None


class BlockwiseVarianceReduction(AbstractMethod[BlockwiseVarianceReductionState]):
    """Blockwise stochastic variance-reduced bilevel descent; of m blocks, each step asks I.

    With i the blocks that were drawn last, x and their y and v move:

        x    =  x - r z        y_i  =  y_i - t s_i        v_i  =  v_i - t u_i

    Blocks are drawn anew, and samples of each. With h the derivative f_i,y and g the mean of
    F_i,x - f_i,xy v_i on these samples, and h' and g' the same on the same samples before the move:

        s_i  =  (1 - a) s_i + a h + c (h - h')        c  =  1 - a + (m / I - 1) / (1 - a)
        z    =  (1 - b) (z - g') + g

    and u_i likewise with h = f_i,yy v_i - F_i,y. In the dense form H_i follows f_i,yy so, and v_i
    is H_i^-1 F_i,y wherever it is asked for. As a block that is drawn has missed m / I moves, one
    counts for as many: with this c the error of s_i and what h moved by have no cross term on
    average over the draws. So t must fall with I / m.

    Args:
        upper: r, positive, or an Optax transformation.
        lower_step_size: t, positive.
        tracking: a, in (0, 1), where 1 would forget the past.
        momentum: b, in (0, 1], likewise.
        change: c, at least 0, instead of the above; 0 makes s and u plain moving averages.
        form: `"product"`, or `"dense"` where y has few entries to a block.
        curvature: in the dense form the eigenvalues of H are taken to be at least this, positive.

    Raises:
        ValueError: if a hyperparameter is outside its range, or y has a set.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> upper = lambda x, y, a, _: (y - a) ** 2 + x**2
        >>> lower = lambda x, y, a, _: (y - a * x) ** 2
        >>> data = jnp.array([[1.0], [2.0]])
        >>> problem = rp.bilevel.MultiBlockBilevel(
        ...     upper, lower, 0.0, jnp.zeros(2), data, data, blocks_per_step=1
        ... )
        >>> method = rp.bilevel.BlockwiseVarianceReduction(0.02, 0.1, momentum=0.01)
        >>> key = jax.random.key(0)
        >>> x, y = rp.solve(problem, method, key=key, max_steps=1000, throw=False).value
        >>> round(float(x), 1), y.round(1).tolist()
        (0.7, [0.7, 1.4])
    """

    upper: Any = 0.1
    lower_step_size: float = 0.5
    tracking: float = 0.1
    momentum: float = 0.1
    change: float | None = None
    form: str = eqx.field(static=True, default="product")
    curvature: float = 1e-3

    question: ClassVar[type[AbstractProblem]] = MultiBlockBilevel
    samples: ClassVar[bool] = True

    def __check_init__(self):
        require_steps(self, "upper")
        in_range(self, "lower_step_size", 0)
        in_range(self, "tracking", 0, 1)
        in_range(self, "momentum", 0, 1, closed="right")
        if self.change is not None:
            in_range(self, "change", 0, closed="left")
        one_of(self, "form", ("product", "dense"))
        in_range(self, "curvature", 0)

    def init(
        self, problem: Any, y: PyTree[Array], key: Array | None
    ) -> BlockwiseVarianceReductionState:
        if problem.sets[1] is not None:
            raise Refusal("BlockwiseVarianceReduction answers no problem with a set for y.")
        x, y = y
        _, chosen, key = drawn_blocks(problem, key)
        everywhere, batches = jnp.arange(problem.num_blocks), (None, None)
        v = hessian = None
        if self.form == "product":
            v = otu.zeros_like(y)
        else:
            hessian = (_hessian(problem, x, y, everywhere, None),) * 2
        last = hessian and hessian[0]
        slope, left, z = self._asked(problem, x, y, v, last, everywhere, batches)
        upper = as_transformation(self.upper).init(x)
        return BlockwiseVarianceReductionState(upper, v, hessian, slope, left, z, chosen, key)

    def step(
        self, problem: Any, y: PyTree[Array], state: BlockwiseVarianceReductionState
    ) -> tuple[PyTree[Array], BlockwiseVarianceReductionState]:
        (x, y), moving = y, state.chosen

        def moved(tree: PyTree[Array], by: PyTree[Array]) -> PyTree[Array]:
            step = lambda leaf, by: leaf.at[moving].add(-self.lower_step_size * by[moving])
            return jax.tree.map(step, tree, by)

        next_x, upper = descended(problem, x, y, state.direction, self.upper, state.upper)
        next_y = moved(y, state.slope)
        v = None if state.v is None else moved(state.v, state.left)
        batches, chosen, key = drawn_blocks(problem, state.key)
        # In the dense form each hypergradient has the H that knows nothing of its batch.
        last, earlier = state.hessian or (None, None)
        slope, left, z = self._asked(problem, next_x, next_y, v, last, chosen, batches)
        hessian = None
        if last is not None:
            hessian = _hessian(problem, next_x, next_y, chosen, batches[1])
        if problem.stochastic:
            followed = functools.partial(self._followed, chosen, problem.num_blocks)
            old = self._asked(problem, x, y, state.v, earlier, chosen, batches)
            slope = followed(state.slope, slope, old[0])
            left = followed(state.left, left, old[1])
            z = otu.add_scale(z, 1 - self.momentum, otu.sub(state.direction, old[2]))
            if last is not None:
                hessian = followed(last, hessian, _hessian(problem, x, y, chosen, batches[1]))
        y, hessian = (next_x, next_y), (None if last is None else (hessian, last))
        return y, BlockwiseVarianceReductionState(upper, v, hessian, slope, left, z, chosen, key)

    def known(
        self, problem: Any, y: PyTree[Array], state: BlockwiseVarianceReductionState
    ) -> Known:
        if problem.stochastic:
            return Known()
        slope, left = (
            otu.scale(1 / problem.num_blocks, each) for each in (state.slope, state.left)
        )
        residual = problem.natural_residual(*y, state.direction, slope)
        return Known(residual=(*residual, otu.scale(-1, left)))

    def _asked(
        self, problem: Any, x: Any, y: Any, v: Any, hessian: Any, chosen: Array, batches: Any
    ) -> tuple[PyTree[Array], PyTree[Array], PyTree[Array]]:
        """Of the chosen blocks f_y and f_yy v - F_y, and the hypergradient g."""
        upper, lower = batches
        F_x, F_y = problem.upper_gradient(x, y, upper)
        _, f_y = problem.lower_gradient(x, y, lower)
        if hessian is not None:
            blocks = hessian[chosen], of_blocks(F_y, chosen)
            # One after the other: eigenvalues of a batch may hold up two threads forever.
            solved = jax.lax.map(lambda block: self._multiplier(*block), blocks)
            v = jax.tree.map(lambda leaf, v: leaf.at[chosen].set(v), otu.zeros_like(y), solved)
        f_xv, f_yyv = problem.lower_product(x, y, v, lower)
        left = of_blocks(otu.sub(f_yyv, F_y), chosen)
        return of_blocks(f_y, chosen), left, otu.sub(F_x, f_xv)

    def _followed(
        self, chosen: Array, blocks: int, tracked: PyTree[Array], new: Any, old: Any
    ) -> PyTree[Array]:
        a, c = self.tracking, self.change
        if c is None:
            c = 1 - a + (blocks / chosen.size - 1) / (1 - a)

        def of(tracked: Array, new: Array, old: Array) -> Array:
            return tracked.at[chosen].set((1 - a) * tracked[chosen] + a * new + c * (new - old))

        return jax.tree.map(of, tracked, new, old)

    def _multiplier(self, hessian: Array, F_y: PyTree[Array]) -> PyTree[Array]:
        """H^-1 F_y of one block."""
        flat, unravel = ravel_pytree(F_y)
        values, vectors = jnp.linalg.eigh(hessian)
        return unravel(vectors @ ((vectors.T @ flat) / jnp.maximum(values, self.curvature)))


def _hessian(problem: Any, x: Any, y: Any, chosen: Array, batch: Any) -> Float[Array, "I d d"]:
    """f_yy of the chosen blocks, by as many products as one has entries of y."""
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], y))

    def column(e: Float[Array, " d"]) -> Float[Array, "I d"]:
        v = jax.tree.map(lambda leaf, e: jnp.broadcast_to(e, leaf.shape), y, unravel(e))
        product = of_blocks(problem.lower_product(x, y, v, batch)[1], chosen)
        return jax.vmap(lambda block: ravel_pytree(block)[0])(product)

    return jnp.moveaxis(jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype)), 0, -1)
