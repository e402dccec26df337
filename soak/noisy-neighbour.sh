#!/usr/bin/env bash
# One caller floods as fast as it can, ignoring every refusal; nineteen others ask a hundred times a second each. Prints
# the others' failures and times, and fails unless there are no failures and the 99th percentile beside the flood is
# less than twice the baseline, in the median of the rounds. A release build; ROUNDS (3) of three times
# SECONDS_PER_ROUND (10); CONNECTIONS (10) of the flood, each with a hundred calls at once. PROGRAM: one that is built
# already.
#
# What is measured is the broker, not the machine that it shares with its callers: the broker has core 0 for itself; the
# flood (at nice 19, since it stands for another machine) and the others have core 1. The baseline is taken beside the
# same flood, which then goes to a second broker on core 1, also at nice 19: whatever it costs the others that the flood
# runs at all is in both. "alone" is without any flood. Needs h2load (Debian: nghttp2-client).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=${PROFILE:-release}
if [ -z "${PROGRAM:-}" ]; then
  flags=(--locked --example neighbours)
  if [ "$profile" = release ]; then flags+=(--release); fi
  cargo build "${flags[@]}"
fi
program=${PROGRAM:-${CARGO_TARGET_DIR:-target}/$profile/examples/neighbours}
directory=$(mktemp -d)
pids=()
cleanup() {
  if [ ${#pids[@]} -gt 0 ]; then kill "${pids[@]}" 2>/dev/null || true; fi
  rm -rf "$directory"
}
trap cleanup EXIT
taskset -c 0 "$program" serve 20 >"$directory/addresses" &
pids+=($!)
broker=$!
taskset -c 1 nice -n 19 "$program" serve 1 >"$directory/elsewhere" &
pids+=($!)
until [ "$(cat "$directory/addresses" "$directory/elsewhere" | wc -l)" -eq 21 ]; do sleep 0.1; done
mapfile -t addresses <"$directory/addresses"
elsewhere=$(<"$directory/elsewhere")
printf '\x00\x00\x00\x00\x0e\x0a\x0cbench/weekly' >"$directory/request"
seconds=${SECONDS_PER_ROUND:-10}
load() { taskset -c 1 "$program" load "$1" "${addresses[@]:1}"; }
p99() { sed -E 's/.* p99_us=([0-9]+).*/\1/' <<<"$1"; }
# The processor's time of the broker so far, in hundredths of a second.
used() { awk '{ print $14 + $15 }' "/proc/$broker/stat"; }
beside() {
  taskset -c 1 nice -n 19 h2load --threads=1 --clients="${CONNECTIONS:-10}" --max-concurrent-streams=100 \
    --duration=$((seconds + 3)) --data="$directory/request" --header='content-type: application/grpc' \
    --header='te: trailers' "http://$1/tokenbroker.v1.TokenService/GetToken" >"$directory/flood" 2>&1 &
  local flood=$!
  # The calls that the flood may have at once are over by then.
  sleep 2
  load "$seconds"
  wait "$flood" || true
}
load 1 >/dev/null
ratios=()
for round in $(seq "${ROUNDS:-3}"); do
  echo "round $round alone:    $(load "$seconds")"
  baseline=$(beside "$elsewhere")
  echo "round $round baseline: $baseline"
  before=$(used)
  flooded=$(beside "${addresses[0]}")
  echo "round $round flooded:  $flooded"
  echo "round $round flood:    $(grep -E '^finished in' "$directory/flood" || true); broker $(($(used) - before)) ticks"
  case "$baseline$flooded" in *failures=[1-9]*) echo "calls of others failed" >&2; exit 1 ;; esac
  ratios+=("$(($(p99 "$flooded") * 100 / $(p99 "$baseline")))")
done
median=$(printf '%s\n' "${ratios[@]}" | sort -n | sed -n "$(((${#ratios[@]} + 1) / 2))p")
echo "p99 beside the flood: $median % of the baseline"
[ "$median" -lt 200 ]
