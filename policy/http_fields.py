"""The shapes of HTTP rules: Cilium's fields, and those that kproxy adds.

Cilium's are `method`, `path`, `host`, `headers` and `headerMatches` (pkg/policy/api/http.go). kproxy's own
stand under a key named `kproxy`, so that no one takes them for Cilium's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from policy.model import HeaderMatch, HeaderTest, HttpRule, Mismatch, QueryTest
from policy.patterns import BadPattern, Pattern, pattern
from policy.shapes import Choice, Cursor, ListOf, Record, Shape, Text, Then, Unsupported, kind_of

# RFC 9110 section 5.6.2.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110 section 5.5: visible characters, blanks between them.
HEADER_VALUE = r"[!-~](?:[ \t!-~]*[!-~])?"
# What an HTTP target may hold (RFC 3986), without the query.
_PLAIN_PATH = r"/[!-\"$->@-~]*"


def _pattern(at: Cursor, text: str, **kind: bool) -> Pattern | None:
    try:
        return pattern(text, **kind)
    except BadPattern as bad:
        at.error(str(bad))
        return None


def _case_folded(at: Cursor, text: str) -> Pattern | None:
    return _pattern(at, text, fold_case=True)


def _over_lines(at: Cursor, text: str) -> Pattern | None:
    return _pattern(at, text, dot_newline=True)


method = Then(Text(description="RE2, matches all of the method: GET|HEAD"), _pattern)
path = Then(Text(description="RE2, matches all of the path with its query string: /jobs/[0-9]+"), _pattern)
host = Then(Text(description=r"RE2, matches all of the host, without case: api\.example\.com"), _case_folded)


def _header(at: Cursor, text: str) -> HeaderTest | None:
    found = re.fullmatch(rf"({TOKEN})(?:: *({HEADER_VALUE}))?", text)
    if found is None:
        at.error(f"{text!r} must be a header's name, or 'Name: value' with a space after the colon")
        return None
    name, value = found.groups()
    if value is not None and ": " not in text:
        at.error(f"{text!r} means a header of that whole name in Cilium; write '{name}: {value}'")
        return None
    return HeaderTest(name.lower().encode(), None if value is None else value.encode())


headers = ListOf(Then(Text(description="'Name' (present) or 'Name: value' (exactly)"), _header))

# Longest value: nginx and Apache take a field of 8 KiB, so a longer one would be refused behind us.
MAX_HEADER_VALUE = 8 * 1024


def value_fault(value: bytes) -> str:
    """What keeps bytes from being the value of a header that is put into requests, or nothing."""
    if not value:
        return "is empty, which would match any value"
    if len(value) > MAX_HEADER_VALUE:
        return f"is longer than {MAX_HEADER_VALUE} bytes"
    if not re.fullmatch(HEADER_VALUE.encode(), value):
        return "is not a header value (visible ASCII, blanks inside, no line breaks)"
    return ""


@dataclass(frozen=True, slots=True)
class _Value(Text):
    """A header's value. It may be a credential, so no message shows it."""

    def read(self, at: Cursor) -> str | None:
        """The string."""
        if not isinstance(at.value, str):
            at.error(f"must be a string, not {kind_of(at.value)}", "write it in quotes")
            return None
        fault = value_fault(at.value.encode("utf-8", "surrogatepass")) if at.value else ""
        if fault:
            at.error(f"the value {fault}")
        return None if fault else at.value


# Kubernetes names (RFC 1123): they become names of files, so they hold no slash and no leading dot.
_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"


def _secret_name(at: Cursor, read: dict[str, Any]) -> str:
    return f"{read.get('namespace') or at.owner.namespace or 'default'}/{read['name']}"


def _check_secret(at: Cursor, read: dict[str, Any]) -> None:
    """Who may write policies in one namespace may not read the secrets of another by having them sent."""
    own, asked = at.owner.namespace, read.get("namespace")
    if own and asked and asked != own:
        at.at("namespace").error(
            f"a policy in {own} cannot use a secret of {asked}",
            f"keep the secret in {own}, or write a CiliumClusterwideNetworkPolicy",
        )


_secret: Record[str] = Record(
    {
        "name": Text(_NAME, "is not the name of a secret"),
        "namespace": Text(rf"(?:{_NAME})?", "is not the name of a namespace"),
    },
    _secret_name,
    required=("name",),
    check=_check_secret,
)


def _header_match(at: Cursor, read: dict[str, Any]) -> HeaderMatch:
    return HeaderMatch(
        read["name"].lower().encode(),
        Mismatch(read.get("mismatch") or "FAIL"),
        read.get("value", "").encode(),
        read.get("secret", ""),
    )


def _check_header_match(at: Cursor, read: dict[str, Any]) -> None:
    mismatch, name = read.get("mismatch"), read.get("name", "")
    if mismatch in ("ADD", "REPLACE") and not at.value.get("value") and "secret" not in at.value:
        at.error(f"{mismatch} needs a value or a secret to put into the header")
    if mismatch == "DELETE" and not at.value.get("value") and "secret" not in at.value:
        at.warn(
            "DELETE without a value removes nothing: without one, any header of that name is as expected",
            "give the value that may stay, or one that nobody sends",
        )
    if mismatch in ("ADD", "DELETE", "REPLACE") and re.sub("[^0-9a-z]", "-", name.lower()) in _NEVER_EDITED:
        at.at("name").error(
            f"{name} frames or routes the message, or concerns one connection alone: "
            f"{mismatch} would change what is read",
            "leave mismatch out, or use LOG",
        )


# Editing one of these, or what CGI-like servers take for one, would make the server read another message than the
# one that was judged: framing and routing (RFC 9112 section 3.2 and 6), and what concerns one hop (RFC 9110
# section 7.6.1 and 10.1).
_NEVER_EDITED = {
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "http2-settings",
    "te",
    "trailer",
    "expect",
    "keep-alive",
    "proxy-connection",
}

header_matches = ListOf(
    Record(
        {
            "name": Text(TOKEN, "is not a header name"),
            "mismatch": Choice(tuple(one.value for one in Mismatch)),
            "value": _Value(rf"(?:{HEADER_VALUE})?"),
            "secret": _secret,
        },
        _header_match,
        required=("name",),
        check=_check_header_match,
        description="A header with its expected value, and what to do where it differs (default: no match).",
    )
)


def _query(at: Cursor, read: dict[str, Any]) -> QueryTest:
    return QueryTest(read["name"].encode(), read.get("value"))


query = ListOf(
    Record(
        {
            "name": Text(r"[^\x00-\x1f]+", "is not a parameter name"),
            "value": Then(Text(description="RE2, matches all of the decoded value"), _over_lines),
        },
        _query,
        required=("name",),
    )
)


def _rule(at: Cursor, read: dict[str, Any]) -> HttpRule:
    exact, begins = read.get("pathExact"), read.get("pathPrefix")
    return HttpRule(
        name=at.rule_name,
        place=at.place,
        # An empty pattern is no condition in Cilium (pkg/envoy getHTTPRule), not one for the empty text.
        method=read.get("method") if at.value.get("method") else None,
        path=read.get("path") if at.value.get("path") else None,
        host=read.get("host") if at.value.get("host") else None,
        headers=read.get("headers", ()),
        header_matches=read.get("headerMatches", ()),
        path_exact=None if exact is None else exact.encode(),
        path_prefix=None if begins is None else begins.rstrip("/").encode(),
        query=read.get("query", ()),
        description=read.get("description") or at.owner.description,
    )


_CILIUM_FIELDS: dict[str, Shape[Any]] = {
    "method": method,
    "path": path,
    "host": host,
    "headers": headers,
    "headerMatches": header_matches,
}
_HINTS = {
    "methods": 'use method: "GET|HEAD"',
    "url": "did you mean path?",
    "paths": "use one rule for each path, or a pattern",
    "header": "did you mean headers?",
}

cilium_rule: Record[HttpRule] = Record(
    _CILIUM_FIELDS,
    _rule,
    hints=_HINTS
    | {
        key: f"{key} is kproxy's own: put the rule under rules.kproxy.http"
        for key in ("pathExact", "pathPrefix", "query", "description")
    },
    description="Requests; every field that is given must match. {} is every request.",
)


def _check_paths(at: Cursor, read: dict[str, Any]) -> None:
    written = [key for key in ("path", "pathExact", "pathPrefix") if key in at.value]
    if len(written) > 1:
        at.error(f"{' and '.join(written)} say the same thing twice: keep one of them")


kproxy_rule: Record[HttpRule] = Record(
    _CILIUM_FIELDS
    | {
        "pathExact": Text(_PLAIN_PATH, "is not a path (begins with /, has no ? or #)"),
        "pathPrefix": Text(_PLAIN_PATH, "is not a path (begins with /, has no ? or #)"),
        "query": query,
        "description": Text(),
    },
    _rule,
    check=_check_paths,
    hints=_HINTS,
    description="Requests, in kproxy's own vocabulary; every field that is given must match.",
)

kproxy_deny_rule: Record[HttpRule] = Record(
    {key: shape for key, shape in kproxy_rule.fields.items() if key != "headerMatches"}
    | {"headerMatches": Unsupported("a deny rule edits no headers", "use headers")},
    _rule,
    check=_check_paths,
    hints=_HINTS,
    description="Requests that are denied whatever allows them.",
)
