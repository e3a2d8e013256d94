"""Training: optimizers as Optax transformations, for a loop that the user owns."""

from ._polar import polar_factor as polar_factor
from .adagrad_norm import adagrad_norm as adagrad_norm
from .adahessian import adahessian as adahessian
from .adamomentum import adamomentum as adamomentum
from .adamp import adamp as adamp
from .adan import adan as adan
from .adaptive_batch import (
    coordinate_test as coordinate_test,
    inner_product_test as inner_product_test,
    norm_test as norm_test,
)
from .adaptive_braking import adaptive_braking as adaptive_braking
from .aegd import aegd as aegd
from .auon import auon as auon
from .batch_scaling import (
    batch_curvature as batch_curvature,
    curvature_and_noise as curvature_and_noise,
)
from .boolean import (
    boolean_step as boolean_step,
    lookup_table as lookup_table,
    parity as parity,
)
from .boosted_network import (
    BoostedNetwork as BoostedNetwork,
    boosted_network as boosted_network,
)
from .cautious_decay import cautious_decay as cautious_decay
from .concurrent_adversarial import concurrent_value_and_grad as concurrent_value_and_grad
from .conflict_free import (
    conflict_free as conflict_free,
    conflict_free_momentum as conflict_free_momentum,
)
from .diffgrad import diffgrad as diffgrad
from .direct_feedback import feedback_value_and_grad as feedback_value_and_grad
from .egn import egn as egn
from .exadam import exadam as exadam
from .forward_gradient import forward_value_and_grad as forward_value_and_grad
from .gradient_regularization import regularized_value_and_grad as regularized_value_and_grad
from .guided_forward_gradient import guided_value_and_grad as guided_value_and_grad
from .half_life_schedule import half_life_schedule as half_life_schedule
from .induced_metric import induced_metric as induced_metric
from .layer_sampling import layer_sampling as layer_sampling
from .lens import (
    Learner as Learner,
    Lens as Lens,
    from_optax as from_optax,
    gradient_learner as gradient_learner,
    reverse_derivative as reverse_derivative,
    to_optax as to_optax,
)
from .lion_k import lion_k as lion_k
from .magnitude_pruning import (
    magnitude_mask as magnitude_mask,
    magnitude_pruning as magnitude_pruning,
)
from .mfac import inverse_fisher as inverse_fisher, mfac as mfac
from .model_building import model_building as model_building
from .normalize_by_gradient_power import (
    normalize_by_gradient_power as normalize_by_gradient_power,
)
from .oasis import oasis as oasis
from .obs_pruning import obs_scores as obs_scores, obs_update as obs_update
from .optimistic_amsgrad import optimistic_amsgrad as optimistic_amsgrad
from .polyak_momentum import polyak_momentum as polyak_momentum
from .psgd import psgd as psgd
from .refined_schedule import refined_schedule as refined_schedule
from .reinmax import reinmax as reinmax, straight_through as straight_through
from .remove_radial import remove_radial as remove_radial
from .reste import reste_power as reste_power, reste_sign as reste_sign
from .saddle_free import saddle_free as saddle_free
from .sania import sania as sania
from .self_distillation import (
    distillation_weight as distillation_weight,
    self_distilled as self_distilled,
)
from .sgdp import sgdp as sgdp
from .shampoo import shampoo as shampoo
from .smooth_convergence import smooth_convergence as smooth_convergence
from .spectral_decoupling import spectral_decoupling as spectral_decoupling
from .steepest_descent import (
    operator_norms as operator_norms,
    steepest_descent as steepest_descent,
)
from .tngd import tngd as tngd
from .vanishing_gradient_penalty import (
    vanishing_gradient_penalty as vanishing_gradient_penalty,
)
from .weight_centralization import weight_centralization as weight_centralization
