"""What anyone meets first: what importing costs and touches, names, docstrings, versions."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import equinox as eqx
import jax
import pytest

import raphson as rp
from raphson.families import FAMILIES, methods

ROOT = Path(rp.__file__).parents[1]
HEAVY = ("sif2jax", "sklearn", "plotly", "rich", "typer", "joblib", "dask")


def run(script):
    """What a fresh interpreter prints that runs `script`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::DeprecationWarning:raphson", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def public(module):
    """The public members of a module of ours, by name."""
    return {
        name: getattr(module, name)
        for name in dir(module)
        if not name.startswith("_") and not inspect.ismodule(getattr(module, name))
    }


NAMES = {f"raphson.{name}": member for name, member in public(rp).items()} | {
    f"raphson.{family}.{name}": member
    for family, module in FAMILIES.items()
    for name, member in public(module).items()
}
TRAIN = {f"raphson.train.{name}": member for name, member in public(rp.train).items()}


# --- Importing --------------------------------------------------------------------------------


def test_import_is_light_and_touches_no_setting():
    script = f"""
import jax, sys
before = dict(jax.config.values)
import raphson
changed = [name for name, value in jax.config.values.items() if before.get(name, value) != value]
print(sorted(set({HEAVY!r}) & set(sys.modules)), changed, len(before) > 50)
"""
    assert run(script).split("\n")[0] == "[] [] True"


def test_solving_touches_no_setting_and_needs_nothing_heavy():
    script = f"""
import jax, sys
import jax.numpy as jnp
before = dict(jax.config.values)
import raphson as rp
solution = rp.minimize(lambda y, _: jnp.sum((y - 1) ** 2), jnp.zeros(2))
rp.trace(rp.Minimize(lambda y, _: jnp.sum(y**2), jnp.ones(2)), max_steps=3)
changed = [name for name, value in jax.config.values.items() if before.get(name, value) != value]
print(sorted(set({HEAVY!r}) & set(sys.modules)), changed, solution.value.dtype)
"""
    assert run(script).strip() == "[] [] float32"


def test_what_few_ask_for_is_loaded_when_it_is_named():
    script = """
import sys
import raphson as rp
later = ("bilevel", "probes", "problems", "saddle", "train")
loaded = lambda: [name for name in later if f"raphson.{name}" in sys.modules]
print(loaded(), set(later) <= set(dir(rp)))
rp.Saddle, rp.probes, rp.train
print(loaded())
from raphson import Bilevel
print(Bilevel is rp.bilevel.Bilevel)
"""
    first, second, third = run(script).splitlines()
    assert first == "[] True"
    assert second == "['probes', 'saddle', 'train']"
    assert third == "True"


# --- Names and docstrings ---------------------------------------------------------------------


each_public = pytest.mark.parametrize("name", NAMES | TRAIN)


def is_used_as_given(member):
    """Whether it is a base or a record, which one reads or derives from and never calls."""
    return inspect.isclass(member) and (
        inspect.isabstract(member)
        or issubclass(member, Exception | eqx.Enumeration)
        or "Attributes:" in inspect.getdoc(member)
    )


@each_public
def test_public_name_has_a_docstring_with_an_example(name):
    member = (NAMES | TRAIN)[name]
    own = vars(member).get("__doc__") if inspect.isclass(member) else member.__doc__
    if inspect.isclass(member) and issubclass(member, eqx.Enumeration):
        return  # Equinox writes it
    assert own, f"{name} has no docstring of its own"
    first = inspect.cleandoc(own).split("\n\n")[0]
    assert first.endswith((".", "?")) and not first[0].islower(), first
    if not is_used_as_given(member):
        assert ">>>" in own, f"{name} has no example"


@each_public
def test_public_name_documents_its_arguments(name):
    member = (NAMES | TRAIN)[name]
    if is_used_as_given(member):
        return
    target = member.__init__ if inspect.isclass(member) else member
    for argument in inspect.signature(target).parameters.values():
        if argument.name == "self" or argument.kind is argument.VAR_KEYWORD:
            continue
        documented = re.search(rf"^ *\**{argument.name}\b.*:", inspect.getdoc(member), re.M)
        assert documented, f"{name} does not document `{argument.name}`"


@pytest.mark.parametrize("name", methods())
def test_method_names_its_reference(name):
    module = sys.modules[methods()[name].__module__]
    text = inspect.getdoc(module) or ""
    assert re.search(r"\((1[89]|20)\d\d\)", text), f"{module.__name__} names no paper and year"
    assert text.split("\n")[0].endswith("."), "the first line is a sentence"


def test_families_do_not_share_a_name():
    counted = [name for family in FAMILIES for name in methods(family)]
    assert len(counted) == len(set(counted)) == len(methods())
    with pytest.raises(ValueError, match="`family` must be one of"):
        methods("smoth")


def test_wrong_name_is_answered_as_python_does():
    with pytest.raises(AttributeError, match="raphson.*has no attribute 'minimise'"):
        rp.minimise  # noqa: B018


# --- Sources ----------------------------------------------------------------------------------

SOURCES = sorted((ROOT / "raphson").rglob("*.py"))


def calls(source, *names):
    """The lines of calls of a function or attribute so named."""
    tree = ast.parse(source.read_text())
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]


def test_library_never_sets_jax_nor_prints():
    for source in SOURCES:
        relative = source.relative_to(ROOT / "raphson").as_posix()
        touched = calls(
            source, "jax.config.update", "jax.enable_x64", "jax.experimental.enable_x64"
        )
        if relative not in ("cli.py", "__main__.py") and not relative.startswith("race/"):
            assert not touched, f"{relative}:{touched}"
        if relative != "cli.py":
            assert not calls(source, "print"), relative


def test_families_do_not_import_the_engine():
    for family in FAMILIES:
        for source in (ROOT / "raphson" / family).glob("*.py"):
            tree = ast.parse(source.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module:
                    top = node.module.split(".")[0]
                    inward = top in ("engine", "race", "claims", "cli", "convenience", "probes")
                    assert not (node.level == 2 and inward), f"{source.name}:{node.lineno}"


def test_package_imports_whole():
    for module in pkgutil.walk_packages(rp.__path__, "raphson."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


# --- The project ------------------------------------------------------------------------------


def test_version_is_that_of_the_project():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        installed = metadata.version("raphson")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed")
    assert rp.__version__ == installed == stated


def test_package_is_typed():
    assert (ROOT / "raphson" / "py.typed").exists()


def test_x64_is_the_tests_choice():
    assert jax.config.jax_enable_x64
