#!/usr/bin/env bash
# The cached GetToken of the broker against a bare tonic server that returns the same bytes (bench/bare.rs): plaintext,
# both servers on one core, h2load on another, in alternating rounds. Prints the medians of the ratio and of the CPU time
# per call, and fails unless the broker's own counters say that every call was OK and came from the cache.
#
#   bench/wire.sh                           # release build; 15 rounds of 100,000 calls to each: about 3 minutes
#   bench/wire.sh --rounds 31 --calls 50000
#   bench/wire.sh --debug --rounds 2 --calls 2000   # that it works; the times mean nothing
#
# Needs h2load (Debian: nghttp2-client), Python 3 and taskset. Run it on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=release
if [ "${1:-}" = --debug ]; then
  profile=debug
  shift
  cargo build --locked --bin token-broker --example bare
else
  cargo build --locked --release --bin token-broker --example bare
fi
target=${CARGO_TARGET_DIR:-target}/$profile
exec python3 bench/wire.py --program "$target/token-broker" --bare "$target/examples/bare" "$@"
