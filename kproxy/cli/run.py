"""`kproxy run`: the node service, in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import msgspec

from kproxy import config, logs
from kproxy.config import Config
from kproxy.errors import AgentConflictError, KernelError, KproxyError, NamespaceError, NotPermittedError
from kproxy.lines import LineWriter, Sink
from sockmap import errors as sockmap_errors

STDERR = 2
FLUSH_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, a JSON file")
    parser.add_argument(
        "--detach-on-exit",
        action="store_true",
        help="remove every hook at exit and enforce nothing after: for demos and tests",
    )


def main(arguments: argparse.Namespace) -> int:
    """Load the configuration, set up logs, and run until told to end."""
    settings = config.load(arguments.config)
    if arguments.detach_on_exit:
        settings = msgspec.structs.replace(settings, detach_on_exit=True)
    lines = LineWriter(Sink(None, STDERR), logs.QUEUE_BYTES, lambda told: None)
    logs.setup(settings.log.level, settings.log.format, lines.write)
    try:
        return _service()(settings)
    except sockmap_errors.SockmapError as error:
        raise _KINDS[type(error)](str(error), error.mend) from error
    finally:
        lines.close(FLUSH_SECONDS)


_KINDS: dict[type[sockmap_errors.SockmapError], type[KproxyError]] = {
    sockmap_errors.NotPermittedError: NotPermittedError,
    sockmap_errors.CgroupError: KernelError,
    sockmap_errors.CompileError: KernelError,
    sockmap_errors.AttachError: AgentConflictError,
    sockmap_errors.NamespaceError: NamespaceError,
}


def _service() -> Callable[[Config], int]:
    """Import the service only now: the other commands do without BPF, and start faster."""
    from kproxy.service import run

    return run
