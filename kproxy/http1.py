"""THIN."""

from __future__ import annotations
from dataclasses import dataclass
from typing import Any
from parsers.http1 import NEED_DATA, OPAQUE, Limits, RequestParser, ResponseParser
from parsers.errors import ParseError


@dataclass
class HttpOptions:
    limits: Limits

    @classmethod
    def of(cls, config: Any) -> "HttpOptions":
        return cls(Limits())


DENY = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nAccess denied\r\n"


class Http1Flow:
    __slots__ = ("wire", "judge", "obs", "req", "resp", "clock", "cur", "t0", "t1", "bi", "bo", "j", "st")

    def __init__(s, wire, judge, obs, options, clock):
        s.wire = wire
        s.judge = judge
        s.obs = obs
        s.req = RequestParser(options.limits)
        s.resp = ResponseParser(options.limits)
        s.clock = clock
        s.cur = None

    def downstream_data(s, data):
        s.t0 = s.clock()
        s.req.receive(data)
        if s.cur is None or not s.req.complete:
            s.pump()

    def pump(s):
        while True:
            if s.cur is not None:
                ev = s.req.next_event()
                if ev is NEED_DATA:
                    return
                d = s.req.take()
                s.bi += len(d)
                s.wire.send_upstream(d)
                if s.req.complete:
                    return
                continue
            try:
                ev = s.req.next_event()
            except ParseError as e:
                s.obs.refused(e.reason, str(e), None, 400)
                s.wire.send_downstream(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                s.wire.close()
                return
            if ev is NEED_DATA:
                return
            j = s.judge(ev)
            d = s.req.take()
            if not j.allowed:
                s.wire.send_downstream(DENY)
                s.obs.request(ev, j, 403, len(d), len(DENY), s.clock() - s.t0, 0)
                continue
            s.cur = ev
            s.j = j
            s.bi = len(d)
            s.bo = 0
            s.resp.answers_head = ev.method == b"HEAD"
            s.st = 0
            s.wire.send_upstream(d)
            s.t1 = s.clock()
            if s.req.complete:
                return

    def upstream_data(s, data):
        s.resp.receive(data)
        while s.cur is not None:
            ev = s.resp.next_event()
            if ev is NEED_DATA:
                return
            d = s.resp.take()
            s.bo += len(d)
            s.wire.send_downstream(d)
            if ev is OPAQUE:
                return
            if not isinstance(ev, type(NEED_DATA)):
                if ev.status < 200:
                    continue
                s.st = ev.status
            if s.resp.complete:
                s.obs.request(s.cur, s.j, s.st, s.bi, s.bo, s.t1 - s.t0, s.clock() - s.t1)
                s.cur = None
                s.pump()

    def downstream_eof(s):
        s.wire.close()

    def upstream_eof(s):
        s.wire.abort("eof") if s.cur else s.wire.close()

    def downstream_writable(s, w):
        (s.wire.resume_upstream if w else s.wire.pause_upstream)()

    def upstream_writable(s, w):
        (s.wire.resume_downstream if w else s.wire.pause_downstream)()

    def tick(s, now):
        pass

    def drain(s):
        if s.cur is None:
            s.wire.close()

    def fail(s, e):
        import traceback

        traceback.print_exception(e)
        s.wire.abort("internal_error")
