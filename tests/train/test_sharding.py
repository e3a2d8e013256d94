"""Parameters and state in shards on two devices, which a process of its own pretends to have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.test_every_optimizer import OPTIMIZERS

ROOT = Path(__file__).parents[2]


def stepped():
    """For each optimizer, how far sharded steps end from unsharded ones; and where all of it is."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    halves = jax.NamedSharding(mesh, jax.P("data"))
    rng = np.random.default_rng(0)
    x = {"w": jnp.asarray(rng.normal(size=(4, 3))), "b": jnp.asarray(rng.normal(size=2))}
    gradients = [jax.tree.map(lambda leaf, i=i: jnp.cos(leaf + i), x) for i in range(3)]
    found = {}
    for name, (make, _) in OPTIMIZERS.items():
        optimizer = make(0.1)

        @jax.jit
        def step(x, state, g, optimizer=optimizer):
            updates, state = optimizer.update(g, state, x)
            return optax.apply_updates(x, updates), state

        ends = []
        for place in (lambda tree: tree, lambda tree: jax.device_put(tree, halves)):
            y = place(x)
            state = optimizer.init(y)
            for g in gradients:
                y, state = step(y, state, place(g))
            ends.append(y)
        apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), *ends)
        found[name] = max(jax.tree.leaves(apart)), len(y["w"].sharding.device_set)
    return found


@pytest.fixture(scope="module")
def found():
    code = (
        "import json; from tests.train.test_sharding import stepped; print(json.dumps(stepped()))"
    )
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags.strip(), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_shards_are_those_of_the_whole(found, name):
    apart, devices = found[name]
    assert apart < 1e-12
    assert devices == 2
