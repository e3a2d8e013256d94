"""Smooth minimization: find y where f(y) is least."""

from .accelerated_cubic_newton import AcceleratedCubicNewton as AcceleratedCubicNewton
from .brent_line import BrentLine as BrentLine
from .center_of_gravity import CenterOfGravity as CenterOfGravity
from .certified_grid import (
    CertifiedMinimum as CertifiedMinimum,
    certified_minimum as certified_minimum,
)
from .damped_newton import DampedNewton as DampedNewton
from .ellipsoid import Ellipsoid as Ellipsoid
from .energy_gradient import (
    EnergyGradient as EnergyGradient,
    hessian_riemannian as hessian_riemannian,
)
from .filtered_newton import FilteredNewton as FilteredNewton
from .gradient_descent import GradientDescent as GradientDescent
from .gradient_regularized_newton import GradientRegularizedNewton as GradientRegularizedNewton
from .heavy_ball import HeavyBall as HeavyBall
from .hybrid_sarah import HybridSARAH as HybridSARAH
from .krylov_gradient import KrylovGradient as KrylovGradient
from .lazy_newton import LazyNewton as LazyNewton
from .loopless_svrg import LooplessSVRG as LooplessSVRG
from .nesterov import Nesterov as Nesterov
from .newton_descent import CombinedNewtonDescent as CombinedNewtonDescent
from .normalized_gradient import NormalizedGradient as NormalizedGradient
from .normalized_spider import NormalizedSpider as NormalizedSpider
from .polyak_momentum import PolyakMomentum as PolyakMomentum
from .preconditioned_gradient import PreconditionedGradient as PreconditionedGradient
from .price_search import PriceMinimum as PriceMinimum, price_search as price_search
from .problem import FiniteSum as FiniteSum, Minimize as Minimize
from .risk_parity import RiskParity as RiskParity
from .risk_parity_ccd import RiskParityCCD as RiskParityCCD
from .saddle_free_newton import SaddleFreeNewton as SaddleFreeNewton
from .subgradient_descent import SubgradientDescent as SubgradientDescent
from .triple_momentum import TripleMomentum as TripleMomentum
from .truncated_newton import TruncatedNewton as TruncatedNewton
from .trust_region_newton import TrustRegionNewton as TrustRegionNewton
