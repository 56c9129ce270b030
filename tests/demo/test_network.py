"""The demo's network: pods that reach each other and the host, and nothing left of them afterwards."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from kproxy.demo.errors import NetworkError, ProcessError
from kproxy.demo.inside import inside, listening_ports, processes_in
from kproxy.demo.network import NETNS_DIR, Network, PodSpec, network_leftovers, remove_network
from kproxy.demo.process import READY_TIMEOUT_S, running

pytestmark = pytest.mark.bpf

NAME = "kp-t-net"
SERVER = [sys.executable, "-m", "http.server", "--bind", "::", "80"]
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def net() -> Iterator[Network]:
    """A network with two pods."""
    with Network(NAME, [PodSpec("server"), PodSpec("client")]) as network:
        yield network


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_reaches_a_pod_under_its_own_address(net: Network, version: int) -> None:
    """A connection between pods is routed over the bridge, with no translation, in IPv4 and IPv6."""
    server, client = net["server"], net["client"]
    to = {4: server.v4, 6: server.v6}[version]
    own = {4: client.v4, 6: client.v6}[version]
    with server.inside():
        listener = socket.create_server(
            (str(to), 8080), family=socket.AF_INET if version == 4 else socket.AF_INET6
        )
    with listener:
        with client.inside():
            caller = socket.create_connection((str(to), 8080), timeout=5)
        accepted, address = listener.accept()
        with caller, accepted:
            assert address[0] == str(own) == caller.getsockname()[0]
            assert caller.getpeername()[0] == str(to)


def test_the_host_reaches_its_pods_and_they_the_host(net: Network) -> None:
    """As on a node: the bridge has an address, so the host is a peer like any other."""
    pod = net["server"]
    with pod.inside():
        in_pod = socket.create_server((str(pod.v4), 8080))
    on_host = socket.create_server((str(net.host_v4), 0))
    with in_pod, on_host:
        with socket.create_connection((str(pod.v4), 8080), timeout=5) as from_host:
            assert from_host.getsockname()[0] == str(net.host_v4)
        with pod.inside():
            from_pod = socket.create_connection(on_host.getsockname(), timeout=5)
        with from_pod:
            assert from_pod.getsockname()[0] == str(pod.v4)


def test_addresses_come_from_the_networks_own_prefixes(net: Network) -> None:
    """Pods are numbered in order after the bridge, alike in both families."""
    assert [p.v4 for p in net] == [net.host_v4 + 1, net.host_v4 + 2]
    assert [p.v6 for p in net] == [net.host_v6 + 1, net.host_v6 + 2]
    assert all(isinstance(p.v4, IPv4Address) and isinstance(p.v6, IPv6Address) for p in net.pods)


def test_leaving_undoes_everything(net: Network) -> None:
    """After the block there is neither a link nor a namespace of that name, whatever happened inside it."""
    net.add(PodSpec("late"))
    made = network_leftovers(NAME)
    assert f"link {NAME}" in made
    assert {f"namespace {NAME}.{pod}" for pod in ("server", "client", "late")} <= set(made)
    net.__exit__(None, None, None)
    assert network_leftovers(NAME) == []


def test_an_error_while_it_is_made_undoes_what_was_made() -> None:
    """A pod that cannot be made takes the whole network with it."""
    with pytest.raises(NetworkError, match="DNS label"), Network(NAME, [PodSpec("good"), PodSpec("no/good")]):
        pytest.fail("entered")
    assert network_leftovers(NAME) == []


def test_a_killed_run_is_cleaned_up_by_the_next_of_its_name() -> None:
    """SIGKILL leaves links, namespaces and programs behind: the next run of the name removes them first."""
    script = f"""
import time
from kproxy.demo.network import Network, PodSpec
with Network({NAME!r}, [PodSpec("old")]) as net:
    import subprocess
    sleeper = subprocess.Popen(["nsenter", f"--net={{net['old'].netns}}", "sleep", "600"])
    print(sleeper.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as former:
        assert former.stdout is not None
        sleeper = int(former.stdout.readline())
        until(lambda: sleeper in processes_in(NETNS_DIR / f"{NAME}.old"))
        former.kill()
    assert f"namespace {NAME}.old" in network_leftovers(NAME)
    with Network(NAME, [PodSpec("new")]):
        assert f"namespace {NAME}.old" not in network_leftovers(NAME)
        assert not _alive(sleeper)
    assert network_leftovers(NAME) == []


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not: nobody may be there to reap it)."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_name_in_use_is_refused_and_left_alone(net: Network) -> None:
    """A second network of the same name does not take the first for a killed run's remains."""
    with pytest.raises(NetworkError, match="in use"), Network(NAME):
        pytest.fail("entered")
    assert net["client"].run(["true"]).returncode == 0


def test_two_networks_have_different_prefixes(net: Network) -> None:
    """Without a number a network takes one that nobody has; a taken one that is asked for is refused."""
    with Network("kp-t-net2") as other:
        assert not other.v4.overlaps(net.v4)
        assert not other.v6.overlaps(net.v6)
        taken = (int(net.v4[0]) >> 8) & 0xFF
        with pytest.raises(NetworkError, match="no free"), Network("kp-t-net3", subnet=taken):
            pytest.fail("entered")


@pytest.mark.parametrize("name", ["", "Upper", "a.b", "twelve-chars", "1st", "a b"])
def test_a_name_that_cannot_name_links_is_refused(name: str) -> None:
    """Interface names are short, and the dot separates a network's name from what belongs to it."""
    with pytest.raises(NetworkError, match="cannot name"):
        Network(name)


def test_removing_what_is_not_there_is_no_error() -> None:
    """Undoing is by name and may be repeated at will."""
    remove_network(NAME)
    remove_network(NAME)
    assert network_leftovers(NAME) == []


def test_a_program_is_ready_when_it_listens_and_is_stopped_by_pid(net: Network) -> None:
    """`start` returns once the port is open in the pod; the pid is the program's own; the block ends it."""
    with net["server"].start(SERVER, listening=80) as server:
        assert 80 in listening_ports(net["server"].netns)
        assert server.pid in processes_in(net["server"].netns)
        answer = net["client"].run(
            ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{net['server'].v4}"]
        )
        assert answer.stdout == "200"
    assert not server.running
    assert 80 not in listening_ports(net["server"].netns)
    assert f"{net['client'].v4}" in server.output()


def test_a_program_that_ends_before_it_is_ready_tells_its_last_words(net: Network) -> None:
    """The error carries exit code and output, so that nobody has to look for them."""
    program = net["server"].start([sys.executable, "-c", "print('port is taken'); exit(3)"], listening=80)
    with pytest.raises(ProcessError, match=r"ended with 3(.|\n)*port is taken"), program:
        pytest.fail("ready")


def test_a_program_that_does_not_heed_sigterm_is_killed() -> None:
    """Stopping is bounded."""
    with running([sys.executable, "-c", DEAF], ready=lambda p: "up" in p.output()) as process:
        assert process.stop(timeout=0.05) == -signal.SIGKILL


def test_a_program_ends_with_its_starter() -> None:
    """Should the caller be killed, what it started gets SIGTERM from the kernel."""
    script = """
import sys, time
from kproxy.demo.process import READY_TIMEOUT_S, running
with running(["sleep", "600"]) as sleeper:
    print(sleeper.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        sleeper = int(starter.stdout.readline())
        until(lambda: Path(f"/proc/{sleeper}/comm").read_text() == "sleep\n")
        pidfd = os.pidfd_open(sleeper)
        starter.kill()
    poller = select.poll()
    poller.register(pidfd)
    assert poller.poll(10_000)
    os.close(pidfd)


def test_the_thread_comes_home_from_a_pod(net: Network) -> None:
    """`inside` ends in the namespace it began in, also when the block raises."""
    home = Path("/proc/thread-self/ns/net").stat().st_ino
    with suppress(RuntimeError), inside(net["client"].netns):
        assert Path("/proc/thread-self/ns/net").stat().st_ino != home
        raise RuntimeError
    assert Path("/proc/thread-self/ns/net").stat().st_ino == home
