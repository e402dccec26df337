#!/usr/bin/env bash
# Upstreams that send 10 GB, or without end, or hardly at all: what each attempt of the HTTP client comes to, how long it
# takes and by how much the memory of its process grows, as the table in docs/measurements.md has it. Each attempt is a
# process of its own. Four minutes. Memory does not depend on optimisation and times only get better by it, so the build is that of the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --test it http::hostile::no_upstream -- --nocapture
