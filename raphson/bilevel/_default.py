"""Which method answers a problem of two levels when none is named, and why."""

from __future__ import annotations

from ..defaults import choose
from ..method import AbstractMethod
from .constrained import ConstrainedBilevel
from .implicit_gradient import ImplicitGradient
from .problem import AbstractLevels
from .proximal_lagrangian import ProximalLagrangian


@choose.register(AbstractLevels)
def _(problem: AbstractLevels) -> tuple[AbstractMethod, str]:
    return ImplicitGradient(), "two levels: implicit differentiation of the lower one"


@choose.register(ConstrainedBilevel)
def _(problem: ConstrainedBilevel) -> tuple[AbstractMethod, str]:
    return ProximalLagrangian(), "constraints couple the levels: the proximal Lagrangian"
