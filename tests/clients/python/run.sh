#!/usr/bin/env bash
# Runs a Python program with grpcio and the classes generated from proto/:
#
#   tests/clients/python/run.sh tests/clients/python/client.py 127.0.0.1:7700 get demo/emnify
#
# The packages live in target/venv and are installed once; the classes are made anew when proto/ has changed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
readonly GRPCIO=1.85.1 PROTOBUF=7.36.2
readonly VENV=$root/target/venv OUT=$root/target/clients/python

mkdir -p "$OUT"
# Of two runs at once, the second waits for the first one's installation: one lock for all who install into target/venv.
exec 9>"$VENV.lock"
flock 9
[ -x "$VENV/bin/pip" ] || python3 -m venv --clear "$VENV"
packages="grpcio==$GRPCIO grpcio-tools==$GRPCIO grpcio-status==$GRPCIO protobuf==$PROTOBUF"
if [ "$(cat "$OUT/packages" 2>/dev/null)" != "$packages" ]; then
  # shellcheck disable=SC2086 # one word per package
  "$VENV/bin/pip" install --quiet --disable-pip-version-check $packages
  printf '%s\n' "$packages" >"$OUT/packages"
fi
if [ ! -e "$OUT/generated" ] || [ -n "$(find "$root/proto" -newer "$OUT/generated")" ]; then
  # shellcheck disable=SC2046 # no path here has a blank
  "$VENV/bin/python" -m grpc_tools.protoc -I"$root/proto" --python_out="$OUT" --grpc_python_out="$OUT" \
    $(find "$root/proto" -name '*.proto')
  touch "$OUT/generated"
fi
exec 9>&-
PYTHONPATH=$OUT:$root/bench:$root/tests/clients/python PYTHONDONTWRITEBYTECODE=1 exec "$VENV/bin/python" "$@"
