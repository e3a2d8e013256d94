"""Progress of the runs inside a context, shown on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .engine import Record, watch


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Show on standard error how the runs inside the context come along.

    Example:
        >>> import jax.numpy as jnp
        >>> import raphson as rp
        >>> with rp.progress():
        ...     solution = rp.minimize(lambda y, _: jnp.sum(y**2), jnp.ones(2))
    """
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as shown:

        def show(record: Record) -> None:
            measures = "  ".join(f"{name} {value:.3g}" for name, value in record.measures.items())
            shown.update(f"step {record.step}  {record.seconds:.1f} s  {measures}")

        with watch(show):
            yield
