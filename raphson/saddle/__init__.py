"""Saddle points, games and variational inequalities."""

from .extragradient import Extragradient as Extragradient
from .problem import (
    Saddle as Saddle,
    SaddleSum as SaddleSum,
    VariationalInequality as VariationalInequality,
    VariationalSum as VariationalSum,
)
