#!/usr/bin/env bash
# The certificate of a `serve` process and the authority of its callers, replaced every 5 s, 60 times, under 200 new TLS
# connections a second and steady calls; an expired certificate, half a file and another's key in between. openssl makes
# all files. Five minutes and a release build; fails if a handshake or a call does, or if something is seen after more
# than 2 s.
#
#   soak/rotation.sh
#   soak/rotation.sh --rotations 12     # a minute
#   soak/rotation.sh --rate 50          # new connections a second
#   soak/rotation.sh --debug            # without a release build, and without judging times
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=(--release)
while [ $# -gt 0 ]; do
  case $1 in
    --rotations) export TOKEN_BROKER_ROTATIONS=$2; shift 2 ;;
    --rate) export TOKEN_BROKER_HANDSHAKES=$2; shift 2 ;;
    --debug) profile=(); shift ;;
    *) echo "usage: soak/rotation.sh [--debug] [--rotations N] [--rate N]" >&2; exit 2 ;;
  esac
done
TOKEN_BROKER_HOLDS=full exec cargo test --locked "${profile[@]}" --test it cli::rotation:: -- --nocapture --test-threads=1
