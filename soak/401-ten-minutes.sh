#!/usr/bin/env bash
# A credential is refused for ten minutes, in real time: at most 3 logins, and no other Workspace notices. 10 minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it holds::refused::a_401 -- --nocapture
