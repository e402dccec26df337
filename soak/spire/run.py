"""SVIDs of a real SPIRE: see soak/spire.sh."""

import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time
import urllib.request

from parts import LIMIT, Child, Keeper, Spire, authorities_in, free_port, run, wait_for
from stand import ORGANISATION, SECRET, Stand

DOMAIN, OTHER = "prod.example", "other.example"
BROKER = "broker.prod.example"  # the DNS name in the broker's own SVID
GRANTED, UNGRANTED = "ns/payments/sa/api", "ns/reports/sa/api"
WORKSPACE = "payments/eu"
AUDIENCE = "token-broker"
PROMPT = 15.0  # seconds in which what SPIRE revoked must be refused here: SPIRE's own five, and a second of ours
ENDS = 2.0  # seconds in which a stream must end once its authority is gone from the file: one is promised

CONFIGURATION = """
[server]
probe_listen = "127.0.0.1:{probes}"
[log]
format = "json"
level = "info"
[audit]
sinks = ["file"]
file = "audit"
repeats_every = "1s"

[[listeners]]
name = "mesh"
address = "127.0.0.1:{mesh}"
callers = "certificate"
tls = {{ certificate_file = "own/svid.pem", key_file = "own/svid.key", client_ca_file = "own/bundle.pem" }}

# Whoever is of a trust domain that this file of authorities holds: both.
[[listeners]]
name = "both"
address = "127.0.0.1:{both}"
callers = "certificate"
tls = {{ certificate_file = "own/svid.pem", key_file = "own/svid.key", client_ca_file = "own/both.pem" }}
trust_domains = ["{domain}"]

[[listeners]]
name = "jwt"
address = "127.0.0.1:{jwt}"
callers = "bearer"

[[issuers]]
name = "spire"
issuer = "{issuer}"
audiences = ["{audience}"]
jwks_file = "own/jwks.json"
refresh_interval = "1s"

[[upstreams]]
name = "sandbox"
kind = "emnify"
url = "{upstream}"

[[workspaces]]
name = "{workspace}"
upstream = "sandbox"
organisation = {organisation}
credential = {{ application_token = {{ file = "secret" }} }}

[[grants]]
caller = "spiffe://{domain}/ns/payments/sa/*"
workspaces = ["payments/*"]
actions = ["get", "watch"]

[[grants]]
caller = "jwt:spire:spiffe://{domain}/ns/payments/sa/*"
workspaces = ["payments/*"]
actions = ["get"]
"""


class Table:
    """What was looked at, and what came of it."""

    def __init__(self):
        self.rows = []

    def add(self, what, found, good):
        self.rows.append((what, str(found), bool(good)))
        print(f"{'ok  ' if good else 'FAIL'} {what}: {found}", flush=True)

    def print(self):
        width = max(len(what) for what, _, _ in self.rows)
        print("\n" + "-" * (width + 40))
        for what, found, good in self.rows:
            print(f"{what:<{width}}  {'ok  ' if good else 'FAIL'}  {found}")

    def is_good(self):
        return all(good for _, _, good in self.rows)


class Broker:
    """`serve`, and the client's commands against it."""

    def __init__(self, stack, program, directory, upstream, issuer):
        self.program, self.directory = program, directory
        self.ports = {name: free_port() for name in ("probes", "mesh", "both", "jwt")}
        values = {"domain": DOMAIN, "issuer": issuer, "audience": AUDIENCE, "upstream": upstream, **self.ports}
        (directory / "secret").touch(0o600)
        (directory / "secret").write_text(SECRET)
        file = directory / "broker.toml"
        file.write_text(CONFIGURATION.format(workspace=WORKSPACE, organisation=ORGANISATION, **values))
        self.process = Child(stack, [program, "serve", "--config", file], directory / "broker.log").process
        wait_for("the broker", self._is_ready, LIMIT)

    def _is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError("the broker ended: " + (self.directory / "broker.log").read_text())
        with contextlib.suppress(OSError):
            return self.ask_probe("readyz") is not None
        return False

    def ask_probe(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['probes']}/{path}", timeout=LIMIT) as answer:
            return answer.read().decode()

    def metric(self, name, **labels):
        """The sum over all lines of this name that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in self.ask_probe("metrics").splitlines() if line.startswith(f"token_broker_{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(text in line for text in wanted))

    def with_svid(self, verb, svid, listener="mesh"):
        endpoint = f"https://127.0.0.1:{self.ports[listener]}"
        files = ["--ca", svid.bundle, "--cert", svid.certificate, "--key", svid.key, "--server-name", BROKER]
        return [self.program, verb, "--endpoint", endpoint, *files, WORKSPACE]

    def get(self, svid, listener="mesh"):
        return call(self.with_svid("get", svid, listener))

    def get_by_jwt(self, jwt):
        file = self.directory / "jwt"
        file.touch(0o600)
        file.write_text(jwt)
        return call([self.program, "get", "--endpoint", f"http://127.0.0.1:{self.ports['jwt']}", "--token-file", file,
                     WORKSPACE])

    def audit(self):
        return [json.loads(line) for line in (self.directory / "audit").read_text().splitlines()]


def call(command):
    """`""` if a token came, else what the client said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TOKEN_BROKER")}
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, env=clean)
    if done.returncode == 0 and len(done.stdout.strip()) > 20:
        return ""
    return done.stderr.strip() or f"no token, and code {done.returncode}"


class Caller(threading.Thread):
    """Fetches its SVID and calls with it, over and over, a new connection each time."""

    def __init__(self, stack, broker, workload, directory):
        super().__init__(daemon=True)
        self.broker, self.workload, self.directory = broker, workload, directory
        self.calls, self.failures, self.unfetched = 0, collections.Counter(), collections.Counter()
        self.serials, self.authorities = [], collections.Counter()
        self.over = threading.Event()
        stack.callback(self.end)

    def run(self):
        for number in itertools.count():
            begun = time.monotonic()
            directory = self.directory / str(number)
            self.once(directory)
            shutil.rmtree(directory, ignore_errors=True)
            if self.over.wait(max(0.0, 0.25 - (time.monotonic() - begun))):
                return

    def once(self, directory):
        try:
            svid = self.workload.fetch(directory)
            serial, authority = svid.facts()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            self.unfetched[str(error)] += 1
            return
        try:
            failure = self.broker.get(svid)
        except subprocess.TimeoutExpired:
            failure = "hung"
        self.calls += 1
        if serial not in self.serials:
            self.serials.append(serial)
        self.authorities[authority] += 1
        if failure:
            self.failures[f"{authority[:8]}: {failure}"] += 1
            print(f"     a call failed: {failure}", flush=True)

    def end(self):
        self.over.set()
        if self.is_alive():
            self.join(2 * LIMIT)


class Run:
    """The scenario."""

    def __init__(self, stack, options):
        self.stack, self.options, self.table = stack, options, Table()
        self.stand = stack.enter_context(Stand(str(options.program)))
        self.directory = pathlib.Path(self.stand.directory)
        times = (options.ca_ttl, options.svid_ttl)
        self.spire = Spire(stack, options.spire, self.directory / "s", DOMAIN, *times)
        self.other = Spire(stack, options.spire, self.directory / "o", OTHER, *times)
        self.spire.start_agent()
        self.granted = self.spire.workload("granted", GRANTED)
        self.ungranted = self.spire.workload("ungranted", UNGRANTED)
        self.own = self.spire.workload("own", "ns/broker/sa/token-broker", "-dns", BROKER)
        for workload in (self.granted, self.ungranted, self.own):
            wait_for(f"the SVID of {workload.id}", lambda: workload.is_known(self.directory / "first"), LIMIT)
        self.keeper = Keeper(stack, self.directory / "own", self.files)
        self.broker = Broker(stack, options.program, self.directory, self.stand.upstream, self.spire.issuer)
        self.caller = Caller(stack, self.broker, self.granted, self.directory / "calls")

    def files(self):
        """What the broker reads: its own SVID, authorities, and the keys of JWT-SVIDs."""
        svid = self.own.fetch(self.directory / "kept")
        bundle = svid.bundle.read_bytes()
        return {
            "svid.key": svid.key.read_bytes(),
            "svid.pem": svid.certificate.read_bytes(),
            "bundle.pem": bundle,
            "both.pem": bundle + self.other.ask("bundle", "show").encode(),
            "jwks.json": self.spire.ask("bundle", "show", "-format", "spiffe").encode(),
        }

    def everything(self):
        self.who_is_let_in()
        self.jwt_svids()
        self.caller.start()
        self.rotation_by_itself()
        self.rotation_by_command()
        self.jwt_rotation_by_command()
        self.caller.end()
        self.figures()
        self.audit()

    def refused_in_handshake(self, what, svid, listener, reason):
        def counted():
            refused = self.broker.metric("tls_handshakes_failed_total", listener=listener, reason=reason)
            return refused, self.broker.metric("rpc_calls_total")

        before = counted()
        said = self.broker.get(svid, listener)
        refused, reached = (after - so_far for after, so_far in zip(counted(), before, strict=True))
        # Once the callers call, others' calls are counted too.
        good = said and refused >= 1 and (reached == 0 or self.caller.calls)
        self.table.add(what, f"{said} ({refused:.0f} failed handshakes: {reason})", good)

    def who_is_let_in(self):
        svid = self.granted.fetch(self.directory / "granted")
        said = self.broker.get(svid)
        self.table.add("an SVID with a grant", said or "a token", not said)
        said = self.broker.get(self.ungranted.fetch(self.directory / "ungranted"))
        self.table.add("an SVID without a grant", said, "CALLER_FORBIDDEN" in said)
        foreign = self.other.mint(GRANTED, 60, self.directory / "foreign")
        foreign.bundle = svid.bundle  # so that it trusts the broker
        self.refused_in_handshake("an SVID of another trust domain", foreign, "mesh", "certificate")
        self.refused_in_handshake("the same, its authority in the file", foreign, "both", "identity")
        said = self.broker.get(svid, "both")
        self.table.add("beside it, an SVID of a listed trust domain", said or "a token", not said)

    def jwt_svids(self):
        jwt = self.granted.jwt(AUDIENCE)
        said = self.broker.get_by_jwt(jwt)
        self.table.add("a JWT-SVID with a grant", said or "a token", not said)
        said = self.broker.get_by_jwt(self.granted.jwt("somebody-else"))
        self.table.add("a JWT-SVID for another audience", said, "CALLER_UNAUTHENTICATED" in said)
        said = self.broker.get_by_jwt(self.ungranted.jwt(AUDIENCE))
        self.table.add("a JWT-SVID without a grant", said, "CALLER_FORBIDDEN" in said)

    def called_with(self, authority, times=5):
        """Waits until the callers' SVIDs are of this authority."""
        enough = lambda: self.caller.authorities[authority] >= times  # noqa: E731
        wait_for(f"SVIDs of {authority[:8]}", enough, self.options.svid_ttl + LIMIT)

    def rotation_by_itself(self):
        first = self.spire.authorities()["active"]
        another = lambda: {self.spire.authorities()["active"]} - {first}  # noqa: E731
        (second,) = wait_for("SPIRE to rotate its authority", another, self.options.ca_ttl + LIMIT)
        self.called_with(second)
        calls = f"{self.caller.authorities[first]} and {self.caller.authorities[second]} calls"
        failed = sum(self.caller.failures.values())
        self.table.add("SPIRE rotates its authority by itself", f"{calls}, {failed} failed", not failed)

    def rotation_by_command(self):
        """By its runbook: prepare, let it spread, activate, taint, let SVIDs be renewed, revoke."""
        old = self.spire.authorities()["active"]
        pinned = self.spire.mint(GRANTED, self.options.ca_ttl, self.directory / "pinned")
        pinned.bundle = self.directory / "own" / "bundle.pem"  # what it trusts the broker by is up to date
        _, authority = pinned.facts()
        stream = Stream(self.stack, self.broker.with_svid("watch", pinned), self.directory / "stream")
        prepared = self.spire.prepare()
        wait_for("the prepared authority in the file", lambda: prepared in self.trusted(), LIMIT)
        time.sleep(2)  # a second is promised until it counts
        self.spire.authority("activate", prepared)
        self.spire.authority("taint", old)
        self.called_with(prepared)
        wait_for("the broker's own SVID of the new authority", lambda: self.own_authority() == prepared, 2 * LIMIT)
        time.sleep(2)
        said = self.broker.get(pinned)
        good = not said and authority == old and not stream.ended()
        found = said or stream.ended() or "a token, and its stream is open"
        self.table.add("an SVID of the old authority, before it is revoked", found, good)
        fresh = self.spire.mint(GRANTED, self.options.ca_ttl, self.directory / "fresh")
        fresh.bundle = pinned.bundle
        other = Stream(self.stack, self.broker.with_svid("watch", fresh), self.directory / "other-stream")
        self.revoke(old, pinned, stream)
        said = other.ended()
        self.table.add("a stream of an SVID of the new authority stays", said or "open", not said)
        failed = sum(self.caller.failures.values())
        found = f"{self.caller.authorities[prepared]} calls with SVIDs of the new one, {failed} failed"
        self.table.add("SPIRE rotates its authority by command", found, not failed)

    def trusted(self):
        """The authorities in the broker's file."""
        return authorities_in(self.keeper.last["bundle.pem"])

    def own_authority(self):
        return self.own.fetch(self.directory / "looked").facts()[1]

    def revoke(self, old, pinned, stream):
        self.spire.authority("revoke", old)
        begun = time.monotonic()
        wait_for("the revoked authority to leave the file", lambda: old not in self.trusted(), LIMIT)
        replaced = self.keeper.changes["bundle.pem"][-1]
        ended = wait_for("the stream to end", stream.ended, LIMIT)
        at = time.monotonic()
        self.table.add("revoked: its file replaced after", f"{replaced - begun:.1f} s", replaced - begun < PROMPT)
        self.table.add("then its open stream ends after", f"{at - replaced:.1f} s ({ended})",
                       at - replaced < ENDS and "CALLER_UNAUTHENTICATED" in ended)
        ends = run("openssl", "x509", "-in", pinned.certificate, "-noout", "-checkend", "10")
        self.refused_in_handshake(f"an SVID of the revoked authority ({ends.strip().lower()} in 10 s)", pinned, "mesh",
                                  "certificate")
        self.called_with(self.spire.authorities()["active"], self.caller.calls // 1000 + 20)

    def jwt_rotation_by_command(self):
        """The same with the keys of JWT-SVIDs."""
        old, jwt = self.spire.authorities("jwt")["active"], self.granted.jwt(AUDIENCE)
        said = self.broker.get_by_jwt(jwt)
        self.table.add("a JWT-SVID of the old key", said or "a token", not said)
        prepared = self.spire.prepare("jwt")
        wait_for("the prepared key in the file", lambda: prepared in self.keys(), LIMIT)
        time.sleep(3)  # the broker looks once a second
        self.spire.authority("activate", prepared, "jwt")
        self.spire.authority("taint", old, "jwt")
        renewed = wait_for("a JWT-SVID of the new key", lambda: self.another_jwt(jwt), LIMIT)
        said = self.broker.get_by_jwt(renewed)
        self.table.add("a JWT-SVID of the new key", said or "a token", not said)
        self.spire.authority("revoke", old, "jwt")
        wait_for("the revoked key to leave the file", lambda: old not in self.keys(), LIMIT)
        left = self.keeper.changes["jwks.json"][-1]
        said = wait_for("a JWT-SVID of the revoked key to be refused", lambda: self.broker.get_by_jwt(jwt), LIMIT)
        taken = time.monotonic() - left
        self.table.add("a JWT-SVID of the revoked key", f"{said}; {taken:.1f} s after its key left the file",
                       "CALLER_UNAUTHENTICATED" in said and taken < 2 * ENDS)
        said = self.broker.get_by_jwt(renewed)
        self.table.add("meanwhile one of the new key", said or "a token", not said)

    def keys(self):
        return {key.get("kid") for key in json.loads(self.keeper.last["jwks.json"])["keys"]}

    def another_jwt(self, jwt):
        found = self.granted.jwt(AUDIENCE)
        return None if found == jwt else found

    def figures(self):
        caller, add = self.caller, self.table.add
        add("calls, each with an SVID fetched for it", caller.calls, caller.calls > 50)
        add("their SVIDs", f"{len(caller.serials)} ({len(caller.serials) - 1} rotations)", len(caller.serials) > 3)
        add("authorities of these", len([known for known in caller.authorities if known]), len(caller.authorities) >= 3)
        add("calls failed", dict(caller.failures) or 0, not caller.failures)
        add("SVIDs that could not be fetched", dict(caller.unfetched) or 0, not caller.unfetched)
        own, bundle, jwks = (len(self.keeper.changes[name]) for name in ("svid.pem", "bundle.pem", "jwks.json"))
        kept = f"{own}, {bundle}, {jwks}"
        add("the broker's own SVIDs, files of authorities and of keys", kept, own > 3 and bundle > 3)
        add("files that could not be kept", self.keeper.failed or 0, not self.keeper.failed)
        taken = self.broker.metric("tls_reloads_total", listener="mesh", outcome="accepted")
        refused = self.broker.metric("tls_reloads_total", listener="mesh", outcome="refused")
        stale = self.broker.metric("tls_files_refused", listener="mesh")
        found = f"{taken:.0f}, {refused:.0f}, {stale:.0f}"
        add("readings of TLS files: taken, refused for now, refused still", found, not stale and taken > 3)

    def audit(self):
        time.sleep(2.5)  # refusals and repeats are written once per second here
        granted, ungranted = f"spiffe://{DOMAIN}/{GRANTED}", f"spiffe://{DOMAIN}/{UNGRANTED}"
        records = self.broker.audit()
        of = lambda **wanted: [record for record in records if wanted.items() <= record.items()]  # noqa: E731
        count = lambda found: sum(record.get("count", 1) for record in found)  # noqa: E731
        gets = {"caller": granted, "face": "get", "workspace": WORKSPACE}
        got = of(kind="release", **gets) + of(kind="repeats", **gets)
        add = self.table.add
        # One call is made before those of the thread, one by the other listener, one with the pinned SVID.
        expected = self.caller.calls - sum(self.caller.failures.values()) + 3
        add(f"audit: gets of {granted}", f"{count(got)} of {expected}", count(got) == expected)
        watched = of(kind="release", caller=granted, face="watch")
        add("audit: its stream", len(watched), len(watched) >= 1)
        denied = of(kind="denials", caller=ungranted, reason="CALLER_FORBIDDEN", action="get")
        add(f"audit: refusals of {ungranted}", count(denied), count(denied) == 1)
        by_jwt = of(kind="release", caller=f"jwt:spire:{granted}")
        add(f"audit: releases to jwt:spire:{granted}", count(by_jwt), by_jwt)
        named = {record["caller"] for record in records if record.get("caller")}
        known = {granted, ungranted, f"jwt:spire:{granted}", f"jwt:spire:{ungranted}"}
        add("audit: nobody else is named", sorted(named - known) or "nobody", named == known)


class Stream:
    """`watch`, with an SVID that nobody renews."""

    def __init__(self, stack, command, file):
        self.file = file
        Child(stack, command, file)
        wait_for("the stream's token", lambda: self.file.exists() and self.said(), LIMIT)
        self.begun = len(self.said())

    def said(self):
        return self.file.read_text().splitlines()

    def ended(self):
        return " ".join(self.said()[self.begun :])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--spire", type=pathlib.Path, required=True, help="where spire-server and spire-agent are")
    parser.add_argument("--ca-ttl", type=int, default=240, help="life of SPIRE's authorities in seconds")
    parser.add_argument("--svid-ttl", type=int, default=60, help="life of SVIDs in seconds")
    options = parser.parse_args()
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        run_ = Run(stack, options)
        try:
            run_.everything()
        except RuntimeError as error:
            run_.table.add("the run", error, False)
        run_.table.add("seconds", f"{time.monotonic() - begun:.0f}", True)
        run_.table.print()
    raise SystemExit(0 if run_.table.is_good() else 1)


if __name__ == "__main__":
    main()
