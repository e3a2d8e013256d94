"""Bilevel problems: find x where F(x, y) is least, with y least for f(x, y)."""

from . import _default as _default
from .averaged_multipliers import AveragedMultipliers as AveragedMultipliers
from .blocks import MultiBlockBilevel as MultiBlockBilevel
from .blockwise_variance_reduction import (
    BlockwiseVarianceReduction as BlockwiseVarianceReduction,
)
from .bo_rep import BORep as BORep
from .constrained import ConstrainedBilevel as ConstrainedBilevel
from .descent_aggregation import DescentAggregation as DescentAggregation
from .few_shot import FewShot as FewShot, adapted as adapted
from .fully_first_order import FullyFirstOrder as FullyFirstOrder
from .implicit_gradient import ImplicitGradient as ImplicitGradient
from .minimax_penalty import MinimaxPenalty as MinimaxPenalty
from .normal_inverse_wishart import NormalInverseWishart as NormalInverseWishart
from .problem import Bilevel as Bilevel, BilevelSum as BilevelSum
from .proximal_lagrangian import ProximalLagrangian as ProximalLagrangian
from .proximal_penalty import ProximalPenalty as ProximalPenalty
from .relaxed_splitting import RelaxedSplitting as RelaxedSplitting
from .truncated_backpropagation import TruncatedBackpropagation as TruncatedBackpropagation
