"""Root finding, least squares and fixed points: find y where F(y) = 0, or nearly."""

from .adaptive_levenberg_marquardt import (
    AdaptiveLevenbergMarquardt as AdaptiveLevenbergMarquardt,
)
from .anderson import Anderson as Anderson
from .bound_slack import bound_slack as bound_slack
from .bounded_truncated_gauss_newton import (
    BoundedTruncatedGaussNewton as BoundedTruncatedGaussNewton,
)
from .bounded_trust_region import BoundedTrustRegion as BoundedTrustRegion
from .bregman_averaged import BregmanAveraged as BregmanAveraged
from .continuation import continuation as continuation
from .equilibrium_propagation import (
    holomorphic_gradient as holomorphic_gradient,
    jacobian_homeostasis as jacobian_homeostasis,
)
from .feedforward import solve_feedforward as solve_feedforward
from .graph_solver import ConvergentGraphSolver as ConvergentGraphSolver
from .halpern import Halpern as Halpern
from .homo_ode import Equilibrium as Equilibrium, HomoODE as HomoODE
from .homotopy_newton import HomotopyNewton as HomotopyNewton
from .krasnoselskii_mann import KrasnoselskiiMann as KrasnoselskiiMann
from .levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from .newton_flow import NewtonFlow as NewtonFlow
from .polynomial import (
    AlphaCertificate as AlphaCertificate,
    PolynomialSystem as PolynomialSystem,
    alpha_certificate as alpha_certificate,
    deflated as deflated,
)
from .problem import (
    BoundedLeastSquares as BoundedLeastSquares,
    BoundedRootFind as BoundedRootFind,
    FixedPoint as FixedPoint,
    LeastSquares as LeastSquares,
    RootFind as RootFind,
)
from .scalar_newton import ScalarNewton as ScalarNewton
from .scalings import (
    AbstractScaling as AbstractScaling,
    ColemanLi as ColemanLi,
    ConvexCombination as ConvexCombination,
    HagerMairZhang as HagerMairZhang,
    Heinkenschloss as Heinkenschloss,
    KanzowKlug as KanzowKlug,
)
from .shooting import floquet_multipliers as floquet_multipliers, periodic_orbit as periodic_orbit
from .singular_root import (
    MultiplicityStructure as MultiplicityStructure,
    multiplicity_structure as multiplicity_structure,
    singular_root as singular_root,
)
from .truncated_gauss_newton import TruncatedGaussNewton as TruncatedGaussNewton
