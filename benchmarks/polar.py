"""Preconditioned Newton-Schulz against the iteration of Optax's Muon: time and polar error.

Square matrices with normal entries in single precision. The error is |X - U V'| / |U V'| in the
Frobenius norm, the time the least of several runs, taken in turns. Optax's default is five steps of
one quintic from X / |X|; `dion` is its five tuned quintics from there. Of `polar_factor` the fewest
steps count that come at least as near as each.

    python benchmarks/polar.py [--large]
"""

from __future__ import annotations

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from raphson.train import polar_factor
from raphson.train._polar import QUINTICS

REPEATS = 5


def muon(coefficients):
    """Optax's iteration alone: without momentum its direction is that of the gradient itself."""
    optimizer = optax.contrib.scale_by_muon(
        coefficients,
        beta=0.0,
        nesterov=False,
        weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(),
    )
    return lambda x: optimizer.update(x, optimizer.init(x))[0]


def compare(size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    exact = polar_factor(x, None)
    rivals = {
        "optax.contrib.muon": muon((3.4445, -4.7750, 2.0315)),
        "optax.contrib.muon, dion": muon(QUINTICS),
    } | {
        f"polar_factor, {steps} steps": functools.partial(polar_factor, steps=steps)
        for steps in (2, 3, 4, 5)
    }
    errors, seconds = {}, dict.fromkeys(rivals, np.inf)
    compiled = {name: jax.jit(fn) for name, fn in rivals.items()}
    for name, fn in compiled.items():
        errors[name] = float(jnp.linalg.norm(fn(x) - exact) / jnp.linalg.norm(exact))
    for _ in range(REPEATS):
        for name, fn in compiled.items():
            start = time.perf_counter()
            fn(x).block_until_ready()
            seconds[name] = min(seconds[name], time.perf_counter() - start)

    print(f"{size} x {size} on {jax.devices()[0].device_kind}")
    print(f"{'':28}{'error':>8}{'seconds':>10}")
    for name in rivals:
        print(f"{name:28}{errors[name]:8.4f}{seconds[name]:10.4f}")
    ours = [name for name in rivals if name.startswith("polar_factor")]
    for peer in rivals:
        if peer not in ours:
            name = next(name for name in ours if errors[name] <= errors[peer])
            print(f"{name} / {peer}: {seconds[name] / seconds[peer]:.3f} of the time")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help="matrices of 4096 x 4096, too")
    for size in (1024, 4096) if parser.parse_args().large else (1024,):
        compare(size)


if __name__ == "__main__":
    main()
