"""Bilevel problems: find x where F(x, y) is least, with y least for f(x, y)."""

from .implicit_gradient import ImplicitGradient as ImplicitGradient
from .problem import Bilevel as Bilevel, BilevelSum as BilevelSum
