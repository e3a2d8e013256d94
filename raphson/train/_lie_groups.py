"""Preconditioners P = Q'Q with Q in a Lie group, fitted to pairs of vectors step by step.

For pairs (v, h) with v of mean 0 and covariance I, the criterion E[h'P h + v'P^-1 v] is least where
P E[h h'] P = I. With h = H v this is P = |H|^-1, and with gradients for h it is the P that whitens
them; then v enters by its covariance alone, is None here, and drawn where a group needs it.

Each group has its Q, which holds bounds of the curvature of the criterion beside the factors, and
`start` (of a shape), `scaled`, `fit` (one step of descent along the group), and `apply` (P g).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class KronFactors(NamedTuple):
    """Of each axis a matrix, or the diagonal of one."""

    factors: tuple[Array, ...]
    bounds: tuple[Array, ...]


@dataclass(frozen=True)
class Kron:
    """P = P_1 x P_2 x ..., one P_i for each axis.

    An axis has a matrix if its length squared is at most the number of entries, so that no factor
    is larger than what it preconditions; where it is full, in any case.
    """

    coordinates: str
    full: bool = False

    def start(self, shape: Sequence[int], dtype: Any, key: Array) -> KronFactors:
        most = math.inf if self.full else math.prod(shape)
        ones = [jnp.ones(length, dtype) for length in shape]
        factors = [jnp.diag(one) if 1 < one.size**2 <= most else one for one in ones]
        return KronFactors(tuple(factors), tuple(jnp.zeros((), dtype) for _ in shape))

    def scaled(self, q: KronFactors, scale: Array) -> KronFactors:
        return q._replace(factors=tuple(f * scale ** (1 / len(q.factors)) for f in q.factors))

    def fit(self, q: KronFactors, h: Array, v: Array | None, rate: Any, key: Array) -> KronFactors:
        a = self.apply(q, h)
        fitted = [self._fit(*pair, axis, a, v, rate) for axis, pair in enumerate(zip(*q))]
        factors, bounds = zip(*fitted)
        # The same P, by factors of one scale: alone, they could overflow.
        sizes = jnp.stack([jnp.max(jnp.abs(factor)) for factor in factors])
        shares = jnp.exp(jnp.mean(jnp.log(sizes))) / sizes
        return KronFactors(tuple(f * shares[i] for i, f in enumerate(factors)), bounds)

    def _fit(
        self, q: Array, bound: Array, axis: int, a: Array, v: Array | None, rate: Any
    ) -> tuple[Array, Array]:
        rows, others = _rows(a, axis), None if v is None else _rows(v, axis)
        if q.ndim == 1:
            first = jnp.sum(rows**2, 1)
            second = rows.shape[1] if others is None else jnp.sum(others**2, 1)
            bound = _bound(bound, jnp.max(first + second))
            return q - rate / bound * (first - second) * q, bound
        first = rows @ rows.T
        if others is None:
            second = rows.shape[1] * jnp.eye(len(q), dtype=q.dtype)
        else:
            second = others @ others.T
        bound = _bound(bound, _norm(first + second))
        step = rate / bound * (first - second)
        return (_turned(q - step @ q) if self.coordinates == "Q0.5EQ1.5" else q - q @ step), bound

    def apply(self, q: KronFactors, g: Array) -> Array:
        for axis, factor in enumerate(q.factors):
            rows = _rows(g, axis)
            rows = factor[:, None] ** 2 * rows if factor.ndim == 1 else factor.T @ (factor @ rows)
            g = jnp.moveaxis(rows.reshape(jnp.moveaxis(g, axis, 0).shape), 0, axis)
        return g


class Triangular(NamedTuple):
    q: Float[Array, "n n"]
    bound: Float[Array, ""]


class TriangularGroup:
    """All P, by upper triangular Q."""

    def start(self, shape: Sequence[int], dtype: Any, key: Array) -> Triangular:
        return Triangular(jnp.eye(*shape, dtype=dtype), jnp.zeros((), dtype))

    def scaled(self, q: Triangular, scale: Array) -> Triangular:
        return q._replace(q=q.q * scale)

    def fit(self, q: Triangular, h: Array, v: Array | None, rate: Any, key: Array) -> Triangular:
        a = q.q @ h
        b = jax.scipy.linalg.solve_triangular(q.q, _drawn(v, h, key), trans=1)
        bound = _bound(q.bound, a @ a + b @ b)
        step = jnp.triu(jnp.outer(a, a) - jnp.outer(b, b))
        return Triangular(q.q - rate / bound * (step @ q.q), bound)

    def apply(self, q: Triangular, g: Array) -> Array:
        return (q.q @ g) @ q.q


class XMat(NamedTuple):
    """The diagonal, and what meets it in a cross."""

    a: Float[Array, " n"]
    b: Float[Array, " n"]


class XMatGroup:
    """Q = diag(a) + antidiag(b): pairs the first entry with the last, and so on.

    Each step has its own bound, after the paper that has this group.
    """

    def start(self, shape: Sequence[int], dtype: Any, key: Array) -> XMat:
        return XMat(jnp.ones(shape, dtype), jnp.zeros(shape, dtype))

    def scaled(self, q: XMat, scale: Array) -> XMat:
        return XMat(q.a * scale, q.b * scale)

    def fit(self, q: XMat, h: Array, v: Array | None, rate: Any, key: Array) -> XMat:
        a, b, v = q.a, q.b, _drawn(v, h, key)
        qh = a * h + b * h[::-1]
        w = (a[::-1] * v - b[::-1] * v[::-1]) / (a * a[::-1] - b * b[::-1])
        bound = jnp.max(qh**2 + w**2)
        along = rate / bound * (qh**2 - w**2)
        across = rate / bound * (qh * qh[::-1] - w * w[::-1])
        # The entry in the middle of an odd number is on the diagonal alone.
        across = jnp.where(jnp.arange(len(h)) == (len(h) - 1) / 2, 0, across)
        return XMat(a - along * a - across * b[::-1], b - along * b - across * a[::-1])

    def apply(self, q: XMat, g: Array) -> Array:
        qg = q.a * g + q.b * g[::-1]
        return q.a * qg + (q.b * qg)[::-1]


class LowRank(NamedTuple):
    u: Float[Array, "n rank"]
    v: Float[Array, "n rank"]
    d: Float[Array, " n"]
    bounds: Float[Array, "3"]  # of u, v, and d


@dataclass(frozen=True)
class LowRankGroup:
    """Q = (I + U V') diag(d), with U and V of some columns."""

    rank: int

    def start(self, shape: Sequence[int], dtype: Any, key: Array) -> LowRank:
        u, v = jax.random.normal(key, (2, *shape, self.rank), dtype)
        small = 0.1**0.5
        return LowRank(
            small * u / jnp.linalg.norm(u),
            small * v / jnp.linalg.norm(v),
            jnp.ones(shape, dtype),
            jnp.zeros(3, dtype),
        )

    def scaled(self, q: LowRank, scale: Array) -> LowRank:
        return q._replace(d=q.d * scale)

    def fit(self, q: LowRank, h: Array, v: Array | None, rate: Any, key: Array) -> LowRank:
        draw, toss = jax.random.split(key)
        x = _drawn(v, h, draw)
        # The bounds of U and V hold for factors of one size.
        ratio = jnp.sqrt(jnp.linalg.norm(q.u) / jnp.linalg.norm(q.v))
        u, w, d = q.u / ratio, q.v * ratio, q.d  # w for V: v is of the pair
        small = jnp.eye(self.rank, dtype=d.dtype) + w.T @ u

        a = d * h + u @ (w.T @ (d * h))  # Q h
        b = x / d - w @ jnp.linalg.solve(small.T, u.T @ (x / d))  # Q^-T x
        ph = d * (a + w @ (u.T @ a))
        px = (b - u @ jnp.linalg.solve(small, w.T @ b)) / d  # P^-1 x
        of_d = _bound(q.bounds[2], jnp.max(jnp.abs(ph * h)) + jnp.max(jnp.abs(x * px)))

        def step_u() -> tuple[Array, Array, Array, Array]:
            aw, bw = a @ w, b @ w
            bound = _length(a) * _length(w @ aw) + _length(b) * _length(w @ bw)
            bound = _bound(q.bounds[0], bound)
            step = (jnp.outer(a, aw) - jnp.outer(b, bw)) @ small
            return u - rate / bound * step, w, bound, q.bounds[1]

        def step_v() -> tuple[Array, Array, Array, Array]:
            au, bu = a @ u, b @ u
            bound = _length(a) * _length(u @ au) + _length(b) * _length(u @ bu)
            bound = _bound(q.bounds[1], bound)
            step = jnp.outer(a + w @ au, au) - jnp.outer(b + w @ bu, bu)
            return u, w - rate / bound * step, q.bounds[0], bound

        u, w, of_u, of_v = jax.lax.cond(jax.random.bernoulli(toss), step_u, step_v)
        d = d - rate / of_d * (ph * h - x * px) * d
        return LowRank(u, w, d, jnp.stack([of_u, of_v, of_d]))

    def apply(self, q: LowRank, g: Array) -> Array:
        qg = q.d * g + q.u @ (q.v.T @ (q.d * g))
        return q.d * (qg + q.v @ (q.u.T @ qg))


def first_scale(h: Array, v: Array | None) -> Array:
    """The scale of Q at which P of the identity would fit a pair about."""
    largest = jnp.max(jnp.abs(h))
    divisor = jnp.where(largest > 0, largest, 1)  # whose fourth powers do not underflow
    fourth = jnp.where(largest > 0, jnp.mean((h / divisor) ** 4), 1)
    second = 1.0 if v is None else jnp.mean(v**2)
    return second**0.25 * fourth**-0.125 / jnp.sqrt(divisor)


def _rows(x: Array, axis: int) -> Float[Array, "n others"]:
    """The array as a matrix, with an axis against all others."""
    return jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _bound(before: Array, now: Array) -> Array:
    """A bound that rises at once and falls slowly."""
    return jnp.maximum(0.9 * before + 0.1 * now, now)


def _drawn(v: Array | None, h: Array, key: Array) -> Array:
    return jax.random.normal(key, h.shape, h.dtype) if v is None else v


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x**2))


def _norm(a: Float[Array, "n n"]) -> Array:
    """At most the spectral norm of a symmetric matrix, at least the length of its columns."""
    scale = jnp.max(jnp.abs(a))
    a = a / jnp.where(scale > 0, scale, 1)
    column = a[jnp.argmax(jnp.sum(a**2, 1))]
    length = _length(column)
    return scale * _length(a @ column) / jnp.where(length > 0, length, 1)


def _turned(q: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Q after a small rotation, which P does not see, towards what is symmetric.

    With R = (Q' - Q) over its norm, the trace of exp(s R) Q rises; s is where its expansion to the
    second order is greatest, and at most 1/8.
    """
    skew = q.T - q
    norm = jnp.linalg.norm(skew)
    rotation = skew / jnp.where(norm > 0, norm, 1)
    once = rotation @ q
    twice = rotation @ once
    slope, curvature = jnp.trace(once), -jnp.trace(twice)
    s = jnp.where(curvature > 0, slope / jnp.where(curvature > 0, curvature, 1), 1 / 8)
    s = jnp.minimum(s, 1 / 8)
    return q + s * (once + s / 2 * twice)
