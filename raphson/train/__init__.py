"""Training: optimizers as Optax transformations, for a loop that the user owns."""

from ._polar import polar_factor as polar_factor
from .adamomentum import adamomentum as adamomentum
from .adamp import adamp as adamp
from .adan import adan as adan
from .adaptive_braking import adaptive_braking as adaptive_braking
from .auon import auon as auon
from .cautious_decay import cautious_decay as cautious_decay
from .diffgrad import diffgrad as diffgrad
from .direct_feedback import feedback_value_and_grad as feedback_value_and_grad
from .exadam import exadam as exadam
from .forward_gradient import forward_value_and_grad as forward_value_and_grad
from .guided_forward_gradient import guided_value_and_grad as guided_value_and_grad
from .half_life_schedule import half_life_schedule as half_life_schedule
from .lion_k import lion_k as lion_k
from .magnitude_pruning import (
    magnitude_mask as magnitude_mask,
    magnitude_pruning as magnitude_pruning,
)
from .optimistic_amsgrad import optimistic_amsgrad as optimistic_amsgrad
from .reinmax import reinmax as reinmax, straight_through as straight_through
from .remove_radial import remove_radial as remove_radial
from .reste import reste_power as reste_power, reste_sign as reste_sign
from .sgdp import sgdp as sgdp
from .steepest_descent import (
    operator_norms as operator_norms,
    steepest_descent as steepest_descent,
)
from .vanishing_gradient_penalty import (
    vanishing_gradient_penalty as vanishing_gradient_penalty,
)
