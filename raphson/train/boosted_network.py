"""Gradient boosting of the units of one network: each few are fitted to what is still missing.

Emami, Martinez-Munoz (2019), Sequential Training of Neural Networks with Gradient Boosting.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..compiled import compiled
from ..validate import random_key, require_number, whole_number

Loss = Literal["squared", "binary", "softmax"]


class BoostedNetwork(eqx.Module):
    """A network of one hidden layer of logistic units, as `boosted_network` builds it.

    Called with inputs along the last axis it gives the outputs along the last axis; `first(rounds)`
    is the network as it was after so many rounds.

    Attributes:
        weight: of the hidden units, (inputs, units).
        bias: of the hidden units.
        out_weight: of the outputs, (units, outputs).
        out_bias: what each round adds to the outputs, after the constant that is there at first.
    """

    weight: Float[Array, "d units"]
    bias: Float[Array, " units"]
    out_weight: Float[Array, "units k"]
    out_bias: Float[Array, "rounds+1 k"]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch k"]:
        bias, out_bias = self.bias, jnp.sum(self.out_bias, axis=0)
        hidden = x @ self.weight
        hidden = jax.nn.sigmoid(hidden + jnp.broadcast_to(bias, hidden.shape))
        outputs = hidden @ self.out_weight
        return outputs + jnp.broadcast_to(out_bias, outputs.shape)

    def first(self, rounds: int) -> BoostedNetwork:
        units = rounds * self.bias.size // (len(self.out_bias) - 1)
        return BoostedNetwork(
            self.weight[:, :units],
            self.bias[:units],
            self.out_weight[:units],
            self.out_bias[: rounds + 1],
        )


def boosted_network(
    features: Float[Array, "n d"],
    target: Array,
    key: Array,
    units: int = 200,
    units_per_round: int = 1,
    shrinkage: float = 1.0,
    subsample: float = 0.5,
    weight_decay: float = 0.1,
    loss: Loss = "squared",
    max_steps: int = 200,
) -> BoostedNetwork:
    """A network whose hidden units are trained one group after another (GBNN).

    The output F begins at the best constant. Each round fits a network h of `units_per_round`
    logistic units to the residuals r, minus the gradient of the loss in F, by least squares on
    samples drawn anew, with L-BFGS; and adds it, F = F + shrinkage rho h. With m samples and the
    weights W, what is minimized is |r - h|^2 / (2 m) + weight_decay |W|^2 / (2 m).

    - `"squared"`, (y - F)^2 / 2: r = y - F, rho = 1;
    - `"binary"`, log(1 + exp(-2 y F)) of labels y = -1, 1: r = 2 y / (1 + exp(2 y F)), and rho the
      Newton step <r, h> / <r (2 y - r), h^2>;
    - `"softmax"`, the cross-entropy of p = softmax(F): r = y - p, y one-hot, and rho the step
      <r, h> / <p (1 - p), h^2> by the Hessian's diagonal.

    All of these make up one network, and the first rounds of it are the network that was there
    after them.

    Args:
        features: of n samples, best standardized.
        target: of n samples: numbers, or rows of them, for `"squared"`; labels 0 and 1 for
            `"binary"`; 0 to k - 1 for `"softmax"`, all known when it is called.
        key: a random key.
        units: how many in all, a multiple of `units_per_round`.
        units_per_round: at least 1.
        shrinkage: positive; less than 1 takes more rounds.
        subsample: which share of the samples each round is fitted to, in (0, 1].
        weight_decay: at least 0. The paper has none; then a unit can rise out of all bounds where
            there happens to be no sample.
        loss: `"squared"`, `"binary"` or `"softmax"`.
        max_steps: of L-BFGS a round, at least 1.

    Returns:
        The network; its outputs are, for `"binary"`, the logit 2 F of the label 1, and for
        `"softmax"` the logits of all classes.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> x = jnp.linspace(-2.0, 2.0, 50)[:, None]
        >>> y = jnp.sin(2 * x[:, 0])
        >>> network = rp.train.boosted_network(x, y, jax.random.key(0), units=6, subsample=1.0)
        >>> errors = [jnp.mean((network.first(t)(x)[:, 0] - y) ** 2) for t in (0, 1, 6)]
        >>> bool(errors[0] > errors[1] > errors[2])
        True
    """
    random_key(key)
    whole_number(units, "units", 1)
    whole_number(units_per_round, "units_per_round", 1)
    whole_number(max_steps, "max_steps", 1)
    require_number(shrinkage, "`shrinkage` of boosted_network", 0)
    require_number(subsample, "`subsample` of boosted_network", 0, 1, closed="right")
    require_number(weight_decay, "`weight_decay` of boosted_network", 0, closed="left")
    if loss not in get_args(Loss):
        listed = ", ".join(map(repr, get_args(Loss)))
        raise ValueError(f"`loss` must be one of {listed}, got {loss!r}.")
    if units % units_per_round:
        raise ValueError(
            f"`units` must be a multiple of `units_per_round`, {units_per_round}, got {units}."
        )
    features = jnp.asarray(features)
    n, d = features.shape
    dtype = features.dtype
    drawn = max(1, round(subsample * n))
    keys = jax.random.split(key, units // units_per_round)
    if loss == "squared":
        y = jnp.asarray(target, dtype).reshape(n, -1)
        constant = jnp.mean(y, axis=0)
    elif loss == "binary":
        y = 2 * jnp.asarray(target, dtype).reshape(n, 1) - 1
        constant = jnp.arctanh(jnp.mean(y, axis=0))
    else:
        y = jax.nn.one_hot(target, int(jnp.max(target)) + 1, dtype=dtype)
        constant = jnp.zeros(y.shape[1], dtype)

    found = compiled(
        _rounds,
        (features, y, constant, keys),
        (shrinkage, weight_decay),
        drawn,
        units_per_round,
        loss,
        max_steps,
    )
    (weight, bias), out_weight, out_bias = found
    logits = 2 if loss == "binary" else 1
    return BoostedNetwork(
        jnp.moveaxis(weight, 0, 1).reshape(d, units),
        bias.reshape(units),
        logits * out_weight.reshape(units, -1),
        logits * jnp.concatenate([constant[None], out_bias]),
    )


def _rounds(
    data: tuple[Array, Array, Array, Array],
    strengths: tuple[Any, Any],
    drawn: int,
    units: int,
    loss: str,
    max_steps: int,
) -> Any:
    """What each round adds: hidden units, their weights in the outputs, and to the outputs."""
    (x, y, constant, keys), (shrinkage, weight_decay) = data, strengths
    (n, d), k = x.shape, y.shape[1]

    def residual_and_curvature(f: Float[Array, "n k"]) -> tuple[Array, Any]:
        if loss == "squared":
            return y - f, None
        if loss == "binary":
            r = 2 * y * jax.nn.sigmoid(-2 * y * f)
            return r, r * (2 * y - r)
        p = jax.nn.softmax(f)
        return y - p, p * (1 - p)

    def add(f: Float[Array, "n k"], key: Array) -> tuple[Array, Any]:
        chosen, start = jax.random.split(key)
        samples = jax.random.permutation(chosen, n)[:drawn]
        r, curvature = residual_and_curvature(f)
        hidden = jax.random.normal(start, (d, units), x.dtype) / d**0.5, jnp.zeros(units, x.dtype)
        # Begun with no output, it is hardly ever a worse fit than none.
        output = jnp.zeros((units, k), x.dtype), jnp.zeros(k, x.dtype)
        network = _fitted((hidden, output), x[samples], r[samples], weight_decay, max_steps)
        h = _outputs(network, x)
        scale = shrinkage * (1.0 if curvature is None else _newton_step(r, curvature, h))
        hidden, (out_weight, out_bias) = network
        return f + scale * h, (hidden, scale * out_weight, scale * out_bias)

    return jax.lax.scan(add, jnp.broadcast_to(constant, y.shape), keys)[1]


def _outputs(network: Any, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    (weight, bias), (out_weight, out_bias) = network
    return jax.nn.sigmoid(x @ weight + bias[None]) @ out_weight + out_bias[None]


def _fitted(
    network: Any, x: Float[Array, "m d"], r: Float[Array, "m k"], weight_decay: Any, steps: int
) -> Any:
    """The network after L-BFGS on the squared error and the decay."""

    def loss(network: Any) -> Float[Array, ""]:
        (weight, _), (out_weight, _) = network
        decay = weight_decay * (jnp.sum(weight**2) + jnp.sum(out_weight**2))
        return (jnp.sum((_outputs(network, x) - r) ** 2) + decay) / (2 * len(x))

    optimizer: Any = optax.lbfgs()
    ask = optax.value_and_grad_from_state(loss)

    def step(_: Array, carry: Any) -> Any:
        network, state = carry
        value, gradient = ask(network, state=state)
        updates, state = optimizer.update(
            gradient, state, network, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(network, updates), state

    return jax.lax.fori_loop(0, steps, step, (network, optimizer.init(network)))[0]


def _newton_step(r: Array, curvature: Array, h: Array) -> Float[Array, ""]:
    slope, square = jnp.sum(r * h), jnp.sum(h**2)
    # Samples that are all told apart leave no curvature, but no slope either.
    along = jnp.maximum(jnp.sum(curvature * h**2), jnp.finfo(h.dtype).eps * square)
    return jnp.where(square > 0, slope / jnp.where(square > 0, along, 1), 0)
