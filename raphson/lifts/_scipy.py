"""SciPy's `minimize`, `root` and `least_squares` as Raphson methods: loops that the host runs."""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ..compiled import compiled
from ..method import AbstractMethod, Run, begin, through
from ..problem import AbstractObjective, AbstractProblem, AbstractResidual, Known
from ..roots.problem import AbstractBounded
from ..solution import Status


class _HostState(eqx.Module):
    steps: Array
    status: Any


class HostMethod(AbstractMethod[_HostState]):
    """A method whose loop the host runs, asking for compiled oracles.

    `solve` and `trace` run it directly; inside `jit`, where the host only sees data through a
    callback, it is one step of the compiled loop.
    """

    @abc.abstractmethod
    def search(
        self,
        ask: Callable[..., Any],
        y: np.ndarray,
        tolerance: float,
        max_steps: int,
        see: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        """The answer from the raveled start; `see` is to be called with each iterate."""

    def run(
        self,
        problem: AbstractProblem,
        key: Array | None,
        rtol: Any,
        atol: Any,
        max_steps: int,
        observe: Callable[[Run, float], Any] = lambda run, seconds: None,
    ) -> Run:
        """The run on the host; `observe(run, seconds)` may end it by raising `StopIteration`."""
        start = compiled(_begun, problem, self, key, rtol, atol)
        ended = int(start.status._value) != int(Status.running._value)  # pyright: ignore
        if ended or max_steps == 0:
            return start
        door = _Door(problem, start.memory)
        last, unravel = ravel_pytree(problem.y0)
        steps, spent, resumed = 0, 0.0, time.perf_counter()

        def standing(y: Any, status: Any) -> Run:
            y = unravel(jnp.asarray(y, last.dtype))
            count = jnp.array(steps, jnp.int32)
            return Run(y, _HostState(count, status), door.memory, count, status, start.scale)

        def see(y: np.ndarray) -> None:
            nonlocal steps, spent, resumed, latest
            spent += time.perf_counter() - resumed - door.compile_seconds
            steps, latest = steps + 1, np.array(y)
            observe(standing(latest, Status.running), spent)
            door.compile_seconds, resumed = 0.0, time.perf_counter()
            if steps >= max_steps:
                raise StopIteration

        latest = np.asarray(last)
        observe(standing(latest, Status.running), 0.0)
        resumed, status = time.perf_counter(), Status.stalled
        try:
            tolerance = max(float(atol), float(rtol * start.scale))
            latest = self.search(door, np.asarray(last, float), tolerance, max_steps, see)
        except StopIteration:
            pass
        except (ValueError, np.linalg.LinAlgError):
            # SciPy's linear algebra refuses NaN by an exception of its own.
            if not door.met_nonfinite:
                raise
            status = Status.nonfinite
        if steps >= max_steps:
            status = Status.max_steps
        return standing(latest, status)

    def init(self, problem: Any, y: PyTree[Array], key: Array | None) -> _HostState:
        return _HostState(jnp.array(0, jnp.int32), Status.running)

    def step(
        self, problem: Any, y: PyTree[Array], state: _HostState
    ) -> tuple[PyTree[Array], _HostState]:
        bare = eqx.tree_at(lambda p: p.y0, problem.bare, y)
        arrays, static = eqx.partition(bare, eqx.is_array)
        eps = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(y))).eps)

        def search(arrays: Any) -> Any:
            run = self.run(eqx.combine(arrays, static), None, eps**0.5, 0.0, 10_000)
            return jax.tree.map(np.asarray, (run.y, run.step, run.status._value))

        shapes = (y, state.steps, state.status._value)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)
        y, steps, code = jax.pure_callback(search, shapes, arrays, vmap_method="sequential")
        status = eqx.tree_at(lambda s: s._value, state.status, code)
        return y, _HostState(steps, status)

    def terminate(self, problem: Any, y: PyTree[Array], state: _HostState) -> Any:
        return state.status

    def known(self, problem: Any, y: PyTree[Array], state: _HostState) -> Known:
        return Known()


class SciPyMinimize(HostMethod):
    """A method of `scipy.optimize.minimize` for objectives.

    Its gradient tolerance is set to the tolerance that the run asks for, where it has one.

    Args:
        solver: SciPy's name of it, such as `"BFGS"`, `"L-BFGS-B"` or `"trust-ncg"`.
        options: SciPy's options, which override ours.

    Raises:
        ValueError: if SciPy has no such method.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.Minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.zeros(2))
        >>> rp.solve(problem, rp.SciPyMinimize("BFGS")).value.round(3).tolist()
        [1.0, 1.0]
    """

    solver: str
    options: dict[str, Any] = eqx.field(default_factory=dict)
    question: ClassVar[type[AbstractProblem]] = AbstractObjective

    def __check_init__(self):
        _require_known(self.solver, _MINIMIZERS)

    def search(
        self,
        ask: Callable[..., Any],
        y: np.ndarray,
        tolerance: float,
        max_steps: int,
        see: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        wants = _MINIMIZERS[self.solver.lower()]
        options: dict[str, Any] = {"maxiter": max_steps}
        if "gradient" in wants:
            options["gtol"] = tolerance
        if self.solver.lower() in ("bfgs", "cg"):
            options["norm"] = 2
        if self.solver.lower() == "tnc":
            options = {"maxfun": 10 * max_steps}
        if self.solver.lower() == "l-bfgs-b":
            # It looks at the greatest entry of the gradient.
            gtol = tolerance / np.sqrt(max(1, y.size))
            options |= {"maxfun": 10 * max_steps, "ftol": 0.0, "gtol": gtol}
        from scipy.optimize import minimize  # 0.4 s that `import raphson` need not take

        function, more = (lambda y: ask("value", y)), {}
        if "derivative" in wants:
            function, more["jac"] = (lambda y: ask("value_and_gradient", y)), True
        if "hessian" in wants:
            more["hess"] = lambda y: ask("hessian", y)
        if "product" in wants:
            more["hessp"] = lambda y, v: ask("hvp", y, v)
        result = minimize(
            function, y, method=self.solver, callback=see, options=options | self.options, **more
        )
        return result.x

    @property
    def name(self) -> str:
        return f"scipy.{self.solver}"


# What each minimizer is given: a derivative, a tolerance on its norm, a Hessian, products with it.
_MINIMIZERS = {
    "nelder-mead": (),
    "powell": (),
    "cobyla": (),
    "cg": ("derivative", "gradient"),
    "bfgs": ("derivative", "gradient"),
    "l-bfgs-b": ("derivative", "gradient"),
    "tnc": ("derivative",),
    "slsqp": ("derivative",),
    "newton-cg": ("derivative", "product"),
    "dogleg": ("derivative", "gradient", "hessian"),
    "trust-exact": ("derivative", "gradient", "hessian"),
    "trust-ncg": ("derivative", "gradient", "product"),
    "trust-krylov": ("derivative", "gradient", "product"),
}


class SciPyRoot(HostMethod):
    """A method of `scipy.optimize.root` for residuals.

    Args:
        solver: SciPy's name of it, such as `"hybr"`, `"lm"` or `"krylov"`.
        options: SciPy's options, which override ours.

    Raises:
        ValueError: if SciPy has no such method.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.RootFind(lambda y, _: y**2 - 2, jnp.array([1.0]))
        >>> rp.solve(problem, rp.SciPyRoot("hybr")).value.round(3).tolist()
        [1.414]
    """

    solver: str
    options: dict[str, Any] = eqx.field(default_factory=dict)
    question: ClassVar[type[AbstractProblem]] = AbstractResidual

    def __check_init__(self):
        _require_known(self.solver, _ROOT_FINDERS)

    def search(
        self,
        ask: Callable[..., Any],
        y: np.ndarray,
        tolerance: float,
        max_steps: int,
        see: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        from scipy.optimize import NoConvergence, root

        kind, options = _ROOT_FINDERS[self.solver.lower()], {}
        more: dict[str, Any] = {}

        def jacobian(y: np.ndarray) -> Any:
            see(y)  # MINPACK reports no iterates: these are where it asks for a Jacobian
            return ask("jacobian", y)

        if kind == "jacobian":
            more["jac"] = jacobian
            options["maxfev" if self.solver.lower() == "hybr" else "maxiter"] = max_steps
        else:
            more["callback"] = lambda y, _: see(y)
            limit = "maxfev" if self.solver.lower() == "df-sane" else "maxiter"
            options |= {limit: max_steps, "fatol": tolerance}
        with contextlib.suppress(NoConvergence):
            return root(
                lambda y: ask("residual", y),
                y,
                method=self.solver,
                options=options | self.options,
                **more,
            ).x
        raise StopIteration

    @property
    def name(self) -> str:
        return f"scipy.{self.solver}"


# Whether the root finder takes a Jacobian, or reports each iterate.
_ROOT_FINDERS = {
    "hybr": "jacobian",
    "lm": "jacobian",
    "krylov": "iterate",
    "broyden1": "iterate",
    "broyden2": "iterate",
    "anderson": "iterate",
    "df-sane": "iterate",
}


class SciPyLeastSquares(HostMethod):
    """A method of `scipy.optimize.least_squares` for equations within bounds.

    SciPy's own tests of convergence are set to rounding.

    Args:
        solver: SciPy's name of it, `"trf"` or `"dogbox"`.
        options: SciPy's arguments, such as `x_scale`, which override ours.

    Raises:
        ValueError: if SciPy has no such method.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> problem = rp.BoundedLeastSquares(lambda y, _: y - 2, jnp.zeros(2), -1.0, 1.0)
        >>> rp.solve(problem, rp.SciPyLeastSquares("dogbox")).value.round(3).tolist()
        [1.0, 1.0]
    """

    solver: str
    options: dict[str, Any] = eqx.field(default_factory=dict)
    question: ClassVar[type[AbstractProblem]] = AbstractBounded

    def __check_init__(self):
        _require_known(self.solver, dict.fromkeys(("trf", "dogbox")))

    def search(
        self,
        ask: Any,
        y: np.ndarray,
        tolerance: float,
        max_steps: int,
        see: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        from scipy.optimize import least_squares

        def jacobian(y: np.ndarray) -> Any:
            see(y)  # where it asks for a Jacobian is an iterate
            return ask("jacobian", y)

        bounds = (ask.problem.lower, ask.problem.upper)
        options: dict[str, Any] = dict.fromkeys(("ftol", "xtol", "gtol"), np.finfo(float).eps)
        options |= {"max_nfev": 10 * max_steps} | self.options
        return least_squares(
            lambda y: ask("residual", y),
            y,
            jacobian,  # pyright: ignore[reportArgumentType]
            [np.asarray(ravel_pytree(bound)[0], float) for bound in bounds],
            self.solver,
            **options,
        ).x

    @property
    def name(self) -> str:
        return f"scipy.{self.solver}"


def _require_known(solver: Any, known: dict[str, Any]) -> None:
    if not isinstance(solver, str) or solver.lower() not in known:
        raise ValueError(f"`solver` must be one of {', '.join(known)}, got {solver!r}.")


class _Door:
    """The oracles of a problem on raveled vectors, keeping the wrappers' memory between calls."""

    def __init__(self, problem: AbstractProblem, memory: Any):
        self.problem, self.memory, self.met_nonfinite = problem, memory, False
        self.asked, self.compile_seconds = set(), 0.0

    def __call__(self, name: str, *vectors: np.ndarray) -> Any:
        if name not in self.asked:  # what the first call takes is compilation
            start = time.perf_counter()
            compiled(_asked, self.problem, self.memory, name, list(vectors))
            self.asked.add(name)
            self.compile_seconds += time.perf_counter() - start
        answer, self.memory = compiled(_asked, self.problem, self.memory, name, list(vectors))
        answer = jax.tree.map(lambda leaf: np.asarray(leaf, float), answer)
        finite = all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(answer))
        self.met_nonfinite |= not finite
        return answer


def _asked(problem: AbstractProblem, memory: Any, name: str, vectors: list[Array]) -> Any:
    flat, unravel = ravel_pytree(problem.y0)
    inputs = [unravel(vector.astype(flat.dtype)) for vector in vectors]
    answer, memory = through(problem, memory, lambda door: getattr(door, name)(*inputs))
    if name in ("hessian", "jacobian"):
        return answer.as_matrix(), memory
    if name == "value_and_gradient":
        return (answer[0], ravel_pytree(answer[1])[0]), memory
    return (answer if name == "value" else ravel_pytree(answer)[0]), memory


def _begun(
    problem: AbstractProblem, method: HostMethod, key: Array | None, rtol: Any, atol: Any
) -> Run:
    run = begin(problem, method, problem.y0, key, rtol=rtol, atol=atol)
    scale = problem.scale(problem.bare.optimality(problem.y0))
    status = Status.where(jnp.isfinite(scale), run.status, Status.nonfinite_start)
    return eqx.tree_at(lambda r: (r.scale, r.status), run, (scale, status))
