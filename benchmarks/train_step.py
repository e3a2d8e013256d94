"""What a step of each Adam-like optimizer costs, in memory traffic: against AdamW and a plain copy.

Ten million parameters in leaves of a network's shapes, in single precision. A step has to read the
gradient, the parameters and k buffers of state, and to write all but the gradient: 3 + 2 k times
the parameters. Given are the time, the least of several, taken in turns; the bytes moved a second
over those of a plain copy; and the time for each buffer moved over that of `optax.adamw`, which has
k = 2: with all buffers donated, and without. XLA may copy donated buffers before it writes over
them, where an old moment is read after the new one is known.

    python benchmarks/train_step.py
"""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import raphson as rp

SHAPES = [(1024, 1024)] * 8 + [(1024, 1536), (1024,), (1536,), (3, 3, 32, 64)]
REPEATS, ROW = 5, 5
OPTIMIZERS = {
    "optax.adamw": optax.adamw,
    "optax.adabelief": optax.adabelief,
    "optax.contrib.ademamix": optax.contrib.ademamix,
    "adan": rp.train.adan,
    "adamomentum": rp.train.adamomentum,
    "diffgrad": rp.train.diffgrad,
    "exadam": rp.train.exadam,
    "adamp": rp.train.adamp,
    "sgdp": rp.train.sgdp,
    "lion_k": rp.train.lion_k,
}


def buffers(state, params):
    """How many of the state's buffers have the size of the parameters."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return round(sum(leaf.size for leaf in jax.tree.leaves(state)) / size)


def stepper(optimizer, donated):
    @functools.partial(jax.jit, donate_argnums=(0, 1) if donated else ())
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


def race(start, gradient, donated):
    """The least seconds and the buffers moved of each optimizer, and the seconds of a copy."""
    copy = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree))
    runs, moved = {}, {}
    for name, make in OPTIMIZERS.items():
        optimizer = make(1e-3)
        state = optimizer.init(start)
        moved[name] = 3 + 2 * buffers(state, start)
        step = stepper(optimizer, donated)
        params = jax.tree.map(jnp.copy, start)
        runs[name] = [step, *step(params, state, gradient)]
    seconds = dict.fromkeys((*runs, "copy"), np.inf)
    jax.block_until_ready(copy(start))
    for _ in range(REPEATS):
        for name, run in runs.items():
            # Some in a row, as in training: the first finds its memory handed back.
            for _ in range(ROW):
                step, params, state = run
                before = time.perf_counter()
                run[1:] = jax.block_until_ready(step(params, state, gradient))
                seconds[name] = min(seconds[name], time.perf_counter() - before)
        for _ in range(ROW):
            before = time.perf_counter()
            jax.block_until_ready(copy(start))
            seconds["copy"] = min(seconds["copy"], time.perf_counter() - before)
    return seconds, moved


def main():
    rng = np.random.default_rng(0)
    start = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES]
    gradient = [0.01 * leaf for leaf in start]
    size = sum(leaf.size for leaf in start)
    print(f"{size / 1e6:.1f} million parameters on {jax.devices()[0].device_kind}")
    for donated in (True, False):
        seconds, moved = race(start, gradient, donated)
        print(f"\n{'donated' if donated else 'not donated':24}", end="")
        print(f"{'ms':>8}{'buffers':>9}{'GB/s':>7}{'of copy':>9}{'per buffer / adamw':>20}")
        pace = 2 * 4 * size / seconds.pop("copy")
        adamw = seconds["optax.adamw"] / moved["optax.adamw"]
        for name, least in seconds.items():
            flow = 4 * size * moved[name] / least
            print(
                f"{name:24}{1e3 * least:8.1f}{moved[name]:9}{flow / 1e9:7.1f}{flow / pace:9.2f}"
                f"{least / moved[name] / adamw:20.2f}"
            )


if __name__ == "__main__":
    main()
