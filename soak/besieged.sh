#!/usr/bin/env bash
# Hostile peers at the door of a `serve` process, in full and one after the other: 10 s of malformed streams, 2,000
# connections with 512 files, 2,000 with no file left, 150 peers that just stay while it ends; then, behind TLS, nine
# floods of 10 s each by somebody with a good certificate, and 650 peers that stay in a phase. Three minutes and a release
# build. An argument chooses, as of cargo test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it "${1:-cli::besieged::}" -- --nocapture --test-threads=1
