"""What must hold of the demonstration: every expectation, and a sentence for each that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from kproxy.demo import story
from kproxy.demo.result import Row, SceneResult, Seen
from kproxy.demo.story import Asked, Conversation, Scene

Addresses = Mapping[tuple[str, int], str]  # of a pod or the host, and IP's version


def check_scene(scene: Scene, played: SceneResult, known: Addresses) -> list[str]:
    """Everything that is not as it should be in one scene; empty when all is well."""
    calls = [(talk, asked) for talk in story.CONVERSATIONS for asked in talk.asked]
    failures = [
        f"{scene.name}: {row.client}: {row.request} ({row.conversation}): {what}"
        for (talk, asked), row in zip(calls, played.rows, strict=True)
        for what in _row_failures(scene, talk, asked, row, known)
    ]
    return failures + [f"{scene.name}: {what}" for what in _run_failures(played)]


def _row_failures(
    scene: Scene, talk: Conversation, asked: Asked, row: Row, known: Addresses
) -> Iterator[str]:
    want = story.expected(scene, talk.client, asked)
    if row.before.status != asked.before:
        yield f"answered {row.before.status} before kproxy, not {asked.before}"
    if row.after.status != want.status:
        yield f"answered {row.after.status} with kproxy, not {want.status}"
    yield from _verdict_failures(want, row)
    for when, seen in (("before kproxy", row.before), ("with kproxy", row.after)):
        yield from (f"{when} {what}" for what in _address_failures(talk, seen, known))
    if asked is not talk.asked[0] and (row.before.connects or row.after.connects):
        yield "opened a new connection instead of keeping the one it had"


def _verdict_failures(want: story.Expected, row: Row) -> Iterator[str]:
    if not want.judged:
        return
    verdict = "deny" if want.status == story.DENIED else "allow"
    if row.judged.verdict != verdict:
        yield f"is {row.judged.verdict or 'missing'} in the access log, not {verdict}"
    if want.rule and row.judged.rule != want.rule:
        yield f"was decided by {row.judged.rule or 'no rule'}, not {want.rule}"


def _address_failures(talk: Conversation, seen: Seen, known: Addresses) -> Iterator[str]:
    """Both sides must believe what they would believe were nothing between them."""
    if seen.status == story.REFUSED:
        return
    client, server = known[talk.client, talk.version], known[story.SERVER.name, talk.version]
    if _host(seen.client_is) != client:
        yield f"the client's own address is {seen.client_is}, not {client}"
    if seen.server_is != _join(server, story.PORT):
        yield f"the client believes to talk to {seen.server_is}, not {_join(server, story.PORT)}"
    for call, told in (("accept", seen.accept), ("getpeername", seen.getpeername)):
        if seen.status != story.DENIED and _host(told) != client:
            yield f"the server's {call} tells {told or 'nothing'}, not {client}"


def _host(pair: str) -> str:
    return pair.rpartition(":")[0].strip("[]")


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _run_failures(played: SceneResult) -> Iterator[str]:
    """What must hold of the run as a whole: it spliced, and rows, access log and metrics count alike."""
    if not played.bytes_spliced:
        yield "no byte was spliced"
    moved, logged_bytes = played.bytes_spliced + played.bytes_tcp, sum(map(_bytes_of, played.access_log))
    if moved != logged_bytes:
        yield f"the metrics count {moved} bytes moved, the access log makes it {logged_bytes}"
    rows = Counter(row.judged.verdict for row in played.rows if row.judged.verdict)
    logged = Counter(line["verdict"] for line in played.access_log if line["protocol"] == "http")
    if logged != rows:
        yield f"the access log has {_counts(logged)} HTTP requests, the story {_counts(rows)}"
    counted = +Counter(played.counted)
    if counted != logged:
        yield f"the metrics count {_counts(counted)} HTTP requests, the access log {_counts(logged)}"


def _bytes_of(line: Mapping[str, Any]) -> int:
    """What one request moved: each byte that is passed on goes once to kproxy and once from it."""
    legs = 2 if line["verdict"] == "allow" else 1
    return legs * int(line["bytes_in"] + line["bytes_out"]) if line["protocol"] == "http" else 0


def _counts(verdicts: Counter[str]) -> str:
    return " + ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "no"
