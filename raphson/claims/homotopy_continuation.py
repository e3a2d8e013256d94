"""Homotopy continuation: a path from any start to a root, and a layer that learns its start."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array

import raphson as rp

from ..roots import Anderson, HomoODE, HomotopyNewton, NewtonFlow
from . import Budget, Paper, Verdict, claim

PAPER = Paper(
    slug="homotopy-continuation",
    title="Two Sides of The Same Coin: Bridging Deep Equilibrium Models and Neural ODEs via "
    "Homotopy Continuation",
    authors="Ding, Cui, Wang, Shi",
    year=2023,
    implements=(
        "raphson.roots.HomoODE",
        "raphson.roots.HomotopyNewton",
        "raphson.roots.NewtonFlow",
    ),
    note="`NewtonFlow` follows the Newton flow in the time t, `HomotopyNewton` by its arc length, "
    "with s = 1 - e^-t, so that it passes folds. Brown's badly scaled equations have the root "
    "(1e6, 2e-6), or (1e3, 2e-3); an arctan around the first makes Newton's method diverge. "
    "A start that all inputs share saves next to nothing on two rings.",
)

# Equations and a start from which Newton's method diverges.
_SYSTEMS: dict[str, tuple[Callable[..., Array], list[float]]] = {
    "arctan": (lambda y, _: jnp.arctan(y), [2.0]),
    "exponential": (lambda y, _: jnp.exp(-y) - 1, [10.0]),
    "two neurons": (lambda y, _: jnp.tanh(3 * y - y[::-1]), [1.0, -1.0]),
    "Brown": (lambda y, _: _brown(y, 1e6), [1.0, 1.0]),
    "Brown, scaled less badly": (lambda y, _: _brown(y, 1e3), [1.0, 1.0]),
}


def _brown(y: Array, large: float) -> Array:
    """Brown's badly scaled y_1 = large and y_1 y_2 = 2, the first saturated."""
    return jnp.stack([jnp.arctan(10 * (y[0] / large - 1)), y[0] * y[1] - 2])


def _folded(y: Array, _: None) -> Array:
    """Two folds lie between the start -2 and the only root."""
    return y**3 - 3 * y - 3


@claim(
    PAPER,
    "From five starts from which Newton's method diverges, the Newton homotopy leads to a root "
    "with |F| <= 1e-10, by its length and by its flow.",
)
def homotopy_leads_where_newton_diverges(budget: Budget) -> Verdict:
    def solved(method: Any) -> np.ndarray:
        options = {"rtol": 0.0, "atol": 1e-10, "max_steps": 200, "throw": False}
        problems = [rp.RootFind(fn, jnp.array(y0)) for fn, y0 in _SYSTEMS.values()]
        return np.array([bool(rp.solve(p, method, **options).converged) for p in problems])

    newton = solved(optx.Newton(rtol=1e-12, atol=1e-12))
    # Where Newton's method finds the root, the homotopy is given no credit.
    homotopy = min(float(np.sum(solved(m) & ~newton)) for m in (HomotopyNewton(), NewtonFlow()))
    case = "of " + ", ".join(_SYSTEMS) + "; control: Newton's method"
    return Verdict(homotopy, 5, float(np.sum(newton)), case, at_most=False)


@claim(
    PAPER,
    "Along the path |F| follows e^-t = 1 - s times |F(y_0)| within 5 percent.",
)
def residual_follows_the_path(budget: Budget) -> Verdict:
    def errors(fn: Any, y0: list[float]) -> tuple[float, float]:
        """Of the homotopy, and of Euler's method on the Newton flow with steps of 1/2 in t."""
        problem = rp.RootFind(fn, jnp.array(y0))

        def along(method: Any, steps: int, left: Any) -> Any:
            def step(carry: Any, _: None) -> Any:
                y, state = method.step(problem, *carry)
                return (y, state), (jnp.linalg.norm(state.residual), left(state))

            start = problem.y0, method.init(problem, problem.y0, None)
            return jax.lax.scan(step, start, length=steps)[1]

        def euler(y: Array, _: None) -> tuple[Array, Array]:
            y = y - jnp.linalg.solve(jax.jacobian(fn)(y, None), fn(y, None)) / 2
            return y, jnp.linalg.norm(fn(y, None))

        @jax.jit
        def run() -> Any:
            by_length = along(HomotopyNewton(bend=0.05), 200, lambda state: 1 - state.parameter)
            by_time = along(NewtonFlow(), 4, lambda state: jnp.exp(-state.time))
            both = jax.tree.map(lambda a, b: jnp.append(a, b), by_length, by_time)
            return *both, jax.lax.scan(euler, problem.y0, length=8)[1]

        size, left, stepped = map(np.asarray, run())
        first = np.linalg.norm(fn(problem.y0, None))
        flowed = first * np.exp(-np.arange(1, 9) / 2)
        ahead = left > 0.01
        worst = np.max(np.abs(size[ahead] / (left[ahead] * first) - 1))
        # Euler's steps may overflow.
        return float(worst), float(np.nan_to_num(np.max(np.abs(stepped / flowed - 1)), nan=np.inf))

    measured, control = np.max([errors(*system) for system in _SYSTEMS.values()], axis=0)
    case = "greatest relative error until s = 0.99, bend 0.05; control: Euler, steps of 1/2 in t"
    return Verdict(float(measured), 0.05, float(control), case)


@claim(
    PAPER,
    "The path passes folds, where the Jacobian is singular and the Newton flow in the time t "
    "stands still: y^3 - 3 y - 3 from -2 to |F| <= 1e-10.",
)
def arc_length_passes_folds(budget: Budget) -> Verdict:
    problem = rp.RootFind(_folded, jnp.array([-2.0]))
    solution = rp.solve(problem, HomotopyNewton(), rtol=0.0, atol=1e-10, throw=False)
    flow = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, y, _: -_folded(y, None) / (3 * y**2 - 3)),
        dfx.Tsit5(),
        0.0,
        30.0,
        0.01,
        problem.y0,
        stepsize_controller=dfx.PIDController(1e-6, 1e-6),
        max_steps=1000,
        throw=False,
        saveat=dfx.SaveAt(steps=True),
    )
    assert flow.ys is not None
    reached = flow.ys[jnp.isfinite(flow.ys)]
    case = "|F| at the end; control: least |F| along the Newton flow, integrated to 1e-6"
    return Verdict(
        float(solution.certificate.residual),
        1e-10,
        float(jnp.min(jnp.abs(_folded(reached, None)))),
        case,
    )


class _Cell(eqx.Module):
    """f(z, x) = tanh(W z + U x + b), a contraction."""

    W: Array
    U: Array
    b: Array

    def __call__(self, z: Array, x: Array) -> Array:
        W = 0.9 * self.W / jnp.maximum(0.9, jnp.linalg.norm(self.W))
        return jnp.tanh(W @ z + self.U @ x + self.b)


def _end(model: Any, x: Array) -> Array:
    if isinstance(model, HomoODE):
        return model(x).value
    problem = rp.FixedPoint(lambda z, p: p[0](z, p[1]), jnp.zeros_like(model.b), (model, x))
    return rp.solve(problem, Anderson(), rtol=0.0, atol=1e-4, throw=False).value


def _rings(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    label = np.arange(n) % 2
    radius, angle = 1 + label + 0.15 * rng.normal(size=n), rng.uniform(0, 2 * np.pi, n)
    points = radius * np.stack([np.cos(angle), np.sin(angle)])
    return jnp.asarray(points.T), jnp.asarray(label)


@functools.cache
def _trained(budget: Budget) -> tuple[Any, Any, Any, tuple[Array, Array]]:
    """A HomoODE, a deep equilibrium model of the same cell, a linear one, and data to test on."""
    n, d, steps = budget.pick((60, 6, 60), (400, 16, 400))
    rng = np.random.default_rng(0)
    train, test = _rings(rng, n), _rings(rng, n)
    shapes = ((d, d), (d, 2), (d,))
    cell = _Cell(*(jnp.asarray(rng.normal(size=shape) / np.sqrt(d)) for shape in shapes))

    def loss(model: tuple[Any, Any]) -> Array:
        layer, (slope, offset) = model
        z = train[0] if layer is None else jax.vmap(lambda x: _end(layer, x))(train[0])
        fit = jnp.mean(optax.sigmoid_binary_cross_entropy(z @ slope + offset, train[1]))
        if isinstance(layer, HomoODE):
            fit += jnp.mean((layer.start - jax.lax.stop_gradient(z)) ** 2)
        return fit

    def fitted(layer: Any, width: int) -> Any:
        model = layer, (jnp.zeros(width), jnp.zeros(()))
        data, rest = eqx.partition(model, eqx.is_array)
        adam = optax.adam(0.05)

        def step(carry: Any, _: None) -> Any:
            data, state = carry
            slope = jax.grad(lambda data: loss(eqx.combine(data, rest)))(data)
            change, state = adam.update(slope, state)
            return (optax.apply_updates(data, change), state), None

        train = jax.jit(lambda start: jax.lax.scan(step, start, length=steps)[0][0])
        return eqx.combine(train((data, adam.init(data))), rest)

    ode = HomoODE(cell, jnp.zeros(d), tolerance=1e-2)
    return fitted(ode, d), fitted(cell, d), fitted(None, 2), test


@claim(
    PAPER,
    "On two rings a HomoODE is as accurate as a deep equilibrium model of the same size.",
)
def homo_ode_is_as_accurate_as_a_deep_equilibrium(budget: Budget) -> Verdict:
    *models, (points, labels) = _trained(budget)

    def accuracy(model: tuple[Any, Any]) -> float:
        layer, (slope, offset) = model
        z = points if layer is None else jax.vmap(lambda x: _end(layer, x))(points)
        return float(jnp.mean((z @ slope + offset > 0) == labels))

    homo, equilibrium, linear = map(accuracy, models)
    case = f"accuracy less that of the other ({equilibrium:.2f}); control: a linear model"
    return Verdict(homo - equilibrium, 0.0, linear - equilibrium, case, at_most=False)


@claim(
    PAPER,
    "Not reproduced: that the learned start saves a fifth of the evaluations of f from the start "
    "0. One start for both rings is far from the equilibria of either, and saves less than a "
    "tenth; a start of its own for each input would save more.",
    reproduces=False,
)
def shared_start_saves_little(budget: Budget) -> Verdict:
    (block, _), _, _, (points, _) = _trained(budget)

    def evaluations(starts: Array) -> float:
        def one(start: Array, x: Array) -> Array:
            return eqx.tree_at(lambda b: b.start, block, start)(x).evaluations

        return float(jnp.mean(jax.vmap(one)(starts, points)))

    equilibria = jax.vmap(block)(points).value
    none = evaluations(jnp.zeros_like(equilibria))
    shared = evaluations(jnp.broadcast_to(block.start, equilibria.shape))
    case = f"evaluations over those from 0 ({none:.0f}); control: from the equilibria themselves"
    return Verdict(shared / none, 0.9, evaluations(equilibria) / none, case, at_most=False)
