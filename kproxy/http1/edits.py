"""What goes to the server where rules edit headers: the original bytes, but for the edited field lines.

A request to which such rules do not apply costs one look at `Judgement.guarded`.
"""

from __future__ import annotations

from kproxy.judgement import Judgement
from parsers.http1 import CHUNKED, Limits, RequestHead, RequestParser, edits


def forwarded(
    head: RequestHead, judgement: Judgement, data: bytes, requests: RequestParser, limits: Limits
) -> bytes:
    """What is sent on of an allowed request whose first bytes, head included, are `data`.

    Raises ParseError where the client could undo or evade an edit, or where the edited head is over a limit.
    """
    edits.check_head(head, judgement.guarded)
    check_end(head, judgement, requests)
    if not judgement.edits:
        return data
    return edits.edited(head, judgement.edits, limits) + data[len(head.raw) :]


def check_end(head: RequestHead, judgement: Judgement, requests: RequestParser) -> None:
    """If the request is complete, see that no trailer of it stands for an edited header; raises ParseError."""
    if judgement.guarded and head.body == CHUNKED and requests.complete:
        edits.check_trailers(requests.trailers, judgement.guarded)
