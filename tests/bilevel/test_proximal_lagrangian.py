"""ProximalLagrangian against a transcription in NumPy, closed forms, and a program of SciPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raphson as rp
from raphson.bilevel import ConstrainedBilevel, ProximalLagrangian
from raphson.problems import valleys

B, C = (np.random.default_rng(seed).normal(size=(2, 3)) for seed in (0, 1))


def stated(constrained=True):
    """f = |y|^2 / 2 - x'B y + sum y^4 / 4, y_1 + y_2 <= x_1 and y_3 - x_1 x_2 = 0 below."""

    def upper(x, y, _):
        return jnp.sum((y - 1) ** 2) / 2 + jnp.sum(x**2) / 10 + x @ C @ y

    def lower(x, y, _):
        return y @ y / 2 - x @ B @ y + jnp.sum(y**4) / 4

    start = jnp.array([0.5, -0.5]), jnp.array([0.3, 0.1, -0.2])
    if not constrained:
        sets = rp.composite.Box(-1.0, 0.6), rp.composite.Box(-0.25, 0.35)
        return rp.Bilevel(upper, lower, *start, sets=sets)
    return ConstrainedBilevel(
        upper,
        lower,
        *start,
        inequality=lambda x, y, _: y[0] + y[1] - x[0],
        equality=lambda x, y, _: y[2] - x[0] * x[1],
        feasible=lambda z, _: (jnp.clip(z[0], -1, 0.6), jnp.clip(z[1], -0.25, 0.35)),
    )


def transcription(method, constrained, count):
    """x, y, t and the multipliers after each step."""
    m = method
    x, y = np.array([0.5, -0.5]), np.array([0.3, 0.1, -0.2])
    t, a, b, za, zb = y if constrained else np.clip(y, -0.25, 0.35), 0.0, 0.0, 0.0, 0.0
    path = []

    def f(x, y):
        return -B @ y, y - B.T @ x + y**3

    for k in range(count):
        w = m.penalty * (k + 1) ** m.power
        # d/dy of a g + b h is (a, a, b), d/dx is (-a - b x_2, -b x_1).
        t = t - m.inner_step_size * (f(x, t)[1] + np.array([a, a, b]) + (t - y) / m.radius)
        if constrained:
            g, h = t[0] + t[1] - x[0], t[2] - x[0] * x[1]
            a = max(a + m.inner_step_size * (g - (a - za) / m.multiplier_radius), 0)
            b = b + m.inner_step_size * (h - (b - zb) / m.multiplier_radius)
        else:
            t = np.clip(t, -0.25, 0.35)
        F_x, F_y = x / 5 + C @ y, y - 1 + C.T @ x
        by_x = np.array([-a - b * x[1], -b * x[0]])
        u = F_x / w + f(x, y)[0] - f(x, t)[0] - by_x
        v = F_y / w + f(x, y)[1] - (y - t) / m.radius
        x = np.clip(x - m.step_size * u, -1, 0.6)
        y = np.clip(y - m.step_size * v, -0.25, 0.35)
        scale = m.center_step_size / m.multiplier_radius
        za, zb = (np.clip(z + scale * (e - z), -m.bound, m.bound) for z, e in ((za, a), (zb, b)))
        path.append(np.array([*x, *y, *t, a, b, za, zb]))
    return np.array(path)


@pytest.mark.parametrize("constrained", [True, False])
def test_steps_are_the_algorithm(constrained):
    problem = stated(constrained)
    method = ProximalLagrangian(0.2, 0.3, 0.6, 2.0, 1.5, penalty=0.8, power=0.4, bound=0.02)
    expected = transcription(method, constrained, 12)
    expected = expected if constrained else expected[:, :8]

    @jax.jit
    def step(carry, _):
        z, state = carry = method.step(problem, *carry)
        flat = (z, state.theta, state.multipliers, state.centers)
        return carry, jax.flatten_util.ravel_pytree(flat)[0]

    start = problem.y0, method.init(problem, problem.y0, None)
    path = jax.lax.scan(step, start, length=12)[1]
    np.testing.assert_allclose(path, expected, rtol=1e-11, atol=1e-13)
    if constrained:
        assert np.any(expected[:, 8] > 0) and np.any(np.abs(expected[:, -2:]) == 0.02)


def test_the_error_falls_as_the_penalty_grows():
    problem = valleys.coupled_levels()
    method = ProximalLagrangian(0.008, 0.01, 0.02)
    errors = []
    for steps in (3000, 24_000):
        x, (y_1, y_2) = rp.solve(problem, method, max_steps=steps, throw=False).value
        errors.append(float(jnp.max(jnp.abs(jnp.stack([x + 0.3, y_1 - 0.7, y_2 + 0.4])))))
        np.testing.assert_allclose(jnp.sum(x) + jnp.sum(y_1) + jnp.sum(y_2), 0, atol=1e-12)
    np.testing.assert_allclose(errors[1] / errors[0], 8**-0.3, rtol=0.1)
    assert errors[1] < 0.01


def test_a_constraint_that_binds_where_x_is_best():
    # y = min(x, 4) below; of (x - 3)^2 + (x - 1)^2 the least is at 2, with the multiplier 4.
    def nearest(z, _):
        above = jnp.maximum(z[1] - z[0], 0)
        return z[0] + above / 2, z[1] - above / 2

    below = {"inequality": lambda x, y, _: y - x, "feasible": nearest}
    upper = lambda x, y, _: (x - 3.0) ** 2 + (y - 1.0) ** 2
    lower = lambda x, y, _: (y - 4.0) ** 2
    problem = rp.Counted(ConstrainedBilevel(upper, lower, 0.0, 0.0, **below))
    run = rp.solve(problem, ProximalLagrangian())
    np.testing.assert_allclose(run.value, (2, 2), atol=1e-6)
    np.testing.assert_allclose(run.state.multipliers[0], 4, atol=1e-5)
    assert int(run.stats.counts["product"]) == 0


def test_single_precision_stays_single():
    upper = lambda x, y, _: (x["a"] - 3.0) ** 2 + (y["b"] - 1.0) ** 2
    lower = lambda x, y, _: (y["b"] - 4.0) ** 2
    one = jnp.ones((), jnp.float32)
    level = {"equality": lambda x, y, _: y["b"] - x["a"]}
    level["feasible"] = lambda z, _: (
        {"a": (z[0]["a"] + z[1]["b"]) / 2},
        {"b": (z[0]["a"] + z[1]["b"]) / 2},
    )
    problem = ConstrainedBilevel(upper, lower, {"a": one}, {"b": one}, **level)
    method = ProximalLagrangian(*np.array([0.1, 0.1, 0.1, 10, 10, 1, 0.3, 1000]))
    run = rp.solve(problem, method, max_steps=2000, throw=False)
    leaves = jax.tree.leaves((run.value, run.state.theta, run.state.multipliers))
    assert {leaf.dtype for leaf in leaves} == {one.dtype}
    np.testing.assert_allclose(jax.tree.leaves(run.value), 2, atol=1e-2)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ProximalLagrangian(0.0), "`step_size` of ProximalLagrangian must be"),
        (lambda: ProximalLagrangian(inner_step_size=0.0), "`inner_step_size` of Proximal"),
        (lambda: ProximalLagrangian(center_step_size=-1.0), "`center_step_size` of Proximal"),
        (lambda: ProximalLagrangian(radius=0.0), "`radius` of ProximalLagrangian must be"),
        (lambda: ProximalLagrangian(multiplier_radius=0.0), "`multiplier_radius` of Proximal"),
        (lambda: ProximalLagrangian(penalty=0.0), "`penalty` of ProximalLagrangian must be"),
        (lambda: ProximalLagrangian(power=0.5), "`power` of ProximalLagrangian must be"),
        (lambda: ProximalLagrangian(bound=0.0), "`bound` of ProximalLagrangian must be"),
    ],
)
def test_unfit_hyperparameters_are_refused_in_one_sentence(build, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
