#!/usr/bin/env bash
# The scenarios of tests/it/holds/ as docs/measurements.md has them, in full and one after the other, so that nothing
# disturbs the times: about 25 minutes and a release build. Needs libfaketime, which ./test.sh installs. Further arguments choose, as of cargo test:
#   soak/holds.sh holds::cold
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TOKEN_BROKER_HOLDS=full exec cargo test --locked --release --test it "${1:-holds::}" -- --nocapture --test-threads=1
