#!/usr/bin/env bash
# One caller floods as fast as it can, ignoring every refusal; nineteen others ask a hundred times a second each. Prints
# the others' failures and times without the flood and with it, and fails unless there are no failures and the 99th
# percentile with the flood is less than twice that without, in the median of the rounds. A release build; ROUNDS (3) of
# twice SECONDS (10).
#
# The flood gets the rest of the processor's time only (nice 19): it stands for another machine. Needs h2load (Debian:
# nghttp2-client).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=${PROFILE:-release}
flags=(--locked --example neighbours)
if [ "$profile" = release ]; then flags+=(--release); fi
cargo build "${flags[@]}"
program=${CARGO_TARGET_DIR:-target}/$profile/examples/neighbours
directory=$(mktemp -d)
pids=()
cleanup() {
  if [ ${#pids[@]} -gt 0 ]; then kill "${pids[@]}" 2>/dev/null || true; fi
  rm -rf "$directory"
}
trap cleanup EXIT
"$program" serve 20 >"$directory/addresses" &
pids+=($!)
until [ "$(wc -l <"$directory/addresses")" -eq 20 ]; do sleep 0.1; done
mapfile -t addresses <"$directory/addresses"
printf '\x00\x00\x00\x00\x0e\x0a\x0cbench/weekly' >"$directory/request"
seconds=${SECONDS_PER_ROUND:-10}
load() { "$program" load "$seconds" "${addresses[@]:1}"; }
p99() { sed -E 's/.* p99_us=([0-9]+).*/\1/' <<<"$1"; }
"$program" load 1 "${addresses[@]:1}" >/dev/null
ratios=()
for round in $(seq "${ROUNDS:-3}"); do
  alone=$(load)
  nice -n 19 h2load --threads=1 --clients="${CONNECTIONS:-10}" --max-concurrent-streams=100 --duration=$((seconds + 2)) \
    --data="$directory/request" --header='content-type: application/grpc' --header='te: trailers' \
    "http://${addresses[0]}/tokenbroker.v1.TokenService/GetToken" >"$directory/flood" 2>&1 &
  flood=$!
  pids+=("$flood")
  sleep 1
  beside=$(load)
  wait "$flood" || true
  echo "round $round alone:  $alone"
  echo "round $round beside: $beside"
  echo "round $round flood:  $(grep -E '^finished in' "$directory/flood" || true)"
  case "$alone$beside" in *failures=[1-9]*) echo "calls of others failed" >&2; exit 1 ;; esac
  ratios+=("$(($(p99 "$beside") * 100 / $(p99 "$alone")))")
done
median=$(printf '%s\n' "${ratios[@]}" | sort -n | sed -n "$(((${#ratios[@]} + 1) / 2))p")
echo "p99 beside the flood: $median % of that without"
[ "$median" -lt 200 ]
