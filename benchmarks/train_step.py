"""What a step of each Adam-like optimizer costs, in memory traffic: against AdamW and a plain pass.

Ten million parameters in leaves of a network's shapes, in single precision. A step has to read the
gradient, the parameters and k buffers of state, and to write all but the gradient: it needs 3 + 2 k
passes over as many numbers. AdamP and SGDP need more, since the sums over rows that they project by
come before their steps, for which the buffers summed over, k of them and the parameters, are read
again.

XLA makes more passes than are needed: on the CPU it writes each buffer in a loop of its own, which
reads what that is made from again, 10 passes for the 7 of `optax.adamw`. Given are the median time,
taken in turns; the passes needed and those that the compiled step makes, by XLA's own count, with
how many buffers it copies; its memory traffic a second over that of a plain pass, which adds 1 to
the parameters; and the time for each pass, needed or made, over that of adamw.

It is run in three ways: not donated; with parameters and state donated; and donated with XLA told
to look at which loops are done before it copies. By default it copies a donated buffer that one
loop reads and another writes over, such as the momentum of Lion. Results are the same in all.

Memory that a step allocates glibc hands back after it, and the system clears it at the next, unless

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4294967296 python benchmarks/train_step.py
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import raphson as rp

SHAPES = [(1024, 1024)] * 8 + [(1024, 1536), (1024,), (1536,), (3, 3, 32, 64)]
REPEATS, ROW = 10, 5
OPTIMIZERS = {
    "optax.adamw": optax.adamw,
    "optax.adabelief": optax.adabelief,
    "optax.contrib.ademamix": optax.contrib.ademamix,
    "optax.lion": optax.lion,
    "adan": rp.train.adan,
    "adamomentum": rp.train.adamomentum,
    "diffgrad": rp.train.diffgrad,
    "exadam": rp.train.exadam,
    "adamp": rp.train.adamp,
    "sgdp": rp.train.sgdp,
    "lion_k": rp.train.lion_k,
}
SUMMED_FIRST = ("adamp", "sgdp")
IN_PLACE = {"donate_argnums": (0, 1)}
WAYS = {
    "not donated": {},
    "donated": IN_PLACE,
    "donated, loops ordered": IN_PLACE
    | {"compiler_options": {"xla_cpu_copy_insertion_use_region_analysis": True}},
}


class Traffic(NamedTuple):
    """Of one step, in passes over as many numbers as there are parameters."""

    needed: int
    made: float
    copies: int


def size_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def compiled(name, start, gradient, way):
    """The step, the state that it starts from, and its traffic."""
    optimizer = OPTIMIZERS[name](1e-3)
    state = optimizer.init(start)

    @functools.partial(jax.jit, **way)
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    program: Any = step.lower(start, state, gradient).compile()
    buffers = round(size_of(state) / size_of(start))
    again = buffers + 1 if name in SUMMED_FIRST else 0
    made = program.cost_analysis()["bytes accessed"] / (4 * size_of(start))
    copies = program.as_text().count(" copy(")
    return program, state, Traffic(3 + 2 * buffers + again, made, copies)


def race(start, gradient, way):
    """The median seconds and the traffic of each optimizer, and the seconds of a plain pass."""

    @functools.partial(jax.jit, **way)
    def plain(params, state, gradient):
        return jax.tree.map(lambda leaf: leaf + 1, params), state

    runs, traffic = {"plain": [plain, jax.tree.map(jnp.copy, start), ()]}, {}
    for name in OPTIMIZERS:
        step, state, traffic[name] = compiled(name, start, gradient, way)
        runs[name] = [step, jax.tree.map(jnp.copy, start), state]
    seconds = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            # Some in a row, as in training: the first finds its memory handed back.
            for index in range(ROW):
                step, params, state = run
                before = time.perf_counter()
                run[1:] = jax.block_until_ready(step(params, state, gradient))
                if index > 0:
                    seconds[name].append(time.perf_counter() - before)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}, traffic


def main():
    rng = np.random.default_rng(0)
    start = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES]
    gradient = [0.01 * leaf for leaf in start]
    print(f"{size_of(start) / 1e6:.1f} million parameters on {jax.devices()[0].device_kind}")
    for title, way in WAYS.items():
        seconds, traffic = race(start, gradient, way)
        pace = 2 / seconds.pop("plain")
        adamw = seconds["optax.adamw"], traffic["optax.adamw"]
        print(f"\n{title:24}{'ms':>7}{'needed':>8}{'made':>7}{'copies':>8}{'of plain':>10}", end="")
        print(f"{'per needed / adamw':>20}{'per made / adamw':>18}")
        for name, taken in seconds.items():
            needed, made, copies = traffic[name]
            print(
                f"{name:24}{1e3 * taken:7.1f}{needed:8}{made:7.1f}{copies:8}"
                f"{made / taken / pace:10.2f}{taken / needed / adamw[0] * adamw[1].needed:20.2f}"
                f"{taken / made / adamw[0] * adamw[1].made:18.2f}"
            )


if __name__ == "__main__":
    main()
