"""The engine: how runs end and who says so, histories, interruption, checkpoints, compilation."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import optimistix as optx
import pytest

import raphson as rp
from raphson.problem import AbstractObjective, Known
from raphson.solution import Status

FOREVER = {"rtol": 0.0, "atol": 0.0}
CURVATURE = jnp.array([1.0, 4.0])
START = jnp.array([3.0, -2.0])


def bowl(y, a):
    return jnp.sum(CURVATURE * (y - a) ** 2) / 2


def rosenbrock(y, _):
    return (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2


BOWL = rp.Minimize(bowl, START, jnp.array(1.0))
DESCENT = rp.smooth.GradientDescent(0.1)


def descended(k):
    """The iterate of gradient descent on the bowl after k steps, in closed form."""
    return 1 + (np.array(START) - 1) * (1 - 0.1 * np.array(CURVATURE)) ** k


def same_bits(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


class Still(rp.AbstractMethod):
    """Stays where it is."""

    question: ClassVar = AbstractObjective

    def init(self, problem, y, key):
        return jnp.zeros(())

    def step(self, problem, y, state):
        return y, state


class Liar(Still):
    """Says that the gradient is zero wherever it is."""

    def known(self, problem, y, state):
        return Known(jnp.zeros(()), jnp.zeros_like(y))


class Tired(Still):
    """Stops after a step, for no reason of the problem's."""

    def terminate(self, problem, y, state):
        return Status.stalled


def torn():
    """Two levels under the constraints y = x + 1 and y = x - 1."""
    fn = lambda x, y, _: (x - 1) ** 2 + (y - 1) ** 2
    both = lambda x, y, _: jnp.stack([y - x - 1, y - x + 1])
    halfway = lambda z, _: ((z[0] + z[1]) / 2,) * 2
    return rp.bilevel.ConstrainedBilevel(fn, fn, 0.0, 0.0, equality=both, feasible=halfway)


# --- Statuses ---------------------------------------------------------------------------------

ENDINGS = {
    "converged": lambda: rp.solve(BOWL, DESCENT),
    "precise": lambda: rp.root(lambda y, _: 1e8 * (y**2 - 2), 1.0, **FOREVER),
    "max_steps": lambda: rp.solve(BOWL, DESCENT, max_steps=3, throw=False),
    "time_limit": lambda: rp.trace(BOWL, DESCENT, time_limit=0.0).solution,
    "interrupted": lambda: rp.trace(BOWL, DESCENT, callback=lambda record: True).solution,
    "stalled": lambda: rp.solve(BOWL, Tired(), throw=False),
    "nonfinite_start": lambda: rp.minimize(lambda y, _: jnp.log(y), 0.0, throw=False),
    "nonfinite": lambda: rp.minimize(
        lambda y, _: jnp.sqrt(y - 1.0) + y, 2.0, method=DESCENT, throw=False
    ),
    "unbounded": lambda: rp.minimize(
        lambda y, _: -(y**2), 1.0, method=rp.smooth.GradientDescent(), throw=False
    ),
    "breakdown": lambda: rp.linear_solve(
        jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones(2), method=rp.linear.SOR(), throw=False
    ),
    "not_a_root": lambda: rp.root(lambda y, _: jnp.ones_like(y), jnp.zeros(2), throw=False),
    "infeasible": lambda: rp.solve(torn(), max_steps=200, throw=False),
}


def test_every_status_is_shown_here():
    assert set(ENDINGS) == set(Status._name_to_item) - {"running"}
    for sentence in map(Status.__getitem__, Status._name_to_item.values()):
        assert sentence[0].isupper() and sentence.endswith(".")


@pytest.mark.parametrize("status", ENDINGS)
def test_runs_end_with_the_status_that_is_so(status):
    solution = ENDINGS[status]()
    assert rp.status_name(solution.status) == status
    assert bool(solution.converged) == (status == "converged")
    assert bool(solution.usable) == (status in ("converged", "precise"))


def test_precise_is_short_of_the_tolerance_and_as_good_as_the_arithmetic():
    solution = ENDINGS["precise"]()
    certificate = solution.certificate
    assert 0 < float(certificate.residual) <= float(certificate.noise)
    assert float(certificate.tolerance) == 0.0
    np.testing.assert_allclose(solution.value, np.sqrt(2), rtol=4e-16)


def test_precise_is_not_said_of_a_poor_answer():
    solution = rp.root(lambda y, _: 1e8 * (y**2 - 2), 1.0, max_steps=2, throw=False, **FOREVER)
    assert abs(float(solution.value) - np.sqrt(2)) > 1e-8
    assert rp.status_name(solution.status) == "max_steps"


def test_a_lie_is_not_believed():
    solution = rp.solve(BOWL, Liar(), throw=False)
    assert rp.status_name(solution.status) == "stalled"
    residual = np.linalg.norm(np.array(CURVATURE) * (np.array(START) - 1))
    np.testing.assert_allclose(solution.certificate.residual, residual, rtol=1e-12)
    assert not bool(solution.certificate.holds)
    with pytest.raises(rp.SolveError):
        rp.solve(BOWL, Liar())


def test_what_a_method_does_not_know_the_certificate_may_still_find():
    at_rest = rp.Minimize(bowl, jnp.ones(2), jnp.array(1.0))
    assert bool(rp.solve(at_rest, Tired()).converged)


def test_certificate_scale_and_tolerance():
    solution = rp.solve(BOWL, DESCENT, rtol=1e-3, atol=1e-9)
    scale = np.linalg.norm(np.array(CURVATURE) * (np.array(START) - 1))
    np.testing.assert_allclose(solution.certificate.scale, scale, rtol=1e-12)
    np.testing.assert_allclose(solution.certificate.tolerance, 1e-3 * scale, rtol=1e-12)
    # It stops at the first iterate that meets the tolerance.
    steps = int(solution.stats.steps)
    residual = lambda k: np.linalg.norm(np.array(CURVATURE) * (descended(k) - 1))
    assert residual(steps) <= 1e-3 * scale < residual(steps - 1)
    np.testing.assert_allclose(solution.value, descended(steps), rtol=1e-12)


def test_default_says_why_it_was_chosen():
    stats = rp.solve(BOWL).stats
    assert stats.method == "TrustRegionNewton" and "2 unknowns" in stats.reason
    assert rp.solve(BOWL, DESCENT).stats.reason == ""


# --- Raising ----------------------------------------------------------------------------------


def test_failure_raises_with_the_solution_at_hand():
    with pytest.raises(rp.SolveError, match="used all of `max_steps`") as caught:
        rp.solve(BOWL, DESCENT, max_steps=3)
    np.testing.assert_allclose(caught.value.solution.value, descended(3), rtol=1e-12)
    with pytest.raises(rp.SolveError, match="GradientDescent: max_steps after 3 steps"):
        rp.trace(BOWL, DESCENT, max_steps=3, throw=True)


def test_failure_raises_inside_filter_jit_with_its_sentence():
    @eqx.filter_jit
    def solved(a, max_steps):
        return rp.solve(rp.Minimize(bowl, START, a), DESCENT, max_steps=max_steps).value

    np.testing.assert_allclose(solved(jnp.array(2.0), 1000), 2.0, atol=1e-5)
    with pytest.raises(eqx.EquinoxRuntimeError, match="used all of `max_steps`") as caught:
        jax.block_until_ready(solved(jnp.array(2.0), 3))
    text = str(caught.value)
    assert len(re.findall(r'File "[^"]*/raphson/', text)) <= 5
    sentence = text.index("The run used all of `max_steps`")
    assert text.index("An error occurred during the runtime") > sentence


def test_status_is_data_inside_jit_and_vmap():
    def status(start):
        solution = rp.solve(rp.Minimize(bowl, start, jnp.array(1.0)), DESCENT, throw=False)
        return solution.converged, solution.stats.steps

    starts = jnp.array([[1.0, 1.0], [3.0, -2.0], [jnp.nan, 0.0]])
    converged, steps = jax.jit(jax.vmap(status))(starts)
    assert converged.tolist() == [True, True, False]
    assert steps[0] == 0 and steps[1] > 50 and steps[2] == 0


def test_vmap_takes_the_steps_of_a_loop():
    def solved(start):
        solution = rp.solve(rp.Minimize(rosenbrock, start), max_steps=12, throw=False, **FOREVER)
        return solution.value

    starts = jax.random.uniform(jax.random.key(0), (3, 2), minval=-1.0)
    alone = jnp.stack([solved(start) for start in starts])
    np.testing.assert_allclose(jax.vmap(solved)(starts), alone, rtol=1e-12)
    assert same_bits(solved(starts[0]), solved(starts[0]))


# --- Histories --------------------------------------------------------------------------------


def test_trace_ends_where_solve_ends():
    problem = rp.Minimize(rosenbrock, jnp.array([-1.2, 1.0]))
    solution, history = rp.solve(problem), rp.trace(problem)
    assert same_bits(
        (solution.value, solution.state), (history.solution.value, history.solution.state)
    )
    assert rp.status_name(history.solution.status) == rp.status_name(solution.status)
    assert int(history.solution.stats.steps) == int(solution.stats.steps) == history.steps[-1]
    np.testing.assert_allclose(history.measures["residual"][-1], solution.certificate.residual)


def test_history_holds_the_measures_of_the_problem():
    facts = rp.Facts(optimum=0.0, minimizer=jnp.ones(2))
    problem = rp.Minimize(bowl, START, jnp.array(1.0), facts=facts)
    history = rp.trace(problem, DESCENT, max_steps=30, every=3, **FOREVER)
    np.testing.assert_array_equal(history.steps, np.arange(0, 31, 3))
    ys = np.array([descended(k) for k in history.steps])
    values = np.sum(np.array(CURVATURE) * (ys - 1) ** 2, axis=1) / 2
    residuals = np.linalg.norm(np.array(CURVATURE) * (ys - 1), axis=1)
    distances = np.linalg.norm(ys - 1, axis=1)
    np.testing.assert_allclose(history.measures["value"], values, rtol=1e-10)
    np.testing.assert_allclose(history.measures["gap"], values, rtol=1e-10)
    np.testing.assert_allclose(history.measures["residual"], residuals, rtol=1e-10)
    np.testing.assert_allclose(history.measures["distance"], distances, rtol=1e-10)
    assert history.counts == {}


def test_residual_is_the_first_measure():
    problem = rp.Minimize(bowl, START, jnp.array(1.0), facts=rp.Facts(minimizer=jnp.ones(2)))
    history = rp.trace(problem, DESCENT, max_steps=1)
    assert next(iter(history.measures)) == "residual"


def test_looks_grow_rarer():
    history = rp.trace(BOWL, rp.smooth.GradientDescent(1e-6), max_steps=5000, **FOREVER)
    gaps = np.diff(history.steps)
    assert history.steps[0] == 0 and history.steps[-1] == 5000
    assert gaps[:5].tolist() == [1] * 5
    assert np.all(gaps[:-1] <= np.maximum(1, 0.16 * history.steps[1:-1]))
    assert len(history.steps) < 100


def test_seconds_rise_and_leave_compilation_apart():
    new = lambda y, _: rosenbrock(y, None)  # compiled by no other test
    history = rp.trace(rp.Minimize(new, jnp.array([-1.2, 1.0])), max_steps=20)
    assert np.all(np.diff(history.seconds) >= 0)
    assert history.compile_seconds > history.seconds[-1] > 0


def test_time_limit_is_kept():
    slow = rp.smooth.GradientDescent(1e-9)
    start = time.perf_counter()
    history = rp.trace(BOWL, slow, max_steps=2**31 - 1, time_limit=0.3, **FOREVER)
    elapsed = time.perf_counter() - start - history.compile_seconds
    assert rp.status_name(history.solution.status) == "time_limit"
    assert 0.3 <= history.seconds[-1] <= 0.3 + 0.5
    assert elapsed < 30 and int(history.solution.stats.steps) > 1000


# --- Interruption -----------------------------------------------------------------------------


def test_callback_ends_a_run_and_sees_it_come_along():
    seen = []

    def enough(record):
        seen.append(record)
        return record.step >= 5

    problem = rp.Counted(BOWL)
    history = rp.trace(problem, DESCENT, callback=enough, every=1, **FOREVER)
    assert rp.status_name(history.solution.status) == "interrupted"
    assert [record.step for record in seen] == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(history.solution.value, descended(5), rtol=1e-12)
    assert seen[3].counts["gradient"] == 4
    assert seen[3].seconds <= seen[4].seconds
    np.testing.assert_allclose(seen[3].measures["value"], bowl(descended(3), 1.0), rtol=1e-10)


@pytest.fixture
def listening():
    """Ctrl-C as at a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_returns_what_there_is(listening):
    def interrupt(record):
        if record.step >= 5:
            signal.raise_signal(signal.SIGINT)

    history = rp.trace(BOWL, DESCENT, callback=interrupt, every=1, **FOREVER)
    assert rp.status_name(history.solution.status) == "interrupted"
    np.testing.assert_allclose(history.solution.value, descended(5), rtol=1e-12)
    assert history.steps[-1] == 5


def test_ctrl_c_returns_what_scipy_had():
    def interrupt(record):
        if record.step >= 3:
            raise KeyboardInterrupt

    problem = rp.Minimize(rosenbrock, jnp.array([-1.2, 1.0]))
    history = rp.trace(problem, rp.SciPyMinimize("BFGS"), callback=interrupt, every=1)
    assert rp.status_name(history.solution.status) == "interrupted"
    assert int(history.solution.stats.steps) == 3
    assert history.measures["value"][-1] < history.measures["value"][0]


def test_error_of_a_callback_is_the_users():
    def broken(record):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        rp.trace(BOWL, DESCENT, callback=broken)


ENDLESS = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import raphson as rp
problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.array([3.0, -2.0]))
method = rp.smooth.HeavyBall(1e-7, momentum=0.5)
options = {"rtol": 0.0, "atol": 0.0, "max_steps": 2**31 - 1}
"""


def started(script, *arguments):
    """A process running `script`, once it has said that it is running."""
    environment = os.environ | {"PYTHONPATH": str(Path(rp.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    return process


@pytest.mark.slow
def test_ctrl_c_from_a_terminal(listening):
    process = started(
        """
told = []
def tell(record):
    if record.step > 0 and not told:
        told.append(print("running", flush=True))
history = rp.trace(problem, method, callback=tell, **options)
print(rp.status_name(history.solution.status), int(history.solution.stats.steps) > 0)
"""
    )
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0].split() == ["interrupted", "True"]
    assert process.returncode == 0


# --- Checkpoints ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LazyNewton", "optimistix.LBFGS"])
def test_run_goes_on_from_any_checkpoint_bit_for_bit(name, tmp_path):
    method = (
        rp.smooth.LazyNewton(refresh_every=3) if name == "LazyNewton" else optx.LBFGS(1e-9, 1e-9)
    )
    problem = rp.Counted(rp.Minimize(rosenbrock, jnp.array([-1.2, 1.0])))
    options = FOREVER | {"max_steps": 25, "every": 2}
    live = tmp_path / "live"

    def copy(record):
        if live.exists():
            shutil.copy(live, tmp_path / f"at_{record.step}")

    whole = rp.trace(
        problem, method, checkpoint=live, checkpoint_seconds=0.0, callback=copy, **options
    )
    copies = sorted(tmp_path.glob("at_*"))
    assert len(copies) >= 10
    for saved in np.random.default_rng(0).choice(copies, 3, replace=False):
        resumed = rp.trace(problem, method, checkpoint=saved, **options)
        assert same_bits(
            (resumed.solution.value, resumed.solution.state, resumed.solution.stats.counts),
            (whole.solution.value, whole.solution.state, whole.solution.stats.counts),
        )
        np.testing.assert_array_equal(resumed.steps, whole.steps)
        for measure in whole.measures:
            assert resumed.measures[measure].tobytes() == whole.measures[measure].tobytes()
        np.testing.assert_array_equal(resumed.counts["gradient"], whole.counts["gradient"])
        assert np.all(np.diff(resumed.seconds) >= 0)


def test_an_interrupted_run_can_be_resumed(tmp_path):
    whole = rp.trace(BOWL, DESCENT, max_steps=20, every=1, **FOREVER)
    stop = {"callback": lambda record: record.step >= 7, "checkpoint": tmp_path / "run"}
    part = rp.trace(BOWL, DESCENT, max_steps=20, every=1, **stop, **FOREVER)
    assert int(part.solution.stats.steps) == 7
    rest = rp.trace(BOWL, DESCENT, max_steps=20, every=1, checkpoint=tmp_path / "run", **FOREVER)
    assert same_bits(rest.solution.value, whole.solution.value)
    np.testing.assert_array_equal(rest.steps, whole.steps)


def test_a_finished_run_is_only_read(tmp_path):
    first = rp.trace(BOWL, DESCENT, checkpoint=tmp_path / "run")
    again = rp.trace(BOWL, DESCENT, checkpoint=tmp_path / "run")
    assert same_bits(first.solution.value, again.solution.value)
    np.testing.assert_array_equal(first.steps, again.steps)
    np.testing.assert_array_equal(first.seconds, again.seconds)


def test_random_numbers_are_saved_too(tmp_path):
    data = jnp.arange(32.0)
    problem = rp.FiniteSum(lambda y, s, _: (y - s) ** 2, jnp.array(0.0), data, batch_size=4)
    options = {"key": jax.random.key(0), "every": 1} | FOREVER
    whole = rp.trace(problem, optax.adam(0.1), max_steps=9, **options)
    rp.trace(problem, optax.adam(0.1), max_steps=4, checkpoint=tmp_path / "run", **options)
    rest = rp.trace(problem, optax.adam(0.1), max_steps=9, checkpoint=tmp_path / "run", **options)
    assert same_bits(whole.solution.value, rest.solution.value)
    assert rest.measures["value"].tobytes() == whole.measures["value"].tobytes()


def test_time_limit_counts_from_where_a_run_is_resumed(tmp_path):
    slow = rp.smooth.GradientDescent(1e-9)
    options = {"max_steps": 2**31 - 1, "checkpoint": tmp_path / "run", "time_limit": 0.2, **FOREVER}
    steps = [int(rp.trace(BOWL, slow, **options).solution.stats.steps) for _ in range(2)]
    assert steps[1] > 1.1 * steps[0] > 0


def test_checkpoint_of_another_run_is_refused(tmp_path):
    rp.trace(BOWL, DESCENT, max_steps=3, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="`checkpoint` .* holds a run of GradientDescent"):
        rp.trace(BOWL, rp.smooth.HeavyBall(), max_steps=3, checkpoint=tmp_path / "run")
    longer = rp.Minimize(lambda y, a: jnp.sum((y - a) ** 2), jnp.zeros(5), jnp.array(1.0))
    with pytest.raises(ValueError, match="other shapes"):
        rp.trace(longer, DESCENT, max_steps=3, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="`checkpoint` needs a compiled loop"):
        rp.trace(BOWL, rp.SciPyMinimize("BFGS"), checkpoint=tmp_path / "run")


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit(tmp_path):
    file = tmp_path / "run"
    script = """
import sys
told = []
def tell(record):
    if not told:
        told.append(print("running", flush=True))
rp.trace(problem, method, checkpoint=sys.argv[1], checkpoint_seconds=0.0, callback=tell, **options)
"""
    for wait in np.random.default_rng(1).uniform(0.2, 1.5, 3):
        process = started(script, file)
        time.sleep(wait)
        process.kill()
        process.communicate()
    problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.array([3.0, -2.0]))
    method = rp.smooth.HeavyBall(1e-7, momentum=0.5)
    reached = rp.trace(problem, method, checkpoint=file, time_limit=0.0, **FOREVER)
    steps = int(reached.solution.stats.steps)
    assert steps > 1000
    resumed = rp.trace(problem, method, checkpoint=file, max_steps=steps + 500, **FOREVER)
    whole = rp.trace(problem, method, max_steps=steps + 500, **FOREVER)
    assert same_bits(resumed.solution.value, whole.solution.value)
    assert same_bits(resumed.solution.state, whole.solution.state)


# --- Compilation ------------------------------------------------------------------------------


def test_numbers_are_data():
    traces = []

    def fn(y, a):
        traces.append(None)
        return bowl(y, a["center"]) * a["weight"]

    def solve(start, center, weight, step_size, **options):
        problem = rp.Minimize(fn, jnp.array(start), {"center": center, "weight": weight})
        return rp.solve(problem, rp.smooth.GradientDescent(step_size), throw=False, **options)

    solve([0.0, 0.0], jnp.array(1.0), 1.0, 0.1)
    assert 1 <= len(traces) <= 2
    first = len(traces)
    solve([5.0, -1.0], jnp.array(2.0), 0.5, 0.2, rtol=1e-3, atol=1e-4, max_steps=50)
    solve([5.0, -1.0], jnp.array(2.0), 0.5, 0.2, atol=0, max_steps=0)
    assert len(traces) == first
    solve([5.0, -1.0, 3.0, 0.0][:2], jnp.array(2.0), jnp.ones(()), 0.2)  # an array, no number
    assert len(traces) > first


def test_second_trace_runs_no_python_of_the_users():
    traces = []

    def fn(y, a):
        traces.append(None)
        return bowl(y, a)

    rp.trace(rp.Minimize(fn, START, jnp.array(1.0)), DESCENT, max_steps=5)
    first = len(traces)
    history = rp.trace(rp.Minimize(fn, 2 * START, jnp.array(0.5)), DESCENT, max_steps=50, every=7)
    assert len(traces) == first and history.steps[-1] == 50


def test_solves_inside_filter_jit_compile_once():
    traces = []

    @eqx.filter_jit
    def solved(problem, method):
        traces.append(None)
        return rp.solve(problem, method, throw=False).value

    solved(BOWL, rp.smooth.GradientDescent(jnp.array(0.1)))
    value = solved(
        eqx.tree_at(lambda p: p.args, BOWL, jnp.array(2.0)),
        rp.smooth.GradientDescent(jnp.array(0.2)),
    )
    np.testing.assert_allclose(value, 2.0, atol=1e-5)
    assert len(traces) == 1


def test_iterate_is_the_bare_loop():
    run = jax.jit(lambda: rp.iterate(BOWL, DESCENT, START, rtol=0.0, atol=1e-3, max_steps=1000))()
    gradient = lambda k: np.linalg.norm(np.array(CURVATURE) * (descended(k) - 1))
    steps = int(run.step)
    assert gradient(steps) <= 1e-3 < gradient(steps - 1)
    np.testing.assert_allclose(run.y, descended(steps), rtol=1e-12)
    assert rp.status_name(run.status) == "converged"
    short = rp.iterate(BOWL, DESCENT, START, rtol=0.0, atol=0.0, max_steps=4)
    assert rp.status_name(short.status) == "running" and int(short.step) == 4


# --- Watching ---------------------------------------------------------------------------------


def test_watch_reports_and_interrupts():
    seen = []
    with rp.watch(seen.append):
        solution = rp.solve(BOWL, DESCENT)
    assert [record.step for record in seen][0] == 0
    assert seen[-1].step == int(solution.stats.steps)
    assert same_bits(solution.value, rp.solve(BOWL, DESCENT).value)
    count = len(seen)
    rp.solve(BOWL, DESCENT)
    assert len(seen) == count, "the watch outlived its context"

    with rp.watch(lambda record: record.step >= 4):
        part = rp.solve(BOWL, DESCENT, throw=False)
        assert rp.status_name(part.status) == "interrupted"
        with pytest.raises(rp.SolveError, match="interrupted"):
            rp.solve(BOWL, DESCENT)


def test_watch_leaves_compiled_code_alone():
    seen = []
    with rp.watch(seen.append):
        value = jax.jit(
            lambda a: rp.solve(rp.Minimize(bowl, START, a), DESCENT, throw=False).value
        )(2.0)
        jax.grad(
            lambda a: jnp.sum(rp.solve(rp.Minimize(bowl, START, a), DESCENT, throw=False).value)
        )(2.0)
    np.testing.assert_allclose(value, 2.0, atol=1e-5)
    assert seen == []


def test_watches_nest():
    outer, inner = [], []
    with rp.watch(outer.append):
        with rp.watch(inner.append):
            rp.solve(BOWL, DESCENT)
        assert len(inner) == len(outer) > 0
        rp.trace(BOWL, DESCENT, callback=inner.append)
    assert len(inner) == len(outer)


def test_progress_is_shown_on_standard_error_alone(capfd):
    with rp.progress():
        solution = rp.solve(BOWL, DESCENT)
    assert bool(solution.converged)
    assert capfd.readouterr().out == ""


def test_nothing_is_printed(capfd):
    rp.solve(BOWL, DESCENT)
    rp.trace(BOWL, DESCENT, max_steps=3)
    rp.linear_solve(lx.MatrixLinearOperator(jnp.eye(2)), jnp.ones(2))
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_answer_shows_itself_in_a_line():
    shown = repr(rp.solve(BOWL, DESCENT))
    assert shown.startswith("Solution(converged after ") and "GradientDescent" in shown
    lanes = jax.vmap(lambda a: rp.solve(rp.Minimize(bowl, START, a), DESCENT, throw=False))
    assert "value=f64[2,2]" in repr(lanes(jnp.array([1.0, 2.0]))).replace(" ", "")


def test_default_of_many_unknowns_stops_where_it_is_asked_to():
    weights = jnp.linspace(1.0, 100.0, 1000)
    quartic = lambda y, w: jnp.sum(w * (y - 1) ** 2 + y**4)
    solution = rp.minimize(quartic, jnp.zeros(1000), weights, rtol=0.0, atol=1e-3)
    assert "products" in solution.stats.reason
    assert float(solution.certificate.residual) <= 1e-3


class Peeking(rp.smooth.GradientDescent):
    """Gradient descent that answers NaN if it gets to see what is known of the problem."""

    def answer(self, problem, y, state):
        return y if problem.facts.optimum is None else jnp.nan * y


def test_no_method_sees_facts():
    problem = rp.Minimize(bowl, START, 1.0, facts=rp.Facts(optimum=0.0))
    history = rp.trace(problem, Peeking(0.1))
    assert bool(history.solution.converged) and bool(rp.solve(problem, Peeking(0.1)).converged)
    assert "gap" in history.measures and np.all(np.isfinite(history.measures["gap"]))
