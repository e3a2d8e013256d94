"""Bad input and faults: one clear sentence before anything is compiled, or the right status.

Sixty cases in three groups (the start, the function, the options) meet every convenience, and one
method of each family that no convenience chooses. What depends on the method itself meets every
method, by its being listed in its family.
"""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import optimistix as optx
import pytest

import raphson as rp
from raphson.families import methods

# A prior that is inferred from tasks is no answer that a residual judges; it has tests of its own.
METHODS = {n: m for n, m in methods().items() if m.question is not rp.bilevel.FewShot}
MAX_STEPS = 2000
INF = float("inf")

# --- What a case may end as -------------------------------------------------------------------


class Refused(NamedTuple):
    """A `ValueError` or `TypeError` of one sentence that holds these words."""

    words: tuple[str, ...]
    # Whether it takes a trace of the function to see that the input is bad.
    traced: bool = False


class Raised(NamedTuple):
    """The user's own exception, as it was raised."""

    kind: type[Exception]
    words: str


class Ends(NamedTuple):
    """A solution with one of these statuses, right if it is called usable."""

    statuses: tuple[str, ...]
    answer: Any = None
    steps: int | None = None


class Broken(Exception):
    """What the user's own function raises."""


def refused(*words: str) -> Refused:
    return Refused(words)


def refused_by_trace(*words: str) -> Refused:
    return Refused(words, traced=True)


COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **more: (
        COMPILED.append(more.get("fun_name", ""))
        if event.endswith("backend_compile_duration")
        else None
    )
)


def frames_of_ours(error: BaseException) -> list[str]:
    """The lines of the traceback that lie in the library."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in frames if "/raphson/" in frame.filename]


def caught(call: Callable[[], Any]) -> BaseException:
    """The exception that `call` ends in."""
    try:
        result = call()
    except Exception as error:
        return error
    raise AssertionError(f"nothing was raised; the run ended {rp.status_name(result.status)}.")


def check(call: Callable[[], Any], expected: Refused | Raised | Ends) -> None:
    if isinstance(expected, Raised):
        error = caught(call)
        assert type(error) is expected.kind
        assert expected.words in str(error).splitlines()[0]
    elif isinstance(expected, Refused):
        del COMPILED[:]
        error = caught(call)
        assert isinstance(error, ValueError | TypeError), repr(error)
        message = str(error)
        for word in expected.words:
            assert word in message
        assert "\n" not in message and len(message) < 300, message
        assert "jit(_call)" not in COMPILED, "the run was compiled before it was refused"
        if not expected.traced:
            assert len(frames_of_ours(error)) <= 5, frames_of_ours(error)
    else:
        ends_as(call(), expected)


def ends_as(solution: rp.Solution, expected: Ends) -> None:
    status = rp.status_name(solution.status)
    assert status in expected.statuses
    assert expected.steps is None or int(solution.stats.steps) == expected.steps
    values = [np.asarray(leaf) for leaf in jax.tree.leaves(solution.value)]
    if status != "nonfinite_start":
        assert all(np.all(np.isfinite(value)) for value in values), "not the last finite iterate"
    if status in ("converged", "precise") and expected.answer is not None:
        for value in values:
            np.testing.assert_allclose(value, expected.answer, rtol=1e-2, atol=1e-2)


# --- The questions, with dials that spoil them -------------------------------------------------
# One function for each question, so that most cases share one compilation. Its answer is 1.

ORIGIN = jnp.zeros(2)


def rough(y: Any, a: dict[str, Any]) -> Any:
    return a["kink"] * jnp.abs(y - 1) + a["jump"] * (y > 0.5)


def barrier(y: Any, a: dict[str, Any]) -> Any:
    """1 within the radius, NaN outside."""
    return jnp.where(jnp.any(jnp.abs(y) > a["radius"]), jnp.nan, 1.0)


ROUGH = {"kink": 0.0, "jump": 0.0, "radius": INF}
BOWL = {"quadratic": 1.0, "linear": 0.0, "exponential": 0.0} | ROUGH


def bowl(y: Any, a: dict[str, Any]) -> Any:
    growth = jnp.sum(jnp.exp(jnp.where(a["exponential"] == 0, 0, y)))
    f = a["quadratic"] * jnp.sum((y - 1) ** 2) / 2 - a["linear"] * jnp.sum(y)
    return (f - a["exponential"] * growth + jnp.sum(rough(y, a))) * barrier(y, a)


SYSTEM = {"slope": 1.0, "square": 0.0, "offset": 0.0} | ROUGH


def system(y: Any, a: dict[str, Any]) -> Any:
    F = a["slope"] * (y - 1) + a["square"] * y**2 + a["offset"] + rough(y, a)
    return F * barrier(y, a)


def map_of_system(y: Any, a: dict[str, Any]) -> Any:
    return y - 0.5 * system(y, a)


GAME = {"convex": 1.0, "bilinear": 0.5, "linear": 0.0} | ROUGH


def game(x: Any, y: Any, a: dict[str, Any]) -> Any:
    f = a["convex"] * (jnp.sum((x - 1) ** 2) - jnp.sum((y - 1) ** 2)) / 2
    f = f + a["bilinear"] * jnp.sum((x - 1) * (y - 1)) + a["linear"] * (jnp.sum(x) - jnp.sum(y))
    return (f + jnp.sum(rough(x, a)) - jnp.sum(rough(y, a))) * barrier(x, a)


COST = {"convex": 1.0} | ROUGH


def cost(x: Any, a: dict[str, Any]) -> Any:
    return (a["convex"] * jnp.sum((x - 1) ** 2) / 2 - jnp.sum(x) + jnp.sum(rough(x, a))) * barrier(
        x, a
    )


def trade(x: Any, y: Any, a: dict[str, Any]) -> Any:
    return x @ y


LEVELS = {"quadratic": 1.0, "linear": 0.0} | ROUGH


def upper_level(x: Any, y: Any, a: dict[str, Any]) -> Any:
    f = jnp.sum((x - 1) ** 2) + jnp.sum((y - 1) ** 2) / 2
    return (f + jnp.sum(rough(x, a))) * barrier(x, a)


def lower_level(x: Any, y: Any, a: dict[str, Any]) -> Any:
    f = a["quadratic"] * jnp.sum((y - (x + 1) / 2) ** 2) / 2
    return (f - a["linear"] * jnp.sum(y)) * barrier(x, a)


def upper_block(x: Any, y: Any, i: Any, a: dict[str, Any]) -> Any:
    return upper_level(x, y, a)


def lower_block(x: Any, y: Any, i: Any, a: dict[str, Any]) -> Any:
    return lower_level(x[i], y, a)


class Entry(NamedTuple):
    """A door into the library: `solve(fn, y0, args, **options)` with a sound function for it."""

    solve: Callable[..., rp.Solution]
    fn: Any
    args: Any
    start: str  # the name that messages call the start by

    def run(self, fn: Any = None, y0: Any = ORIGIN, args: Any = None, **options: Any) -> Any:
        options = {"throw": False, "max_steps": MAX_STEPS} | options
        fn, args = self.fn if fn is None else fn, self.args if args is None else args
        return self.solve(fn, y0, args, **options)

    def dialled(self, **dials: float) -> Any:
        return self.run(args=self.args | dials)


def by_method(question: Callable[..., Any], method: Any) -> Callable[..., rp.Solution]:
    def solve(*inputs: Any, method: Any = method, **options: Any) -> rp.Solution:
        return rp.solve(question(*inputs), method, **options)

    return solve


ENTRIES = {
    "minimize": Entry(rp.minimize, bowl, BOWL, "y0"),
    "root": Entry(rp.root, system, SYSTEM, "y0"),
    "least_squares": Entry(rp.least_squares, system, SYSTEM, "y0"),
    "fixed_point": Entry(rp.fixed_point, map_of_system, SYSTEM, "y0"),
    "smooth": Entry(by_method(rp.Minimize, rp.smooth.GradientDescent()), bowl, BOWL, "y0"),
    "saddle": Entry(
        by_method(lambda fn, z, a: rp.Saddle(fn, z, z, a), rp.saddle.Extragradient()),
        game,
        GAME,
        "x",
    ),
}
OBJECTIVES, RESIDUALS = ("minimize", "smooth"), ("root", "least_squares", "fixed_point")

MATRIX, VECTOR = 2.0 * jnp.eye(2), 2.0 * jnp.ones(2)


def linear_solve(operator: Any = MATRIX, vector: Any = VECTOR, **options: Any) -> rp.Solution:
    return rp.linear_solve(operator, vector, **({"throw": False} | options))


def sor(operator: Any = MATRIX, vector: Any = VECTOR, y0: Any = None, **options: Any) -> Any:
    problem = rp.LinearSystem(operator, vector, y0)
    method = options.pop("method", rp.linear.SOR())
    return rp.solve(problem, method, **({"throw": False} | options))


# --- The start --------------------------------------------------------------------------------

OPEN = ("converged", "precise", "stalled", "max_steps")  # no promise but to be right if usable

START: dict[str, tuple[Any, Any]] = {
    "nan": (jnp.array([jnp.nan, 0.0]), Ends(("nonfinite_start",), steps=0)),
    "plus_inf": (jnp.array([jnp.inf, 0.0]), Ends(("nonfinite_start",), steps=0)),
    "minus_inf": (jnp.array([-jnp.inf, 0.0]), Ends(("nonfinite_start",), steps=0)),
    "empty": (jnp.zeros(0), Ends(("converged",), steps=0)),
    "empty_pytree": ({}, refused("`{start}`", "at least one array", "got {{}}")),
    "string": ("abc", refused("`{start}`", "floating-point", "'abc'")),
    "none": (None, refused("`{start}`", "floating-point", "None")),
    "integer": (jnp.array([1, 2]), refused("`{start}`", "floating-point", "int64")),
    "bool": (np.array([True]), refused("`{start}`", "floating-point", "bool")),
    "complex": (
        jnp.array([[1j], [2j]]),
        refused("`{start}`", "real floating-point", "complex128", "real and imaginary"),
    ),
    "float16": (jnp.zeros(2, jnp.float16), refused("`{start}`", "float32 or float64", "float16")),
    "bfloat16": (
        jnp.zeros(2, jnp.bfloat16),
        refused("`{start}`", "float32 or float64", "bfloat16"),
    ),
    "mixed_dtypes": (
        [jnp.zeros(2, jnp.float32), jnp.zeros(2)],
        refused("`{start}`", "one dtype", "float32 and float64"),
    ),
    "object": (np.array([object()]), refused("`{start}`", "floating-point", "object")),
    "zero_d": (jnp.array(0.0), Ends(("converged",), answer=1.0)),
    "huge": (jnp.array([1e300, 0.0]), Ends(("nonfinite_start", "nonfinite", *OPEN), answer=1.0)),
    "denormal": (jnp.array([5e-324, 0.0]), Ends(("converged",), answer=1.0)),
    "at_optimum": (jnp.ones(2), Ends(("converged",), answer=1.0, steps=0)),
}


def start_rows() -> Iterator[Any]:
    for case, (value, expected) in START.items():
        for name, entry in ENTRIES.items():
            outcome = named(expected, entry.start)
            yield f"start-{case}-{name}", lambda e=entry, v=value: e.run(y0=v), outcome
        # Linear systems start at zero; what is bad may be the right-hand side, or a start given.
        outcome = named(expected, "vector")
        if case in ("huge", "denormal", "at_optimum"):
            outcome = Ends(expected.statuses, answer=np.asarray(value) / 2)
        if case == "zero_d":
            outcome = refused("`vector`", "float64[2]", "float64[]")
        matrix = jnp.zeros((0, 0)) if case == "empty" else MATRIX
        yield (
            f"start-{case}-linear_solve",
            lambda m=matrix, v=value: linear_solve(m, v),
            outcome,
        )
        if case not in ("none", "empty"):
            outcome = named(expected, "y0")
            if case == "zero_d":
                outcome = refused("`y0`", "float64[2]", "float64[]")
            yield f"start-{case}-linear", lambda v=value: sor(y0=v), outcome
    yield from saddle_point_rows()
    yield "start-outside_bounds-saddle", outside_bounds, Ends(("converged",), answer=0.25)


def named(expected: Any, start: str) -> Any:
    if not isinstance(expected, Refused):
        return expected
    return Refused(tuple(word.format(start=start) for word in expected.words))


def saddle_point_rows() -> Iterator[Any]:
    """Starts where the derivative vanishes though nothing is solved."""
    first_order = Ends(("converged",), answer=0.0, steps=0)
    for name in OBJECTIVES:
        call = lambda e=ENTRIES[name]: e.run(lambda y, _: y[0] ** 2 - y[1] ** 2)
        yield f"start-at_saddle-{name}", call, first_order
    no_descent = lambda y, _: y**2 - 1
    yield (
        "start-at_saddle-least_squares",
        lambda: ENTRIES["least_squares"].run(no_descent),
        first_order,
    )
    rest = Ends(("not_a_root",), answer=0.0)
    yield "start-at_saddle-root", lambda: ENTRIES["root"].run(no_descent), rest
    moving = lambda y, _: y + y**2 - 1
    rest = Ends(("stalled", "not_a_root"), answer=0.0)
    yield "start-at_saddle-fixed_point", lambda: ENTRIES["fixed_point"].run(moving), rest


def outside_bounds() -> rp.Solution:
    box = rp.composite.Box(-1.0, 1.0)
    fn = lambda x, y, _: (x - 0.25) ** 2 - (y - 0.25) ** 2
    problem = rp.Saddle(fn, jnp.array(5.0), jnp.array(-5.0), nonsmooth=(box, box))
    return rp.solve(problem, throw=False)


# --- The function -----------------------------------------------------------------------------


def raises(*_: Any) -> Any:
    raise Broken("the model is broken")


FORBIDDEN = "Reverse-mode differentiation does not work for lax.while_loop"


def halved(y: Any) -> Any:
    """(y - 1) / 8, by a loop that only forward mode can differentiate."""
    going, halve = lambda carry: carry[0] < 3, lambda carry: (carry[0] + 1, carry[1] / 2)
    return jax.lax.while_loop(going, halve, (0, y - 1))[1]


def function_rows() -> Iterator[Any]:
    for name, entry in ENTRIES.items():
        yield from function_rows_of(name, entry)
    yield from operator_rows()


def function_rows_of(name: str, entry: Entry) -> Iterator[Any]:
    vectors, objective, saddle = name in RESIDUALS, name in OBJECTIVES, name == "saddle"
    want = "real floating-point" if vectors else "one real scalar"
    slope = "slope" if vectors else "quadratic" if objective else "convex"

    def row(case: str, expected: Any, fn: Any = None, y0: Any = ORIGIN, **dials: float) -> Any:
        return f"function-{case}-{name}", lambda: entry.run(fn, y0, entry.args | dials), expected

    def of_first(fn: Callable[[Any], Any]) -> Any:
        """`fn` of the first unknown, called as the entry calls its function."""
        return lambda *inputs: fn(inputs[0])

    def fails(case: str, output: Any, *words: str) -> Any:
        return row(case, refused_by_trace("`fn`", *words), of_first(output))

    yield row("not_callable", refused("`fn`", "function", "3.0"), 3.0)
    arguments = f"{3 if saddle else 2} arguments"
    yield row("wrong_arity", refused_by_trace("`fn`", arguments), lambda y: y)
    if not vectors:
        yield fails("vector_for_scalar", lambda y: y, want, "float64[2]")
    if name == "root":
        yield fails("scalar_for_residuals", jnp.sum, "1 equations", "2 unknowns")
    if name == "fixed_point":
        yield fails("scalar_for_residuals", jnp.sum, "float64[2]", "float64[]")
    yield fails("integer_output", lambda y: 1, want, "int64")
    yield fails("complex_output", lambda y: y * 1j, want, "complex128")
    yield fails("returns_none", lambda y: None, want, "nothing")
    yield fails("returns_text", lambda y: "abc", "'abc'")
    if name != "least_squares":  # residuals may have any shape
        yield fails("wrong_shape", lambda y: jnp.zeros((1,)))
    yield row("raises_inside", Raised(Broken, "the model is broken"), raises)

    yield row("nan_at_start", Ends(("nonfinite_start",), steps=0), radius=-1.0)
    # The answer lies beyond the barrier: nothing found inside may be called usable.
    yield row("nan_off_start", Ends(("nonfinite", "stalled", "max_steps")), radius=0.5)
    yield row("inf", Ends(("nonfinite_start",), steps=0), **{slope: INF})
    alone = {"bilinear": 0.0} if saddle else {}
    yield row("not_differentiable", Ends(OPEN, answer=1.0), **{slope: 0.0, "kink": 1.0}, **alone)
    if name in ("root", "fixed_point"):
        # The jump leaves no root, and hides that from the derivative.
        yield row("discontinuous", Ends(("stalled", "not_a_root", "max_steps")), jump=5.0)
    elif name == "least_squares":
        yield row("discontinuous", Ends(("stalled", "max_steps")), jump=5.0)
    else:
        yield row("discontinuous", Ends(OPEN, answer=1.0), jump=5.0)

    if name == "root":
        yield row("loop_inside", Ends(("converged",), answer=1.0), lambda y, _: halved(y))
    elif name == "fixed_point":
        yield row("loop_inside", Ends(("converged",), answer=1.0), lambda y, _: y - halved(y))
    else:
        shaped = (lambda y: y) if vectors else jnp.sum
        yield row(
            "loop_inside", Raised(ValueError, FORBIDDEN), of_first(lambda y: shaped(halved(y)))
        )

    seven = 7.0 * np.ones(2) if vectors else 7.0
    resting = Ends(("converged",), steps=0)
    ending = {"root": Ends(("not_a_root",)), "fixed_point": Ends(("converged",), answer=7.0)}
    yield row("constant", ending.get(name, resting), of_first(lambda y: seven))
    if name == "least_squares":
        yield row("constant_number", resting, of_first(lambda y: 7.0))
    if objective:
        falling, growing = {"linear": 1.0}, {"exponential": 1.0}
        yield row("unbounded_linear", Ends(("unbounded",)), quadratic=0.0, **falling)
        ended = Ends(("unbounded", "nonfinite"))
        yield row("unbounded_exponential", ended, quadratic=0.0, **growing)
    if saddle:
        tilted = {"convex": 0.0, "bilinear": 0.0, "linear": 1.0}
        yield row("unbounded_linear", Ends(("unbounded", "nonfinite", "max_steps")), **tilted)

    solved = Ends(("converged",), answer=1.0)
    yield row("float32_output", solved, lambda *z: entry.fn(*z).astype(jnp.float32))

    def promoted(*inputs: Any) -> Any:
        zero = jnp.zeros(())  # float64 only where x64 is on
        return entry.fn(*(z + zero for z in inputs[:-1]), inputs[-1])

    yield row("depends_on_x64", solved, promoted, jnp.zeros(2, jnp.float32))


def operator_rows() -> Iterator[Any]:
    """What stands for the function in a linear system: the operator."""
    doors = {"linear_solve": linear_solve, "linear": sor}
    unusable = ("nonfinite", "breakdown", "stalled", "max_steps")
    structure = jax.ShapeDtypeStruct((2,), jnp.float64)
    cases: dict[str, tuple[Any, Any, Any]] = {
        "not_callable": ("abc", VECTOR, refused("`operator`", "matrix", "'abc'")),
        "vector_for_matrix": (VECTOR, VECTOR, refused("`operator`", "matrix", "(2,)")),
        "integer_output": (
            jnp.eye(2, dtype=int),
            VECTOR,
            refused("`operator`", "floating", "int64"),
        ),
        "complex_output": (1j * MATRIX, VECTOR, refused("`operator`", "real", "complex128")),
        "nan_at_start": (jnp.nan * MATRIX, VECTOR, Ends(("nonfinite_start",), steps=0)),
        "inf": (jnp.inf * MATRIX, VECTOR, Ends(("nonfinite_start",), steps=0)),
        "returns_none": (None, VECTOR, refused("`operator`", "matrix", "None")),
        "wrong_shape": (MATRIX, jnp.ones(3), refused("`vector`", "float64[2]", "float64[3]")),
        "constant": (0 * MATRIX, VECTOR, Ends(("breakdown",))),
        "singular": (jnp.ones((2, 2)), jnp.array([1.0, 2.0]), Ends(unusable)),
    }
    for case, (operator, vector, expected) in cases.items():
        for name, door in doors.items():
            call = lambda d=door, o=operator, v=vector: d(o, v)
            yield f"function-{case}-{name}", call, expected
    yield (
        "function-raises_inside-linear_solve",
        lambda: linear_solve(lx.FunctionLinearOperator(raises, structure)),
        Raised(Broken, "the model is broken"),
    )
    yield (
        "function-float32_output-linear_solve",
        lambda: linear_solve(MATRIX.astype(jnp.float32)),
        refused("`vector`", "float32", "float64"),
    )
    yield (
        "function-nested_lists-linear_solve",
        lambda: linear_solve([[2.0, 0.0], [0.0, 2.0]], [2.0, 2.0]),
        Ends(("converged",), answer=1.0),
    )


# --- The options ------------------------------------------------------------------------------

WHOLE, AT_LEAST = "whole number", "finite number of at least 0"
# What a door does not take must not be dropped in silence; roots and fits take bounds.
CONSTRAINTS = {
    "lower_above_upper": {"lower": 1.0, "upper": 0.0},
    "bounds_of_wrong_structure": {"bounds": "abc"},
    "nan_bound": {"lower": jnp.nan},
    "equal_bounds": {"bounds": (1.0, 1.0)},
    "contradictory_constraints": {"equality": lambda y: jnp.stack([y[0], y[0] - 1])},
    "rank_deficient_constraints": {"equality": lambda y: jnp.stack([y[0], y[0]])},
    "more_equalities_than_unknowns": {"equality": lambda y: jnp.append(y, y)},
}
OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "negative_tolerance": ({"rtol": -1.0}, refused("`rtol`", AT_LEAST, "-1.0")),
    "nan_tolerance": ({"atol": float("nan")}, refused("`atol`", AT_LEAST, "nan")),
    "inf_tolerance": ({"rtol": INF}, refused("`rtol`", AT_LEAST, "inf")),
    "text_tolerance": ({"rtol": "small"}, refused("`rtol`", AT_LEAST, "'small'")),
    "array_tolerance": ({"atol": jnp.ones(2)}, refused("`atol`", AT_LEAST, "Array")),
    "zero_tolerance": ({"rtol": 0.0, "atol": 0.0}, Ends((*OPEN, "not_a_root"), answer=1.0)),
    "no_steps": ({"max_steps": 0}, Ends(("max_steps",), steps=0)),
    "negative_steps": ({"max_steps": -1}, refused("`max_steps`", WHOLE, "-1")),
    "fractional_steps": ({"max_steps": 2.5}, refused("`max_steps`", WHOLE, "2.5")),
    "steps_none": ({"max_steps": None}, refused("`max_steps`", WHOLE, "None")),
    "too_many_steps": ({"max_steps": 2**40}, refused("`max_steps`", WHOLE, "1099511627776")),
    "unknown_option": ({"verbose": True}, refused("verbose")),
    "misspelt_method": ({"method": "BFGS"}, refused("`method`", "'BFGS'")),
    "method_class": ({"method": rp.smooth.HeavyBall}, refused("`method`", "HeavyBall")),
} | {case: (options, refused(next(iter(options)))) for case, options in CONSTRAINTS.items()}


def option_rows() -> Iterator[Any]:
    runs = {name: entry.run for name, entry in ENTRIES.items()}
    for name, run in (runs | {"linear_solve": linear_solve, "linear": sor}).items():
        for case, (options, expected) in OPTIONS.items():
            yield f"options-{case}-{name}", lambda r=run, o=options: r(**o), expected
        stranger = rp.smooth.GradientDescent() if name.startswith("linear") else rp.linear.SOR()
        call = lambda r=run, m=stranger: r(method=m)
        yield f"options-wrong_family-{name}", call, refused("`method`", "answers", "got a")
    bowl_problem = rp.Minimize(bowl, ORIGIN, BOWL)
    yield (
        "options-time_limit_zero",
        lambda: rp.trace(bowl_problem, time_limit=0.0).solution,
        Ends(("time_limit",), steps=0),
    )
    yield (
        "options-negative_time_limit",
        lambda: rp.trace(bowl_problem, time_limit=-1.0).solution,
        refused("`time_limit`", AT_LEAST, "-1.0"),
    )
    yield (
        "options-look_every_0",
        lambda: rp.trace(bowl_problem, every=0).solution,
        refused("`every`", WHOLE, "0"),
    )
    yield (
        "options-negative_checkpoint_seconds",
        lambda: rp.trace(bowl_problem, checkpoint_seconds=-1.0).solution,
        refused("`checkpoint_seconds`", "-1.0"),
    )
    yield (
        "options-callback_not_callable",
        lambda: rp.trace(bowl_problem, callback=3).solution,
        refused("`callback`", "3"),
    )
    yield (
        "options-checkpoint_no_path",
        lambda: rp.trace(bowl_problem, checkpoint=3).solution,
        refused("`checkpoint`", "3"),
    )
    bounds = {
        "above": ((1.0, -1.0), ("`lower`", "below `upper`", "1 and -1")),
        "of_another_shape": ((jnp.zeros(3), 1.0), ("`lower`", "float64[2]")),
        "of_text": ((0.0, "one"), ("`upper`", "'one'")),
        "nan": ((0.0, jnp.nan), ("`upper`", "NaN")),
        "beside_start": ((0.5, 1.0), ("`y0`", "[0.5, 1]", "got 0")),
    }
    for case, (given, words) in bounds.items():
        for name in ("root", "least_squares"):
            call = lambda r=runs[name], b=given: r(bounds=b)
            yield f"options-bounds_{case}-{name}", call, refused(*words)
    sampled = rp.FiniteSum(lambda y, s, _: (y - s) ** 2, 0.0, jnp.ones(4), batch_size=2)
    draw = lambda key: rp.solve(sampled, optax.sgd(0.1), key=key, max_steps=3, throw=False)
    yield "options-key_missing", lambda: draw(None), refused("`key`", "jax.random.key(0)")
    yield "options-key_is_a_number", lambda: draw(3), refused("`key`", "3")
    keys = jax.random.split(jax.random.key(0))
    yield "options-several_keys", lambda: draw(keys), refused("`key`", "(2,)")
    of_matrices = {
        "B": rp.smooth.KrylovGradient,
        "preconditioner": rp.smooth.PreconditionedGradient,
        "metric": rp.smooth.GradientRegularizedNewton,
    }
    for case, matrix in {"of_three": jnp.eye(3), "not_square": jnp.ones((2, 3))}.items():
        for field, kind in of_matrices.items():
            method = kind(**{field: matrix})
            call = lambda m=method: rp.solve(bowl_problem, m)
            yield f"options-{field}_{case}", call, refused_by_trace(f"`{field}`", "float64[2]")
    yield (
        "options-misspelt_oracle",
        lambda: rp.Minimize(bowl, ORIGIN, BOWL, gradent=bowl),
        refused("`gradent`", "did you mean `gradient`"),
    )
    yield (
        "options-misspelt_scipy_method",
        lambda: rp.SciPyMinimize("BFG"),
        refused("`solver`", "bfgs", "'BFG'"),
    )
    yield (
        "options-problem_is_a_function",
        lambda: rp.solve(bowl),
        refused("`problem`", "Raphson problem", "function"),
    )


# --- What depends on the method ---------------------------------------------------------------

SQUARE = jnp.array([[2.0, 0.5], [0.3, 3.0]])


def plane(y: Any, a: dict[str, Any]) -> Any:
    return (a["matrix"] @ (y - 1) + a["square"] * y**2 + a["offset"]) * barrier(y, a)


def map_of_plane(y: Any, a: dict[str, Any]) -> Any:
    return y - 0.3 * plane(y, a)


PLANE = {"matrix": SQUARE, "square": 0.0, "offset": jnp.zeros(2), "radius": INF}


def valley(y: Any, a: dict[str, Any]) -> Any:
    """`bowl` with curvatures 1 and 8, so that no method is done in a step."""
    return bowl(y, a) + 3.5 * a["quadratic"] * (y[1] - 1) ** 2


def kind_of(method: type[Any]) -> str:
    """The question that a method is given here."""
    kinds = {
        "linear": rp.LinearSystem,
        "objective": rp.Minimize,
        "residual": rp.RootFind,
        "fit": rp.LeastSquares,
        "fixed_point": rp.FixedPoint,
        "bounded": rp.BoundedRootFind,
        "composite": rp.Composite,
        "saddle": rp.Saddle,
        "split": rp.CompositeSaddle,
        "levels": rp.Bilevel,
        "blocks": rp.bilevel.MultiBlockBilevel,
        "portfolio": rp.smooth.RiskParity,
    }
    return next(kind for kind, asked in kinds.items() if issubclass(asked, method.question))


def stated(kind: str, y0: Any = ORIGIN, **dials: Any) -> Any:
    """A problem with the answer 1, spoiled by `dials`."""
    if kind == "linear":
        data = {"matrix": SQUARE, "vector": SQUARE @ jnp.ones(2)} | dials
        return rp.LinearSystem(data["matrix"], data["vector"], y0)
    if kind == "objective":
        return rp.Minimize(valley, y0, BOWL | dials)
    if kind == "residual":
        return rp.RootFind(plane, y0, PLANE | dials)
    if kind == "fit":
        return rp.LeastSquares(plane, y0, PLANE | dials)
    if kind == "fixed_point":
        return rp.FixedPoint(map_of_plane, y0, PLANE | dials)
    if kind == "bounded":
        return rp.BoundedRootFind(plane, y0, -5.0, INF, PLANE | dials)
    if kind == "composite":
        # Of no weight, lest it bound what is to be unbounded.
        return rp.Composite(rp.Minimize(valley, y0, BOWL | dials), rp.composite.L1(0.0))
    if kind == "portfolio":
        # A start is positive here; what is not even finite remains what it is.
        y0 = jnp.where(jnp.abs(y0) < 1e-300, 0.5, y0)
        return rp.smooth.RiskParity(jnp.array([[1.0, 0.5], [0.5, 1.0]]), [1.5, 1.5], y0)
    if kind == "levels":
        return rp.Bilevel(upper_level, lower_level, y0, y0, LEVELS | dials)
    if kind == "blocks":
        data, dials = jnp.arange(2)[:, None], LEVELS | dials
        return rp.bilevel.MultiBlockBilevel(upper_block, lower_block, y0, y0, data, data, dials)
    if kind == "split":
        parts = None, rp.composite.SquaredNorm(1.0)
        return rp.CompositeSaddle(cost, trade, y0, y0, COST | dials, nonsmooth=parts)
    return rp.Saddle(game, y0, y0, GAME | dials)


class MethodCase(NamedTuple):
    start: Any
    dials: dict[str, Any]
    options: dict[str, Any]
    expected: Ends
    kinds: tuple[str, ...] = (
        "linear",
        "objective",
        "residual",
        "fit",
        "fixed_point",
        "bounded",
        "composite",
        "saddle",
        "split",
        "levels",
        "blocks",
        "portfolio",
    )


NAN = float("nan")
SOLVABLE = Ends(OPEN, answer=1.0)
UNUSABLE = ("nonfinite", "stalled", "max_steps", "breakdown", "not_a_root")
ONES = jnp.ones((2, 2))
MAPS = ("residual", "fixed_point", "bounded")
FUNCTIONS = ("objective", "fit", *MAPS, "composite", "saddle", "split", "levels", "blocks")
FALLS = ("objective", "composite")
# These never leave the neighborhood of the start, where no function falls without bound.
CONFINED = ("CenterOfGravity", "Ellipsoid")

METHOD_CASES: dict[str, MethodCase] = {
    "start_nan": MethodCase(jnp.array([NAN, 0.0]), {}, {}, Ends(("nonfinite_start",), steps=0)),
    "start_inf": MethodCase(jnp.array([INF, 0.0]), {}, {}, Ends(("nonfinite_start",), steps=0)),
    "start_minus_inf": MethodCase(
        jnp.array([-INF, 0.0]), {}, {}, Ends(("nonfinite_start",), steps=0)
    ),
    "start_huge": MethodCase(
        jnp.array([1e300, 0.0]), {}, {}, Ends(("nonfinite_start", "nonfinite", *OPEN), answer=1.0)
    ),
    "start_denormal": MethodCase(jnp.array([5e-324, 0.0]), {}, {}, SOLVABLE),
    "start_at_answer": MethodCase(jnp.ones(2), {}, {}, Ends(("converged",), answer=1.0, steps=0)),
    "nan_at_start": MethodCase(
        ORIGIN, {"radius": -1.0}, {}, Ends(("nonfinite_start",), steps=0), FUNCTIONS
    ),
    "nan_off_start": MethodCase(ORIGIN, {"radius": 0.5}, {}, Ends(UNUSABLE), FUNCTIONS),
    "no_steps": MethodCase(ORIGIN, {}, {"max_steps": 0}, Ends(("max_steps",), steps=0)),
    "few_steps": MethodCase(
        ORIGIN,
        {},
        {"max_steps": 1, "rtol": 1e-12, "atol": 0.0},
        # Newton's step is the last where f is quadratic.
        Ends(("max_steps", "converged"), answer=1.0, steps=1),
    ),
    "zero_tolerance": MethodCase(ORIGIN, {}, {"rtol": 0.0, "atol": 0.0}, SOLVABLE),
    "unbounded_linear": MethodCase(
        ORIGIN, {"quadratic": 0.0, "linear": 1e18}, {}, Ends(("unbounded",)), FALLS
    ),
    "unbounded_exponential": MethodCase(
        ORIGIN,
        {"quadratic": 0.0, "exponential": 1.0},
        {},
        Ends(("unbounded", "nonfinite")),
        FALLS,
    ),
    "unbounded_concave": MethodCase(ORIGIN, {"quadratic": -1.0}, {}, Ends(("unbounded",)), FALLS),
    "overflowing_gradient": MethodCase(
        ORIGIN, {"quadratic": 1e200}, {}, Ends(("nonfinite_start", *UNUSABLE)), FALLS
    ),
    "flat": MethodCase(ORIGIN, {"quadratic": 0.0}, {}, Ends(("converged",), steps=0), FALLS),
    "singular_jacobian": MethodCase(
        ORIGIN,
        {"matrix": ONES, "offset": jnp.array([0.0, 1.0])},
        {},
        Ends((*UNUSABLE, "infeasible")),
        MAPS,
    ),
    "zero_jacobian": MethodCase(
        ORIGIN,
        {"matrix": 0 * ONES, "offset": jnp.ones(2)},
        {},
        Ends((*UNUSABLE, "infeasible")),
        MAPS,
    ),
    "no_root": MethodCase(
        jnp.array([0.5, 0.3]),
        {"matrix": 0 * ONES, "square": 1.0, "offset": jnp.ones(2)},
        {},
        Ends(UNUSABLE),
        MAPS,
    ),
    "singular_matrix": MethodCase(
        ORIGIN, {"matrix": ONES, "vector": jnp.array([1.0, 2.0])}, {}, Ends(UNUSABLE), ("linear",)
    ),
    "zero_matrix": MethodCase(ORIGIN, {"matrix": 0 * ONES}, {}, Ends(UNUSABLE), ("linear",)),
    # A lower level that has no least value: at no point is its gradient 0.
    "lower_unbounded": MethodCase(
        ORIGIN,
        {"quadratic": 0.0, "linear": 1.0},
        {},
        Ends(("nonfinite", *UNUSABLE)),
        ("levels", "blocks"),
    ),
    # One that is the same everywhere says nothing of y: its best is found at the upper level.
    "lower_flat": MethodCase(
        ORIGIN, {"quadratic": 0.0}, {}, Ends((*OPEN, "breakdown"), answer=1.0), ("levels",)
    ),
    "nan_matrix": MethodCase(
        ORIGIN, {"matrix": NAN * ONES}, {}, Ends(("nonfinite_start",), steps=0), ("linear",)
    ),
}


def key_for(method: Any) -> Any:
    return jax.random.key(0) if method.stochastic else None


def run_method(name: str, problem: Any, **options: Any) -> rp.Solution:
    method = METHODS[name]()
    options = {"max_steps": MAX_STEPS, "throw": False} | options
    return rp.solve(problem, method, key=key_for(method), **options)


def method_rows() -> Iterator[Any]:
    for name, method in METHODS.items():
        kind = kind_of(method)
        for label, case in METHOD_CASES.items():
            if kind in case.kinds and not (name in CONFINED and label.startswith("unbounded")):
                call = lambda n=name, k=kind, c=case: run_method(
                    n, stated(k, c.start, **c.dials), **c.options
                )
                # Methods of these questions need not know the residual along the way.
                seen = kind not in ("split", "levels", "blocks")
                expected = case.expected if seen else case.expected._replace(steps=None)
                yield f"method-{label}-{name}", call, expected
        stranger = stated("objective" if kind == "linear" else "linear")
        call = lambda n=name, p=stranger: run_method(n, p)
        yield f"method-wrong_question-{name}", call, refused("`method`", name, "got a")
        if method.stochastic:
            call = lambda m=method, k=kind: rp.solve(stated(k), m())
            yield f"method-key_missing-{name}", call, refused("`key`", name)
        for field, bad in bad_hyperparameters(method):
            call = lambda m=method, f=field, b=bad: m(**{f: b})
            yield f"method-{field}_{bad}-{name}", call, refused(f"`{field}`", repr(bad))


def bad_hyperparameters(method: type[Any]) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(method):
        kinds = set(re.findall(r"\w+", str(field.type)))
        if "str" in kinds:
            yield field.name, "nonsense"
        elif kinds & {"float", "ArrayLike", "int", "bool", "Callable", "AbstractLinearOperator"}:
            yield field.name, NAN
            yield field.name, "abc"


# --- The table --------------------------------------------------------------------------------

# Rows that show a defect of the library; each is to be mended, and its line removed.
ROWS = [*start_rows(), *function_rows(), *option_rows(), *method_rows()]
LABELS = [label for label, _, _ in ROWS]


@pytest.mark.parametrize(
    "call, expected",
    [pytest.param(call, expected, id=label) for label, call, expected in ROWS],
)
def test_ends_in_a_sentence_or_a_status(call, expected):
    check(call, expected)


def test_table_has_not_shrunk():
    groups = Counter(label.split("-")[0] for label in LABELS)
    assert len(set(LABELS)) == len(LABELS)
    assert (groups["start"], groups["function"], groups["options"]) == (148, 135, 204)
    cases = {"linear": 12, "objective": 16, "residual": 14, "fixed_point": 14, "bounded": 14}
    cases |= {
        "fit": 11,
        "composite": 16,
        "saddle": 11,
        "split": 11,
        "levels": 13,
        "blocks": 12,
        "portfolio": 9,
    }
    expected = sum(
        cases[kind_of(method)] + 1 + method.stochastic + len(list(bad_hyperparameters(method)))
        for method in METHODS.values()
    )
    assert groups["method"] == expected - 3 * len(CONFINED)


each = pytest.mark.parametrize("name", METHODS)


@each
def test_one_nan_ends_the_run_at_once_or_is_overcome(name):
    kind = kind_of(METHODS[name])
    # Two levels are asked for more at the start than one.
    at = 14 if kind in ("levels", "blocks") else 2
    solution = run_method(name, rp.Faulty(stated(kind), at))
    ends_as(solution, Ends(("nonfinite", *OPEN), answer=1.0))
    if rp.status_name(solution.status) == "nonfinite":
        # A step asks at least one oracle; the iterate is that of the step before.
        steps = int(solution.stats.steps)
        assert 1 <= steps <= at
        before = run_method(name, stated(kind), max_steps=steps - 1)
        for got, expected in zip(
            jax.tree.leaves(solution.value), jax.tree.leaves(before.value), strict=True
        ):
            np.testing.assert_array_equal(got, expected)


@each
def test_oracle_that_raises_is_heard(name):
    kind = kind_of(METHODS[name])
    at = 1 if kind == "linear" else 0  # the first call that answers a vector
    with pytest.raises(Exception, match="failed on purpose"):
        run_method(name, rp.Faulty(stated(kind), at, raises=True))


def test_oracle_that_raises_says_so_on_the_first_line():
    problem = rp.Faulty(stated("objective"), 0, raises=True)
    error = caught(lambda: rp.solve(problem, rp.smooth.GradientDescent()))
    assert "failed on purpose" in str(error).splitlines()[0]


def test_nan_is_met_within_one_step_and_the_iterate_before_is_returned():
    # y <- y - 0.5 (y - 1) from 0 goes 0, 0.5, 0.75, 0.875, ...; beyond 0.8 the function is NaN.
    fn = lambda y, _: jnp.where(y > 0.8, jnp.nan, (y - 1) ** 2 / 2)
    solution = rp.solve(rp.Minimize(fn, 0.0), rp.smooth.GradientDescent(0.5), throw=False)
    assert rp.status_name(solution.status) == "nonfinite"
    assert (float(solution.value), int(solution.stats.steps)) == (0.75, 3)


def test_answer_that_is_not_the_iterate_is_finite_too():
    fn = lambda y, _: jnp.where(y > 0.8, jnp.nan, (y - 1) ** 2 / 2)
    solution = rp.solve(rp.Minimize(fn, 0.0), rp.smooth.Nesterov(0.5), throw=False)
    assert rp.status_name(solution.status) == "nonfinite"
    assert np.isfinite(solution.value)


def test_fall_to_minus_infinity_is_unbounded():
    problem = rp.Minimize(lambda y, _: -jnp.exp(y), 0.0)
    solution = rp.solve(problem, rp.smooth.GradientDescent(0.5), throw=False)
    assert rp.status_name(solution.status) == "unbounded"


def test_no_root_is_called_so():
    solution = rp.root(lambda y, _: y**2 + 1, 1.0, throw=False)
    assert rp.status_name(solution.status) == "not_a_root"
    np.testing.assert_allclose(solution.value, 0.0, atol=1e-4)


def test_singular_jacobian_is_a_breakdown():
    singular = lambda y, _: jnp.stack([y[0] + y[1] - 1, y[0] + y[1] - 2])
    solution = rp.root(singular, ORIGIN, method=optx.Newton(1e-9, 1e-9), throw=False)
    assert rp.status_name(solution.status) == "breakdown"
    np.testing.assert_array_equal(solution.value, ORIGIN)


@pytest.mark.parametrize("name", ["minimize", "root", "least_squares", "fixed_point"])
def test_misspelt_option_is_answered_with_the_nearest(name):
    error = caught(lambda: ENTRIES[name].run(max_step=3))
    assert "`max_step`" in str(error) and "did you mean `max_steps`" in str(error)


def test_refusal_while_tracing_has_a_short_traceback():
    depths = {
        label: len(frames_of_ours(caught(call)))
        for label, call, expected in ROWS
        if isinstance(expected, Refused) and expected.traced
    }
    assert len(depths) >= 40
    assert max(depths.values()) <= 5, depths


def test_failure_is_raised_in_one_line():
    error = caught(lambda: ENTRIES["minimize"].run(max_steps=0, throw=True))
    assert isinstance(error, rp.SolveError)
    assert len(frames_of_ours(error)) <= 5
    message = str(error)
    assert "\n" not in message and "max_steps" in message and "after 0 steps" in message
    np.testing.assert_array_equal(error.solution.value, ORIGIN)


def test_a_key_used_twice_draws_the_same():
    sampled = rp.FiniteSum(lambda y, s, _: (y - s) ** 2, 0.0, jnp.arange(8.0), batch_size=2)

    def draw(seed: int) -> float:
        key = jax.random.key(seed)
        return float(rp.solve(sampled, optax.sgd(0.1), key=key, max_steps=5, throw=False).value)

    assert draw(0) == draw(0) != draw(1)


def test_function_with_side_effects_is_traced_at_most_twice():
    calls = []

    def fn(y: Any, a: Any) -> Any:
        calls.append(None)
        return bowl(y, a)

    first = rp.minimize(fn, ORIGIN, BOWL)
    assert 1 <= len(calls) <= 2
    traced = len(calls)
    second = rp.minimize(fn, jnp.array([3.0, -2.0]), BOWL | {"quadratic": 2.0})
    assert len(calls) == traced
    np.testing.assert_allclose([first.value, second.value], 1.0, atol=1e-5)
