#!/usr/bin/env bash
# Upstreams that send 10 GB, or without end, or hardly at all: what each attempt of the HTTP client comes to, how long it
# takes and by how much the memory of its process grows, as the table in docs/measurements.md has it. Each attempt is a
# process of its own. Three minutes and a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it http::hostile::no_upstream -- --nocapture
