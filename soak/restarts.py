"""Restarts under load: see soak/restarts.sh."""

import argparse
import asyncio
import collections
import json
import sys
import time

import grpc
from stand import WORKSPACE, Stand, counter
from tokenbroker.v1 import token_service_pb2 as pb
from tokenbroker.v1 import token_service_pb2_grpc

OK = 'token_broker_rpc_calls_total{method="/tokenbroker.v1.TokenService/GetToken",code="OK"}'
EXIT = 10.0  # seconds that a broker may take to end
LATE = 20.0  # seconds after which it is given up
CHANNEL = [
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # Else it is the list of addresses, which is no authority (RFC 3986 §3.2) and refused as malformed by the broker.
    ("grpc.default_authority", "localhost"),
    # As quick as a restart, so that a run is short; the default is a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Load:
    """Calls at a fixed rate, whether or not earlier ones are answered. No call is tried again by this program."""

    def __init__(self, service, rate, deadline):
        self.service, self.rate, self.deadline = service, rate, deadline
        self.request = pb.GetTokenRequest(workspace=WORKSPACE)
        self.ok, self.failed, self.times, self.late = 0, collections.Counter(), [], 0.0
        self.calls = set()

    async def run(self):
        begun, sent = time.monotonic(), 0
        while True:
            now = time.monotonic()
            due = int((now - begun) * self.rate)
            self.late = max(self.late, (due - sent) / self.rate)
            for _ in range(sent, due):
                call = asyncio.create_task(self.call())
                self.calls.add(call)
                call.add_done_callback(self.calls.discard)
            sent = due
            await asyncio.sleep(0.005)

    async def call(self):
        begun = time.monotonic()
        try:
            await self.service.GetToken(self.request, timeout=self.deadline)
        except grpc.aio.AioRpcError as error:
            self.failed[f"{error.code().name}: {error.details()}"] += 1
        else:
            self.ok += 1
            self.times.append(time.monotonic() - begun)

    async def finish(self):
        while self.calls:
            await asyncio.wait(self.calls)


async def main():
    options = parse()
    with Stand(options.program) as stand:
        brokers = [stand.broker(), stand.broker()]
        targets = ",".join(broker.grpc for broker in brokers)
        async with grpc.aio.insecure_channel(f"ipv4:{targets}", options=CHANNEL) as channel:
            load = Load(token_service_pb2_grpc.TokenServiceStub(channel), options.rate, options.deadline)
            begun = time.monotonic()
            calling = asyncio.create_task(load.run())
            for broker in brokers:
                await is_called(broker, load)
            exits = [await restart(stand, brokers, n % 2, load, options.pause) for n in range(options.restarts)]
            calling.cancel()
            await load.finish()
            sys.exit(report(load, exits, time.monotonic() - begun))


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the broker's binary")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rate", type=int, default=2000, help="calls per second")
    parser.add_argument("--deadline", type=float, default=1.0, help="of a call, in seconds")
    parser.add_argument("--pause", type=float, default=1.0, help="before each restart, in seconds")
    return parser.parse_args()


async def restart(stand, brokers, which, load, pause):
    """A pause, SIGTERM, then a new broker at the same addresses, up to when the client calls it. Returns the seconds to the end."""
    old = brokers[which]
    await asyncio.sleep(pause)
    code, took = await asyncio.to_thread(old.terminate, LATE)
    if code != 0:
        sys.exit(f"the broker ended with {code}")
    brokers[which] = await asyncio.to_thread(stand.broker, old.grpc, old.probes)
    await is_called(brokers[which], load)
    print(f"broker {which + 1} ended after {took * 1000:.0f} ms", flush=True)
    return took


async def is_called(broker, load):
    deadline = time.monotonic() + LATE
    while await asyncio.to_thread(counter, broker, OK) == 0:
        if time.monotonic() > deadline:
            sys.exit(f"a new broker answers no call; failed so far: {dict(load.failed)}")
        await asyncio.sleep(0.05)


def report(load, exits, seconds):
    times = sorted(load.times)
    at = lambda part: times[min(len(times) - 1, int(len(times) * part))] * 1000
    failed = load.failed.total()
    print(f"\n{len(exits)} restarts, {load.ok + failed} calls in {seconds:.1f} s ({(load.ok + failed) / seconds:.0f} per second)")
    print(f"failed: {failed}")
    for what, times_seen in load.failed.most_common():
        print(f"  {times_seen} × {what}")
    print(f"answered after p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, max {at(1):.0f} ms; "
          f"the sender was up to {load.late * 1000:.0f} ms late")
    print(f"exit: median {sorted(exits)[len(exits) // 2] * 1000:.0f} ms, max {max(exits) * 1000:.0f} ms (at most {EXIT:.0f} s)")
    return 1 if failed or max(exits) > EXIT else 0


if __name__ == "__main__":
    asyncio.run(main())
