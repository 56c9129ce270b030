"""The exceptions of the parsers: one root, and what the peer did wrong below it."""

from __future__ import annotations


class ParserError(Exception):
    """Root of every exception that `parsers` raises on purpose."""


class ParseError(ParserError):
    """The peer sent what is not read with certainty; its connection cannot be used any further.

    `reason` is a short stable snake_case word, fit for a metric label. `detail` tells a person what
    was seen, quoted and bounded. `status` is the protocol's own answer (an HTTP status code).
    `facts` is what had been read of the message before it went wrong, for the log: its head, or None.
    """

    def __init__(self, reason: str, detail: str, status: int) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.status = status
        self.facts: object | None = None
