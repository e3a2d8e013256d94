"""Root finding, least squares and fixed points: find y where F(y) = 0, or nearly."""

from .levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from .problem import FixedPoint as FixedPoint, LeastSquares as LeastSquares, RootFind as RootFind
