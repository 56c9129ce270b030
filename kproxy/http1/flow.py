"""One HTTP/1.1 connection as a state machine: what may pass, what is answered, and when it ends.

Requests are taken one at a time. A request is read whole as far as it has come, judged, and sent on; the
next is not even looked at before the final response to it is complete, so that each is judged by the
policy in force at its turn, and so that no response can be taken for another's. What is received
meanwhile waits, within a bound.

    IDLE ──allowed──▶ BUSY ──final response complete──▶ IDLE
      │                 ├──101 that was asked for──▶ TUNNEL (bytes both ways)
      │                 └──no certain framing, or close──▶ ENDING
      ├──denied, body to come──▶ DRAINING ──▶ IDLE
      └──refused, timed out, server gone──▶ ENDING (client's bytes are dropped until it closes) ──▶ CLOSED

Whatever goes wrong once bytes of a message were sent on is a reset of both sides: neither may take a part
for the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kproxy.http1.edits import check_end, forwarded
from kproxy.http1.exchange import Exchange
from kproxy.http1.options import HttpOptions
from kproxy.http1.patience import A_HEAD, Patience
from kproxy.http1.phase import BUSY, CLOSED, DRAINING, ENDING, IDLE, TUNNEL
from kproxy.http1.reading import ANY_REASON, CLIENT_IS_SLOW, PIPELINE_IS_FULL, SERVER_IS_SLOW, Reading
from kproxy.http1.verdict import rule_field, unless_ambiguous
from kproxy.http1.wire import FlowObserver, Wire
from kproxy.judgement import Judgement
from parsers.http1 import (
    NEED_DATA,
    ParseError,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    Signal,
    replies,
)
from parsers.http1.reasons import refusal

_CONTINUE: Final = 100
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL: Final = 200
_FORBIDDEN: Final = 403
_REQUEST_TIMEOUT: Final = 408


class Http1Flow:
    """The core of one flow; an I/O shell calls it with what happens, and it acts through `wire`.

    wire: where effects go. judge: asked once for each request, at the moment it is judged.
    observer: told of each request. clock: nanoseconds, monotonic; read at most three times a request.
    `tick` must be called with the same clock about once a second: times are kept to that grain.
    """

    __slots__ = (
        "_allowance",
        "_client_ended",
        "_client_is_slow",
        "_clock",
        "_draining",
        "_exchange",
        "_judge",
        "_observer",
        "_options",
        "_patience",
        "_phase",
        "_reading",
        "_requests",
        "_responses",
        "_server_ended",
        "_wire",
    )

    def __init__(
        self,
        wire: Wire,
        judge: Callable[[RequestHead], Judgement],
        observer: FlowObserver,
        options: HttpOptions,
        clock: Callable[[], int],
    ) -> None:
        self._wire = wire
        self._judge = judge
        self._observer = observer
        self._options = options
        self._clock = clock
        self._requests = RequestParser(options.parse)
        self._responses = ResponseParser(options.parse)
        self._exchange = Exchange()
        self._reading = Reading(wire)
        self._phase = IDLE
        self._client_ended = False
        self._client_is_slow = False
        self._server_ended = False
        self._draining = False
        self._allowance = 0  # bytes that may still be dropped while DRAINING or ENDING
        self._patience = Patience(options)

    def downstream_data(self, data: bytes) -> None:
        """Bytes came from the client."""
        self._patience.moved = True
        phase = self._phase
        if phase is IDLE:
            started = self._clock()
            self._requests.receive(data)
            self._take_requests(started)
        elif phase is BUSY:
            self._requests.receive(data)
            self._more_of_request()
        elif phase is TUNNEL:
            self._wire.send_upstream(data)
        elif phase is DRAINING:
            self._requests.receive(data)
            self._drop_body()
        elif phase is ENDING:
            self._allowance -= len(data)
            if self._allowance < 0:
                self._close()

    def downstream_eof(self) -> None:
        """The client will send no more; it may still be reading."""
        self._patience.moved = True
        self._client_ended = True
        phase = self._phase
        if phase is IDLE:
            self._client_done()
        elif phase is BUSY:
            self._client_ended_early()
        elif phase is TUNNEL:
            self._wire.end_upstream()
            self._close_if_both_ended()
        elif phase is not CLOSED:
            self._close()

    def upstream_data(self, data: bytes) -> None:
        """Bytes came from the server."""
        self._patience.moved = True
        phase = self._phase
        if phase is BUSY and not self._exchange.answered:
            self._responses.receive(data)
            self._take_responses()
        elif phase is TUNNEL:
            self._wire.send_downstream(data)
        elif phase in (IDLE, BUSY, DRAINING):
            self._unsolicited(data)

    def upstream_eof(self) -> None:
        """The server will send no more."""
        self._patience.moved = True
        self._server_ended = True
        phase = self._phase
        if phase is TUNNEL:
            self._wire.end_downstream()
            self._close_if_both_ended()
        elif phase is BUSY:
            self._server_ended_early()
        elif phase in (IDLE, DRAINING):
            self._end()

    def downstream_writable(self, writable: bool) -> None:
        """Whether the client's side takes more; while it does not, the server is not read.

        Nor is the client between exchanges, or one that is denied for ever and never reads would fill us
        with answers. Within an exchange it is: it may want to end its request before it reads.
        """
        self._client_is_slow = not writable
        if writable:
            self._reading.release(CLIENT_IS_SLOW)
            self._wire.resume_upstream()
        else:
            if self._phase in (IDLE, DRAINING):
                self._reading.hold(CLIENT_IS_SLOW)
            self._wire.pause_upstream()

    def upstream_writable(self, writable: bool) -> None:
        """Whether the server's side takes more; while it does not, the client is not read."""
        if self._phase in (ENDING, CLOSED):
            return
        if writable:
            self._reading.release(SERVER_IS_SLOW)
        else:
            self._reading.hold(SERVER_IS_SLOW)

    def tick(self, now_ns: int) -> None:
        """Time has passed: end what was waited for too long."""
        begun = self._phase is IDLE and self._requests.head_begun
        over = self._patience.over(now_ns, A_HEAD if begun else self._phase)
        if over is A_HEAD:
            self._wire.send_downstream(replies.refused(_REQUEST_TIMEOUT, "head_timeout"))
            self._observer.refused("head_timeout", "the head did not end in time", None, _REQUEST_TIMEOUT)
            self._end()
        elif over in (IDLE, DRAINING):
            self._end()
        elif over in (BUSY, TUNNEL):
            self._abort("idle_timeout")
        elif over is ENDING:
            self._close()

    def drain(self) -> None:
        """Take no further request, and end once the one under way has."""
        self._draining = True
        if self._phase in (IDLE, DRAINING):
            self._end()
        elif self._phase is TUNNEL:
            self._close()

    def lost(self) -> None:
        """A connection was reset, or the shell has ended the flow: the wire is gone."""
        if self._phase is BUSY:
            self._exchange.tell(self._observer)
        self._phase = CLOSED

    def fail(self, error: Exception) -> None:
        """Something inside raised `error`: what is not decided is not let through."""
        if self._phase is not CLOSED:
            self._fail(error, self._exchange.head if self._phase is BUSY else None)

    def _fail(self, error: Exception, head: RequestHead | None) -> None:
        self._phase = CLOSED
        self._wire.abort("internal_error")
        self._observer.refused("internal_error", repr(error), head, 0)

    def _take_requests(self, started: int) -> None:
        """Judge and answer or send on what is there, until one is under way; `started` is the clock."""
        requests = self._requests
        while self._phase is IDLE:
            try:
                head = requests.next_event()
            except ParseError as error:
                self._refuse(error)
                return
            if isinstance(head, Signal):
                if self._client_ended:
                    self._client_done()
                return
            if self._client_ended and not requests.complete:
                self._refuse(refusal("truncated"))
                return
            self._rule(head, started)
        if self._phase is BUSY:
            self._hold_pipelined()
            if self._client_ended:
                self._client_ended_early()

    def _rule(self, head: RequestHead, started: int) -> None:
        """Have a request judged, now, and do what the verdict says."""
        try:
            judgement = self._judge(head)
        except Exception as error:  # whatever broke in the policy, the request is not let through
            self._fail(error, head)
            return
        if judgement.path_judged and self._options.refuse_ambiguous_paths:
            judgement = unless_ambiguous(head, judgement)
        if judgement.allowed:
            self._forward(head, judgement, started)
        else:
            self._deny(head, judgement, started)

    def _forward(self, head: RequestHead, judgement: Judgement, started: int) -> None:
        data = self._requests.take()
        arrived = len(data)
        if judgement.guarded:
            try:
                data = forwarded(head, judgement, data, self._requests, self._options.parse)
            except ParseError as error:
                error.facts = head
                self._refuse(error)
                return
        exchange = self._exchange
        exchange.begin(head, judgement, arrived)
        self._responses.answers_head = head.method == b"HEAD"
        self._phase = BUSY
        self._patience.since = 0
        self._reading.release(CLIENT_IS_SLOW)
        self._wire.send_upstream(data)
        exchange.sent_ns = sent = self._clock()
        exchange.proxy_ns = sent - started

    def _more_of_request(self) -> None:
        """More of the body of the request under way, or of what waits behind it."""
        requests = self._requests
        if not requests.complete:
            try:
                event = requests.next_event()
                check_end(self._exchange.head, self._exchange.judgement, requests)
            except ParseError as error:
                self._body_went_wrong(error)
                return
            data = requests.take()
            if event is not NEED_DATA and not self._exchange.declined:
                self._exchange.bytes_in += len(data)
                self._wire.send_upstream(data)
            if requests.complete and self._exchange.answered:
                self._complete(self._clock())
                return
        self._hold_pipelined()

    def _hold_pipelined(self) -> None:
        if self._requests.buffered > self._options.pipelined_bytes:
            self._reading.hold(PIPELINE_IS_FULL)

    def _body_went_wrong(self, error: ParseError) -> None:
        """Part of the message is with the server already: reset, so that it never becomes whole there."""
        head = self._exchange.head
        self._phase = CLOSED
        self._wire.abort(error.reason)
        self._observer.refused(error.reason, error.detail, head, 0)

    def _deny(self, head: RequestHead, judgement: Judgement, started: int) -> None:
        data = self._requests.take()
        keep_alive = head.keep_alive and not self._draining and self._can_drop_body(head, len(data))
        reply = replies.denied(
            keep_alive=keep_alive,
            http11=head.http11,
            to_head=head.method == b"HEAD",
            field=rule_field(self._options.rule_header, judgement),
        )
        self._wire.send_downstream(reply)
        proxy_ns = self._clock() - started
        self._observer.request(head, judgement, _FORBIDDEN, len(data), len(reply), proxy_ns, 0)
        self._patience.since = 0
        if not keep_alive:
            self._end()
        elif not self._requests.complete:
            self._phase = DRAINING
            self._allowance = self._options.drain_bytes - len(data)

    def _can_drop_body(self, head: RequestHead, received: int) -> bool:
        """Whether the rest of a denied request may be read and dropped so that the connection goes on."""
        if self._requests.complete:
            return True
        return not head.expects_continue and head.body + len(head.raw) <= self._options.drain_bytes

    def _drop_body(self) -> None:
        try:
            self._requests.next_event()
        except ParseError as error:
            self._observer.refused(error.reason, error.detail, None, 0)
            self._end()
            return
        self._allowance -= len(self._requests.take())
        if self._requests.complete:
            self._phase = IDLE
            self._take_requests(self._clock())
        elif self._allowance < 0:
            self._end()

    def _refuse(self, error: ParseError) -> None:
        """Answer a request that is not read with certainty, of which nothing was sent on, and end."""
        self._wire.send_downstream(replies.refused(error.status, error.reason))
        head = error.facts if isinstance(error.facts, RequestHead) else None
        self._observer.refused(error.reason, error.detail, head, error.status)
        self._end()

    def _take_responses(self) -> None:
        """Send on what came of the responses to the request under way, interim ones included."""
        responses = self._responses
        exchange = self._exchange
        while self._phase is BUSY:
            event = responses.next_event()
            if event is NEED_DATA:
                return
            if isinstance(event, ResponseHead):
                if event.status < _FIRST_FINAL:
                    self._interim(event.status)
                    continue
                exchange.answer(event)
            data = responses.take()
            exchange.bytes_out += len(data)
            self._wire.send_downstream(data)
            if responses.complete:
                self._answered()
            return

    def _interim(self, status: int) -> None:
        """A response that is not the final one: sent on, and 101 is the last of HTTP."""
        exchange = self._exchange
        if status == _SWITCHING_PROTOCOLS:
            self._switch()
            return
        if status == _CONTINUE:
            exchange.continued = True
        data = self._responses.take()
        exchange.bytes_out += len(data)
        self._wire.send_downstream(data)

    def _answered(self) -> None:
        """The final response is complete."""
        exchange = self._exchange
        exchange.answered = True
        exchange.ended_ns = now = self._clock()
        if self._requests.complete or exchange.declined or self._responses.buffered:
            self._complete(now)

    def _complete(self, now: int) -> None:
        """The exchange is over: tell of it, and go on with the next request or end."""
        exchange = self._exchange
        exchange.tell(self._observer)
        requests = self._requests
        if self._responses.buffered:
            self._phase = IDLE
            self._unsolicited(self._responses.take_rest())
        elif exchange.persistent and requests.complete and not self._draining:
            self._phase = IDLE
            self._reading.release(PIPELINE_IS_FULL)
            if requests.buffered:
                self._take_requests(now)
            elif self._client_ended:
                self._close()
            elif self._client_is_slow:
                self._reading.hold(CLIENT_IS_SLOW)
        else:
            self._end()

    def _switch(self) -> None:
        """101: another protocol from here on, if the request asked for one and is complete."""
        exchange = self._exchange
        if not (exchange.head.upgrade and self._requests.complete):
            self._abort("unexpected_101")
            return
        exchange.status = _SWITCHING_PROTOCOLS
        self._phase = TUNNEL
        self._reading.release(PIPELINE_IS_FULL)
        head = self._responses.take()
        exchange.bytes_out += len(head)
        self._wire.send_downstream(head + self._responses.take_rest())
        exchange.ended_ns = self._clock()
        exchange.tell(self._observer)
        waiting = self._requests.take_rest()
        if waiting:
            self._wire.send_upstream(waiting)
            if self._client_ended:
                self._wire.end_upstream()

    def _unsolicited(self, data: bytes) -> None:
        """Bytes that answer nothing: the client would take them for the answer to its next request."""
        if self._phase is BUSY:
            self._exchange.tell(self._observer)
        self._observer.refused("unsolicited_response", f"{data[:60]!r}", None, 0)
        self._end()

    def _client_done(self) -> None:
        """The client ended its side while no request is under way."""
        if self._requests.head_begun:
            self._refuse(refusal("truncated"))
        else:
            self._close()

    def _client_ended_early(self) -> None:
        """The client ended its side while a request is under way; it may still want the answer."""
        if not self._requests.complete:
            if self._exchange.answered or self._exchange.declined:
                self._exchange.tell(self._observer)
                self._end()
            else:
                self._abort("downstream_truncated")
        elif not self._requests.buffered or self._responses.until_close:
            self._wire.end_upstream()

    def _server_ended_early(self) -> None:
        """The server ended its side while a request is under way."""
        exchange = self._exchange
        if self._responses.in_message and not self._responses.until_close:
            self._abort("upstream_truncated")
            return
        if not exchange.answered:
            exchange.ended_ns = self._clock()
        exchange.tell(self._observer)
        self._end()

    def _end(self) -> None:
        """Nothing more is said to either side; the client's bytes are dropped until it closes too."""
        self._phase = ENDING
        self._allowance = self._options.drain_bytes
        self._wire.end_upstream()
        self._wire.end_downstream()
        if self._client_ended:
            self._close()
        else:
            self._reading.release(ANY_REASON)

    def _close(self) -> None:
        self._phase = CLOSED
        self._wire.close()

    def _close_if_both_ended(self) -> None:
        if self._client_ended and self._server_ended:
            self._close()

    def _abort(self, reason: str) -> None:
        """Reset both sides, and tell of the request that was under way."""
        if self._phase is BUSY:
            self._exchange.tell(self._observer)
        self._phase = CLOSED
        self._wire.abort(reason)
