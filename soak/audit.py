"""Whoever got a token stands in the audit: see soak/audit.sh."""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import grpc
from stand import Stand
from tokenbroker.v1 import token_service_pb2 as pb
from tokenbroker.v1 import token_service_pb2_grpc

WORKSPACES = [f"audit/{n}" for n in range(50)]
ROOT = os.geteuid() == 0
FIRST_UID = 61_000  # of the callers: users that need not exist
REFUSED, RECOVERED = 0.3, 2.0  # seconds
DEADLINE = 5.0  # of a call, in seconds: one that comes near to it hung
DISK = 1024  # KiB
ENDED = 60.0  # seconds until what does not end is given up
CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.default_authority", "localhost"),
]


async def main():
    options = parse()
    if options.worker:
        return await work(options)
    with Stand(options.program) as stand:
        await killed(stand, options)
        await unread_pipe(stand)
        if ROOT:
            await full_disk(stand)
        else:
            print("not root: only one caller, and no disk that is full")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", help="the broker's binary")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--uid", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def config(sinks, more=""):
    return f"""
        [server]
        grpc_listen = "127.0.0.1:0"
        probe_listen = "127.0.0.1:0"
        [log]
        format = "json"
        level = "error,token_broker::app=info"
        [[grants]]
        caller = "loopback"
        workspaces = ["audit/*"]
        actions = ["get", "report"]
        [audit]
        {sinks}
        {more}
    """


# === what a client got ===


class Client:
    """Gets tokens of all Workspaces, and reports every so many of them as rejected, so that there is a new one."""

    def __init__(self, target, options=None):
        self.channel = grpc.aio.insecure_channel(target, options=options)
        self.service = token_service_pb2_grpc.TokenServiceStub(self.channel)
        self.got, self.last, self.turn = set(), {}, 0

    async def next(self, reports):
        """The same as `call`, for one Workspace after the other."""
        self.turn += 1
        return await self.call(reports, WORKSPACES[self.turn % len(WORKSPACES)])

    async def call(self, reports, workspace):
        """One call; None, or why it failed, and the seconds that it took."""
        known = self.last.get(workspace)
        begun = time.monotonic()
        try:
            if reports and known:
                request = pb.ReportRejectedTokenRequest(workspace=workspace, fingerprint=known, upstream_status=401)
                face, answer = "report", await self.service.ReportRejectedToken(request, timeout=DEADLINE)
            else:
                face, answer = "get", await self.service.GetToken(pb.GetTokenRequest(workspace=workspace), timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            return error, time.monotonic() - begun
        self.got.add((workspace, answer.token.fingerprint, face))
        self.last[workspace] = answer.token.fingerprint
        return None, time.monotonic() - begun


async def work(options):
    """A caller of its own: as many calls as it is told, ten at a time, whatever becomes of the broker meanwhile."""
    if ROOT:
        # Only now: Python itself may lie where nobody else may read.
        os.setgroups([])
        os.setgid(options.uid)
        os.setuid(options.uid)
    client, done, failed = Client(options.worker, CHANNEL), 0, 0

    async def run(lane):
        nonlocal done, failed
        while done < options.calls:
            error, _ = await client.next(reports=lane == 0)
            if error is None:
                done += 1
                continue
            failed += 1
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                await asyncio.sleep(0.02)

    lanes = [asyncio.create_task(run(lane)) for lane in range(10)]
    print("calling", flush=True)
    await asyncio.gather(*lanes)
    print(json.dumps({"done": done, "failed": failed, "got": sorted(client.got)}), flush=True)


def records(text):
    """What was recorded as (caller, Workspace, fingerprint, face), and how many lines are none."""
    released, broken = set(), 0
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if record["kind"] == "release":
            released.add((record["caller"], record["workspace"], record["fingerprint"], record["face"]))
    return released, broken


def check(got, released):
    missing = got - released
    if missing:
        sys.exit(f"{len(missing)} of {len(got)} were given a token without a record, such as {min(missing)}")


# === SIGKILL ===


async def killed(stand, options):
    with tempfile.TemporaryDirectory(prefix="token-broker-audit-") as directory:
        os.chmod(directory, 0o755)
        socket, audit = os.path.join(directory, "broker.sock"), os.path.join(directory, "audit.jsonl")
        uids = [FIRST_UID + n for n in range(options.callers)] if ROOT else [os.getuid()]
        grants = "".join(
            f'[[grants]]\ncaller = "unix:{uid}"\nworkspaces = ["audit/*"]\nactions = ["get", "report"]\n' for uid in uids
        )
        listener = f'[[listeners]]\nname = "local"\naddress = "unix:{socket}"\ncallers = "peer_credentials"\nunix_mode = "0666"\n'
        text = config(f'sinks = ["file"]\nfile = "{audit}"', listener + grants)
        serve = lambda: stand.serve(text, WORKSPACES)
        broker = serve()
        begun = time.monotonic()
        each = options.calls // len(uids)
        command = [sys.executable, __file__, "--worker", f"unix:{socket}", "--calls", str(each)]
        workers = [subprocess.Popen([*command, "--uid", str(uid)], stdout=subprocess.PIPE, text=True) for uid in uids]
        try:
            for worker in workers:
                if worker.stdout.readline() != "calling\n":
                    sys.exit("a caller did not start")
            lines = 0
            for _ in range(options.kills):
                # A good part of the calls lies between two of them.
                lines += each * len(uids) // (40 * (options.kills + 1))
                await until(lambda: releases(audit) >= lines or all(worker.poll() is not None for worker in workers))
                broker.kill()
                lines = releases(audit)
                broker = serve()
            said = await asyncio.gather(*(asyncio.to_thread(worker.communicate, timeout=1200) for worker in workers))
        finally:
            for worker in workers:
                worker.kill()
        seconds = time.monotonic() - begun
        broker.kill()
        with open(audit, encoding="utf-8") as file:
            released, broken = records(file.read())
    told = [json.loads(out) for out, _ in said]
    got = {(f"unix:{uid}", *one) for uid, answer in zip(uids, told) for one in map(tuple, answer["got"])}
    check(got, released)
    done, failed = (sum(answer[what] for answer in told) for what in ("done", "failed"))
    print(f"SIGKILL: {done} calls of {len(uids)} users in {seconds:.1f} s ({done / seconds:.0f} per second), {failed} failed; "
          f"killed {options.kills} times")
    print(f"  {len(got)} pairs of caller and token (and face) were received, {len(released)} recorded, 0 without a record; "
          f"{broken} lines cut off", flush=True)


def releases(audit):
    with open(audit, "rb") as file:
        return file.read().count(b'"kind":"release"')


async def until(holds, limit=600.0):
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        await asyncio.sleep(0.02)


# === sinks that fail ===


class Trouble:
    """Calls while the sink works, while it does not, and from when it works again on."""

    def __init__(self, name, broker):
        self.name, self.client = name, Client(broker.grpc)
        self.refusals, self.timed, self.others, self.answered, self.slowest = [], [], [], 0, 0.0

    async def works(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.round(reports=False, of=WORKSPACES[::2])
        if self.refusals or not self.answered:
            sys.exit(f"{self.name}: {len(self.refusals)} calls are refused before anything is wrong {self.others[:1]}")

    async def fails(self, seconds=4.0):
        """New tokens are refused, and quickly. What brings them also waits for the upstream, so that only those calls are
        timed that find them in the cache."""
        self.answered = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.round(reports=True)
            self.refusals.clear()
            self.timed += [took for _ in range(5) for took in await self.round(reports=False)]
        if not self.timed:
            sys.exit(f"{self.name}: nothing was refused")

    async def recovers(self):
        """The seconds until a new token is answered for again."""
        begun, before = time.monotonic(), len(self.client.got)
        while len(self.client.got) == before:
            if time.monotonic() - begun > 10 * RECOVERED:
                sys.exit(f"{self.name}: not answered for {10 * RECOVERED} s")
            await self.round(reports=False)
        return time.monotonic() - begun

    async def round(self, reports, of=WORKSPACES):
        """A call for each of these Workspaces, all at once; how long each took that was refused."""
        results = await asyncio.gather(*(self.client.call(reports, workspace) for workspace in of))
        refused = [took for error, took in results if error is not None and is_of_the_audit(error)]
        self.refusals += refused
        self.slowest = max(self.slowest, *refused, 0.0)
        self.answered += sum(error is None for error, _ in results)
        failed = [error for error, _ in results if error is not None and not is_of_the_audit(error)]
        self.others += [f"{error.code().name}: {error.details()}" for error in failed]
        await asyncio.sleep(0.01)
        return refused

    def report(self, took, released, broken):
        check({("loopback", *one) for one in self.client.got}, released)
        refusals = sorted(self.timed)
        at = lambda part: refusals[min(len(refusals) - 1, int(len(refusals) * part))] * 1000
        print(f"{self.name}: {len(refusals)} refused after p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, max {at(1):.0f} ms, with those "
              f"that waited for the upstream too {self.slowest * 1000:.0f} ms; {self.answered} answered by older records; {len(self.others)} failed otherwise {self.others[:1]}")
        print(f"  first new token {took * 1000:.0f} ms after the sink works again; {len(self.client.got)} received, "
              f"{len(released)} recorded, 0 without a record; {broken} lines cut off", flush=True)
        if refusals[-1] > REFUSED or took > RECOVERED:
            sys.exit(f"{self.name}: too slow")


def is_of_the_audit(error):
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return b"AUDIT_UNAVAILABLE" in details


async def full_disk(stand):
    with small_disk() as disk:
        audit, filler = os.path.join(disk, "audit.jsonl"), os.path.join(disk, "filler")
        broker = stand.serve(config(f'sinks = ["file"]\nfile = "{audit}"'), WORKSPACES)
        trouble = Trouble("disk full", broker)
        await trouble.works(0.5)
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 1024)
        # What is left of the last page is used up first.
        await trouble.fails()
        os.remove(filler)
        took = await trouble.recovers()
        broker.kill()
        with open(audit, encoding="utf-8") as file:
            trouble.report(took, *records(file.read()))


@contextlib.contextmanager
def small_disk():
    with tempfile.TemporaryDirectory(prefix="token-broker-disk-") as directory:
        options = f"size={DISK}k,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


async def unread_pipe(stand):
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    broker = stand.serve(config('sinks = ["stdout"]'), WORKSPACES, stdout=theirs)
    os.close(theirs)
    trouble, read = Trouble("pipe not read", broker), bytearray()
    # As much as the pipe holds is taken, and nobody reads it.
    await trouble.fails()
    reader = threading.Thread(target=drain, args=(ours, read), daemon=True)
    reader.start()
    took = await trouble.recovers()
    broker.kill()
    reader.join(ENDED)
    trouble.report(took, *records(read.decode()))


def drain(pipe, read):
    with open(pipe, "rb", buffering=0) as file:
        while chunk := file.read(65536):
            read.extend(chunk)


if __name__ == "__main__":
    asyncio.run(main())
