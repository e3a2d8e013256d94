"""Probes: one measure of a problem at a point, whatever method came there."""

from .expansion import expansion as expansion
from .gradient_normalized_smoothness import (
    gradient_normalized_smoothness as gradient_normalized_smoothness,
)
from .hessian_index import hessian_index as hessian_index
from .infimal_displacement import (
    InfimalDisplacement as InfimalDisplacement,
    infimal_displacement as infimal_displacement,
)
from .jacobian_symmetry import jacobian_symmetry as jacobian_symmetry
from .local_minimax import LocalMinimax as LocalMinimax, local_minimax as local_minimax
