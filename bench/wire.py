"""The cached GetToken of a broker against a bare tonic server that returns the same bytes. See bench/wire.sh."""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from stand import WORKSPACE, Stand, counter

METHOD = "/tokenbroker.v1.TokenService/GetToken"
OK = f'token_broker_rpc_calls_total{{method="{METHOD}",code="OK"}}'
CACHED = 'token_broker_tokens_served_total{source="cache"}'
ROUND = 60.0  # seconds that a round may take
BUSY = 0.9  # of a core: a round in which a server got less was disturbed


def main():
    options = parse()
    with Stand(options.program, options.client_core) as stand, tempfile.NamedTemporaryFile() as request:
        request.write(framed_request())
        request.flush()
        load = Load(options, request.name)
        broker = stand.broker(core=options.server_core)
        # Its question also brings the token into the broker's cache.
        command = [options.bare, "127.0.0.1:0", f"http://{broker.grpc}", WORKSPACE]
        bare = stand.start(command, r"bare: (\d+) bytes on (\S+)\n", "stdout", options.server_core)
        size, bare.grpc = int(bare.ready[1]), bare.ready[2]
        for server in (bare, broker):
            load.run(server, options.calls // 4)
        rounds = []
        # Disturbed rounds are shown and don't count; some more are tried instead.
        while len(rounds) < 2 * options.rounds and len(undisturbed(rounds)) < options.rounds:
            rounds.append(one_round(load, bare, broker, options.calls, len(rounds)))
        report(options, size, rounds)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the broker's binary")
    parser.add_argument("--bare", required=True, help="the binary of bench/bare.rs")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=100_000, help="to each server in each round")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--streams", type=int, default=10, help="calls at a time on each connection")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--client-core", type=int, default=cores[-1])
    return parser.parse_args()


def framed_request():
    name = WORKSPACE.encode()
    message = b"\x0a" + bytes([len(name)]) + name
    return b"\x00" + len(message).to_bytes(4, "big") + message


class Load:
    """h2load, which knows HTTP/2 and nothing of gRPC: a refusal is a success to it, and so are bytes that are none."""

    def __init__(self, options, request):
        self.command = ["taskset", "--cpu-list", str(options.client_core), "h2load", "--threads=1"]
        self.command += [f"--clients={options.connections}", f"--max-concurrent-streams={options.streams}"]
        self.command += [f"--data={request}", "--header=content-type: application/grpc", "--header=te: trailers"]

    def run(self, server, calls):
        """Sends so many calls; returns calls per second and the server's CPU time per call in microseconds."""
        before, begun = server.cpu_seconds(), time.monotonic()
        command = [*self.command, f"--requests={calls}", f"http://{server.grpc}{METHOD}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=ROUND, check=True)
        cpu, took = server.cpu_seconds() - before, time.monotonic() - begun
        if f" {calls} succeeded, 0 failed, 0 errored, 0 timeout" not in ran.stdout:
            sys.exit(f"not all calls were answered:\n{ran.stdout}")
        rate = float(re.search(r"finished in [^,]*, ([0-9.]+) req/s", ran.stdout)[1])
        return {"rate": rate, "cpu": cpu / calls * 1e6, "busy": cpu / took}


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
    return measured


def undisturbed(rounds):
    return [r for r in rounds if min(server["busy"] for server in r.values()) >= BUSY]


def report(options, size, rounds):
    good = undisturbed(rounds)

    def median(pick):
        return statistics.median(pick(r["broker"], r["bare"]) for r in good or rounds)

    print(f"{len(rounds)} rounds of {options.calls} calls to each, {size} bytes per answer, "
          f"{options.connections} connections with {options.streams} calls at a time")
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
