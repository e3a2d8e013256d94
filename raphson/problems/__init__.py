"""Named problem sets: CUTEst, real data, and generators whose constants are known exactly.

Every problem has a name, and a name belongs to sets. To add a problem, write one line in its group
below. Data sets and CUTEst are read when a problem is loaded, not before.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from ..problem import AbstractProblem
from .bilevels import (
    constrained_svm as constrained_svm,
    few_shot_digits as few_shot_digits,
    hyper_cleaning as hyper_cleaning,
    hyper_representation as hyper_representation,
    margin_svm as margin_svm,
    weight_decay as weight_decay,
)
from .blocks import shared_center as shared_center
from .bounds import first_order_lower_bound as first_order_lower_bound
from .composites import ball_quadratic as ball_quadratic, lasso as lasso
from .compressor import compressor_match as compressor_match
from .convex import (
    huber_chain as huber_chain,
    logistic_synthetic as logistic_synthetic,
    nesterov_worst as nesterov_worst,
    nonsmooth_worst as nonsmooth_worst,
    quadratic as quadratic,
)
from .cutest import cutest as cutest, cutest_best as cutest_best, cutest_names as cutest_names
from .data import (
    logistic as logistic,
    perceptron as perceptron,
    ridge as ridge,
    robust as robust,
    softmax as softmax,
)
from .flows import (
    lorenz_orbit as lorenz_orbit,
    shear_flow9 as shear_flow9,
    van_der_pol_orbit as van_der_pol_orbit,
)
from .functional_equation import (
    paradise_fish as paradise_fish,
    paradise_fish_fit as paradise_fish_fit,
)
from .games import (
    adversarial_training as adversarial_training,
    digits_gan as digits_gan,
    distributionally_robust_logistic as distributionally_robust_logistic,
    markov_game as markov_game,
    matrix_game as matrix_game,
    robust_least_squares as robust_least_squares,
)
from .levels import (
    darts_scalar as darts_scalar,
    non_singleton as non_singleton,
    ridge_penalty as ridge_penalty,
)
from .light_curves import (
    eclipsing_binary as eclipsing_binary,
    eclipsing_binary_nav as eclipsing_binary_nav,
)
from .monotone import cocoercive_sum as cocoercive_sum, monotone_sum as monotone_sum
from .nonconvex import (
    hard_nonconvex_chain as hard_nonconvex_chain,
    hard_stochastic_chain as hard_stochastic_chain,
    polyak_lojasiewicz as polyak_lojasiewicz,
    rosenbrock as rosenbrock,
)
from .poisson import poisson as poisson
from .portfolio import (
    factor_correlation as factor_correlation,
    random_correlation as random_correlation,
    risk_parity as risk_parity,
    risk_parity_equations as risk_parity_equations,
)
from .primal_dual import least_squares_saddle as least_squares_saddle
from .saddles import (
    bilinear as bilinear,
    local_minimax as local_minimax,
    strongly_monotone as strongly_monotone,
)
from .sources import data_reweighting as data_reweighting
from .systems import (
    brown_almost_linear as brown_almost_linear,
    circle_and_hyperbola as circle_and_hyperbola,
    circle_of_roots as circle_of_roots,
    cubic_root as cubic_root,
    griewank_osborne as griewank_osborne,
    himmelblau_box as himmelblau_box,
    moiety_network as moiety_network,
    nonnegative_fit as nonnegative_fit,
    powell_singular as powell_singular,
    propane_combustion as propane_combustion,
    rosenbrock_system as rosenbrock_system,
    rosenbrock_wall as rosenbrock_wall,
)
from .training import (
    autoencoder as autoencoder,
    convolution as convolution,
    language as language,
    moons as moons,
    poisson_network as poisson_network,
    temporal_order as temporal_order,
)
from .valleys import (
    coupled_levels as coupled_levels,
    flat_valley as flat_valley,
    jumping_minimum as jumping_minimum,
    quartic_levels as quartic_levels,
)

_CUTEST = "cutest/"

# The groups are sets by themselves.
_GROUPS: dict[str, dict[str, Callable[..., AbstractProblem]]] = {
    "data": {
        "logistic/breast_cancer": partial(logistic, "breast_cancer"),
        "softmax/digits": partial(softmax, "digits"),
        "ridge/diabetes": partial(ridge, "diabetes"),
        "robust/diabetes": partial(robust, "diabetes"),
        "perceptron/digits": partial(perceptron, "digits"),
    },
    "generators": {
        "quadratic": quadratic,
        "logistic/synthetic": logistic_synthetic,
        "nesterov/convex": nesterov_worst,
        "nesterov/strongly_convex": partial(nesterov_worst, strong_convexity=1e-3),
        "nonsmooth_worst": nonsmooth_worst,
        "huber_chain": huber_chain,
        "hard_chain": hard_nonconvex_chain,
        "hard_chain/stochastic": hard_stochastic_chain,
        "polyak_lojasiewicz": polyak_lojasiewicz,
        "rosenbrock": rosenbrock,
        "rosenbrock/chain": partial(rosenbrock, 50),
    },
    "composite": {
        "composite/lasso": lasso,
        "composite/ball": ball_quadratic,
    },
    "systems": {
        "system/rosenbrock": rosenbrock_system,
        "system/moiety_network": moiety_network,
        "system/powell_singular": powell_singular,
        "system/cubic_root": cubic_root,
        "system/circle_of_roots": circle_of_roots,
        "system/circle_and_hyperbola": circle_and_hyperbola,
        "system/griewank_osborne": griewank_osborne,
        "flow/shear9": shear_flow9,
        "orbit/van_der_pol": van_der_pol_orbit,
        "orbit/lorenz": lorenz_orbit,
    },
    "bounded_systems": {
        "bounded/propane_combustion": propane_combustion,
        "bounded/himmelblau": himmelblau_box,
        "bounded/brown_almost_linear": brown_almost_linear,
        "bounded/rosenbrock": rosenbrock_wall,
        "bounded/nonnegative_fit": nonnegative_fit,
    },
    "applications": {
        "portfolio/risk_parity": risk_parity,
        "portfolio/equations": risk_parity_equations,
        "portfolio/random_correlation": random_correlation,
        "portfolio/factor_correlation": factor_correlation,
        "eclipsing_binary/physical": eclipsing_binary,
        "eclipsing_binary/nav": eclipsing_binary_nav,
        "compressor_match": compressor_match,
        "paradise_fish/grid": paradise_fish,
        "paradise_fish/polynomial": paradise_fish_fit,
    },
    "training": {
        "training/logistic": partial(logistic, batch_size=32),
        "training/softmax": partial(softmax, batch_size=64),
        "training/perceptron": perceptron,
        "training/convolution": convolution,
        "training/mnist": partial(convolution, "mnist"),
        "training/autoencoder": autoencoder,
        "training/language": language,
        "training/moons": moons,
        "training/poisson": poisson_network,
        "training/temporal_order": temporal_order,
    },
    "linear": {
        "poisson/1d": partial(poisson, (100,)),
        "poisson/2d": partial(poisson, (10, 10)),
        "poisson/3d": partial(poisson, (5, 5, 5)),
    },
    "saddle": {
        "saddle/bilinear": bilinear,
        "saddle/strongly_monotone": strongly_monotone,
        "saddle/local_minimax": local_minimax,
        "saddle/cocoercive_sum": cocoercive_sum,
        "saddle/monotone_sum": monotone_sum,
        "saddle/least_squares": least_squares_saddle,
        "saddle/matrix_game": matrix_game,
        "saddle/markov_game": markov_game,
        "saddle/robust_least_squares": robust_least_squares,
        "saddle/distributionally_robust": distributionally_robust_logistic,
        "saddle/digits_gan": digits_gan,
        "saddle/adversarial_training": adversarial_training,
    },
    "bilevel": {
        "bilevel/ridge": ridge_penalty,
        "bilevel/non_singleton": non_singleton,
        "bilevel/darts": darts_scalar,
        "bilevel/shared_center": shared_center,
        "bilevel/hyper_cleaning": hyper_cleaning,
        "bilevel/weight_decay": weight_decay,
        "bilevel/hyper_representation": hyper_representation,
        "bilevel/constrained_svm": constrained_svm,
        "bilevel/margin_svm": margin_svm,
        "bilevel/few_shot_digits": few_shot_digits,
        "bilevel/data_reweighting": data_reweighting,
        "bilevel/quartic": quartic_levels,
        "bilevel/coupled": coupled_levels,
        "bilevel/flat_valley": flat_valley,
        "bilevel/jumping_minimum": jumping_minimum,
    },
}

# Valleys, plateaus, oscillation, ill-conditioned fits and up to 100 unknowns, quick to compile.
_MAIN_CUTEST = (
    "ROSENBR",
    "BEALE",
    "HELIX",
    "HUMPS",
    "JENSMP",
    "BROWNDEN",
    "KOWOSB",
    "PALMER1C",
    "OSBORNEB",
    "CHNROSNB",
    "QING",
    "LUKSAN21LS",
)


def load(name: str, **options: Any) -> AbstractProblem:
    """The problem of that name.

    Args:
        name: one of `names`, such as `"logistic/breast_cancer"` or `"cutest/ROSENBR"`.
        **options: arguments of the function that makes the problem, such as `batch_size=32`.

    Returns:
        The problem, with the facts that are known of it.

    Raises:
        ValueError: if there is no problem of that name, or an option is unfit.
        TypeError: if the problem takes no such option.

    Example:
        >>> load("rosenbrock", n=4).y0.tolist()
        [-1.2, 1.0, -1.2, 1.0]
    """
    known = {name: make for group in _GROUPS.values() for name, make in group.items()}
    if name in known:
        return known[name](**options)
    if str(name).startswith(_CUTEST):
        return cutest(name.removeprefix(_CUTEST), **options)  # pyright: ignore[reportCallIssue]
    raise ValueError(f"`name` must be that of a problem, got {name!r}; {_near(name, names())}")


def names(set: str | None = None) -> list[str]:
    """The names of all problems, or of those in a set.

    Args:
        set: a name of `sets`.

    Raises:
        ValueError: if there is no such set.

    Example:
        >>> names("composite")
        ['composite/lasso', 'composite/ball']
    """
    by_set = sets()
    if set is None:
        return list(dict.fromkeys(name for group in by_set.values() for name in group))
    if set not in by_set:
        raise ValueError(f"`set` must be that of problems, got {set!r}; {_near(set, [*by_set])}")
    return by_set[set]


def sets() -> dict[str, list[str]]:
    """The sets of problems: the name of each, and the names of its problems.

    `"main"` is the race without arguments; `"data"`, real data; `"generators"`, minimization with
    known constants, and `"composite"`, the same with a part that is not smooth; `"systems"`,
    nonlinear systems, `"bounded_systems"`, those within bounds, and `"linear"`, linear ones;
    `"saddle"`, saddles, and `"bilevel"`, two levels; `"training"`, small real models to train on
    batches; `"applications"`, models of other fields; `"cutest-unconstrained"`, `"cutest-small"`
    (of these, up to 100 unknowns), `"cutest-equations"` and `"cutest-bounded-equations"`, what of
    CUTEst can be stated so far.

    Example:
        >>> len(sets()["main"])
        14
    """
    return {
        "main": ["logistic/breast_cancer", "perceptron/digits", *_prefixed(_MAIN_CUTEST)],
        **{name: list(group) for name, group in _GROUPS.items()},
        "cutest-unconstrained": _prefixed(cutest_names("unconstrained")),
        "cutest-small": _prefixed(cutest_names("unconstrained", max_size=100)),
        "cutest-equations": _prefixed(cutest_names("nonlinear_equations")),
        "cutest-bounded-equations": _prefixed(cutest_names("bounded_equations")),
    }


def _prefixed(cutest_problems: Any) -> list[str]:
    return [_CUTEST + name for name in cutest_problems]


def _near(wrong: Any, known: list[str]) -> str:
    """What may have been meant, as the end of a sentence."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(wrong).lower(), by_lower, 3, cutoff=0.5)
    if not near:
        return "`raphson.problems.sets()` lists them."
    return f"did you mean {' or '.join(by_lower[name] for name in near)}?"
