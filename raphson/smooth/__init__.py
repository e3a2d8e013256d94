"""Smooth minimization: find y where f(y) is least."""

from .gradient_descent import GradientDescent as GradientDescent
from .heavy_ball import HeavyBall as HeavyBall
from .lazy_newton import LazyNewton as LazyNewton
from .nesterov import Nesterov as Nesterov
from .problem import FiniteSum as FiniteSum, Minimize as Minimize
from .truncated_newton import TruncatedNewton as TruncatedNewton
