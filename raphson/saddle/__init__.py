"""Saddle points, games and variational inequalities."""

from . import _default as _default
from .accelerated_primal_dual import AcceleratedPrimalDual as AcceleratedPrimalDual
from .competitive_gradient import CompetitiveGradient as CompetitiveGradient
from .composite import CompositeSaddle as CompositeSaddle
from .extragradient import Extragradient as Extragradient
from .gradient_descent_ascent import GradientDescentAscent as GradientDescentAscent
from .halpern_proximal_point import HalpernProximalPoint as HalpernProximalPoint
from .problem import (
    Saddle as Saddle,
    SaddleSum as SaddleSum,
    VariationalInequality as VariationalInequality,
    VariationalSum as VariationalSum,
)
from .variance_reduced_extragradient import (
    VarianceReducedExtragradient as VarianceReducedExtragradient,
)
from .variance_reduced_halpern import VarianceReducedHalpern as VarianceReducedHalpern
