"""Probes: one measure of a problem at a point, whatever method came there."""

from .local_minimax import LocalMinimax as LocalMinimax, local_minimax as local_minimax
