"""Two levels: what the methods gain, what a hypergradient costs, a million unknowns, the peers.

1. Digits of which half the training labels are wrong. Each method tunes a weight for every sample;
   then softmax regression is solved with these weights, and judged by the digits held out. Beside
   it stand all samples alike and the right ones alone. Calls are gradients and products, each of
   one pass over the samples of a level, and projections. RelaxedSplitting cannot do it: it lowers
   the loss below by taking all weights to 0.
2. The hypergradient there, after 100 lower steps: implicit, against differentiation through the
   steps. Memory is what the compiled program needs beside its input and output; the two differ by
   what so few steps leave of the lower level.
3. An image of 1000 x 1000, noisy and smoothed below with a weight for each pixel, 10^6 in all, that
   the clean image chooses above. Memory is in vectors of that size: of the run, and of one whose
   lower level is a sum over pixels apart, which needs no memory of its own.
4. The hypergradient of a decay for every weight of softmax regression at one point, in double
   precision, against JAXopt, and TorchOpt and Betty where torch is installed, each to an error of
   at most 10^-6: by conjugate gradients, and Betty by its Neumann series, as its own conjugate
   gradients (0.1.1) turn along the last residual where the new one belongs. Times are the median
   of several, taken in turns. The peers are optional: `pip install -e .[peers]`, without Betty,
   whose requirements new versions of pip refuse.

    python benchmarks/bilevel.py [--only cleaning memory million peers]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax

import raphson as rp
from raphson.bilevel._shared import hypergradient

jax.config.update("jax_enable_x64", True)

# The hypergradient by one weight is as small as its share in the mean: steps are as large. Where
# the lower level takes one step for each of the upper level, that one takes more and shorter ones.
FAST, SLOW = optax.adam(0.1), optax.adam(0.02)
METHODS = {
    "ImplicitGradient": (150, lambda m: m(FAST, inner_steps=10)),
    "TruncatedBackpropagation": (150, lambda m: m(FAST, 0.5, inner_steps=20, back=5)),
    "DescentAggregation": (150, lambda m: m(FAST, 0.5, 0.5, inner_steps=50, weight=0.1)),
    "ProximalPenalty": (150, lambda m: m(300.0, 0.1, 0.5, inner_steps=10)),
    "FullyFirstOrder": (150, lambda m: m(0.05, 0.5, 3000.0, inner_steps=10)),
    "MinimaxPenalty": (1000, lambda m: m(SLOW, 0.05, 10.0)),
    "RelaxedSplitting": (1000, lambda m: m(SLOW, 0.03, 10.0, 10.0)),
    "AveragedMultipliers": (1000, lambda m: m(500.0, 0.5, weight=0.3)),
    "BORep": (1000, lambda m: m(0.5)),
}


def timed(run, *inputs):
    start = time.perf_counter()
    out = jax.block_until_ready(run(*inputs))
    return time.perf_counter() - start, out


def cleaning():
    problem = rp.problems.hyper_cleaning(corrupted=0.5)
    x, y = problem.y0
    wrong = problem.args["corrupted"]

    def judged(x):
        y = rp.solve(problem.lower(x, problem.y0[1]), rtol=0.0, atol=1e-5, throw=False).value
        z = (x, y)
        return [float(problem.metrics[name](z, problem.args)) for name in ("accuracy", "detection")]

    print(f"{'':26}{'steps':>7}{'calls':>8}{'seconds':>9}{'held out':>10}{'detection':>11}")
    for name, weights in (("all alike", x), ("the right ones", jnp.where(wrong, -50.0, 50.0))):
        accuracy, _ = judged(weights)
        print(f"{name:42}{accuracy:18.1%}", flush=True)
    for name, (steps, make) in METHODS.items():
        method = make(getattr(rp.bilevel, name))
        options = {"max_steps": steps, "rtol": 0.0, "atol": 0.0, "throw": False}
        seconds, solution = timed(lambda: rp.solve(rp.Counted(problem), method, **options))  # noqa: B023
        counts = solution.stats.counts
        calls = sum(int(n) for oracle, n in counts.items() if not oracle.endswith("value"))
        accuracy, detection = judged(solution.value[0])
        print(
            f"{name:26}{int(solution.stats.steps):7}{calls:8}{seconds:9.1f}{accuracy:10.1%}"
            f"{detection:11.2f}",
            flush=True,
        )


def memory():
    problem = rp.problems.hyper_cleaning(corrupted=0.5)
    solver = lx.CG(1e-10, 1e-10)
    steps = 100

    def descended(x, y, _):
        return y - 0.5 * problem.lower_gradient(x, y, None)[1]

    def implicit(x, y):
        y = jax.lax.fori_loop(0, steps, lambda _, y: descended(x, y, None), y)
        return hypergradient(problem, x, y, solver).value

    def unrolled(x, y):
        def above(x):
            last, _ = jax.lax.scan(lambda y, _: (descended(x, y, None), None), y, None, steps)
            return problem.upper_value(x, last, None)

        return jax.grad(above)(x)

    programs, found, seconds = {}, {}, {}
    for name, of in (("implicit", implicit), ("unrolled", unrolled)):
        programs[name] = jax.jit(of).lower(*problem.y0).compile()
        found[name] = programs[name](*problem.y0)
    for _ in range(5):
        for name, program in programs.items():
            seconds.setdefault(name, []).append(timed(program, *problem.y0)[0])
    sizes = {n: p.memory_analysis().temp_size_in_bytes for n, p in programs.items()}
    for name in programs:
        each = statistics.median(seconds[name])
        print(f"{name:12}{1e3 * each:10.0f} ms{sizes[name] / 2**20:10.2f} MiB")
    print(f"memory of implicit over unrolled: {sizes['implicit'] / sizes['unrolled']:.3f}")
    apart = jnp.linalg.norm(found["implicit"] - found["unrolled"])
    print(f"relative difference: {apart / jnp.linalg.norm(found['implicit']):.1e}")


SIDE = 1000


def smoothed(x, y, args):
    """1/2 |y - noisy|^2 + 1/2 sum of exp(x) (squared differences with the pixels before)."""
    noisy, _ = args
    # Pads are computed where they are used; differences of slices would be stored.
    across = y - jax.lax.pad(y, 0.0, ((0, 0, 0), (1, -1, 0)))
    down = y - jax.lax.pad(y, 0.0, ((1, -1, 0), (0, 0, 0)))
    return jnp.sum((y - noisy) ** 2 + jnp.exp(x) * (across**2 + down**2)) / 2


def decayed(x, y, args):
    """1/2 |y - noisy|^2 + 1/2 sum of exp(x) y^2."""
    return jnp.sum((y - args[0]) ** 2 + jnp.exp(x) * y**2) / 2


def apart_from_clean(x, y, args):
    return jnp.sum((y - args[1]) ** 2) / 2


def million():
    rng = np.random.default_rng(0)
    at = np.linspace(0, 1, SIDE)
    clean = np.sin(9 * at[:, None] * at) + ((at[:, None] - 0.5) ** 2 + (at - 0.5) ** 2 < 0.1)
    noisy = jnp.asarray(clean + 0.3 * rng.standard_normal(clean.shape))
    x, args = jnp.zeros((SIDE, SIDE)), (noisy, jnp.asarray(clean))
    bounds = rp.composite.Box(-6.0, 6.0), None
    problem = rp.Bilevel(apart_from_clean, smoothed, x, noisy, args, sets=bounds)

    def judged(x):
        y = rp.solve(problem.lower(x, noisy), rtol=1e-4, throw=False).value
        return float(apart_from_clean(x, y, args))

    print(f"{x.size} weights; loss {judged(x):.0f} where all are alike")
    # Steps of one length for every pixel need no memory of their own.
    methods = {
        "MinimaxPenalty": (
            rp.bilevel.MinimaxPenalty(optax.sign_sgd(0.05), optax.rmsprop(0.02), 10.0),
            300,
        ),
        "ImplicitGradient": (
            rp.bilevel.ImplicitGradient(
                optax.sign_sgd(0.2),
                inner_steps=10,
                solver=lx.CG(1e-4, 1e-4, stabilise_every=None, max_steps=30),
            ),
            50,
        ),
    }
    for name, (method, steps) in methods.items():
        start = jax.tree.map(jnp.copy, problem.y0)

        def compiled(problem):
            def run(y, args):
                stated = eqx.tree_at(lambda p: p.args, problem, args)
                options = {"rtol": 0.0, "atol": 0.0, "max_steps": steps}  # noqa: B023
                return rp.iterate(stated, method, y, **options).y  # noqa: B023

            program = jax.jit(run, donate_argnums=0).lower(start, args).compile()  # noqa: B023
            return program, program.memory_analysis().temp_size_in_bytes / x.nbytes

        program, need = compiled(problem)
        _, own = compiled(eqx.tree_at(lambda p: p.lower_fn, problem, decayed))
        seconds, (tuned, _) = timed(program, start, args)
        print(
            f"{name:18}{steps:4} steps in {seconds:4.0f} s, {need:5.1f} vectors beside x, y and "
            f"data, {own:.1f} without those of f; loss {judged(tuned):.0f}",
            flush=True,
        )


def peers():
    problem = rp.problems.weight_decay()
    x = problem.y0[0] + 0.3 * jax.random.normal(jax.random.key(0), problem.y0[0].shape)
    tight = {"rtol": 0.0, "atol": 1e-12, "throw": False}
    y = rp.solve(problem.lower(x, problem.y0[1]), **tight).value
    tolerance = 1e-7
    # Lineax asks each entry, JAXopt and TorchOpt the norm; Betty takes its steps blindly.
    solver = lx.CG(10 * tolerance, tolerance, stabilise_every=None, max_steps=2000)
    runs = {"raphson": jax.jit(lambda x, y: hypergradient(problem, x, y, solver).value)}
    (a, label), (b, validation) = problem.lower_data, problem.upper_data

    try:
        from jaxopt.implicit_diff import custom_root
        from jaxopt.linear_solve import solve_cg
    except ImportError as missing:
        print(f"no JAXopt: {missing}")
    else:
        by_cg = functools.partial(solve_cg, tol=tolerance, maxiter=2000)
        optimality = lambda y, x: problem.lower_gradient(x, y, None)[1]

        def through_root(x, y):
            root = custom_root(optimality, solve=by_cg)(lambda _, x: y)
            return jax.grad(lambda x: problem.upper_value(x, root(None, x), None))(x)

        runs["jaxopt"] = jax.jit(through_root)

    try:
        import torch
        import torchopt
    except ImportError as missing:
        print(f"no TorchOpt: {missing}")
    else:
        tensor = lambda leaf: torch.from_numpy(np.array(leaf))
        entropy = torch.nn.functional.cross_entropy
        ta, tlabel, tb, tvalidation = map(tensor, (a, label, b, validation))

        def slope(y, x):
            below = lambda y: entropy(ta @ y, tlabel) + (torch.exp(x) * y**2).sum() / 2
            return torch.func.grad(below)(y)

        solve = torchopt.linear_solve.solve_cg(rtol=tolerance, atol=0.0, maxiter=2000)
        at = tensor(y)

        @torchopt.diff.implicit.custom_root(slope, argnums=1, solve=solve)
        def root(_, x):
            return at

        def in_torch(x, y):
            x = tensor(x).requires_grad_()
            entropy(tb @ root(at, x), tvalidation).backward()
            return x.grad.numpy()

        runs["torchopt"] = in_torch

        try:
            from betty.hypergradient.neumann import neumann
        except ImportError as missing:
            print(f"no Betty: {missing}")
        else:
            space = types.SimpleNamespace

            def by_betty(x, y):
                x, y = tensor(x).requires_grad_(), tensor(y).requires_grad_()
                lower = space(
                    # f_yy is at most 0.84 here, and 2.3 short of where the series diverges.
                    config=space(neumann_iterations=1000, neumann_alpha=2.3),
                    paths=[],
                    cur_batch=None,
                    training_step_exec=lambda _: (
                        entropy(ta @ y, tlabel) + (torch.exp(x) * y**2).sum() / 2
                    ),
                    trainable_parameters=lambda: [y],
                )
                above = torch.autograd.grad(entropy(tb @ y, tvalidation), y)
                return neumann(above, lower, space(trainable_parameters=lambda: [x]))[0].numpy()

            runs["betty"] = by_betty

    found, seconds = {}, {}
    for name, run in runs.items():
        try:
            found[name] = np.asarray(run(x, y))
        except Exception as failure:
            print(f"{name} failed: {type(failure).__name__}: {str(failure).splitlines()[0][:70]}")
    # Apart: the threads of torch still spin when the next one starts.
    for names, repeats in (({"raphson", "jaxopt"}, 50), ({"torchopt", "betty"}, 3)):
        for _ in range(repeats):
            for name in names & found.keys():
                seconds.setdefault(name, []).append(timed(runs[name], x, y)[0])
    exact = np.asarray(dense(problem, x, y))
    for name, gradient in found.items():
        off = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
        each = statistics.median(seconds[name])
        print(f"{name:12}{1e3 * each:10.1f} ms, relative error {off:.1e}")


@eqx.filter_jit
def dense(problem, x, y):
    """The hypergradient of the decays by a dense solution."""
    product = lambda v: problem.lower_product(x, y, v.reshape(y.shape), None)[1].ravel()
    hessian = jax.vmap(product)(jnp.eye(y.size))
    v = jnp.linalg.solve(hessian, problem.upper_gradient(x, y, None)[1].ravel())
    return -problem.lower_product(x, y, v.reshape(y.shape), None)[0]


PARTS = {"cleaning": cleaning, "memory": memory, "million": million, "peers": peers}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    for name in parser.parse_args().only:
        print(f"\n{name}", flush=True)
        PARTS[name]()


if __name__ == "__main__":
    main()
