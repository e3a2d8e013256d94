"""`python -m raphson` is `raphson`."""

from .cli import app

app()
