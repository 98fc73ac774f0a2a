#!/usr/bin/env bash
# Guards the SDK's surface: compares it with that of a revision: the one that is named, or else the
# last tag, or else where the branch left main. Installs cargo-semver-checks where it is missing.
set -euo pipefail
cd "$(cargo locate-project --workspace --message-format plain | xargs dirname)"
baseline=${1:-$(git describe --tags --abbrev=0 2>/dev/null || git merge-base HEAD main 2>/dev/null || true)}
if [ -z "$baseline" ] || [ "$(git rev-parse --quiet --verify "$baseline^{commit}")" = "$(git rev-parse HEAD)" ]; then
  echo "no baseline: there is no tag, and this is main; name a revision to compare with" >&2
  exit 0
fi
git rev-parse --verify --quiet "$baseline^{commit}" >/dev/null \
  || { echo "expected a revision to compare with, got $baseline" >&2; exit 2; }
if ! git cat-file -e "$baseline:crates/sdk/Cargo.toml" 2>/dev/null; then
  echo "no baseline: the SDK is not in $baseline yet" >&2
  exit 0
fi
command -v cargo-semver-checks >/dev/null || cargo install --locked cargo-semver-checks
exec cargo semver-checks -p throughline --baseline-rev "$baseline"
