"""Systems of linear equations: find y where A y = b."""

from .cheb_cb import ChebCB as ChebCB
from .problem import LinearSystem as LinearSystem
from .sor import SOR as SOR
from .sor import SSOR as SSOR
from .tsallis_inf import TsallisINF as TsallisINF
from .tune_online import (
    AbstractTuner as AbstractTuner,
)
from .tune_online import (
    SequenceSolution as SequenceSolution,
)
from .tune_online import (
    solve_sequence as solve_sequence,
)
