#!/usr/bin/env bash
# Prints what the SDK brings into a user's build: crates for each set of features, and the time of a
# clean debug build (set SKIP_BUILD=1 to leave that out): by the clock, and of the processors, which
# other work on the machine changes less. Run it anywhere in the workspace.
set -euo pipefail
cd "$(cargo locate-project --workspace --message-format plain | xargs dirname)"
count() { cargo tree -q -p throughline -e normal --prefix none "$@" | sed 's/ (\*)$//' | sort -u | wc -l; }
printf '%-28s %s\n' "crates, no features" "$(count --no-default-features)"
printf '%-28s %s\n' "crates, default" "$(count)"
printf '%-28s %s\n' "crates, all features" "$(count --all-features)"
[ "${SKIP_BUILD:-}" = 1 ] && exit
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
for features in --no-default-features ""; do
  rm -rf "${scratch:?}/target"
  TIMEFORMAT="$(printf '%-28s' "clean build ${features:-default}") %0R s on $(nproc) cores, %0U s + %0S s of processors"
  # shellcheck disable=SC2086 # no features is no argument
  time CARGO_TARGET_DIR="$scratch/target" cargo build -q -p throughline $features
done
