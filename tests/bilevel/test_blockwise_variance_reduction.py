"""Blockwise variance reduction against a transcription in NumPy, and what its weight is for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import BlockwiseVarianceReduction, MultiBlockBilevel
from raphson.problems import shared_center

FOREVER = {"rtol": 0.0, "atol": 0.0, "throw": False}


class Ridges:
    """f_y, F_y, f_yy of chosen blocks of `shared_center` on chosen samples, by hand."""

    def __init__(self, batches, mu):
        self.chosen, (a, b) = (jax.tree.map(np.asarray, part) for part in batches[0])
        _, (c, d) = jax.tree.map(np.asarray, batches[1])
        n = b.shape[1]
        self.S, self.r = np.einsum("mni,mnj->mij", a, a) / n, np.einsum("mni,mn->mi", a, b) / n
        n = d.shape[1]
        self.H = np.einsum("mni,mnj->mij", c, c) / n + mu * np.eye(a.shape[2])
        self.s, self.mu = np.einsum("mni,mn->mi", c, d) / n, mu

    def f_y(self, x, y):
        return np.einsum("mij,mj->mi", self.H, y[self.chosen]) - self.s - self.mu * x

    def F_y(self, y):
        return np.einsum("mij,mj->mi", self.S, y[self.chosen]) - self.r

    def left(self, y, v):
        return np.einsum("mij,mj->mi", self.H, v[self.chosen]) - self.F_y(y)

    def g(self, v):
        return self.mu * v.mean(axis=0)  # F_x = 0, f_xy = -mu


def transcribed(problem, key, steps, r, t, a, b, c, dense):
    m, mu = problem.num_blocks, problem.args
    everything = [(np.arange(m), data) for data in (problem.upper_data, problem.lower_data)]
    key, now = jax.random.split(key)
    moving = np.asarray(problem.sample(now)[0][0])
    start = Ridges(everything, mu)
    x, y = np.zeros(3), np.zeros((m, 3))
    v, s = np.zeros((m, 3)), start.f_y(x, y)
    u, H, H_before = start.left(y, v), start.H, start.H
    of_H = lambda H, of, y: np.linalg.solve(H[of.chosen], of.F_y(y)[..., None])[..., 0]
    z = start.g(of_H(H, start, y) if dense else v)
    for _ in range(steps):
        before = x, y, v
        x = x - r * z
        y, v = y.copy(), v.copy()
        y[moving] -= t * s[moving]
        v[moving] -= t * u[moving]
        key, now = jax.random.split(key)
        of = Ridges(problem.sample(now), mu)
        moving = of.chosen
        now_g = of.g(of_H(H, of, y) if dense else v[moving])
        old_g = of.g(of_H(H_before, of, before[1]) if dense else before[2][moving])
        z = (1 - b) * (z - old_g) + now_g
        s, u, H, H_before = s.copy(), u.copy(), H.copy(), H
        new, old = of.f_y(x, y), of.f_y(*before[:2])
        s[moving] = (1 - a) * s[moving] + a * new + c * (new - old)
        new, old = of.left(y, v), of.left(before[1], before[2])
        u[moving] = (1 - a) * u[moving] + a * new + c * (new - old)
        H[moving] = (1 - a) * H[moving] + a * of.H
    return x, y


@pytest.mark.parametrize("form", ["product", "dense"])
@pytest.mark.parametrize("blocks, batch, change", [(2, 3, None), (None, 4, None), (2, None, 0.0)])
def test_follows_the_algorithm(form, blocks, batch, change):
    problem = shared_center(6, 3, 5, blocks_per_step=blocks, batch_size=batch, regularization=0.7)
    a, drawn = 0.2, blocks or 6
    method = BlockwiseVarianceReduction(0.3, 0.1, a, 0.15, change, form)
    key = jax.random.key(7)
    solution = rp.solve(problem, method, key=key, max_steps=12, **FOREVER)
    c = change if change is not None else (6 - drawn) / (drawn * (1 - a)) + 1 - a
    expected = transcribed(problem, key, 12, 0.3, 0.1, a, 0.15, c, form == "dense")
    for got, said in zip(solution.value, expected, strict=True):
        np.testing.assert_allclose(got, said, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["product", "dense"])
def test_without_chance_it_finds_the_solution(form):
    problem = shared_center(8, 3, 10)
    method = BlockwiseVarianceReduction(1.0, 0.4, form=form)
    solution = rp.solve(problem, method, max_steps=1000, **FOREVER)
    for got, known in zip(solution.value, problem.facts.minimizer, strict=True):
        np.testing.assert_allclose(got, known, atol=1e-6)


def test_error_and_change_have_no_cross_term_on_average_over_the_draws():
    """By every draw of 2 blocks of 6: E|e+|^2 = A e^2 + B d^2 for this c, and no other."""
    a, m, chosen = 0.3, 6, [np.array(of) for of in itertools.combinations(range(6), 2)]
    rng = np.random.default_rng(0)
    truth, change, error = rng.standard_normal((3, m))

    def mean_square(change, error, c):
        method = BlockwiseVarianceReduction(tracking=a, change=c)
        total = 0.0
        for of in chosen:
            new = jnp.asarray((truth + change)[of])
            tracked = method._followed(of, m, jnp.asarray(truth + error), new, truth[of])
            total += np.sum((tracked - truth - change) ** 2) / len(chosen)
        return total

    for c, crossed in ((None, False), (1 - a, True), (0.0, True)):
        whole = mean_square(change, error, c)
        parts = mean_square(0 * change, error, c) + mean_square(change, 0 * error, c)
        assert (abs(whole - parts) > 0.01) == crossed
        if not crossed:
            np.testing.assert_allclose(whole, parts, rtol=1e-12)


def test_tree_of_blocks_is_the_flat_one():
    a = jax.random.normal(jax.random.key(0), (4, 5, 3))
    b = jnp.sum(a, axis=2)
    flat = lambda y: jnp.append(y["u"], y["v"])
    loss = lambda x, y, s, _: (s[0] @ y - s[1]) ** 2 / 2
    below = lambda x, y, s, _: loss(x, y, s, None) + jnp.sum((y - x["c"]) ** 2) / 2
    trees = [lambda x, y, s, _, fn=fn: fn(x, flat(y), s, _) for fn in (loss, below)]
    options = {"blocks_per_step": 2, "batch_size": 2}
    data, x = ((a, b), (a, b)), {"c": jnp.zeros(3)}
    one = MultiBlockBilevel(loss, below, x, jnp.zeros((4, 3)), *data, **options)
    y = {"u": jnp.zeros((4, 2)), "v": jnp.zeros(4)}
    other = MultiBlockBilevel(*trees, x, y, *data, **options)
    for form in ("product", "dense"):
        method = BlockwiseVarianceReduction(0.1, 0.05, form=form)
        runs = [
            rp.solve(p, method, key=jax.random.key(1), max_steps=5, **FOREVER).value
            for p in (one, other)
        ]
        np.testing.assert_allclose(runs[0][0]["c"], runs[1][0]["c"], rtol=1e-12)
        np.testing.assert_allclose(runs[0][1], jax.vmap(flat)(runs[1][1]), rtol=1e-12)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"upper": 0.0}, "`upper` of BlockwiseVarianceReduction must be"),
        ({"lower_step_size": -1.0}, "`lower_step_size` of"),
        ({"tracking": 1.0}, "`tracking` of"),
        ({"momentum": 0.0}, "`momentum` of"),
        ({"change": -1.0}, "`change` of"),
        ({"form": "sparse"}, "`form` of"),
        ({"curvature": 0.0}, "`curvature` of"),
    ],
)
def test_refuses_hyperparameters(options, message):
    with pytest.raises(ValueError, match=message):
        BlockwiseVarianceReduction(**options)


def test_refuses_a_set_for_y():
    loss = lambda x, y, s, _: (y - s * x) ** 2
    data, box = jnp.ones((2, 1)), rp.composite.Box(0.0, 1.0)
    problem = MultiBlockBilevel(loss, loss, 0.5, jnp.zeros(2), data, data, sets=(None, box))
    with pytest.raises(ValueError, match="no problem with a set for y"):
        rp.solve(problem, BlockwiseVarianceReduction())
