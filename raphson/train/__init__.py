"""Training: optimizers as Optax transformations, for a loop that the user owns."""

from .adan import adan as adan
