"""Where a transformation that asks for the loss takes the parameters."""

import jax
import numpy as np
import optax


def descended(optimizer, loss, x, samples):
    """The parameters after a step on `loss(x, sample)` for each sample."""

    @jax.jit
    def step(x, state, sample):
        def value_fn(x):
            return loss(x, sample)

        value, grad = jax.value_and_grad(value_fn)(x)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, state = optimizer.update(grad, state, x, **extra)
        return optax.apply_updates(x, updates), state

    state, path = optimizer.init(x), []
    for sample in samples:
        x, state = step(x, state, sample)
        path.append(x)
    return path


def logistic(n=60, d=6, seed=0):
    """Features whose scales differ, and signs that no hyperplane tells apart."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * np.geomspace(0.3, 3.0, d)
    signs = np.sign(features @ rng.normal(size=d) + rng.normal(size=n))
    return signs[:, None] * features
