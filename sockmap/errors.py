"""The exceptions of this package: each says what failed, where, and how to mend it."""

from __future__ import annotations


class SockmapError(Exception):
    """Root of what this package raises.

    Attributes:
        mend: one sentence for the operator: what to do about it.
    """

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


class NotPermittedError(SockmapError):
    """The process may not load or attach BPF programs."""


class CgroupError(SockmapError):
    """There is no usable cgroup v2 hierarchy."""


class CompileError(SockmapError):
    """The BPF programs could not be compiled or were refused by the verifier."""


class AttachError(SockmapError):
    """A program could not be attached."""


class NamespaceError(SockmapError):
    """A network namespace cannot be opened or entered."""
