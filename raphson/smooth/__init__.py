"""Smooth minimization: find y where f(y) is least."""

from .damped_newton import DampedNewton as DampedNewton
from .gradient_descent import GradientDescent as GradientDescent
from .gradient_regularized_newton import GradientRegularizedNewton as GradientRegularizedNewton
from .heavy_ball import HeavyBall as HeavyBall
from .lazy_newton import LazyNewton as LazyNewton
from .nesterov import Nesterov as Nesterov
from .normalized_gradient import NormalizedGradient as NormalizedGradient
from .normalized_spider import NormalizedSpider as NormalizedSpider
from .polyak_momentum import PolyakMomentum as PolyakMomentum
from .problem import FiniteSum as FiniteSum, Minimize as Minimize
from .saddle_free_newton import SaddleFreeNewton as SaddleFreeNewton
from .triple_momentum import TripleMomentum as TripleMomentum
from .truncated_newton import TruncatedNewton as TruncatedNewton
