#!/usr/bin/env bash
# A 429 with `Retry-After: 30`, in real time: no login within the 30 s, and no other Workspace notices. 75 seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it holds::refused::a_429 -- --nocapture
