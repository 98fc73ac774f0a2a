#!/usr/bin/env bash
# What a release of the SDK is judged by: cargo-semver-checks, against the surface of a revision, which is the one that
# is named or else the last tag. It takes minutes to install, which it is where it is missing; CI holds the SDK against
# crates/sdk/surface.txt instead (bench/surface).
set -euo pipefail
cd "$(cargo locate-project --workspace --message-format plain | xargs dirname)"
baseline=${1:-$(git describe --tags --abbrev=0 2>/dev/null || true)}
if [ -z "$baseline" ]; then
  echo "expected a revision to compare with, got none, and there is no tag: bench/sdk-semver.sh REVISION" >&2
  exit 2
fi
git rev-parse --verify --quiet "$baseline^{commit}" >/dev/null \
  || { echo "expected a revision to compare with, got $baseline" >&2; exit 2; }
git cat-file -e "$baseline:crates/sdk/Cargo.toml" 2>/dev/null \
  || { echo "expected a revision that has the SDK, got $baseline" >&2; exit 2; }
command -v cargo-semver-checks >/dev/null || cargo install --locked cargo-semver-checks
# What the SDK gives again of these is judged there: the judge looks at one crate at a time.
exec cargo semver-checks -p throughline -p throughline-llm -p throughline-resilience -p throughline-trace \
  --baseline-rev "$baseline"
