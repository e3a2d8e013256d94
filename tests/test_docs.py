"""The words around the code: every Python block runs and prints what the page says it prints.

The Python of a page runs as one script, in its own process: as a reader's does, and in the
precision that the page itself asks for. A block with `title="PATH"` is a file, put into a copy of
the package before the script runs; a block marked `text` right after a Python block is what that
block prints.
"""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import raphson as rp

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "\n```python\n" in page.read_text()]
FENCE = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[-+]\d+)?")
END = "\x1e"  # printed after each block


class Block(NamedTuple):
    language: str
    title: str
    text: str
    line: int
    gap: str  # what stands between the block before and this one


def blocks(page):
    text, found, end = page.read_text(), [], 0
    for match in FENCE.finditer(text):
        line = text[: match.start()].count("\n") + 1
        found.append(Block(match[1], match[2] or "", match[3], line, text[end : match.start()]))
        end = match.end()
    return found


def script(page):
    """The page's Python, each line where it stands in the page: tracebacks point into the page."""
    lines = [""] * (page.read_text().count("\n") + 1)
    for block in blocks(page):
        if block.language == "python" and not block.title:
            code = block.text.splitlines()
            lines[block.line : block.line + len(code)] = code
            lines[block.line + len(code)] = f"print({END!r}, flush=True)"
    return "\n".join(lines)


def promised(page):
    """What each Python block of the page prints; None where the page does not say."""
    outputs = []
    for block in blocks(page):
        if block.language == "python" and not block.title:
            outputs.append((block, None))
        elif block.language == "text" and outputs and not block.gap.strip():
            outputs[-1] = (outputs[-1][0], block.text)
    return outputs


def copied(page, folder):
    """A copy of the package in which the page's files are; lines for an `__init__` are added."""
    shutil.copytree(ROOT / "raphson", folder / "raphson")
    files = [block for block in blocks(page) if block.title]
    for block in files:
        file = folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as opened:
            opened.write(block.text)
    return [block.title for block in files]


def python(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs_and_prints_what_it_says(page, tmp_path):
    copied(page, tmp_path)
    (tmp_path / page.with_suffix(".py").name).write_text(script(page))
    run = python(tmp_path, "-W", "error", page.with_suffix(".py").name)
    assert run.returncode == 0, run.stderr
    for (block, said), printed in zip(promised(page), run.stdout.split(END + "\n")):
        where = f"{page.name}, line {block.line}"
        assert said is None or alike(said, printed), f"{where}\nsays:\n{said}\nprints:\n{printed}"


def alike(said, printed):
    """Whether the words are the same, and the numbers as near as machines and versions let them."""
    words, numbers = zip(
        *((NUMBER.sub("#", text).split(), NUMBER.findall(text)) for text in (said, printed))
    )
    pairs = zip(*(map(float, found) for found in numbers))
    return words[0] == words[1] and all(math.isclose(*p, rel_tol=0.1, abs_tol=1e-6) for p in pairs)


def test_added_method_passes_its_own_tests(tmp_path):
    tests = [f for f in copied(ROOT / "docs" / "method.md", tmp_path) if f.startswith("tests/")]
    _bring(tmp_path, "pyproject.toml", "tests/conftest.py")
    run = python(tmp_path, "-m", "pytest", "-p", "no:xdist", *tests)
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
def test_added_method_is_in_the_battery(tmp_path):
    copied(ROOT / "docs" / "method.md", tmp_path)
    _bring(tmp_path, "pyproject.toml", "tests/conftest.py", "tests/test_battery.py")
    battery = ("tests/test_battery.py", "-k", "BarzilaiBorwein", "-m", "")
    run = python(tmp_path, "-m", "pytest", "-p", "no:xdist", *battery)
    assert run.returncode == 0, run.stdout
    assert int(re.search(r"battery checks: (\d+)", run.stdout)[1]) > 10


def _bring(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, folder / file)


def test_every_status_is_on_its_page():
    page = (ROOT / "docs" / "statuses.md").read_text()
    sections = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)[1:]
    described = dict(zip(sections[::2], sections[1::2]))
    statuses = {name: rp.Status[item] for name, item in rp.Status._name_to_item.items()}
    del statuses["running"]  # no run ends with it
    assert list(described) == list(statuses)
    for name, sentence in statuses.items():
        quoted = " ".join(re.findall(r"^> (.*)$", described[name], re.MULTILINE))
        assert quoted == sentence, f"`{name}` says otherwise in the code"


def test_every_public_name_is_in_the_reference():
    from raphson.families import FAMILIES

    reference = "\n".join(file.read_text() for file in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", reference, re.MULTILINE))
    documented = {name for name in dir(rp) if not name.startswith("_")}
    modules = {name for name in documented if isinstance(getattr(rp, name), type(rp))}
    missing = {name for name in documented - modules if f"raphson.{name}" not in shown}
    assert not missing
    assert {f"raphson.{family}" for family in FAMILIES} <= shown


def test_every_command_and_option_is_in_the_reference():
    from raphson.cli import app

    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    sections = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)[1:]
    described = dict(zip(sections[::2], sections[1::2]))
    commands = typer.main.get_command(app).commands
    assert set(described) == set(commands)
    for name, command in commands.items():
        options = {o for p in command.params for o in p.opts if o.startswith("-")}
        mentioned = set(re.findall(r"`(--?[a-z-]+)`", described[name]))
        assert mentioned == options - {"--help", "-h"}, name
