#!/usr/bin/env bash
# Checks the sources without running them; --fix only formats the C++ files.
# Environment:
#   LINT_ALL=1    clang-tidy on every file, not only on what changed last
#   LINT_FILES=N  clang-tidy on at most N files (default 6; each takes up to half a minute)
#   PRESET, JOBS  as for tools/build.sh, which has configured the build folder
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset="${PRESET:-release}"
folder="build-$preset"
if [ "$preset" = release ]; then
  folder=build
fi
failed=0
git rev-parse --is-inside-work-tree >/dev/null || exit 1
step() { echo "lint: $*" >&2; }
check() { "$@" || { failed=1; step "FAILED: $1 ${2:-}"; }; }

# Tracked files and new ones that git does not ignore, also before they are added.
files() {
  git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do
    [ -f "$file" ] && echo "$file"
  done
}

clang_format() { files '*.h' '*.cpp' | xargs -r clang-format "$@"; }
if [ "${1:-}" = --fix ]; then
  clang_format -i
  exit
fi

major() { "$1" --version | grep -oE 'version [0-9]+' | head -1 | cut -d' ' -f2; }

# The project speaks of itself: no path of one machine, no package registry.
forbidden() {
  ! git grep --untracked -nIE "(^|[^A-Za-z0-9_.<}])/(work|home|root|Users)/|$1" -- ':!docs/licenses'
}

# What changed since the branch left its upstream, else in the last commits; the newest first.
changed_sources() {
  {
    git diff --name-only HEAD
    git ls-files --others --exclude-standard
    git log --name-only --pretty=format: -n 20
  } | grep -E '^(src|apps|bench|tests)/.*\.cpp$' | awk '!seen[$0]++'
}

clang_tidy() {
  local database="$folder/lint" sources options=()
  python3 tools/tidy_database.py "$folder/compile_commands.json" "$database" || return 1
  if [ "$(major clang-tidy)" != 14 ]; then
    step "clang-tidy is $(major clang-tidy), the checks are chosen for 14: findings are shown and do not fail"
    options+=('--warnings-as-errors=-*')
  fi
  if [ "${LINT_ALL:-}" = 1 ]; then
    sources="$(files '*.cpp')"
  else
    sources="$(changed_sources)"
  fi
  sources="$(grep -Fxf "$database/files.txt" <<<"$sources")"
  if [ "${LINT_ALL:-}" != 1 ]; then
    sources="$(head -n "${LINT_FILES:-6}" <<<"$sources")"
  fi
  if [ -z "$sources" ]; then
    step "no source of the build changed"
    return
  fi
  step "clang-tidy on $(wc -l <<<"$sources") files"
  xargs -r -P "${JOBS:-$(nproc)}" -n 1 clang-tidy -p "$database" --quiet "${options[@]}" <<<"$sources" \
    2> >(grep -vE 'warnings? (generated|treated)|Suppressed' >&2)
}

step "clang-format"
if [ "$(major clang-format)" = 14 ]; then
  check clang_format --dry-run -Werror
else
  step "clang-format is $(major clang-format), the sources are formatted with 14: not compared"
fi
step "tools/check_includes.py"
check python3 tools/check_includes.py
step "paths and hosts"
check forbidden 'pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]|anaconda[.]org|deb[.]debian[.]org'
step "shell scripts"
for script in $(files '*.sh' .ci/run); do
  check bash -n "$script"
done
check clang_tidy
exit "$failed"
