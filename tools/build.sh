#!/usr/bin/env bash
# Configures where needed and builds: tools/build.sh [--configure-only | TARGET...]
# Environment:
#   PRESET           configure preset of CMakePresets.json (default: release, in build/; others in build-<preset>/)
#   JOBS             parallel jobs (default: the cores, and at least 2 GB of free memory for each)
#   VENV, TORCH_DIR  as for tools/setup.sh
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
preset="${PRESET:-release}"
folder="build-$preset"
if [ "$preset" = release ]; then
  folder=build
fi
venv="$(realpath -ms "${VENV:-.venv}")"
torch="${TORCH_DIR:-}"
if [ -z "$torch" ]; then
  torch="$(compgen -G "$venv/lib/python3*/site-packages/torch" | head -1)"
fi

default_jobs() {
  local cores free_gb
  cores="$(nproc)"
  free_gb="$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)"
  local jobs=$((free_gb / 2 < cores ? free_gb / 2 : cores))
  echo $((jobs < 1 ? 1 : jobs))
}

mkdir -p "$folder"
exec 9>"$folder/.build.lock"
flock 9
options="--preset $preset -DTORCH_DIR=$torch -DSHARDPIPE_PYTHON=$venv/bin/python"
if [ ! -e "$folder/build.ninja" ] || [ "$(cat "$folder/.configured" 2>/dev/null)" != "$options" ]; then
  cmake --preset "$preset" "-DTORCH_DIR=$torch" "-DSHARDPIPE_PYTHON=$venv/bin/python"
  echo "$options" >"$folder/.configured"
fi
if [ "${1:-}" = --configure-only ]; then
  cmake --build "$folder" --target build.ninja >/dev/null  # new files and changed lists
  exit
fi
targets=()
if [ $# -gt 0 ]; then
  targets=(--target "$@")
fi
cmake --build "$folder" --parallel "${JOBS:-$(default_jobs)}" "${targets[@]}"
