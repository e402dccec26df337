#!/usr/bin/env bash
# Instructions and allocations of one hit of the cache at each height, counted by callgrind, against the bounds below.
# They say the same on a busy machine as on a quiet one. Fails where a bound is exceeded.
#
#   bench/hits.sh           # a release build, then about 10 seconds
#
# A bound on instructions is what was measured and 5 % more, for another compiler's choices. Allocations are bounded by
# what was measured: one more copy of a message shows there. Who makes a hit cheaper lowers its bounds; who has to raise
# one says in the commit what a hit now does for it. Needs valgrind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BOUNDS='
engine  1850  0
broker  5040  0
grpc   41100 52
'
# The difference of two runs is free of what starting costs.
readonly FEW=500 MANY=1500

cargo build --locked --release --example hits
readonly HITS=${CARGO_TARGET_DIR:-target}/release/examples/hits
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Prints the instructions and the allocations of a run with so many hits.
count() {
  local height=$1 hits=$2 out=$work/$1.$2
  timeout 120 valgrind --tool=callgrind --callgrind-out-file="$out" "$HITS" "$height" "$hits" 2>"$out.log" ||
    { cat "$out.log" >&2; return 1; }
  # callgrind names a function once and afterwards gives its number.
  awk '
    /^c?fn=/ {
      end = index($0, ")"); id = substr($0, index($0, "("), end - index($0, "(") + 1)
      if (length($0) > end) name[id] = substr($0, end + 2)
      if (/^cfn/) called = name[id]
    }
    /^calls=/ && called ~ /^(malloc|calloc|realloc|aligned_alloc|posix_memalign|memalign)$/ {
      allocations += substr($1, 7)
    }
    /^(summary|totals):/ { instructions = $2 }
    END { print instructions, allocations + 0 }
  ' "$out"
}

check() {
  local height=$1 most_instructions=$2 most_allocations=$3 few many
  few=($(count "$height" "$FEW")) || return 1
  many=($(count "$height" "$MANY")) || return 1
  local hits=$((MANY - FEW))
  local instructions=$(((many[0] - few[0]) / hits)) allocations=$(((many[1] - few[1]) / hits))
  printf '%-6s  %6d instructions (at most %d)  %3d allocations (at most %d)\n' \
    "$height" "$instructions" "$most_instructions" "$allocations" "$most_allocations"
  [ "$instructions" -gt 0 ] && [ "$instructions" -le "$most_instructions" ] && [ "$allocations" -le "$most_allocations" ]
}

failed=0
while read -r height instructions allocations; do
  check "$height" "$instructions" "$allocations" || failed=1
done < <(grep . <<<"$BOUNDS")
[ "$failed" -eq 0 ] || { echo 'bench/hits.sh: a hit costs more than its bound' >&2; exit 1; }
