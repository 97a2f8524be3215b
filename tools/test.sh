#!/usr/bin/env bash
# Runs the tests that are built: tools/test.sh [ctest option...]
# Environment: PRESET, JOBS as for tools/build.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder="build-${PRESET:-release}"
if [ "${PRESET:-release}" = release ]; then
  folder=build
fi
exec ctest --test-dir "$folder" --output-on-failure --no-tests=error --parallel "${JOBS:-$(nproc)}" "$@"
