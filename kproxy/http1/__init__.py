"""The core of an HTTP/1.1 flow: parser events and verdicts in, effects on the wire out; no I/O."""

from __future__ import annotations

from kproxy.http1.flow import Http1Flow
from kproxy.http1.options import HttpOptions
from kproxy.http1.wire import FlowObserver, Wire

__all__ = ["FlowObserver", "Http1Flow", "HttpOptions", "Wire"]
