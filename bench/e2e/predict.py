#!/usr/bin/env python3
"""Predicted against measured time of a step: `shardpipe plan --profile` beside warm runs of the same layouts.

    bench/e2e/predict.py [--model DIR] [--repetitions N] [--pp 1,2,3,4] [--dtype float32]

Alternating, medians. The ratio is predicted / measured; the prediction is for ranks that share this host.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import save_file

from compare import BENCH, PROGRAM, ROOT

NEW = 33
WARM = 3  # repetitions of one process, after its first


def lines(command):
    out = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return [json.loads(line) for line in out.splitlines()]


def measured(options, pp, rows, *arguments):
    command = [BENCH, "--model", options.model, "--dtype", options.dtype, "--rows", rows, "--length", options.length, "--new-tokens", NEW,
               "--threads", max(1, os.cpu_count() // pp), "--pp", pp, "--repetitions", WARM, *arguments]
    return [line for line in lines([PROGRAM, "launch", "--nproc", pp, "--", *command] if pp > 1 else command) if line["rank"] == 0]


def predicted(options, pp, *arguments):
    (report,) = lines([PROGRAM, "plan", "--profile", "--json", "--model", options.model, "--dtype", options.dtype, "--pp", pp, *arguments])
    return {name: step["step_s"] for name, step in report["steps"].items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=ROOT / "models/SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--pp", default="1,2,3,4")
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--rows", type=int, default=1, help="prompts, times the ranks")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {options.repetitions} repetitions, {options.dtype}, {options.rows} prompts of {options.length} tokens a rank; milliseconds, medians")
    print(f"{'pp':>3} {'step':>8} {'predicted':>10} {'measured':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for pp in map(int, options.pp.split(",")):
            rows = pp * options.rows
            inputs = pathlib.Path(folder) / f"{pp}.safetensors"
            save_file({"input_ids": np.ones((rows, options.length), np.int64)}, inputs)
            times = {name: ([], []) for name in ("prefill", "decode", "forward")}
            for _ in range(options.repetitions):
                steps = predicted(options, pp, "--batch", rows, "--prompt-tokens", options.length, "--new-tokens", NEW)
                steps |= predicted(options, pp, "--inputs", inputs)
                for name, (guess, _) in times.items():
                    guess.append(steps[name])
                for run in measured(options, pp, rows):
                    times["prefill"][1].append(run["prefill_s"])
                    times["decode"][1].append(run["decode_s"] / (NEW - 1))
                times["forward"][1].extend(run["run_s"] for run in measured(options, pp, rows, "--forward"))
            for name, lists in times.items():
                guess, truth = map(statistics.median, lists)
                print(f"{pp:>3} {name:>8} {guess * 1e3:10.2f} {truth * 1e3:10.2f} {guess / truth:6.2f}", flush=True)


if __name__ == "__main__":
    main()
