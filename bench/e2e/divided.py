#!/usr/bin/env python3
"""Decoding over two processes that share a model's matrices (--tp 2, one thread each) against one process of two threads.

    bench/e2e/divided.py [--model DIR] [--rows N] [--repetitions N] [--dtype float32] [--transport shm]

Alternating, medians. Where the time of a step goes is the mean of the two ranks: computing, collectives, waiting for
the other rank.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import save_file

from compare import PROGRAM, ROOT

NEW = 33
PARTS = ("compute_s", "reduce_s", "wait_s")


def step(options, inputs, *layout):
    """Seconds of one token for all rows, and of it per part; the first steps are not counted."""
    command = [PROGRAM, "generate", "--model", options.model, "--dtype", options.dtype, "--input-ids", inputs, "--max-new-tokens", NEW,
               "--ignore-eos", "--json", "--stats", *layout]
    out = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    ranks = json.loads(out)["ranks"]
    steps = [rank["steps"][4:] for rank in ranks]
    parts = [statistics.mean(one[part] for rank in steps for one in rank) for part in PARTS]
    return sum(parts), parts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=ROOT / "models/SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=16, help="tokens of a prompt")
    parser.add_argument("--transport", default="auto")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    times = {"one process": [], "tp 2": []}
    with tempfile.TemporaryDirectory() as folder:
        inputs = pathlib.Path(folder) / "ids.safetensors"
        rows = np.arange(options.rows * options.length, dtype=np.int64).reshape(options.rows, options.length) * 7919 % 40000 + 50
        save_file({"input_ids": rows}, inputs)
        for _ in range(options.repetitions):
            times["one process"].append(step(options, inputs, "--threads", 2))
            times["tp 2"].append(step(options, inputs, "--tp", 2, "--threads", 1, "--transport", options.transport))
    print(f"decode of {options.rows} prompts, {options.dtype}, {options.repetitions} repetitions, milliseconds a step, medians")
    print(f"{'':>12} {'step':>8} {'compute':>8} {'reduce':>8} {'wait':>8} {'tokens/s':>9}")
    for name, runs in times.items():
        total = statistics.median(run[0] for run in runs)
        parts = [statistics.median(run[1][i] for run in runs) * 1e3 for i in range(len(PARTS))]
        print(f"{name:>12} {total * 1e3:8.2f} {parts[0]:8.2f} {parts[1]:8.2f} {parts[2]:8.2f} {options.rows / total:9.1f}")
    ratio = statistics.median(one[0] / two[0] for one, two in zip(times["one process"], times["tp 2"]))
    print(f"tp 2 is {ratio:.2f} times as fast as one process of two threads")


if __name__ == "__main__":
    main()
