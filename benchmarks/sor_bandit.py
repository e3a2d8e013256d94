"""What learning the relaxation parameter of SOR costs and saves, from a cold start.

2,000 systems one after another: 10 x 10 five-point Laplacians plus c I with c = -0.15 + 0.6
Beta(1/2, 3/2), right-hand sides from a normal distribution truncated to norm sqrt(n), solved to a
relative residual of 1e-8. Counted are iterations, over all systems and over the last half. The
best fixed omega in hindsight is that of 20 values between 1 and 1.95 with the least total: the
three that do best on 50 of the systems are run on all of them.

    python benchmarks/sor_bandit.py
"""

from __future__ import annotations

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402

from raphson.linear import ChebCB, TsallisINF, solve_sequence  # noqa: E402
from raphson.problems import poisson  # noqa: E402

SYSTEMS = 2000
SEEDS = 3
GRID = jnp.linspace(1.0, 1.95, 20)
INTERVAL = (-0.15, 0.65)
TUNERS = {
    "Tsallis-INF, 20 values": TsallisINF(GRID),
    "Tsallis-INF, 5 values": TsallisINF(GRID[::4]),
    "ChebCB, 20 values": ChebCB(GRID, INTERVAL),
}


def draw(seed):
    """Shifts and right-hand sides of a sequence."""
    rng = np.random.default_rng(seed)
    shifts = -0.15 + 0.6 * rng.beta(0.5, 1.5, SYSTEMS)
    normal = rng.normal(size=(3 * SYSTEMS, 100))
    inside = normal[np.linalg.norm(normal, axis=1) <= 10][:SYSTEMS]
    return jnp.array(shifts), jnp.array(inside)


def system(_, x):
    return poisson((10, 10), *x)


def iterations(xs, tuner, seed=0):
    found = solve_sequence(
        system, jnp.zeros(100), xs, tuner, key=jax.random.key(seed), contexts=xs[0], rtol=1e-8
    )
    assert found.converged.all()
    return np.asarray(found.costs)


def fixed(xs, omega):
    return iterations(xs, TsallisINF(jnp.array([omega])))


def best_fixed(xs):
    sample = jax.tree.map(lambda leaf: leaf[:: SYSTEMS // 50], xs)
    order = np.argsort([fixed(sample, omega).sum() for omega in GRID])
    return min((fixed(xs, GRID[i]) for i in order[:3]), key=np.sum)


def main():
    rows = {}
    for seed in range(SEEDS):
        xs = draw(seed)
        best, plain = best_fixed(xs), fixed(xs, 1.0)
        runs = {name: iterations(xs, tuner, seed) for name, tuner in TUNERS.items()}
        for name, costs in {"omega = 1": plain, "best fixed omega": best, **runs}.items():
            half = SYSTEMS // 2
            figures = (
                costs.mean(),
                costs.sum() / best.sum(),
                costs[half:].sum() / best[half:].sum(),
                costs.sum() / plain.sum(),
            )
            rows.setdefault(name, []).append(figures)
    print(f"{SYSTEMS} systems, medians of {SEEDS} seeds (least and greatest total / best)")
    print(f"{'':24}{'iterations':>12}{'/ best':>9}{'':16}{'last half':>11}{'/ omega=1':>11}")
    for name, figures in rows.items():
        mean, total, tail, ratio = np.median(figures, axis=0)
        low, high = np.min(figures, axis=0)[1], np.max(figures, axis=0)[1]
        print(
            f"{name:24}{mean:12.1f}{total:9.3f} ({low:5.3f}, {high:5.3f}){tail:11.3f}{ratio:11.3f}"
        )


if __name__ == "__main__":
    main()
