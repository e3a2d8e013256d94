"""Direct feedback alignment: the error reaches every layer through a fixed random matrix.

Launay, Poli, Krzakala (2019), Principled Training of Neural Networks with Direct Feedback
Alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, PyTree

from ..validate import as_function, random_key


def feedback_value_and_grad(
    layers: Sequence[Callable[[PyTree[Array], Array], Array]],
    loss: Callable[..., Array],
    key: Array,
) -> Callable[..., tuple[Array, tuple[PyTree[Array], ...]]]:
    """`jax.value_and_grad` of a chain of layers, whose hidden ones learn from a random projection.

    The network is h_i = layer_i(params_i, h_{i-1}), its value loss(h_n), and e the gradient of the
    loss in h_n. The last layer has its true gradient; a hidden layer takes e B_i for the gradient
    in h_i, and goes back through itself alone. B_i is fixed, its entries random with variance 1
    over the number of outputs. Learning makes the layers ahead align with this feedback, for which
    they need to be wide.

    Args:
        layers: functions of the layer's parameters and its input to its output, at least one; they
            act along the last axis and agree in all others. The last should be linear, so that e is
            the error before the loss's own nonlinearity.
        loss: of the last output and any further arguments, to a real scalar.
        key: a random key, which fixes the matrices B_i.

    Returns:
        A function of the parameters, a list or tuple with an entry for each layer, of the input and
        of the further arguments of `loss`, that gives the value and what stands for the gradient in
        the parameters.

    Raises:
        ValueError: if an argument is unfit, or there are not as many parameters as layers.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> layers = [lambda w, h: jnp.tanh(h @ w), lambda w, h: h @ w]
        >>> loss = lambda h, target: jnp.mean((h - target) ** 2)
        >>> call = rp.train.feedback_value_and_grad(layers, loss, jax.random.key(0))
        >>> weights, x = [jnp.ones((4, 3)), jnp.ones((3, 1))], jnp.zeros((5, 4))
        >>> value, gradients = call(weights, x, jnp.ones((5, 1)))
        >>> value.tolist(), [gradient.shape for gradient in gradients]
        (1.0, [(4, 3), (3, 1)])
    """
    as_function(loss, "loss")
    random_key(key)
    if not layers:
        raise ValueError(f"`layers` must hold at least one function, got {layers!r}.")
    for layer in layers:
        as_function(layer, "layers")

    def value_and_grad(params: Sequence[PyTree[Array]], x: Array, *args: Any) -> tuple[Array, Any]:
        if len(params) != len(layers):
            raise ValueError(
                f"`params` must hold one entry for each of the {len(layers)} layers, got "
                f"{len(params)}."
            )
        h, outputs, pulls = x, [], []
        for layer, weights in zip(layers, params, strict=True):
            h, pull = jax.vjp(layer, weights, h)
            outputs.append(h)
            pulls.append(pull)
        value, error = jax.value_and_grad(loss)(h, *args)

        gradients = []
        for index, (output, pull) in enumerate(zip(outputs[:-1], pulls[:-1])):
            shape = (error.shape[-1], output.shape[-1])
            feedback = jax.random.normal(jax.random.fold_in(key, index), shape, error.dtype)
            blamed = error @ feedback / shape[0] ** 0.5
            gradients.append(pull(blamed.astype(output.dtype))[0])
        gradients.append(pulls[-1](error)[0])
        return value, type(params)(gradients)  # pyright: ignore

    return value_and_grad
