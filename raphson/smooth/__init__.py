"""Smooth minimization: find y where f(y) is least."""

from .accelerated_cubic_newton import AcceleratedCubicNewton as AcceleratedCubicNewton
from .certified_grid import (
    CertifiedMinimum as CertifiedMinimum,
    certified_minimum as certified_minimum,
)
from .damped_newton import DampedNewton as DampedNewton
from .energy_gradient import EnergyGradient as EnergyGradient
from .filtered_newton import FilteredNewton as FilteredNewton
from .gradient_descent import GradientDescent as GradientDescent
from .gradient_regularized_newton import GradientRegularizedNewton as GradientRegularizedNewton
from .heavy_ball import HeavyBall as HeavyBall
from .krylov_gradient import KrylovGradient as KrylovGradient
from .lazy_newton import LazyNewton as LazyNewton
from .nesterov import Nesterov as Nesterov
from .newton_descent import CombinedNewtonDescent as CombinedNewtonDescent
from .normalized_gradient import NormalizedGradient as NormalizedGradient
from .normalized_spider import NormalizedSpider as NormalizedSpider
from .polyak_momentum import PolyakMomentum as PolyakMomentum
from .preconditioned_gradient import PreconditionedGradient as PreconditionedGradient
from .problem import FiniteSum as FiniteSum, Minimize as Minimize
from .risk_parity import RiskParity as RiskParity
from .risk_parity_ccd import RiskParityCCD as RiskParityCCD
from .saddle_free_newton import SaddleFreeNewton as SaddleFreeNewton
from .subgradient_descent import SubgradientDescent as SubgradientDescent
from .triple_momentum import TripleMomentum as TripleMomentum
from .truncated_newton import TruncatedNewton as TruncatedNewton
from .trust_region_newton import TrustRegionNewton as TrustRegionNewton
