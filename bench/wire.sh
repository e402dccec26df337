#!/usr/bin/env bash
# The cached GetToken of the broker, with policy, limits and audit, against a bare tonic server that returns the same
# bytes (bench/bare.rs): both servers on one core, the load (bench/load.rs) on another, in alternating rounds. Prints the
# medians of the ratio and of the CPU time per call, and fails unless the broker's own counters say that every call was OK
# and came from the cache, and the audit that it was recorded.
#
#   bench/wire.sh                           # plaintext; release build; 15 rounds of 100,000 calls to each: 3 minutes
#   bench/wire.sh --mtls                    # both behind the same TLS 1.3, callers with a SPIFFE ID, a hundred grants
#   bench/wire.sh --mtls --rounds 31 --calls 50000
#   bench/wire.sh --debug --rounds 2 --calls 2000   # that it works; the times mean nothing
#
# Needs Python 3, taskset and openssl. Run it on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=release
if [ "${1:-}" = --debug ]; then
  profile=debug
  shift
  cargo build --locked --bin token-broker --example bare --example load
else
  cargo build --locked --release --bin token-broker --example bare --example load
fi
target=${CARGO_TARGET_DIR:-target}/$profile
exec python3 bench/wire.py --program "$target/token-broker" --bare "$target/examples/bare" \
  --load "$target/examples/load" "$@"
