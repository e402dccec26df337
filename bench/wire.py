"""The cached GetToken of a broker against a bare tonic server that returns the same bytes. See bench/wire.sh."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

from stand import WORKSPACE, Stand, counter

METHOD = "/tokenbroker.v1.TokenService/GetToken"
OK = f'token_broker_rpc_calls_total{{method="{METHOD}",code="OK"}}'
CACHED = 'token_broker_tokens_served_total{source="cache"}'
ROUND = 60.0  # seconds that a round may take
BUSY = 0.9  # of a core: a round in which a server got less was disturbed


# The caller of the form with client certificates, and how many grants there are besides its own.
CALLER, OTHERS = "spiffe://bench.example/ns/weekly/sa/reader", 99


def main():
    options = parse()
    with Stand(options.program, options.client_core) as stand:
        serving, calling, more = certificates(stand) if options.mtls else ([], [], "")
        load = Load(options, calling)
        broker = stand.broker(core=options.server_core, more=more)
        # Its question also brings the token into the broker's cache.
        command = [options.bare, "127.0.0.1:0", f"http://{broker.grpc}", WORKSPACE, *serving]
        bare = stand.start(command, r"bare: (\d+) bytes on (\S+)\n", "stdout", options.server_core)
        size, bare.target = int(bare.ready[1]), bare.ready[2]
        broker.target = broker.listeners["mesh"] if options.mtls else broker.grpc
        for server in (bare, broker):
            load.run(server, options.calls // 4)
        rounds = []
        # Disturbed rounds are shown and don't count; some more are tried instead.
        while len(rounds) < 2 * options.rounds and len(undisturbed(rounds)) < options.rounds:
            rounds.append(one_round(load, bare, broker, options.calls, len(rounds)))
        is_recorded(stand.audit, CALLER if options.mtls else "loopback")
        report(options, size, rounds)


def certificates(stand):
    """What the bare server is given, what the callers are given, and the broker's listener and grants."""
    certificate, key, ca = stand.certificate("server", "DNS:localhost", "serverAuth")
    client, client_key, _ = stand.certificate("client", f"URI:{CALLER}", "clientAuth")
    grant = '[[grants]]\ncaller = "{}"\nworkspaces = ["{}"]\nactions = ["get", "watch", "report", "health"]\n'
    grants = [grant.format(f"spiffe://bench.example/ns/team-{n}/sa/*", "bench/**") for n in range(OTHERS)]
    listener = f"""
        [[listeners]]
        name = "mesh"
        address = "127.0.0.1:0"
        callers = "certificate"
        tls = {{ certificate_file = "{certificate}", key_file = "{key}", client_ca_file = "{ca}" }}
        trust_domains = ["bench.example"]
    """
    more = listener + "".join(grants) + grant.format("spiffe://bench.example/ns/weekly/sa/*", WORKSPACE)
    return [certificate, key, ca], [client, client_key, ca], more


def is_recorded(audit, caller):
    """That the audit was on: the first release to the caller stands there."""
    with open(audit, encoding="ascii") as file:
        records = [json.loads(line) for line in file]
    if not any(record.get("caller") == caller and record.get("workspace") == WORKSPACE for record in records):
        sys.exit(f"the audit says nothing of {caller}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the broker's binary")
    parser.add_argument("--bare", required=True, help="the binary of bench/bare.rs")
    parser.add_argument("--load", required=True, help="the binary of bench/load.rs")
    parser.add_argument("--mtls", action="store_true", help="behind TLS 1.3, with a client certificate")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=100_000, help="to each server in each round")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--streams", type=int, default=10, help="calls at a time on each connection")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--client-core", type=int, default=cores[-1])
    return parser.parse_args()


class Load:
    """bench/load.rs, which counts answers and does not look at them: a refusal is a success to it."""

    def __init__(self, options, certificates):
        self.command = ["taskset", "--cpu-list", str(options.client_core), options.load]
        self.shape = [str(options.connections), str(options.streams), WORKSPACE, *certificates]

    def run(self, server, calls):
        """Sends so many calls; returns calls per second, the server's CPU time per call in microseconds, and what part of
        a core it had while it was called."""
        before = server.cpu_seconds()
        ran = subprocess.run([*self.command, server.target, str(calls), *self.shape], capture_output=True, text=True, timeout=ROUND)
        cpu = server.cpu_seconds() - before
        said = re.fullmatch(r"(\d+) calls in ([0-9.]+) s, (\d+) bytes\n", ran.stdout)
        if ran.returncode or not said or int(said[1]) != calls:
            sys.exit(f"not all calls were answered:\n{ran.stdout}{ran.stderr}")
        took = float(said[2])
        return {"rate": calls / took, "cpu": cpu / calls * 1e6, "busy": cpu / took, "bytes": int(said[3]) / calls}


def one_round(load, bare, broker, calls, number):
    """One measurement of each, in turns first and second."""
    counted = [counter(broker, OK), counter(broker, CACHED)]
    servers = [("bare", bare), ("broker", broker)]
    if number % 2:
        servers.reverse()
    measured = {name: load.run(server, calls) for name, server in servers}
    ok, cached = counter(broker, OK) - counted[0], counter(broker, CACHED) - counted[1]
    if (ok, cached) != (calls, calls):
        sys.exit(f"of {calls} calls {ok} were OK and {cached} served from the cache")
    # What remains of the validity is a number that takes fewer bytes when it is small.
    if abs(measured["bare"]["bytes"] - measured["broker"]["bytes"]) > 8:
        sys.exit(f"the answers differ: {measured}")
    return measured


def undisturbed(rounds):
    return [r for r in rounds if min(server["busy"] for server in r.values()) >= BUSY]


def report(options, size, rounds):
    good = undisturbed(rounds)

    def median(pick):
        return statistics.median(pick(r["broker"], r["bare"]) for r in good or rounds)

    how = "TLS 1.3 with a client certificate" if options.mtls else "plaintext"
    print(f"{how}: {len(rounds)} rounds of {options.calls} calls to each, {size} bytes per answer, "
          f"{options.connections} connections with {options.streams} calls at a time")
    print(f"load average {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    print(f"all {options.calls * len(rounds)} calls to the broker were OK and served from the cache, by its own count\n")
    print("round   broker/s     bare/s  ratio   broker µs   bare µs   broker busy  bare busy")
    for number, r in enumerate(rounds, 1):
        a, b = r["broker"], r["bare"]
        print(f"{number:5}  {a['rate']:9.0f}  {b['rate']:9.0f}  {a['rate'] / b['rate']:.3f}   {a['cpu']:9.2f}  "
              f"{b['cpu']:8.2f}   {a['busy']:11.2f}  {b['busy']:9.2f}{'' if r in good else '   disturbed'}")
    if good:
        print(f"\nmedians of the {len(good)} rounds in which both servers had their core to themselves:")
    else:
        print("\nno round in which both servers had their core to themselves; medians of all, of which only CPU per call says much:")
    print(f"ratio of calls per second: {median(lambda a, b: a['rate'] / b['rate']):.3f}")
    print(f"calls per second: broker {median(lambda a, _: a['rate']):.0f}, bare {median(lambda _, b: b['rate']):.0f}")
    print(f"CPU per call: broker {median(lambda a, _: a['cpu']):.2f} µs, bare {median(lambda _, b: b['cpu']):.2f} µs, "
          f"ratio (bare over broker) {median(lambda a, b: b['cpu'] / a['cpu']):.3f}")


if __name__ == "__main__":
    main()
