"""Entering network namespaces, and looking at and ending the connections inside of them (sock_diag)."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from kernel_rig import MAPPED, V4, V6, Family, Rig, eventually, name_of, receive

from sockmap.diag import Connection
from sockmap.errors import AttachError, NamespaceError
from sockmap.hooks import Hooks
from sockmap.netns import NetworkNamespace

pytestmark = pytest.mark.bpf

PORT = 8080


def test_a_namespace_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path, the reason and where to look."""
    with pytest.raises(NamespaceError, match="/run/netns/kt-nobody cannot be opened") as refused:
        NetworkNamespace("/run/netns/kt-nobody")
    assert "ip netns list" in refused.value.mend


def test_a_path_that_is_no_network_namespace_is_named(tmp_path: Path) -> None:
    """A file, or a namespace of another kind: nothing was entered, no descriptor is left."""
    file = tmp_path / "file"
    file.write_text("")
    before = len(os.listdir("/proc/self/fd"))
    for path in (str(file), "/proc/self/ns/uts"):
        with pytest.raises(NamespaceError, match="cannot be entered"):
            NetworkNamespace(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_sockets_are_made_inside_and_the_thread_comes_back(rig: Rig) -> None:
    """A socket belongs to the namespace for good; the caller does not stay, even where socket() fails."""
    namespace = rig.namespace("client")
    here = os.readlink("/proc/thread-self/ns/net")
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as inside:
        cookie = int.from_bytes(inside.getsockopt(socket.SOL_SOCKET, 71, 8), "little")  # SO_NETNS_COOKIE
    assert cookie == namespace.cookie
    with pytest.raises(OSError, match="not supported"):
        namespace.socket(socket.AF_INET, socket.SOCK_STREAM, 254)
    assert os.readlink("/proc/thread-self/ns/net") == here
    with namespace.entered():
        assert os.readlink("/proc/thread-self/ns/net") != here
    assert os.readlink("/proc/thread-self/ns/net") == here


def test_a_namespace_made_anew_under_its_path_is_another() -> None:
    """The path leads elsewhere: whoever follows it must open it again."""
    name = f"kt-anew-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        namespace = NetworkNamespace(f"/run/netns/{name}")
        try:
            assert namespace.is_current()
            subprocess.run(["ip", "netns", "delete", name], check=True)
            assert not namespace.is_current()
            subprocess.run(["ip", "netns", "add", name], check=True)
            assert not namespace.is_current()
        finally:
            namespace.close()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.parametrize("family", [V4, V6, MAPPED], ids=lambda family: family.name)
@pytest.mark.parametrize("device", [b"", b"eth0\0"], ids=["", "bound to a device"])
def test_a_connection_is_found_looked_at_and_ended(rig: Rig, family: Family, device: bytes) -> None:
    """From inside its namespace, by its names: unread memory, what is not acknowledged, and SOCK_DESTROY."""
    diag = rig.endpoints["server"].diag
    listener = rig.server("server", PORT, family)
    if device:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    c = rig.socket("other", family.family)
    c.connect(family.to(rig.network["server"], PORT))
    s = rig.accept(listener)
    name = name_of(s)
    found = next(one for one in diag.connections() if one.name == name)
    assert found.cookie == s.getsockopt(socket.SOL_SOCKET, 57, 8)  # SO_COOKIE
    assert found.accepted
    assert bool(found.device) == bool(device)
    c.sendall(b"x" * 1000)
    eventually(lambda: (diag.unread(found) or 0) >= 1000, "the bytes are in its queue")
    progress = diag.progress(found)
    assert progress is not None
    assert (progress.received_by_tcp, progress.tcp_unread) == (1000, 1000)
    receive(s, 1000)
    assert diag.unread(found) == 0
    assert diag.unacknowledged(found) == 0
    assert diag.destroy(found)
    with pytest.raises(ConnectionAbortedError):
        s.recv(1)
    with pytest.raises(ConnectionResetError):
        receive(c, 1)
    assert not diag.destroy(found), "it is gone"
    assert diag.unread(found) is None, "its names would find the listener"


def test_only_the_connection_that_was_seen_is_ended(rig: Rig) -> None:
    """The cookie says which: another connection that took its names since is not meant."""
    diag = rig.endpoints["server"].diag
    listener = rig.server("server", PORT)
    c = rig.socket("other")
    c.connect(V4.to(rig.network["server"], PORT))
    s = rig.accept(listener)
    assert not diag.destroy(Connection(name_of(s), (1).to_bytes(8, "little"), 0))
    c.sendall(b"alive")
    assert receive(s, 5) == b"alive"


def test_what_waits_to_be_accepted_is_told_apart(rig: Rig) -> None:
    """It may still be kproxy's: nobody has it yet."""
    diag = rig.endpoints["server"].diag
    listener = rig.server("server", PORT)
    c = rig.socket("other")
    c.connect(V4.to(rig.network["server"], PORT))
    waiting = [one for one in diag.connections() if one.name.local_port == PORT]
    assert [one.accepted for one in waiting] == [False]
    rig.accept(listener)
    assert [one.accepted for one in diag.connections() if one.name.local_port == PORT] == [True]


def test_listening_ports_are_those_of_the_namespace(rig: Rig) -> None:
    """Both families; kproxy's own listeners among them."""
    diag = rig.endpoints["server"].diag
    own = {listener.getsockname()[1] for listener in rig.endpoints["server"].listeners.values()}
    rig.server("server", PORT)
    rig.server("server", PORT + 1, V6)
    rig.server("other", PORT + 2)
    assert diag.listening_ports() == own | {PORT, PORT + 1}


def test_two_do_not_enforce_one_namespace(rig: Rig) -> None:
    """A second kproxy is told who is there, and leaves the first alone."""
    with Hooks(slots=8) as second, pytest.raises(AttachError, match="another kproxy enforces") as refused:
        second.attach_lookup(rig.endpoints["client"].namespace, 1)
    assert refused.value.mend
