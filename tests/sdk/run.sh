#!/bin/sh
# Runs endpoints.py with the official emnify SDK against EMNIFY_SDK_API_ENDPOINT_URL (base URL with /api), with the
# application token in EMNIFY_APPLICATION_TOKEN. EXPECTED is the number of endpoints, or "refused".
# The SDK lives in a virtual environment of its own under target/ and is installed once. Fails where that can't be done.
set -eu

sdk=emnify-sdk==0.5.3
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/sdk-venv
mkdir -p "$root/target"

# Of two runs at once, the second waits for the first one's installation.
exec 9>"$root/target/sdk-venv.lock"
flock 9
if ! "$venv/bin/python" -m pip freeze 2>/dev/null | grep -qx "$sdk"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$sdk"
fi
exec 9>&-

export NO_PROXY=127.0.0.1

exec "$venv/bin/python" "$root/tests/sdk/endpoints.py"
