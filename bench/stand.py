"""Brokers as their own processes, over one simulated upstream, for bench/ and soak/. Standard library only.

Everything listens on loopback, on ports that the system chooses, and ends with the block that started it.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
import urllib.request

WORKSPACE = "bench/weekly"
# What `dev` gives its sample Workspace whose tokens live a week: no renewal falls into a run.
ORGANISATION, SECRET = 2, "sandbox-application-token-2"

LOGINS = 100_000  # in five minutes, where emnify allows a hundred
START = 30.0  # seconds a process may take until it serves


class Process:
    """A child that says on one of its pipes that it is ready, and is killed if it is still there at the end."""

    def __init__(self, command, ready, stream, core=None, stdout=subprocess.DEVNULL):
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        pipes = {"stdout": stdout, "stderr": subprocess.DEVNULL, stream: subprocess.PIPE}
        self.child = subprocess.Popen([*pinned, *command], stdin=subprocess.DEVNULL, **pipes)
        self.said = ""  # up to when it was ready
        try:
            self.ready = self._wait_for(re.compile(ready), getattr(self.child, stream).fileno())
        except BaseException:
            self.kill()
            raise

    def _wait_for(self, pattern, pipe):
        """Reads up to the match. Nothing here writes enough afterwards to fill the pipe."""
        said, deadline = b"", time.monotonic() + START
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                chunk = os.read(pipe, 65536)
                said += chunk
                self.said = said.decode(errors="replace")
                if found := pattern.search(self.said):
                    return found
                if not chunk:
                    break
        raise RuntimeError(f"{self.child.args} is not ready: {self.said}")

    def cpu_seconds(self):
        """User and system time so far, to a hundredth of a second."""
        with open(f"/proc/{self.child.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self, limit):
        """SIGTERM; returns the exit code and the seconds it took."""
        begun = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(limit), time.monotonic() - begun

    def kill(self):
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdout, self.child.stderr):
            if pipe:
                pipe.close()


class Stand:
    """The simulated upstream and the files that brokers share."""

    def __init__(self, program, core=None):
        self.program, self.core = program, core
        self.stack = contextlib.ExitStack()
        self.directory = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="token-broker-bench-"))
        any_port = [f"--{name}-listen=127.0.0.1:0" for name in ("grpc", "probe", "sandbox")]
        dev = self.start([program, "dev", *any_port], r"upstream\s+(http://\S+).*Ctrl-C", "stdout", core)
        self.upstream = dev.ready[1]
        # Every broker that starts costs a login, and more than emnify's hundred may start in five minutes.
        self._control("limits", {"logins": LOGINS})
        self._write("secret", SECRET)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, command, ready, stream, core=None, stdout=subprocess.DEVNULL):
        process = Process(command, f"(?s){ready}", stream, core, stdout)
        self.stack.callback(process.kill)
        return process

    def broker(self, grpc="127.0.0.1:0", probes="127.0.0.1:0", core=None, log="warn,token_broker::app=info", more=""):
        """`serve` with one Workspace, ready, with a record of who gets which token in `audit`. `more` is added to its
        configuration."""
        return self.serve(
            f"""
            [server]
            grpc_listen = "{grpc}"
            probe_listen = "{probes}"
            [log]
            format = "json"
            level = "{log}"
            [[grants]]
            caller = "loopback"
            workspaces = ["bench/*"]
            actions = ["get", "watch", "report", "health"]
            [audit]
            sinks = ["file"]
            file = "audit.jsonl"
            {more}
            """,
            [WORKSPACE],
            core,
        )

    def serve(self, config, workspaces, core=None, stdout=subprocess.DEVNULL):
        """`serve` by this configuration, which logs JSON, with these Workspaces, ready. Its `grpc` and `probes`, and its
        `listeners` by their names, are addresses."""
        workspaces = "".join(
            f"""
            [[workspaces]]
            name = "{name}"
            upstream = "sandbox"
            organisation = {ORGANISATION}
            credential = {{ application_token = {{ file = "secret" }} }}
            """
            for name in workspaces
        )
        file = self._write(
            "broker.toml",
            f"""
            {config}
            [limits]  # One caller stands for a fleet here, and asks as fast as it can.
            get_per_second = 1000000
            get_burst = 1000000
            report_per_second = 1000000
            report_burst = 1000000
            [engine]
            # A token that was just exchanged may be reported as rejected a moment later.
            min_gap = "100ms"
            [[upstreams]]
            name = "sandbox"
            kind = "emnify"
            url = "{self.upstream}"
            budget = {{ logins = {LOGINS}, per = "5m" }}
            {workspaces}
            """,
        )
        command, ready = [self.program, "serve", "--config", file], r'(\{[^\n]*"serving"[^\n]*\})\n'
        broker = self.start(command, ready, "stderr", core, stdout)
        said = json.loads(broker.ready[1])
        broker.grpc, broker.probes = said["grpc"], said["probes"]
        lines = [json.loads(line) for line in broker.said.splitlines() if '"listening"' in line]
        broker.listeners = {line["listener"]: line["address"] for line in lines}
        return broker

    @property
    def audit(self):
        """The records of all brokers of this stand."""
        return os.path.join(self.directory, "audit.jsonl")

    def certificate(self, name, san, usage):
        """A certificate with its key of the stand's own authority, by openssl: the paths of both, and the authority's."""
        of = lambda file: os.path.join(self.directory, file)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        if not os.path.exists(of("ca.pem")):
            self._openssl([*key, "-subj", "/CN=bench", "-keyout", of("ca.key"), "-out", of("ca.pem"),
                           "-addext", "keyUsage=critical,keyCertSign,cRLSign"])
        self._openssl([*key, "-subj", "/", "-keyout", of(f"{name}.key"), "-out", of(f"{name}.pem"), "-CA", of("ca.pem"),
                       "-CAkey", of("ca.key"), "-addext", f"subjectAltName={san}", "-addext", f"extendedKeyUsage={usage}",
                       "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature"])
        return of(f"{name}.pem"), of(f"{name}.key"), of("ca.pem")

    def _openssl(self, arguments):
        subprocess.run(["openssl", "req", "-x509", *arguments], check=True, capture_output=True, timeout=START)

    def _control(self, what, body):
        request = urllib.request.Request(f"{self.upstream}/_control/{what}", json.dumps(body).encode(), method="PUT")
        request.add_header("content-type", "application/json")
        urllib.request.urlopen(request, timeout=10).close()

    def _write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        return path


def counter(broker, name):
    """One counter of a broker, by its name with labels."""
    with urllib.request.urlopen(f"http://{broker.probes}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name + " ")]
    if len(values) != 1:
        raise RuntimeError(f"{name} stands {len(values)} times in the metrics")
    return int(float(values[0]))
