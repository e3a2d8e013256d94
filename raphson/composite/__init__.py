"""Composite minimization: find y where f(y) + h(y) is least, f smooth, h known by its prox."""

from .nonsmooth import (
    L1 as L1,
    AbstractConvexSet as AbstractConvexSet,
    AbstractNonsmooth as AbstractNonsmooth,
    Ball as Ball,
    Box as Box,
    Simplex as Simplex,
    SquaredNorm as SquaredNorm,
)
from .problem import Composite as Composite
from .proximal_gradient import ProximalGradient as ProximalGradient
