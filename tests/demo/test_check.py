"""The demonstration notices whatever is not as it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kproxy.demo import story
from kproxy.demo.check import check_scene
from kproxy.demo.result import Judged, Row, SceneResult, Seen
from kproxy.demo.story import SCENES, Asked, Conversation, Scene

NAMES = (story.SERVER.name, story.TWEETS.name, story.STRANGER.name, story.HOST)
KNOWN = {
    **{(name, 4): f"10.0.0.{number}" for number, name in enumerate(NAMES, 2)},
    **{(name, 6): f"fd00::{number}" for number, name in enumerate(NAMES, 2)},
}
KEPT = 6  # a row, allowed, on a connection that was open already: GET /applicants/331 comes before it


def seen(talk: Conversation, asked: Asked, status: int) -> Seen:
    """A call as it is when all is well."""
    if status == story.REFUSED:
        return Seen(status, "", "", "", "", 0)
    client, server = KNOWN[talk.client, talk.version], KNOWN[story.SERVER.name, talk.version]
    pair = f"[{client}]:4711" if talk.version == 6 else f"{client}:4711"
    to = f"[{server}]:80" if talk.version == 6 else f"{server}:80"
    told = "" if status == story.DENIED else pair
    return Seen(status, pair, to, told, told, int(asked is talk.asked[0]))


def row(scene: Scene, talk: Conversation, asked: Asked) -> Row:
    """A row as it is when all is well."""
    want = story.expected(scene, talk.client, asked)
    verdict = "deny" if want.status == story.DENIED else "allow"
    judged = Judged(verdict, want.rule, "because") if want.judged else Judged()
    before, after = seen(talk, asked, asked.before), seen(talk, asked, want.status)
    return Row(talk.title, talk.client, str(asked.call), before, after, judged)


def played(scene: Scene) -> SceneResult:
    """A scene as it is when all is well."""
    rows = [row(scene, talk, asked) for talk in story.CONVERSATIONS for asked in talk.asked]
    verdicts = [r.judged.verdict for r in rows if r.judged.verdict]
    return SceneResult(
        name=scene.name,
        title=scene.title,
        policy="{}",
        rows=rows,
        bytes_spliced=sum(360 if verdict == "allow" else 180 for verdict in verdicts) - 10,
        bytes_tcp=10,
        counted={verdict: verdicts.count(verdict) for verdict in ("allow", "deny", "audit")},
        held="",
        access_log=[
            {"protocol": "http", "verdict": verdict, "bytes_in": 80, "bytes_out": 100} for verdict in verdicts
        ],
        metrics={},
    )


def with_row(result: SceneResult, number: int, **changes: Any) -> SceneResult:
    """The same with one row changed."""
    rows = list(result.rows)
    rows[number] = replace(rows[number], **changes)
    return replace(result, rows=rows)


def with_after(number: int, **changes: Any) -> Callable[[SceneResult], SceneResult]:
    """A change of what one call came to under the policy."""
    return lambda result: with_row(result, number, after=replace(result.rows[number].after, **changes))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_good_run_has_no_failures(scene: Scene) -> None:
    """Nothing is found where nothing is wrong."""
    assert check_scene(scene, played(scene), KNOWN) == []


def test_the_story_allows_and_denies_and_refuses() -> None:
    """Each scene has every kind of outcome that it is there to show."""
    for scene in SCENES:
        wants = [
            story.expected(scene, talk.client, asked) for talk in story.CONVERSATIONS for asked in talk.asked
        ]
        assert {want.status for want in wants} >= {200, 403}
        assert any(want.rule for want in wants)
        assert any(want.status == story.REFUSED for want in wants) == scene.stranger_refused


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_after(0, status=200), "GET /healthz (the four endpoints): answered 200 with kproxy, not 403"),
        (with_after(1, status=403), "answered 403 with kproxy, not 200"),
        (
            lambda r: with_row(r, 0, before=replace(r.rows[0].before, status=500)),
            "500 before kproxy, not 200",
        ),
        (with_after(1, client_is="127.0.0.1:1"), "own address is 127.0.0.1:1, not 10.0.0.3"),
        (with_after(1, server_is="127.0.0.1:15001"), "to talk to 127.0.0.1:15001, not 10.0.0.2:80"),
        (with_after(4, server_is="10.0.0.2:80"), "to talk to 10.0.0.2:80, not [fd00::2]:80"),
        (with_after(1, accept="10.0.0.1:1"), "the server's accept tells 10.0.0.1:1, not 10.0.0.3"),
        (with_after(1, getpeername=""), "the server's getpeername tells nothing, not 10.0.0.3"),
        (with_after(KEPT, connects=1), "opened a new connection"),
        (lambda r: with_row(r, 1, judged=Judged()), "is missing in the access log, not allow"),
        (lambda r: with_row(r, 1, judged=Judged("allow", "other")), "was decided by other, not hr/"),
        (lambda r: replace(r, bytes_spliced=0), "no byte was spliced"),
        (lambda r: replace(r, bytes_tcp=11), "2701 bytes moved, the access log makes it 2700"),
        (lambda r: replace(r, access_log=r.access_log[1:]), "the access log has"),
        (lambda r: replace(r, counted={"allow": 1}), "the metrics count 1 allow"),
    ],
)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_each_fault_is_told(scene: Scene, change: Callable[[SceneResult], SceneResult], told: str) -> None:
    """One thing wrong, and a sentence that says which."""
    failures = check_scene(scene, change(played(scene)), KNOWN)
    assert any(told in failure for failure in failures), failures
    assert all(failure.startswith(f"{scene.name}: ") for failure in failures)
