#!/usr/bin/env bash
# SIGTERM and restart of two brokers in turn, under 2,000 GetToken calls per second from a Python gRPC client that
# balances over both (round_robin) and has no retries of its own. Fails if a call fails or a broker takes more than
# 10 s to end.
#
#   soak/restarts.sh                        # release build; 20 restarts: about half a minute
#   soak/restarts.sh --restarts 100 --pause 0
#   soak/restarts.sh --debug --restarts 5 --rate 500 --deadline 10 --pause 0.2   # the small form of ./test.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
if [ "${1:-}" = --debug ]; then
  shift
  program=$target/debug/token-broker
else
  cargo build --locked --release --bin token-broker --example bare
  program=$target/release/token-broker
fi
exec tests/clients/python/run.sh soak/restarts.py --program "$program" "$@"
