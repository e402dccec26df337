"""A SPIRE server, its agent, and who asks them: see soak/spire.sh. Standard library only."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

LIMIT = 30.0  # seconds for any one command
NODE = "node"  # path of the SPIFFE ID by which entries name the agent

SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{directory}/server.sock"
  trust_domain = "{domain}"
  data_dir = "{directory}"
  log_level = "INFO"
  log_file = "{directory}/server.log"
  ca_ttl = "{ca_ttl}s"
  default_x509_svid_ttl = "{svid_ttl}s"
  default_jwt_svid_ttl = "{svid_ttl}s"
  jwt_issuer = "{issuer}"
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{directory}/server.sqlite3"
    }}
  }}
  KeyManager "memory" {{
    plugin_data {{}}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
}}
"""

AGENT = """
agent {{
  data_dir = "{directory}/agent"
  log_level = "INFO"
  log_file = "{directory}/agent.log"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{directory}/agent.sock"
  trust_bundle_path = "{directory}/bootstrap.pem"
  trust_domain = "{domain}"
}}
plugins {{
  KeyManager "memory" {{
    plugin_data {{}}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
  WorkloadAttestor "unix" {{
    plugin_data {{
      discover_workload_path = true
      workload_size_limit = -1
    }}
  }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command, given=""):
    """What it said on stdout, given that on stdin. Fails if it fails or hangs."""
    command = [str(word) for word in command]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{pathlib.Path(command[0]).name} {' '.join(command[1:4])}: {done.stderr or done.stdout}")
    return done.stdout


def wait_for(what, condition, limit):
    """What the condition gives, as soon as that is true. Fails after so many seconds."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {limit:.0f} s in vain for {what}")
        time.sleep(0.1)
    return found


@functools.cache
def authority_id(certificate):
    """Of an authority in PEM form, as SPIRE names it: by its subject key identifier."""
    said = run("openssl", "x509", "-noout", "-ext", "subjectKeyIdentifier", given=certificate)
    return said.strip().splitlines()[-1].strip().replace(":", "").lower()


def authorities_in(bundle):
    """The IDs of the authorities in a file of them."""
    end = "-----END CERTIFICATE-----"
    return {authority_id(part.strip() + "\n" + end + "\n") for part in bundle.decode().split(end) if part.strip()}


class Child:
    """A process whose output goes to a file, and which ends with the block that started it."""

    def __init__(self, stack, command, output):
        with open(output, "ab") as file:
            command = [str(word) for word in command]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        stack.callback(self.end)

    def end(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(5)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Spire:
    """A server of a trust domain."""

    def __init__(self, stack, programs, directory, domain, ca_ttl, svid_ttl):
        self.stack, self.programs, self.directory, self.domain = stack, programs, directory, domain
        self.issuer = f"https://spire.{domain}"
        directory.mkdir(parents=True)
        self.values = {"domain": domain, "directory": directory, "port": free_port(), "issuer": self.issuer}
        file = directory / "server.conf"
        file.write_text(SERVER.format(ca_ttl=ca_ttl, svid_ttl=svid_ttl, **self.values))
        Child(stack, [programs / "spire-server", "run", "-config", file], directory / "server.log")
        wait_for("the SPIRE server", lambda: self._is_healthy("server"), LIMIT)

    def _is_healthy(self, which):
        command = [self.programs / f"spire-{which}", "healthcheck", "-socketPath", self.directory / f"{which}.sock"]
        return subprocess.run(command, capture_output=True, timeout=LIMIT).returncode == 0

    def ask(self, *words):
        """A command of the server's."""
        verbs = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
        socket_path = ["-socketPath", self.directory / "server.sock"]
        return run(self.programs / "spire-server", *verbs, *socket_path, *words[len(verbs) :])

    def start_agent(self):
        """Attested by a token that works once."""
        token = json.loads(self.ask("token", "generate", "-spiffeID", self.id(NODE), "-output", "json"))["value"]
        (self.directory / "token").write_text(token)
        (self.directory / "bootstrap.pem").write_text(self.ask("bundle", "show"))
        file = self.directory / "agent.conf"
        file.write_text(AGENT.format(**self.values))
        command = [self.programs / "spire-agent", "run", "-config", file, "-joinTokenFile", self.directory / "token"]
        Child(self.stack, command, self.directory / "agent.log")
        wait_for("the SPIRE agent", lambda: self._is_healthy("agent"), LIMIT)

    def id(self, path):
        return f"spiffe://{self.domain}/{path}"

    def workload(self, name, path, *options):
        """Somebody with an entry, told by where its program is."""
        program = self.directory / "workloads" / name
        program.parent.mkdir(exist_ok=True)
        try:
            os.link(self.programs / "spire-agent", program)
        except OSError:  # another file system
            shutil.copy2(self.programs / "spire-agent", program)
        selector = f"unix:path:{program.resolve()}"
        entry = ["-parentID", self.id(NODE), "-spiffeID", self.id(path), "-selector", selector, *options]
        self.ask("entry", "create", *entry)
        return Workload(program, self.directory / "agent.sock", self.id(path))

    def mint(self, path, seconds, directory):
        """An SVID without an agent, which lasts for as long as its authority at most."""
        directory.mkdir()
        self.ask("x509", "mint", "-spiffeID", self.id(path), "-ttl", f"{seconds}s", "-write", str(directory))
        return Svid(directory / "svid.pem", directory / "key.pem", directory / "bundle.pem")

    def authorities(self, kind="x509"):
        """IDs of the authorities: `active`, `prepared` and `old`, where there are such."""
        said = json.loads(self.ask("localauthority", kind, "show", "-output", "json"))
        return {state: of["authority_id"] for state, of in said.items() if of and of.get("authority_id")}

    def prepare(self, kind="x509"):
        """The next authority, by its ID."""
        said = json.loads(self.ask("localauthority", kind, "prepare", "-output", "json"))
        return said["prepared_authority"]["authority_id"]

    def authority(self, verb, identity, kind="x509"):
        """`activate`, `taint` or `revoke` one."""
        self.ask("localauthority", kind, verb, "-authorityID", identity, "-output", "json")


class Svid:
    """Files of an SVID."""

    def __init__(self, certificate, key, bundle):
        self.certificate, self.key, self.bundle = certificate, key, bundle

    def facts(self):
        """Its serial number, and the ID of the authority that signed it."""
        said = run("openssl", "x509", "-in", self.certificate, "-noout", "-serial", "-ext", "authorityKeyIdentifier")
        serial, _, authority = said.strip().splitlines()
        return serial.partition("=")[2], authority.strip().removeprefix("keyid:").replace(":", "").lower()


class Workload:
    """Somebody whom the agent knows."""

    def __init__(self, program, socket_path, identity):
        self.program, self.socket, self.id = program, socket_path, identity

    def fetch(self, directory):
        """The SVID as the agent has it now, with the authorities of its trust domain."""
        directory.mkdir(parents=True, exist_ok=True)
        run(self.program, "api", "fetch", "x509", "-socketPath", self.socket, "-silent", "-write", directory)
        return Svid(*(directory / name for name in ("svid.0.pem", "svid.0.key", "bundle.0.pem")))

    def jwt(self, audience):
        options = ["-socketPath", self.socket, "-audience", audience, "-output", "json"]
        return json.loads(run(self.program, "api", "fetch", "jwt", *options))[0]["svids"][0]["svid"]

    def is_known(self, directory):
        try:
            return self.fetch(directory)
        except RuntimeError:
            return None


class Keeper(threading.Thread):
    """Keeps files as SPIRE has it: once a second, each file replaced by renaming another over it."""

    def __init__(self, stack, directory, contents):
        super().__init__(daemon=True)
        self.directory, self.contents = directory, contents
        self.changes, self.failed, self.last = {}, [], {}
        self.over = threading.Event()
        directory.mkdir(parents=True, exist_ok=True)
        self.look()
        stack.callback(self.end)
        self.start()

    def look(self):
        for name, content in self.contents().items():
            if self.last.get(name) != content:
                fresh = self.directory / f".{name}"
                with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(content)
                fresh.replace(self.directory / name)
                self.changes.setdefault(name, []).append(time.monotonic())
                self.last[name] = content

    def run(self):
        while not self.over.wait(1.0):
            try:
                self.look()
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                self.failed.append(str(error))

    def end(self):
        self.over.set()
        self.join(LIMIT)
