#!/bin/sh
# Instructions that a step costs, ours and that of tracing-opentelemetry, and a carried task: what one
# of 10,000 turns more takes, counted by callgrind (apt-get install valgrind). Unlike times, the same on
# a machine that others use too.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet -p throughline-bench-sdk
program="${CARGO_TARGET_DIR:-target}/release/throughline-bench-sdk"

# Instructions of the whole program with $2 turns of $1.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" alone "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

for what in ${*:-host bare lean own kept none raw-task in-span-task carried-task}; do
    few=$(count "$what" 1000)
    many=$(count "$what" 11000)
    printf '%-14s %6d\n' "$what" $(((many - few) / 10000))
done
