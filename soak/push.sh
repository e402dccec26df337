#!/usr/bin/env bash
# Ten thousand watchers of one Workspace, and two thousand who never read, in real time. Five minutes and a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it holds::push -- --nocapture --test-threads=1
