"""Systems of linear equations: find y where A y = b."""

from .cheb_cb import ChebCB as ChebCB
from .neumann import Neumann as Neumann
from .nystrom import Nystrom as Nystrom
from .problem import LinearSystem as LinearSystem
from .sor import SOR as SOR, SSOR as SSOR
from .symmetric_polynomials import symmetric_polynomial as symmetric_polynomial
from .tsallis_inf import TsallisINF as TsallisINF
from .tune_online import (
    AbstractTuner as AbstractTuner,
    SequenceSolution as SequenceSolution,
    solve_sequence as solve_sequence,
)
