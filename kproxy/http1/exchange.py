"""The request under way on a flow: its facts, its verdict, what has moved, and when."""

from __future__ import annotations

from kproxy.http1.verdict import NoJudgement
from kproxy.http1.wire import FlowObserver
from kproxy.judgement import Judgement
from parsers.http1 import RequestHead, ResponseHead

_NO_HEAD = RequestHead(b"", b"", b"", b"", b"", 0, False)


class Exchange:
    """One request and its response; the same object serves all exchanges of a flow, in turn.

    status: of the final response, 0 before it. persistent: whether both heads let the connection go on.
    answered: whether the whole final response has been sent on. continued: whether 100 was.
    declined: whether the server answered instead of asking for the body that its client holds back.
    Some servers read what comes then as that body, some as a request (RFC 9110 section 10.1.1 lets them
    choose), so none of it may be sent on.
    bytes_in, bytes_out: original bytes from and to the client.
    proxy_ns: kproxy's own time; sent_ns: the clock when the request was sent on; ended_ns: when the last
    byte of the response was.
    """

    __slots__ = (
        "answered",
        "bytes_in",
        "bytes_out",
        "continued",
        "declined",
        "ended_ns",
        "head",
        "judgement",
        "persistent",
        "proxy_ns",
        "sent_ns",
        "status",
    )

    def __init__(self) -> None:
        self.head = _NO_HEAD
        self.judgement: Judgement = NoJudgement()
        self.status = 0
        self.persistent = False
        self.answered = False
        self.continued = False
        self.declined = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.proxy_ns = 0
        self.sent_ns = 0
        self.ended_ns = 0

    def begin(self, head: RequestHead, judgement: Judgement, bytes_in: int) -> None:
        """A request was judged."""
        self.head = head
        self.judgement = judgement
        self.status = 0
        self.answered = False
        self.continued = False
        self.declined = False
        self.bytes_in = bytes_in
        self.bytes_out = 0
        self.ended_ns = 0

    def answer(self, head: ResponseHead) -> None:
        """The final response's head has come."""
        request = self.head
        self.status = head.status
        unsent = self.bytes_in == len(request.raw)
        self.declined = request.expects_continue and not self.continued and unsent
        self.persistent = head.keep_alive and request.keep_alive and not self.declined

    def tell(self, observer: FlowObserver) -> None:
        """Tell the observer how it ended."""
        upstream_ns = self.ended_ns - self.sent_ns if self.ended_ns else 0
        observer.request(
            self.head,
            self.judgement,
            self.status,
            self.bytes_in,
            self.bytes_out,
            self.proxy_ns,
            upstream_ns,
        )
