"""Gordon's story, as data: who asks the Jobs API for what, and what must come of it under each policy.

Gordon's tweet service needs `GET /jobs/{id}` of the Jobs API. The network policy in place ends at port 80,
so it could as well read who applied for a job, or post one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kproxy.demo.client import Call
from kproxy.demo.network import PodSpec

PORT = 80
SERVER = PodSpec("jobs-api", "hr", {"app": "jobs-api"}, {"http": PORT})
TWEETS = PodSpec("turtletweets", "hr", {"app": "turtletweets"})
STRANGER = PodSpec("stranger", "hr", {"app": "stranger"})
PODS = (SERVER, TWEETS, STRANGER)
HOST = "host"  # not a pod: the node itself, as a kubelet that probes

REFUSED = 0  # what curl reports as the status where the connection was refused
DENIED = 403


class Asked(NamedTuple):
    """One call of a conversation: what it answers where nothing judges it, and whether the rule allows it."""

    call: Call
    before: int
    allowed: bool


class Conversation(NamedTuple):
    """One curl process and, while nobody closes it, one connection."""

    title: str
    client: str
    version: int
    asked: tuple[Asked, ...]


class Scene(NamedTuple):
    """One policy: where it stands and the rule that lets the good request through."""

    name: str
    title: str
    rule: str
    stranger_refused: bool

    @property
    def rules(self) -> Path:
        """The policy's file."""
        return Path(__file__).with_name("rules") / f"{self.name}.json"


class Expected(NamedTuple):
    """What one call must come to under a scene's policy.

    `judged`: kproxy reads it as HTTP, and it stands in the access log; `rule` is exact, empty for any.
    """

    status: int
    judged: bool
    rule: str


SCENES = (
    Scene("ingress", "ingress policy at the Jobs API", "hr/jobs-api#ingress[0].toPorts[0].http[0]", True),
    Scene(
        "egress", "egress policy at the tweet service", "hr/turtletweets#egress[0].toPorts[0].http[0]", False
    ),
)

_HEALTH = Asked(Call("GET", "/healthz"), 200, False)
_APPLICANTS = Asked(Call("GET", "/applicants/331"), 200, False)
_POST = Asked(Call("POST", "/jobs", '{"title": "Turtle"}'), 201, False)


def _job(number: int) -> Asked:
    return Asked(Call("GET", f"/jobs/{number}"), 200, True)


CONVERSATIONS = (
    *(
        Conversation("the four endpoints", TWEETS.name, 4, (asked,))
        for asked in (_HEALTH, _job(331), _APPLICANTS, _POST)
    ),
    Conversation("over IPv6", TWEETS.name, 6, (_job(332),)),
    Conversation("on one connection", TWEETS.name, 4, (_job(333), _APPLICANTS, _job(334), _POST, _job(335))),
    Conversation("a pod that no rule names", STRANGER.name, 4, (_job(336),)),
    Conversation("the node's own probe", HOST, 4, (_HEALTH,)),
)


def expected(scene: Scene, client: str, asked: Asked) -> Expected:
    """What must come of a call under a scene's policy.

    The rules speak of the tweet service alone. To the Jobs API's ingress policy a stranger is refused before
    HTTP; the tweet service's egress policy is none of his business. The node reaches its own pods always.
    """
    if client == STRANGER.name and scene.stranger_refused:
        return Expected(REFUSED, False, "")
    if client != TWEETS.name:
        return Expected(asked.before, False, "")
    return Expected(asked.before, True, scene.rule) if asked.allowed else Expected(DENIED, True, "")
