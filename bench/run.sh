#!/usr/bin/env bash
# make bench: the kernels, the executor and the messages between ranks against their limits, then generation against Hugging Face, side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cmake --build build --target generate_bench executor_bench kernels_bench comm_bench
build/bench/executor_bench
build/bench/kernels_bench
build/bench/comm_bench
.venv/bin/python bench/e2e/divided.py
.venv/bin/python bench/e2e/compare.py "$@"
