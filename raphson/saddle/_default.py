"""Which method answers a saddle when none is named, and why."""

from __future__ import annotations

from ..defaults import choose
from ..method import AbstractMethod
from .extragradient import Extragradient
from .problem import AbstractVariational


@choose.register(AbstractVariational)
def _(problem: AbstractVariational) -> tuple[AbstractMethod, str]:
    if problem.stochastic:
        return Extragradient(1e-2), "a sampled saddle: extragradient with a constant step"
    return Extragradient(), "a saddle: extragradient with its step found by backtracking"
