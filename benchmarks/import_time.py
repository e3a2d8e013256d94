"""What `import raphson` costs, against `import optimistix, optax`, in fresh processes in turn.

python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

REPEATS = 10
CLOCK = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(what):
    ran = subprocess.run([sys.executable, "-c", CLOCK.format(what)], capture_output=True, text=True)
    return float(ran.stdout)


def main():
    pairs = [(seconds("raphson"), seconds("optimistix, optax")) for _ in range(REPEATS)]
    ours, theirs = map(statistics.median, zip(*pairs, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"import raphson {ours:.2f} s, optimistix and optax {theirs:.2f} s")
    print(f"median ratio {ratio:.2f}   (asked: 1.3)")


if __name__ == "__main__":
    main()
