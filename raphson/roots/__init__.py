"""Root finding, least squares and fixed points: find y where F(y) = 0, or nearly."""

from .anderson import Anderson as Anderson
from .feedforward import solve_feedforward as solve_feedforward
from .halpern import Halpern as Halpern
from .krasnoselskii_mann import KrasnoselskiiMann as KrasnoselskiiMann
from .levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from .problem import FixedPoint as FixedPoint, LeastSquares as LeastSquares, RootFind as RootFind
