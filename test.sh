#!/usr/bin/env bash
# Installs what the tests need and runs them all. Installs only what is missing; a second run installs nothing.
#
# Needs Rust 1.95 or newer and the right to install Debian packages (root, or sudo without a password), the latter only
# where something is missing. What is not a Debian package goes into target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null

readonly BUF_VERSION=1.75.0
readonly GRPCURL_VERSION=v1.9.3
readonly GO_TOOLCHAIN=go1.24.3
readonly VENV=target/venv
readonly TOOLS=target/tools

stage() { printf '\n== test: %s (at %d s)\n' "$1" "$SECONDS"; }
fail() { printf 'test.sh: %s\n' "$1" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Debian packages. The lists are fetched once, and only if the packages can't be had without: they age, and a new
# machine has none.
apt_install() {
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
  as_root "${install[@]}" && return
  as_root apt-get update -q && as_root "${install[@]}" || fail "please install: $*"
}

need_rust() {
  command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  command -v cargo >/dev/null || fail "please install Rust 1.95 or newer; Debian's own is too old"
}

need_c_compiler() {
  command -v cc >/dev/null || apt_install gcc libc6-dev
}

# Steps the clock of one process: the clock tests preload it.
need_libfaketime() {
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || apt_install faketime
}

# Load for HTTP/2: soak/noisy-neighbour.sh and bench/scale.sh.
need_h2load() {
  command -v h2load >/dev/null || apt_install nghttp2-client
}

# Authorities and certificates, and a client that nobody here wrote: the tests of TLS.
need_openssl() {
  command -v openssl >/dev/null || apt_install openssl
}

# Counts instructions: bench/hits.sh, which .ci/run calls.
need_valgrind() {
  command -v valgrind >/dev/null || apt_install valgrind
}

# Python packages live in a virtual environment of their own.
need_venv() {
  [ -x "$VENV/bin/pip" ] && return
  python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
  python3 -m venv --clear "$VENV"
}

# Lint and formatting of the schema.
need_buf() {
  [ "$("$VENV/bin/buf" --version 2>/dev/null)" = "$BUF_VERSION" ] && return
  # Others install there too, and hold this lock while they do.
  mkdir -p "$(dirname "$VENV")"
  exec 9>"$VENV.lock"
  flock 9
  need_venv
  "$VENV/bin/pip" install --quiet "buf-bin==$BUF_VERSION"
  exec 9>&-
}

# The go command to build with: the one at hand, or where that is too old a newer one, which it fetches as a module,
# with its checksum. Modules can't carry the right to be executed.
go_command() {
  local version go
  version=$(go env GOVERSION)
  if [ "$(printf '%s\n' go1.21 "$version" | sort -V | head -n 1)" = go1.21 ]; then
    command -v go
    return
  fi
  go=$(go mod download -modcacherw -json \
    "golang.org/toolchain@v0.0.1-$GO_TOOLCHAIN.$(go env GOHOSTOS)-$(go env GOHOSTARCH)" |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  chmod -R +x "$go/bin" "$go/pkg/tool"
  printf '%s\n' "$go/bin/go"
}

# The client that README shows. The link carries the version, so that a new one is noticed.
need_grpcurl() {
  [ -x "$TOOLS/grpcurl-$GRPCURL_VERSION" ] && return
  command -v go >/dev/null || apt_install golang-go
  mkdir -p "$TOOLS"
  local go
  go=$(go_command)
  GOBIN="$PWD/$TOOLS" "$go" install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL_VERSION"
  ln -f "$TOOLS/grpcurl" "$TOOLS/grpcurl-$GRPCURL_VERSION"
}

check_proto() {
  "$VENV/bin/buf" lint proto
  "$VENV/bin/buf" format --diff --exit-code proto
}

stage 'install what is missing'
need_rust
need_c_compiler
need_libfaketime
need_h2load
need_openssl
need_valgrind
need_buf
need_grpcurl

stage 'proto: lint and format'
check_proto

# One build for all of it: unit, integration and documentation tests, and the programs that the stages below run.
stage 'cargo test'
cargo test --locked

stage 'a client in Python'
tests/clients/python/run.sh tests/clients/python/check.py "${CARGO_TARGET_DIR:-target}/debug/token-broker"

stage 'an authorization server that is not ours'
tests/peers/oidc-provider/run.sh "${CARGO_TARGET_DIR:-target}/debug/token-broker"

# Small forms, so that the scripts are known to work: the times that they print mean nothing here.
stage 'restarts under load'
soak/restarts.sh --debug --restarts 5 --rate 500 --deadline 10 --pause 0.2

stage 'the wire'
bench/wire.sh --debug --rounds 2 --calls 2000
bench/wire.sh --debug --mtls --rounds 2 --calls 2000

stage 'who got a token stands in the audit'
soak/audit.sh --debug --calls 4000 --kills 2

stage 'all passed'
