#!/usr/bin/env bash
# SVIDs of a real SPIRE server and agent, taken by a broker whose own certificate and client authorities are SPIRE's
# too: who is let in, how SVIDs rotate, how SPIRE's authorities rotate by themselves and by command, and what becomes of
# those who show an SVID of a revoked one. About five minutes, and a debug build; fails if anything is not as it should.
#
#   soak/spire.sh                                # authorities of 4 minutes, SVIDs of 1
#   soak/spire.sh --ca-ttl 360 --svid-ttl 60     # further rotations
#
# Needs Go 1.21 or newer, a C compiler (SPIRE's SQLite), openssl and Python 3. SPIRE is built once, into target/tools:
# a few minutes of two cores. Whoever has it names where its two programs are: SPIRE=/opt/spire/bin soak/spire.sh
#
# What is built is not quite SPIRE as it is published. Its module is taken as it is, checksum and all, and of a copy one
# plugin is left out, two lines of pkg/server/catalog/upstreamauthority.go: `ejbca`, which would have authorities signed
# by another product. The library that this plugin needs is not to be had as a module everywhere, nothing here uses it,
# and without it nothing else changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VERSION=v1.15.3
readonly TOOLS=$PWD/target/tools/spire-$VERSION
readonly CATALOG=pkg/server/catalog/upstreamauthority.go

fail() { printf 'soak/spire.sh: %s\n' "$1" >&2; exit 1; }

leave_out_ejbca() {
  rm -rf "$1/pkg/server/plugin/upstreamauthority/ejbca"
  [ "$(grep -c 'upstreamauthority/ejbca"$\|ejbca\.BuiltIn(),$' "$1/$CATALOG")" -eq 2 ] || fail "$CATALOG is another one"
  sed -i '/upstreamauthority\/ejbca"$/d; /ejbca\.BuiltIn(),$/d' "$1/$CATALOG"
}

build_spire() {
  local module sources
  module=$(go mod download -json "github.com/spiffe/spire@$VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  [ -d "$module" ] || fail "the module of SPIRE $VERSION can't be had"
  mkdir -p "$TOOLS"
  sources=$(mktemp -d "$TOOLS/sources.XXXXXX")
  # shellcheck disable=SC2064 # the directory of now
  trap "rm -rf '$sources'" EXIT
  cp -R "$module/." "$sources"
  chmod -R u+w "$sources"
  leave_out_ejbca "$sources"
  (cd "$sources" && nice -n 19 go build -p 2 -buildvcs=false -ldflags '-s -w' -o "$sources/built/" \
    ./cmd/spire-server ./cmd/spire-agent)
  mv -f "$sources/built/spire-agent" "$sources/built/spire-server" "$TOOLS"
  rm -rf "$sources"
  trap - EXIT
}

for program in openssl python3; do command -v "$program" >/dev/null || fail "please install $program"; done
spire=${SPIRE:-$TOOLS}
if [ -z "${SPIRE:-}" ] && { [ ! -x "$TOOLS/spire-server" ] || [ ! -x "$TOOLS/spire-agent" ]; }; then
  for program in go cc; do command -v "$program" >/dev/null || fail "please install $program"; done
  build_spire
fi
cargo build --locked --bin token-broker
PYTHONPATH=$PWD/bench PYTHONDONTWRITEBYTECODE=1 exec python3 soak/spire/run.py \
  --program "${CARGO_TARGET_DIR:-$PWD/target}/debug/token-broker" --spire "$spire" "$@"
