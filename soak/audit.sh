#!/usr/bin/env bash
# Whoever got a token stands in the audit: 100,000 calls of callers with users of their own on a Unix socket, tokens that
# change all the time, and a broker that is killed (SIGKILL) and started again in between; then a disk that is full, and a
# pipe that nobody reads. Fails if a client has a token without a record, if a call is refused later than 300 ms after it
# came, or if calls are not answered 2 s after the sink works again.
#
#   sudo soak/audit.sh                      # release build; about two minutes
#   sudo soak/audit.sh --debug --calls 5000 --kills 2
#
# Root, for the users of the callers and the small disk (a tmpfs); without it there is one caller, and no such disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
if [ "${1:-}" = --debug ]; then
  shift
  cargo build --locked --bin token-broker
  program=$target/debug/token-broker
else
  cargo build --locked --release --bin token-broker
  program=$target/release/token-broker
fi
exec tests/clients/python/run.sh soak/audit.py --program "$program" "$@"
