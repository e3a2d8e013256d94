"""Which method is chosen for a problem when none is named, and why."""

from __future__ import annotations

from typing import Any

import jax
import lineax as lx
import optax

from .bilevel.problem import AbstractLevels
from .composite.problem import Composite
from .composite.proximal_gradient import ProximalGradient
from .linear.problem import LinearSystem
from .method import AbstractMethod
from .problem import AbstractObjective, AbstractProblem, AbstractResidual
from .roots.adaptive_levenberg_marquardt import AdaptiveLevenbergMarquardt
from .roots.bounded_truncated_gauss_newton import BoundedTruncatedGaussNewton
from .roots.bounded_trust_region import BoundedTrustRegion
from .roots.problem import AbstractBounded, LeastSquares
from .roots.truncated_gauss_newton import TruncatedGaussNewton
from .saddle.problem import AbstractVariational
from .smooth.risk_parity import RiskParity
from .smooth.risk_parity_ccd import RiskParityCCD
from .smooth.truncated_newton import TruncatedNewton
from .smooth.trust_region_newton import TrustRegionNewton
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


def choose(problem: AbstractProblem) -> tuple[Any, str]:
    """A method for `problem`, and the reason in a sentence."""
    size = sum(leaf.size for leaf in jax.tree.leaves(problem.y0))
    unknowns = "1 unknown" if size == 1 else f"{size} unknowns"
    if isinstance(problem, LinearSystem):
        return lx.AutoLinearSolver(well_posed=None), "a linear system: by the operator's structure"
    if isinstance(problem, RiskParity):
        return RiskParityCCD(), f"risk parity of {unknowns}: each in turn has a closed form"
    if isinstance(problem, AbstractObjective) and problem.stochastic:
        return optax.adam(1e-3), "the objective is sampled: a stochastic first-order method"
    if isinstance(problem, AbstractResidual) and size <= DENSE_LIMIT:
        kind = "least squares in" if isinstance(problem, LeastSquares) else "a system of"
        return ADAPTIVE_LEVENBERG_MARQUARDT, f"{kind} {unknowns}: dense Jacobians"
    if isinstance(problem, AbstractObjective):
        if size <= HESSIAN_LIMIT:
            return DENSE_NEWTON, f"an objective of {unknowns}: dense, by its squares if it has them"
        return TruncatedNewton(), f"an objective of {unknowns}: products with the Hessian only"
    if isinstance(problem, AbstractResidual):
        return TruncatedGaussNewton(), f"a system of {unknowns}: products with the Jacobian only"
    if isinstance(problem, AbstractBounded):
        within = f"a system of {unknowns} within bounds"
        if size <= DENSE_LIMIT:
            return BoundedTrustRegion(), f"{within}: dense Jacobians"
        return BoundedTruncatedGaussNewton(), f"{within}: products with the Jacobian only"
    if isinstance(problem, Composite):
        return ProximalGradient(), "a composite objective: its step found by backtracking"
    if isinstance(problem, AbstractVariational):
        from .saddle.extragradient import Extragradient

        if problem.stochastic:
            return Extragradient(1e-2), "a sampled saddle: extragradient with a constant step"
        return Extragradient(), "a saddle: extragradient with its step found by backtracking"
    if isinstance(problem, AbstractLevels):
        from .bilevel.constrained import ConstrainedBilevel
        from .bilevel.implicit_gradient import ImplicitGradient
        from .bilevel.proximal_lagrangian import ProximalLagrangian

        if isinstance(problem, ConstrainedBilevel):
            return ProximalLagrangian(), "constraints couple the levels: the proximal Lagrangian"
        return ImplicitGradient(), "two levels: implicit differentiation of the lower one"
    raise ValueError(f"no default method answers {type(problem).__name__}: name one.")
