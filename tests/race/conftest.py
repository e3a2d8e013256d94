from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    """Makes the record of a run that needed `calls` calls to meet its tolerance, as workers do."""

    def made(
        problem: str = "p", method: str = "A", calls: int = 10, solved: bool = True, **more: Any
    ) -> dict[str, Any]:
        residuals = [1.0, 0.1, 1e-7 if solved else 1e-2]
        found = {
            "problem": problem,
            "method": method,
            "seed": 0,
            "settings": {"time_limit": 1.0},
            "finished": "2026-01-01T00:00:00+00:00",
            "status": "converged" if solved else "max_steps",
            "solved": solved,
            "error": "",
            "question": "Minimize",
            "size": 2,
            "stochastic": False,
            "optimum": None,
            "constants": None,
            "residual": residuals[-1],
            "tolerance": 1e-6,
            "noise": 1e-16,
            "steps": 2,
            "counts": {"gradient": calls},
            "calls": calls,
            "seconds": calls / 1000,
            "repeats": 3,
            "compile_seconds": 0.5,
            "history": {
                "steps": [0, 1, 2],
                "seconds": [0.0, calls / 2000, calls / 1000],
                "calls": [1, calls // 2, calls],
                "residual": residuals,
                "value": [100.0, 1.0, 0.0 if solved else 0.5],
            },
            "versions": {"raphson": "0"},
            "machine": {"cores": 2},
        }
        return found | more

    return made
