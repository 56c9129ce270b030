"""A real server and a real load generator in pods."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kproxy.demo.network import Pod
from kproxy.demo.process import Process

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ {listen} location / {{ return 200 "ok\\n"; }} }} }}
"""


@contextmanager
def nginx(pod: Pod, folder: Path, *ports: int) -> Iterator[Process]:
    """Run nginx in a pod, on every address."""
    folder.mkdir(exist_ok=True)
    config = folder / "nginx.conf"
    listen = " ".join(f"listen 0.0.0.0:{port}; listen [::]:{port};" for port in ports)
    config.write_text(_NGINX.format(folder=folder, listen=listen))
    with pod.start(["nginx", "-c", str(config), "-p", str(folder)], listening=ports[-1]) as process:
        yield process


def wrk(client: Pod, server: Pod, port: int, *, connections: int, seconds: int) -> str:
    """Run wrk in the client's pod; return what it said."""
    done = client.run([*_wrk(server, port, connections), f"-d{seconds}s"], timeout=seconds + 60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def wrk_while(
    client: Pod, server: Pod, port: int, *, connections: int, headers: Sequence[str] = ()
) -> Iterator[Callable[[], str]]:
    """Run wrk while the block does; what is yielded tells afterwards what it said."""
    argv = [*_wrk(server, port, connections), "-d600s", *(f"-H{header}" for header in headers)]
    with client.start(argv) as process:
        yield process.output
        process.stop(signal.SIGINT)


def _wrk(server: Pod, port: int, connections: int) -> list[str]:
    url = f"http://{server.v4}:{port}/jobs/331"
    return ["wrk", "-t1", f"-c{connections}", "--timeout", "10s", url]


def requests_in(told: str) -> int:
    """How many requests wrk made; fails if any of them failed."""
    assert "Non-2xx" not in told, told
    assert "Socket errors" not in told, told
    found = re.search(r"(\d+) requests in", told)
    assert found, told
    return int(found[1])
