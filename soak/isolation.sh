#!/usr/bin/env bash
# A thousand Workspaces whose names look alike, asked for, renewed, re-keyed, deleted and made again by 64 threads: ten
# million calls, each of whose tokens must name its Workspace. A few minutes and a release build; `cargo test` makes a
# hundred thousand of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_ISOLATION_CALLS=${1:-10000000} exec cargo test --locked --release --test it engine::isolation -- --nocapture
