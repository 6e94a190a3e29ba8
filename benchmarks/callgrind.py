"""Count the instructions of one training step of the small tabular network (30-64-32-1, Adam, batch 32).

    python benchmarks/callgrind.py [--isa avx2] [--epochs 50] [--limit INSTRUCTIONS]

Two fits of different length run under valgrind; the difference of their instruction counts, divided by the difference
of their steps, is free of start-up, imports and the first epoch. Unlike times, counts do not drift with the load.
Valgrind knows no AVX-512, so AVX2 is the widest instruction set to count. Needs valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fastnn.benchmarking.timing import environment
from fastnn.benchmarking.workloads import WORKLOADS

WORKLOAD = WORKLOADS["article-step"]
PROGRAM = """
import sys
from fastnn.benchmarking.peers.fastnn import training
from fastnn.benchmarking.workloads import WORKLOADS
run = training(WORKLOADS["article-step"])
run(1)
run(int(sys.argv[1]))
"""


def instructions(epochs: int, isa: str | None) -> int:
    """Instructions of a whole process that trains for one epoch and then for `epochs` more."""
    settings = os.environ | environment(1) | {"PYTHONHASHSEED": "0"} | ({"FASTNN_ISA": isa} if isa else {})
    with tempfile.TemporaryDirectory() as directory:
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={Path(directory) / 'out'}"]
        done = subprocess.run(
            [*tool, sys.executable, "-c", PROGRAM, str(epochs)],
            capture_output=True,
            text=True,
            env=settings,
            check=False,
        )
    counted = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or counted is None:
        raise RuntimeError(f"callgrind: the run failed.\n{done.stderr[-2000:]}")
    return int(counted[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--isa", default=None, help="instruction set to force (default: the widest that valgrind knows)"
    )
    parser.add_argument(
        "--epochs", type=int, default=50, help=f"difference of the two fits; {WORKLOAD.steps} steps each"
    )
    parser.add_argument("--limit", type=int, default=None, help="exit with 1 if a step takes more instructions")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    if options.epochs < 1:
        parser.error(f"--epochs must be a positive integer. Received: {options.epochs}")
    try:
        short, long = (instructions(epochs, options.isa) for epochs in (1, 1 + options.epochs))
    except RuntimeError as error:
        parser.error(str(error))
    step = (long - short) / (options.epochs * WORKLOAD.steps)
    report = {"isa": options.isa, "steps": options.epochs * WORKLOAD.steps, "instructions_per_step": round(step)}
    sys.stdout.write(json.dumps(report) + "\n")
    return int(options.limit is not None and step > options.limit)


if __name__ == "__main__":
    sys.exit(main())
