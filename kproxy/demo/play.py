"""The demonstration as it happens: the network, the server, the calls before and under each policy.

Every step leaves through context managers, and interrupts take effect between steps only
(`kproxy.demo.interrupt`), so whatever happens the machine is left as it was found.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kproxy.demo import leftovers, node, story
from kproxy.demo.check import check_scene
from kproxy.demo.client import Reply, curl
from kproxy.demo.interrupt import checkpoint
from kproxy.demo.network import Network, network_leftovers
from kproxy.demo.result import Judged, Result, Row, SceneResult, Seen

Tell = Callable[[str], None]


def play(name: str, tell: Tell) -> Result:
    """Play it all on a network of this name; `tell` is called with a line before each longer step.

    Raises NetworkError, ProcessError, Interrupted. What is not as it should be is in the result.
    """
    result = Result()
    with Network(name, story.PODS) as net:
        tell(f"pods {', '.join(f'{pod.name} {pod.v4}' for pod in net)}; bridge {net.name} {net.host_v4}")
        server = net[story.SERVER.name]
        api = [sys.executable, "-m", "kproxy.demo.jobs_api", "--port", str(story.PORT)]
        with server.start(api, listening=story.PORT):
            tell("before: calling the Jobs API without kproxy")
            before = _call_all(net)
            for scene in story.SCENES:
                tell(f"then: {scene.title}, with kproxy run")
                _play_scene(scene, net, before, result)
    result.failures += [f"left behind: {what}" for what in network_leftovers(name)]
    return result


def _play_scene(scene: story.Scene, net: Network, before: Sequence[Seen], result: Result) -> None:
    """One run of kproxy under the scene's policy; what it found goes into the result."""
    cgroups = leftovers.cgroups()
    with run_folder(net.name) as folder:
        files = node.write_node(folder, [scene.rules], map(node.endpoint, net), node.free_port())
        with node.kproxy_run(files) as kproxy:
            held = leftovers.holdings(kproxy.pid, cgroups)
            start = node.metrics(files.admin_port)
            after = _call_all(net)
            samples = node.metrics(files.admin_port)
            checkpoint()
            code = kproxy.stop()
        log = [json.loads(line) for line in files.access_log.read_text().splitlines()]
    played = SceneResult(
        name=scene.name,
        title=scene.title,
        policy=scene.rules.read_text(),
        rows=_rows(scene, before, after, log),
        bytes_spliced=_moved(start, samples, "spliced"),
        bytes_tcp=_moved(start, samples, "tcp"),
        counted={
            verdict: node.total(samples, node.REQUESTS, protocol="http", verdict=verdict)
            for verdict in ("allow", "deny", "audit", "error")
        },
        held=str(held),
        access_log=log,
        metrics={str(sample): sample.value for sample in samples},
    )
    result.scenes.append(played)
    result.failures += check_scene(scene, played, _addresses(net))
    if code != 0:
        result.failures.append(f"{scene.name}: kproxy ended with {code}: {kproxy.output().strip()}")
    result.failures += [f"{scene.name}: left behind: {what}" for what in leftovers.left_of(held)]


@contextmanager
def run_folder(name: str) -> Iterator[Path]:
    """A folder for one run's files, empty at first; it bears the network's name, so that a killed run's is found.

    In /run, where only root makes files: a name that can be known beforehand is no good in /tmp.
    """
    folder = Path("/run", name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _moved(start: Sequence[node.Sample], end: Sequence[node.Sample], path: str) -> int:
    """Bytes that went this path while the calls were made."""
    return node.total(end, node.BYTES, path=path) - node.total(start, node.BYTES, path=path)


def _call_all(net: Network) -> list[Seen]:
    """Hold every conversation of the story; one entry for each call, in order."""
    seen = []
    for talk in story.CONVERSATIONS:
        checkpoint()
        server = net[story.SERVER.name]
        address = server.v4 if talk.version == 4 else server.v6
        netns = None if talk.client == story.HOST else net[talk.client].netns
        replies = curl([asked.call for asked in talk.asked], address, story.PORT, netns=netns)
        seen += [_seen(reply) for reply in replies]
    return seen


def _seen(reply: Reply) -> Seen:
    told = _told(reply.body)
    return Seen(
        reply.status,
        reply.local,
        reply.remote,
        told.get("accept", ""),
        told.get("getpeername", ""),
        reply.connects,
    )


def _told(body: str) -> dict[str, str]:
    """What the Jobs API said of its client; a denial is kproxy's own answer and says nothing."""
    try:
        client: dict[str, str] = json.loads(body)["client"]
    except ValueError:
        return {}
    return client


def _rows(
    scene: story.Scene, before: Sequence[Seen], after: Sequence[Seen], log: Sequence[dict[str, Any]]
) -> list[Row]:
    """Calls were made one after the other, so the access log has them in their order."""
    lines = iter([line for line in log if line["protocol"] == "http"])
    calls = [(talk, asked) for talk in story.CONVERSATIONS for asked in talk.asked]
    rows = []
    for (talk, asked), was, now in zip(calls, before, after, strict=True):
        judged = story.expected(scene, talk.client, asked).judged
        line = next(lines, {}) if judged else {}
        mine = bool(line) and (line["method"], line["path"]) == (asked.call.method, asked.call.path)
        found = Judged(line["verdict"], line["rule"], line["reason"]) if mine else Judged()
        rows.append(Row(talk.title, talk.client, str(asked.call), was, now, found))
    return rows


def _addresses(net: Network) -> dict[tuple[str, int], str]:
    hosts = [(story.HOST, address) for address in (net.host_v4, net.host_v6)]
    pods = [(pod.name, address) for pod in net for address in pod.addresses]
    return {(name, int(address.version)): str(address) for name, address in [*hosts, *pods]}
