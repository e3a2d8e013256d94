"""What comes back from a run: the answer, why the run stopped, and a certificate by the problem."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PyTree


class Status(eqx.Enumeration):
    """Why a run stopped. `Status[status]` is the sentence that says what to do next."""

    running = "The run has not ended."
    converged = "The residual that the problem computes at the answer meets the tolerance asked."
    precise = (
        "The answer is as accurate as the arithmetic allows, which is short of the tolerance "
        "asked: loosen `rtol` and `atol`, rescale the problem, or use double precision."
    )
    max_steps = (
        "The run used all of `max_steps` before it converged: raise it, or try another method."
    )
    time_limit = (
        "The run used all of `time_limit` before it converged: resume it, or raise the limit."
    )
    interrupted = "The run was interrupted: what it had is returned, and it can be resumed."
    stalled = (
        "The method stopped making progress, yet the problem's residual does not meet the "
        "tolerance: try another start or method, or a tolerance that the problem can reach."
    )
    nonfinite_start = (
        "The problem is not finite at the start: check `y0` and the function's value and "
        "derivative there."
    )
    nonfinite = (
        "The run met a NaN or infinite value, and the last finite iterate is returned: take "
        "smaller steps, or keep the iterates where the function is defined."
    )
    unbounded = (
        "The objective falls without bound along the iterates: check its sign, or add the bounds "
        "that the model lacks."
    )
    breakdown = (
        "A linear system inside the method was singular: regularize the problem, or use a method "
        "that damps its steps."
    )
    not_a_root = (
        "The iterates came to rest where the residual is smallest nearby but not zero: there may "
        "be no root here; try another start, or ask for the least-squares answer."
    )
    infeasible = (
        "The constraints cannot all be met near the answer, where they are violated as little as "
        "can be, or the map has no fixed point anywhere near: check that what is asked does not "
        "contradict itself, or start elsewhere."
    )


def status_name(status: Any) -> str:
    """The name of a status that is known, outside of `jit`.

    Args:
        status: a `Status`, such as `Solution.status`.

    Returns:
        Its name, such as `"converged"`.

    Example:
        >>> import raphson as rp
        >>> rp.status_name(rp.Status.max_steps)
        'max_steps'
    """
    return next(
        name
        for name, item in Status._name_to_item.items()
        if int(item._value) == int(status._value)
    )  # pyright: ignore


class Certificate(eqx.Module):
    """What the problem itself says of an answer, whatever the method claims.

    Attributes:
        residual: norm of the problem's optimality residual at the answer.
        tolerance: what `residual` had to meet, `max(atol, rtol * scale)`.
        scale: the size that `rtol` refers to; by default the residual's norm at the start.
        noise: how much `residual` changes when the answer is perturbed by its own rounding; no
            method can be asked for less.
    """

    residual: Float[Array, ""]
    tolerance: Float[Array, ""]
    scale: Float[Array, ""]
    noise: Float[Array, ""]

    @property
    def holds(self) -> Bool[Array, ""]:
        """Whether the residual meets the tolerance."""
        return self.residual <= self.tolerance


class Stats(eqx.Module):
    """What a run cost.

    Attributes:
        steps: how many steps the method took.
        counts: oracle calls by name, where the problem was `Counted`; else empty.
        method: the method's name.
        reason: why this method was chosen, where it was chosen by default; else empty.
    """

    steps: Array
    counts: dict[str, Array]
    method: str = eqx.field(static=True)
    reason: str = eqx.field(static=True, default="")


class Solution(eqx.Module):
    """The answer of `raphson.solve`.

    Attributes:
        value: the answer, shaped as the start `y0`.
        status: a `Status`.
        certificate: the residuals that the problem computed at `value`.
        stats: what the run cost.
        state: the method's last state, arrays only.
    """

    value: PyTree[Array]
    status: Any
    certificate: Certificate
    stats: Stats
    state: PyTree[Array]

    def __repr__(self) -> str:
        if isinstance(self.status._value, Tracer) or np.ndim(self.status._value):
            return super().__repr__()
        certificate = self.certificate
        return (
            f"Solution({status_name(self.status)} after {int(self.stats.steps)} steps of "
            f"{self.stats.method}, residual {float(certificate.residual):.3g}, asked "
            f"{float(certificate.tolerance):.3g},\n  value="
            f"{eqx.tree_pformat(self.value, short_arrays=False)})"
        )

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the tolerance that was asked is met."""
        return self.status == Status.converged

    @property
    def usable(self) -> Bool[Array, ""]:
        """Whether the answer is right to the tolerance asked or to what the arithmetic allows."""
        return (self.status == Status.converged) | (self.status == Status.precise)


class SolveError(RuntimeError):
    """A run that did not end with a usable answer; `solution` holds what it had.

    Args:
        solution: what `solve` would have returned with `throw=False`.
    """

    def __init__(self, solution: Solution):
        self.solution = solution
        certificate = solution.certificate
        super().__init__(
            f"{Status[solution.status]} ({solution.stats.method}: {status_name(solution.status)} "
            f"after {int(solution.stats.steps)} steps, residual {float(certificate.residual):.3g}, "
            f"asked {float(certificate.tolerance):.3g})"
        )


def raise_unless_usable(solution: Solution) -> Solution:
    """Return `solution`, or raise `SolveError` where it is not usable.

    Under `jit`, where the status is not known yet, the check is compiled into the computation.
    """
    code = solution.status._value
    if isinstance(code, Tracer):
        bad = jnp.logical_not(solution.usable)
        value = solution.status.error_if(solution.value, bad)
        return eqx.tree_at(lambda s: s.value, solution, value)
    # Plain numbers: a comparison of statuses is a computation on the device.
    if any(one not in _USABLE for one in np.ravel(code).tolist()):
        raise SolveError(solution)
    return solution


_USABLE = [int(status._value) for status in (Status.converged, Status.precise)]  # pyright: ignore
