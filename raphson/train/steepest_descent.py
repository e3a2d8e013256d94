"""Steepest descent under a norm: of sign descent, Muon and Shampoo what is left without averages.

Bernstein, Newhouse (2024), Old Optimizer, New Norm: An Anthology.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.tree as otu
from jaxtyping import Array, PyTree

from ._core import Mask, descend, like, require, single
from ._polar import from_matrix_view, matrix_view, polar_factor, unit

_NORMS = ("max", "frobenius", "spectral", "rms", "rows", "columns")


def steepest_descent(
    learning_rate: float | optax.Schedule,
    norms: PyTree[str] | Callable[[PyTree], PyTree[str]] | None = None,
    dualized: bool = True,
    exact: bool = False,
    output_first: bool = True,
    weight_decay: float = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Steepest descent under a norm for each leaf of the parameters, and their maximum.

    With the gradient G of a leaf, T the matrix of norm 1 that maximizes <G, T>, and the sum over
    all leaves of <G, T>, which is the dual norm of the gradient:

        W = W - learning_rate (sum of <G, T>) T

    which minimizes <G, D> + norm(D)^2 / (2 learning_rate) over the steps D. By the norm of a leaf,
    T is

    - `"max"`, the greatest entry: sign(G);
    - `"frobenius"`: G / |G|;
    - `"spectral"`, the greatest singular value: U V' of G = U S V';
    - `"rms"`, by which a layer can change the root mean square of what passes it, sqrt(inputs /
      outputs) times the spectral norm: sqrt(outputs / inputs) U V';
    - `"rows"`, the longest row (of a table of embeddings, the longest vector): each row divided by
      its length;
    - `"columns"`, the longest column: each column divided by its length.

    T does not see the scale of G, so that averages of gradients may come in their place, too: after
    `optax.trace(0.95, nesterov=True)` and without the dual norm this is Muon.

    Args:
        learning_rate: at least 0, or a schedule of the step count; the theory takes 1 / L for a
            loss that is L-smooth in the norm.
        norms: the norm of each leaf, a prefix of the tree of parameters, or a function of them that
            gives one; by default `operator_norms`.
        dualized: whether the step is multiplied by the dual norm of the gradient, as the theory
            has it; without, each leaf moves by learning_rate T however small its gradient is.
        exact: whether U V' comes from a singular value decomposition rather than from
            `polar_factor`.
        output_first: whether leaves are stored as (outputs, inputs, ...), as by Equinox, or as
            (..., inputs, outputs), as by Flax. Leaves with more than two axes count as matrices
            of the outputs by all else.
        weight_decay: strength of the decay of weights, at least 0; x is diminished by
            learning_rate weight_decay x.
        mask: which parameters decay: a prefix of their tree with True for those that do, or a
            function of the parameters that gives one; all by default.

    Returns:
        An Optax transformation; its `update` needs the parameters.

    Raises:
        ValueError: if a hyperparameter is outside its range, a norm is none of these, or a leaf has
            not the two axes that its norm needs.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import raphson as rp
        >>> optimizer = rp.train.steepest_descent(0.5, "spectral", dualized=False, exact=True)
        >>> x = jnp.diag(jnp.array([3.0, 1.0]))
        >>> updates, _ = optimizer.update(x, optimizer.init(x), x)
        >>> optax.apply_updates(x, updates).round(3).tolist()
        [[2.5, 0.0], [0.0, 0.5]]
    """
    require("steepest_descent", learning_rate=learning_rate, weight_decay=weight_decay)
    dual = _dual(norms, dualized, exact, output_first)
    return optax.chain(dual, descend(learning_rate, weight_decay, mask))


def operator_norms(params: PyTree[Array]) -> PyTree[str]:
    """The norm of each leaf by its role in a network: how the norm of its input grows through it.

    What has fewer than two axes (a bias, a gain) takes `"max"`, a leaf with `embed` in its path
    (the name of a field or key, in any case) `"rows"`, and every other (the weight of a dense or
    convolutional layer) `"rms"`.

    Args:
        params: the parameters of a network.

    Returns:
        A tree like `params` of names of norms, for `steepest_descent`.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> params = {"Embed": jnp.ones((50, 8)), "out": {"b": jnp.ones(3), "w": jnp.ones((3, 8))}}
        >>> rp.train.operator_norms(params)
        {'Embed': 'rows', 'out': {'b': 'max', 'w': 'rms'}}
    """

    def norm(path: Any, leaf: Array) -> str:
        if jnp.ndim(leaf) < 2:
            return "max"
        return "rows" if "embed" in jax.tree_util.keystr(path).lower() else "rms"

    return jax.tree_util.tree_map_with_path(norm, params)


def _dual(
    norms: Any, dualized: bool, exact: bool, output_first: bool
) -> optax.GradientTransformation:
    """From gradients G to the directions T, times the dual norm."""

    def direction(name: str, g: Array) -> Array:
        if name not in _NORMS:
            raise ValueError(
                f"`norms` of steepest_descent must be made of {', '.join(_NORMS)}, got {name!r}."
            )
        if name == "max":
            return jnp.sign(g)
        if name == "frobenius":
            return unit(g)
        if g.ndim < 2:
            raise ValueError(
                f"`norms` of steepest_descent must be 'max' or 'frobenius' for a leaf of the shape "
                f"{g.shape}, got {name!r}."
            )
        if name in ("rows", "columns"):
            return unit(g, tuple(range(1, g.ndim)) if name == "rows" else (0,))
        matrix = matrix_view(g, output_first)
        outputs, inputs = matrix.shape
        factor = polar_factor(matrix, None if exact else 4)
        scale = (outputs / inputs) ** 0.5 if name == "rms" else 1.0
        return from_matrix_view(scale * factor, g, output_first)

    def dual(updates: PyTree[Array], params: Any) -> PyTree[Array]:
        names = operator_norms if norms is None else norms
        names = jax.tree.broadcast(names(updates) if callable(names) else names, updates)
        g = single(updates)
        t = jax.tree.map(direction, names, g)
        return like(otu.scale(otu.vdot(g, t), t) if dualized else t, updates)

    return optax.stateless(dual)
