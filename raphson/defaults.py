"""Which method is chosen for a problem when none is named, and why."""

from __future__ import annotations

import functools
from typing import Any

import jax
import lineax as lx
import optax

from .composite.problem import Composite
from .composite.proximal_gradient import ProximalGradient
from .linear.problem import LinearSystem
from .method import AbstractMethod
from .problem import AbstractObjective, AbstractProblem, AbstractResidual
from .roots.adaptive_levenberg_marquardt import AdaptiveLevenbergMarquardt
from .roots.bounded_truncated_gauss_newton import BoundedTruncatedGaussNewton
from .roots.bounded_trust_region import BoundedTrustRegion
from .roots.homotopy_newton import HomotopyNewton
from .roots.problem import AbstractBounded, FixedPoint, LeastSquares, RootFind
from .roots.truncated_gauss_newton import TruncatedGaussNewton
from .smooth.risk_parity import RiskParity
from .smooth.risk_parity_ccd import RiskParityCCD
from .smooth.truncated_newton import TruncatedNewton
from .smooth.trust_region_newton import TrustRegionNewton
from .solution import Solution, Status
from .squares import residuals

# Up to this many unknowns a dense Jacobian is formed and factorized.
DENSE_LIMIT = 500
# Up to this many a dense Hessian is formed, which is worth as many products with it.
HESSIAN_LIMIT = 100
# Up to this many entries its residuals' Jacobian may have where an objective is fitted.
JACOBIAN_LIMIT = 1_000_000


class DenseNewton(TrustRegionNewton):
    """Newton's method, or a fit of the residuals where the objective is written as their squares.

    A sum of squares is fitted where its residuals are at least as many as the unknowns, and neither
    a hand-written oracle nor a wrapper that changes answers would be passed over.
    """

    @property
    def name(self) -> str:
        return f"{TrustRegionNewton.__name__} or {AdaptiveLevenbergMarquardt.__name__}"

    def suited(self, problem: Any) -> tuple[AbstractProblem, AbstractMethod]:
        plain = not problem.oracles and all(wrapper.only_looks for wrapper in problem.wrappers)
        objective = problem.bare.objective
        shown = jax.eval_shape(lambda y: residuals(objective, y), problem.y0) if plain else None
        unknowns, count = (
            sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (problem.y0, shown)
        )
        if count < unknowns or not 0 < count * unknowns <= JACOBIAN_LIMIT:
            return problem, TrustRegionNewton(self.radius)
        # A least-squares problem halves its squares.
        roots = lambda y, _: [2**0.5 * r for r in residuals(objective, y) or ()]
        fit = LeastSquares(roots, problem.y0).traced(problem.y0)
        return fit.rewrapped(problem.wrappers), ADAPTIVE_LEVENBERG_MARQUARDT


# Made once: to make one at each call costs a seventh of a small solve.
DENSE_NEWTON = DenseNewton()
ADAPTIVE_LEVENBERG_MARQUARDT = AdaptiveLevenbergMarquardt()


@functools.singledispatch
def choose(problem: AbstractProblem) -> tuple[Any, str]:
    """A method for `problem`, and the reason in a sentence.

    What is loaded with the package is registered here, any other family's problems with that.
    """
    raise ValueError(f"no default method answers {type(problem).__name__}: name one.")


@choose.register(AbstractObjective)
def _(problem: AbstractObjective) -> tuple[Any, str]:
    if problem.stochastic:
        return optax.adam(1e-3), "the objective is sampled: a stochastic first-order method"
    size, unknowns = _unknowns(problem)
    if size <= HESSIAN_LIMIT:
        return DENSE_NEWTON, f"an objective of {unknowns}: dense, by its squares if it has them"
    return TruncatedNewton(), f"an objective of {unknowns}: products with the Hessian only"


@choose.register(RiskParity)
def _(problem: RiskParity) -> tuple[Any, str]:
    unknowns = _unknowns(problem)[1]
    return RiskParityCCD(), f"risk parity of {unknowns}: each in turn has a closed form"


@choose.register(AbstractResidual)
def _(problem: AbstractResidual) -> tuple[Any, str]:
    size, unknowns = _unknowns(problem)
    if size <= DENSE_LIMIT:
        return ADAPTIVE_LEVENBERG_MARQUARDT, f"a system of {unknowns}: dense Jacobians"
    return TruncatedGaussNewton(), f"a system of {unknowns}: products with the Jacobian only"


@choose.register(LeastSquares)
def _(problem: LeastSquares) -> tuple[Any, str]:
    size, unknowns = _unknowns(problem)
    if size <= DENSE_LIMIT:
        return ADAPTIVE_LEVENBERG_MARQUARDT, f"least squares in {unknowns}: dense Jacobians"
    return choose.dispatch(AbstractObjective)(problem)


@choose.register(AbstractBounded)
def _(problem: AbstractBounded) -> tuple[Any, str]:
    size, unknowns = _unknowns(problem)
    within = f"a system of {unknowns} within bounds"
    if size <= DENSE_LIMIT:
        return BoundedTrustRegion(), f"{within}: dense Jacobians"
    return BoundedTruncatedGaussNewton(), f"{within}: products with the Jacobian only"


@choose.register(LinearSystem)
def _(problem: LinearSystem) -> tuple[Any, str]:
    return lx.AutoLinearSolver(well_posed=None), "a linear system: by the operator's structure"


@choose.register(Composite)
def _(problem: Composite) -> tuple[Any, str]:
    return ProximalGradient(), "a composite objective: its step found by backtracking"


def successors(
    problem: AbstractProblem, solution: Solution
) -> tuple[tuple[AbstractMethod, ...], str]:
    """What is tried where the chosen method came to rest without an answer, and why.

    Args:
        problem: the problem.
        solution: what came of the method that was chosen.

    Returns:
        The methods, each to begin at the start; none where the answer stands or nothing else may
        find one.
    """
    reason = solution.stats.reason
    # To ask for a status waits for the answer: the problem is asked first.
    if not isinstance(problem, RootFind | FixedPoint) or int(solution.status._value) not in _STUCK:
        return (), reason
    size, count = (
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (problem.y0, jax.eval_shape(problem.bare.residual, problem.y0))
    )
    if size != count or size > HESSIAN_LIMIT or not all(w.only_looks for w in problem.wrappers):
        return (), reason
    name = solution.stats.method
    return PATHS, f"{reason}; {name} came to rest off a root: paths from the start were followed"


PATHS = (HomotopyNewton(), HomotopyNewton(backwards=True))
_STUCK = [int(status._value) for status in (Status.not_a_root, Status.stalled)]  # pyright: ignore


def _unknowns(problem: AbstractProblem) -> tuple[int, str]:
    """How many there are, also in words."""
    size = sum(leaf.size for leaf in jax.tree.leaves(problem.y0))
    return size, "1 unknown" if size == 1 else f"{size} unknowns"
