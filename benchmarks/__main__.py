"""All benchmarks, one after another, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent

for script in sorted(FOLDER.glob("[!_]*.py")):
    print(f"\n== {script.stem}", flush=True)
    subprocess.run([sys.executable, script], check=True)
