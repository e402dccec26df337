#!/usr/bin/env bash
# What 100,000 Workspaces from one file cost against one: start, memory, a call from the cache, a reload that changes one
# of them. Needs h2load, curl and python3. Takes about a minute, and a release build:
#   cargo build --release && bench/scale.sh [binary] [count] [calls]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
binary=${1:-target/release/token-broker}
count=${2:-100000}
calls=${3:-200000}
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

# generate <count> <directory> <upstream>: the secret of t/0 is one that the sandbox knows.
generate() {
    mkdir -p "$2"
    python3 - "$@" <<'PYTHON'
import os, sys
count, directory, upstream = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(f"{directory}/broker.toml", "w") as config:
    config.write('[server]\ngrpc_listen = "127.0.0.1:0"\nprobe_listen = "127.0.0.1:0"\n')
    config.write('[audit]\nsinks = ["file"]\nfile = "audit.jsonl"\n')
    config.write('[limits]\nget_per_second = 1000000\nget_burst = 1000000\n')  # one caller stands for a fleet
    config.write(f'[[upstreams]]\nname = "emnify"\nkind = "emnify"\nurl = "{upstream}"\n')
    config.write('[[grants]]\ncaller = "loopback"\nworkspaces = ["t/*"]\nactions = ["get", "watch", "report", "health"]\n')
    for n in range(count):
        config.write(f'[[workspaces]]\nname = "t/{n}"\nupstream = "emnify"\n'
                     f'credential = {{ application_token = {{ file = "secrets.toml", key = "t/{n}" }} }}\n')
with open(f"{directory}/secrets.toml", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as secrets:
    secrets.write('"t/0" = "sandbox-application-token-1"\n')
    for n in range(1, count):
        secrets.write(f'"t/{n}" = "{n:0500d}"\n')  # as long as emnify's
PYTHON
}

field() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }
# In ticks of 10 ms.
cpu() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
now() { date +%s%3N; }
served() { curl -fsS "$probe/metrics" | awk '/^token_broker_tokens_served_total{source="cache"}/ { print $2 }'; }
generation() { curl -fsS "$probe/config" | sed 's/.*"generation":\([0-9]*\).*/\1/'; }

# start <directory>: sets pid, grpc, probe, took.
start() {
    local begun
    begun=$(now)
    "$binary" serve --config "$1/broker.toml" 2>"$1/log" &
    pid=$!
    pids+=("$pid")
    until grep -q '"message":"serving"' "$1/log"; do
        kill -0 "$pid"
        sleep 0.005
    done
    took=$(($(now) - begun))
    read -r grpc probe < <(python3 - "$1/log" <<'PYTHON'
import json, sys
line = next(said for said in map(json.loads, open(sys.argv[1])) if said["message"] == "serving")
print(line["grpc"], "http://" + line["probes"])
PYTHON
    )
}

# A gRPC frame with GetTokenRequest{workspace: "t/0"}.
printf '\0\0\0\0\005\012\003t/0' >"$work/request"
# call: the CPU time of the broker per cached call, in nanoseconds.
call() {
    local before_cpu before_served
    "$binary" get --endpoint "http://$grpc" t/0 >/dev/null
    before_cpu=$(cpu "$pid")
    before_served=$(served)
    h2load -n "$calls" -c 4 -m 10 -d "$work/request" -H 'content-type: application/grpc' -H 'te: trailers' \
        "http://$grpc/tokenbroker.v1.TokenService/GetToken" >"$work/h2load"
    # h2load takes any answer for a good one.
    [ $(($(served) - before_served)) -eq "$calls" ] || { echo "not every call came from the cache"; exit 1; }
    echo $((($(cpu "$pid") - before_cpu) * 10000000 / calls))
}

"$binary" dev --grpc-listen 127.0.0.1:0 --probe-listen 127.0.0.1:0 --sandbox-listen 127.0.0.1:0 --log error >"$work/dev" &
pids+=("$!")
until grep -q '^Ctrl-C' "$work/dev"; do sleep 0.05; done
upstream=$(awk '$1 == "upstream" { print $2 }' "$work/dev")

generate 1 "$work/one" "$upstream"
generate "$count" "$work/many" "$upstream"
echo "configuration of $count: $(stat -c %s "$work/many/broker.toml") bytes, secrets: $(stat -c %s "$work/many/secrets.toml") bytes"

start "$work/one"
one=$pid one_grpc=$grpc one_probe=$probe
sleep 2
one_rss=$(field "$one" VmRSS)
echo "1 Workspace: serving after $took ms, RSS $one_rss KiB"
start "$work/many"
many=$pid many_grpc=$grpc many_probe=$probe
sleep 3
many_rss=$(field "$many" VmRSS)
echo "$count Workspaces: serving after $took ms, RSS $many_rss KiB, at the peak $(field "$many" VmHWM) KiB"
echo "RSS per Workspace: $(((many_rss - one_rss) * 1024 / count)) bytes, its secret of 500 bytes included"

# In turns, so that both meet the same machine.
for round in 1 2 3; do
    pid=$one grpc=$one_grpc probe=$one_probe
    cost_one=$(call)
    pid=$many grpc=$many_grpc probe=$many_probe
    cost_many=$(call)
    echo "round $round: CPU per cached call: $cost_one ns of 1, $cost_many ns of $count, ratio $(python3 -c "print(round($cost_many / $cost_one, 3))")"
done

before=$(cpu "$many")
sleep 10
echo "looking for changes: $(($(cpu "$many") - before)) ms of CPU in a second"

exchanges() { curl -fsS "$probe/metrics" | awk '/^token_broker_exchanges_total/ { sum += $2 } END { print sum + 0 }'; }
before_exchanges=$(exchanges)
for round in 1 2 3; do
    sed "s|^\"t/$((count / 2))\" = \"[0-9]|\"t/$((count / 2))\" = \"$round|" "$work/many/secrets.toml" >"$work/many/next"
    chmod 600 "$work/many/next"
    was=$(generation)
    before=$(cpu "$many")
    begun=$(now)
    mv "$work/many/next" "$work/many/secrets.toml"
    until [ "$(generation)" -gt "$was" ]; do sleep 0.05; done
    echo "reload $round that changes one of $count: in force after $(($(now) - begun)) ms, $((($(cpu "$many") - before) * 10)) ms of CPU, RSS $(field "$many" VmRSS) KiB"
done
sleep 1
echo "exchanges that the three reloads brought about: $(($(exchanges) - before_exchanges))"
