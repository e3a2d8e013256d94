"""The field's own solvers, with settings a careful user would choose.

Optimistix ends by a test of successive iterates, which is not the race's test: it is so tight here
that a solver seldom stops short of it, and what it does beyond is not held against it. Optax's
optimizers have no default learning rate: they race with the one that stands here, and where models
are trained, with one that was tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import lineax as lx
import optax
import optimistix as optx

from ..lifts import SciPyLeastSquares, SciPyMinimize, SciPyRoot

# Of Adam and its kin, ours and theirs.
RATE = 1e-2
# rtol, atol
_TIGHT = (1e-12, 1e-12)
_LINEAR = (1e-8, 1e-12)


class Peer(NamedTuple):
    """A solver of another library: how to make it, and what it is in one line.

    The `usual` ones race where no methods are named. Those with a `rate` are made from a learning
    rate, which is this where none is tuned.
    """

    make: Callable[..., Any]
    summary: str
    usual: bool = True
    rate: float | None = None


def _momentum(rate: Any) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


PEERS: dict[str, Peer] = {
    "optimistix.BFGS": Peer(lambda: optx.BFGS(*_TIGHT), "BFGS, backtracking search"),
    "optimistix.LBFGS": Peer(lambda: optx.LBFGS(*_TIGHT), "L-BFGS of memory 10, backtracking"),
    "optimistix.DFP": Peer(lambda: optx.DFP(*_TIGHT), "DFP, backtracking search", False),
    "optimistix.NonlinearCG": Peer(
        lambda: optx.NonlinearCG(*_TIGHT), "Nonlinear conjugate gradients, Polak-Ribiere", False
    ),
    "optimistix.NelderMead": Peer(lambda: optx.NelderMead(*_TIGHT), "Nelder-Mead simplex", False),
    "optax.sgd": Peer(_momentum, "Stochastic gradients, momentum 0.9", False, 0.1),
    "optax.adam": Peer(optax.adam, "Adam", True, RATE),
    "optax.adamw": Peer(optax.adamw, "Adam with decoupled weight decay", False, RATE),
    "optax.adabelief": Peer(optax.adabelief, "AdaBelief", False, RATE),
    "optax.adan": Peer(optax.adan, "Optax's Adan", False, RATE),
    "optax.ademamix": Peer(optax.contrib.ademamix, "AdEMAMix", False, RATE),
    "optax.lion": Peer(optax.lion, "Lion", False, RATE),
    "optax.muon": Peer(optax.contrib.muon, "Muon", False, RATE),
    "optax.lbfgs": Peer(lambda: optax.lbfgs(), "L-BFGS of memory 10, zoom search"),
    "scipy.BFGS": Peer(lambda: SciPyMinimize("BFGS"), "BFGS, Wolfe search"),
    "scipy.L-BFGS-B": Peer(lambda: SciPyMinimize("L-BFGS-B"), "L-BFGS of memory 10, Wolfe search"),
    "scipy.CG": Peer(lambda: SciPyMinimize("CG"), "Nonlinear conjugate gradients", False),
    "scipy.Newton-CG": Peer(
        lambda: SciPyMinimize("Newton-CG", {"xtol": 1e-12}), "Truncated Newton, line search", False
    ),
    "scipy.trust-ncg": Peer(lambda: SciPyMinimize("trust-ncg"), "Truncated Newton, trust region"),
    "scipy.trust-exact": Peer(
        lambda: SciPyMinimize("trust-exact"), "Newton with dense Hessians, trust region", False
    ),
    "optimistix.LevenbergMarquardt": Peer(
        lambda: optx.LevenbergMarquardt(*_TIGHT), "Levenberg-Marquardt"
    ),
    "optimistix.GaussNewton": Peer(lambda: optx.GaussNewton(*_TIGHT), "Gauss-Newton"),
    "optimistix.Dogleg": Peer(lambda: optx.Dogleg(*_TIGHT), "Dogleg trust region"),
    "optimistix.Newton": Peer(
        lambda: optx.Newton(*_TIGHT, cauchy_termination=False), "Newton for roots"
    ),
    "scipy.hybr": Peer(lambda: SciPyRoot("hybr"), "Powell's hybrid method (MINPACK)"),
    "scipy.lm": Peer(lambda: SciPyRoot("lm"), "Levenberg-Marquardt (MINPACK)"),
    "scipy.krylov": Peer(lambda: SciPyRoot("krylov"), "Newton-Krylov"),
    "scipy.trf": Peer(lambda: SciPyLeastSquares("trf"), "Interior trust region, reflective"),
    "scipy.dogbox": Peer(lambda: SciPyLeastSquares("dogbox"), "Dogleg in a rectangular region"),
    "optimistix.FixedPointIteration": Peer(
        lambda: optx.FixedPointIteration(*_TIGHT), "Fixed-point iteration"
    ),
    "lineax.CG": Peer(lambda: lx.CG(*_LINEAR), "Conjugate gradients"),
    "lineax.GMRES": Peer(lambda: lx.GMRES(*_LINEAR), "GMRES, restart 20"),
    "lineax.BiCGStab": Peer(lambda: lx.BiCGStab(*_LINEAR), "BiCGStab"),
    "lineax.LU": Peer(lambda: lx.LU(), "Dense LU factorization"),
}
