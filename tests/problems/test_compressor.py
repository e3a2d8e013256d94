"""The compressor against one written out sample by sample."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import raphson as rp
from raphson.problems import compressor_match
from raphson.problems.compressor import SETTINGS, settings


def compressed(values, x, rate):
    threshold, ratio, attack, release, makeup = values
    fall, rise = (1 - np.exp(-2200 / (ms * rate)) for ms in (attack, release))
    gain, out = 0.0, []
    for sample in x:
        over = max(20 * np.log10(abs(sample)) - threshold, 0)
        due = (1 / ratio - 1) * over
        gain += (fall if due < gain else rise) * (due - gain)
        out.append(sample * 10 ** ((gain + makeup) / 20))
    return scipy.signal.lfilter([1, -1], [1, -0.995], out)


def test_residuals_are_those_written_out():
    problem = compressor_match(1000, 0.3)
    x = np.asarray(problem.args[0])
    at_start = compressed(np.asarray(settings(problem.y0)), x, 1000)
    expected = at_start - compressed(SETTINGS, x, 1000)
    np.testing.assert_allclose(problem.residual(problem.y0), expected, rtol=1e-9, atol=1e-11)


def test_facts_and_start():
    problem = compressor_match(1000, 0.3)
    assert float(problem.value(problem.facts.minimizer)) < 1e-28
    assert float(jnp.abs(problem.gradient(problem.facts.minimizer)).max()) < 1e-13
    np.testing.assert_allclose(settings(problem.facts.minimizer), SETTINGS, rtol=1e-14)
    off = np.asarray(settings(problem.y0)) / np.array(SETTINGS) - 1
    np.testing.assert_allclose(np.abs(off), 0.3, rtol=1e-12)


def test_the_settings_are_found():
    problem = compressor_match(1000, 0.3)
    solution = rp.solve(problem, rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(settings(solution.value), SETTINGS, rtol=1e-8)


def test_every_setting_leaves_its_mark():
    # Attack and release both: the signal has bursts and rests.
    problem = compressor_match(1000, 0.3)
    jacobian = np.asarray(problem.jacobian(problem.facts.minimizer).as_matrix())
    assert np.linalg.cond(jacobian) < 1e3


def test_what_is_no_signal_is_refused():
    with pytest.raises(ValueError, match="`sample_rate` must be a whole number of at least 100"):
        compressor_match(10)
    with pytest.raises(ValueError, match="`seconds` must be a number in"):
        compressor_match(1000, -1.0)
