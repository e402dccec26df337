#!/usr/bin/env bash
# A thousand callers who report one rejected token, and a client that reports for ever, in real time. Three minutes and a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it holds::rejected -- --nocapture --test-threads=1
