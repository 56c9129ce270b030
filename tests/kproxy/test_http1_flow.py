"""The core of an HTTP/1.1 flow, as stories: who says what, and what must follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from story import ALLOW, AUDIT, DENY, Story, Verdict, to_bytes

from kproxy.config import Config
from kproxy.http1 import HttpOptions
from kproxy.judgement import PairJudgement
from kproxy.limits import HttpLimits
from kproxy.limits import Limits as ServiceLimits
from parsers.http1 import Limits, RequestHead
from policy import HeaderEdit

STORIES = {
    # --- requests and verdicts
    "an allowed request passes, and its response": """
        client  {get}
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
    """,
    "a denied request is answered, and the connection goes on": """
        client  {bad}
        >client {403}
        log     deny 403 /secret
        client  {get}
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
    """,
    "a denied HEAD is answered without a body": """
        client  HEAD /secret HTTP/1.1¶Host: a¶¶
        >client HTTP/1.1 403 Forbidden¶Content-Type: text/plain¶Content-Length: 15¶¶
        log     deny 403 /secret
    """,
    "a denied request that says close is the last": """
        client  GET /secret HTTP/1.1¶Host: a¶Connection: close¶¶
        >client {403 close}
        log     deny 403 /secret
        >server END
        >client END
        client  EOF
        close
    """,
    "HTTP/1.0 is told when the connection goes on": """
        client  GET /secret HTTP/1.0¶Connection: keep-alive¶¶
        >client {403 keep}
        log     deny 403 /secret
        client  GET /secret HTTP/1.0¶¶
        >client {403 close}
        log     deny 403 /secret
        >server END
        >client END
    """,
    "nothing is sent on of a head that is not whole": """
        client  GET /jobs/1 HTTP/1.1¶Ho
        client  st: a¶
        client  ¶
        >server {get}
    """,
    "an empty line before a request is nobody's": """
        client  ¶{get}
        >server {get}
    """,
    "pipelined requests are judged and answered in order": """
        client  {get}{bad}{get2}
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client {403}
        log     deny 403 /secret
        >server {get2}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/2
    """,
    "an audited request passes and is logged as such": """
        client  GET /audit HTTP/1.1¶Host: a¶¶
        >server GET /audit HTTP/1.1¶Host: a¶¶
        server  {ok}
        >client {ok}
        log     audit 200 /audit
    """,
    "a path that servers read differently is denied where a path rule is in force": """
        client  GET /judged/../secret HTTP/1.1¶Host: a¶¶
        >client {403}
        log     deny 403 /judged/../secret
        client  GET /jobs/../secret HTTP/1.1¶Host: a¶¶
        >server GET /jobs/../secret HTTP/1.1¶Host: a¶¶
    """,
    # --- refusals
    "an ambiguous request is refused, and nothing of it is sent on": """
        client  POST /jobs/1 HTTP/1.1¶Host: a¶Content-Length: 5¶Transfer-Encoding: chunked¶¶0¶¶
        >client {400 both}
        refused length_and_chunked 400
        >server END
        >client END
        client  {get}
        client  EOF
        close
    """,
    "requests before the ambiguous one are answered first": """
        client  {get}GET / HTTP/1.1¶¶
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client HTTP/1.1 400 …
        refused host_missing 400
        >server END
        >client END
    """,
    "a TLS hello is refused by name": """
        client  \\x16\\x03\\x01\\x02\\x00\\x01
        >client HTTP/1.1 400 …
        refused tls 400
        >server END
        >client END
    """,
    "a body that is wrong from the start is refused like its head": """
        client  {chunked}zz¶
        >client HTTP/1.1 400 …
        refused chunk_size 400
        >server END
        >client END
    """,
    "a body that goes wrong later never becomes complete upstream": """
        client  {chunked}5¶hello¶
        >server {chunked}5¶hello¶
        client  0
        client  x
        abort   chunk_size
        refused chunk_size 0
    """,
    "a body that ends early never becomes complete upstream": """
        client  {post}da
        >server {post}da
        client  EOF
        log     allow 0 /jobs/1
        abort   downstream_truncated
    """,
    "a head that ends early is refused": """
        client  GET / HT
        client  EOF
        >client HTTP/1.1 400 …
        refused truncated 400
        >server END
        >client END
        close
    """,
    # --- bodies
    "a body streams as it comes": """
        client  {post}da
        >server {post}da
        client  ta{get}
        >server ta
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >server {get}
    """,
    "a chunked body keeps its chunks, and its end comes whole": """
        client  {chunked}5;x=1¶he
        >server {chunked}5;x=1¶he
        client  llo¶0¶X-Su
        >server llo¶
        client  m: 1¶
        client  ¶
        >server 0¶X-Sum: 1¶¶
    """,
    "responses stream in every framing": """
        client  {get}
        >server {get}
        server  HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶5¶hel
        >client HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶5¶hel
        server  lo¶0¶
        >client lo¶
        server  ¶
        >client 0¶¶
        log     allow 200 /jobs/1
        client  {get}
        >server {get}
        server  HTTP/1.1 304 Not Modified¶Content-Length: 10¶¶
        >client HTTP/1.1 304 Not Modified¶Content-Length: 10¶¶
        log     allow 304 /jobs/1
        client  HEAD /jobs/1 HTTP/1.1¶Host: a¶¶
        >server HEAD /jobs/1 HTTP/1.1¶Host: a¶¶
        server  HTTP/1.1 200 OK¶Content-Length: 10¶¶
        >client HTTP/1.1 200 OK¶Content-Length: 10¶¶
        log     allow 200 /jobs/1
    """,
    "an early response is sent on while the body still comes": """
        client  {post}da
        >server {post}da
        server  {ok}
        >client {ok}
        client  ta{get2}
        >server ta
        log     allow 200 /jobs/1
        >server {get2}
    """,
    "a server that answers early and closes has answered": """
        client  {post}da
        >server {post}da
        server  {ok}
        >client {ok}
        server  EOF
        log     allow 200 /jobs/1
        >server END
        >client END
        client  ta
        client  EOF
        close
    """,
    "a client that gives up its body after an early answer ends in order": """
        client  {post}da
        >server {post}da
        server  {ok}
        >client {ok}
        client  EOF
        log     allow 200 /jobs/1
        >server END
        >client END
        close
    """,
    # --- Expect
    "100-continue is asked for and given": """
        client  {expect}
        >server {expect}
        server  {100}
        >client {100}
        client  data
        >server data
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        client  {get}
        >server {get}
    """,
    "an impatient client sends its body unasked": """
        client  {expect}
        >server {expect}
        client  data
        >server data
        server  {100}{ok}
        >client {100}{ok}
        log     allow 200 /jobs/1
    """,
    "a body that the server declined is not sent on: it might be read as a request": """
        client  {expect}
        >server {expect}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >server END
        >client END
        client  data
        client  EOF
        close
    """,
    "nor is it sent while the declining answer still streams": """
        client  {expect}
        >server {expect}
        server  HTTP/1.1 417 No¶Content-Length: 2¶¶n
        >client HTTP/1.1 417 No¶Content-Length: 2¶¶n
        client  data
        server  o
        >client o
        log     allow 417 /jobs/1
        >server END
        >client END
    """,
    "a denied request that waits for 100 is not read further": """
        client  PUT /secret HTTP/1.1¶Host: a¶Expect: 100-continue¶Content-Length: 4¶¶
        >client {403 close}
        log     deny 403 /secret
        >server END
        >client END
        client  data
        client  EOF
        close
    """,
    # --- draining
    "the body of a denied request is dropped": """
        client  POST /secret HTTP/1.1¶Host: a¶Content-Length: 4¶¶da
        >client {403}
        log     deny 403 /secret
        client  t
        client  a{get}
        >server {get}
    """,
    "a denied chunked body is dropped, and must be right": """
        client  POST /secret HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶5¶he
        >client {403}
        log     deny 403 /secret
        client  llo¶z
        refused chunk_size 0
        >server END
        >client END
    """,
    "a denied body over the bound closes the connection": """
        client  POST /secret HTTP/1.1¶Host: a¶Content-Length: 100000¶¶da
        >client {403 close}
        log     deny 403 /secret
        >server END
        >client END
        client  {40k}
        client  {40k}
        close
    """,
    "a denied chunked body is dropped up to the bound": """
        client  POST /secret HTTP/1.1¶Host: a¶Transfer-Encoding: chunked¶¶ffff0¶da
        >client {403}
        log     deny 403 /secret
        client  {40k}
        client  {40k}
        >server END
        >client END
        client  EOF
        close
    """,
    "a client that ends inside a denied body is done": """
        client  POST /secret HTTP/1.1¶Host: a¶Content-Length: 4¶¶da
        >client {403}
        log     deny 403 /secret
        client  EOF
        close
    """,
    # --- ends
    "a client that closes while idle ends the flow": """
        client  EOF
        close
    """,
    "a server that closes while idle ends the flow, once the client has": """
        client  {get}
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        server  EOF
        >server END
        >client END
        client  {get2}
        client  EOF
        close
    """,
    "a client that half-closes after its request gets its response": """
        client  {get}
        >server {get}
        client  EOF
        >server END
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        close
    """,
    "a client that half-closes after pipelining gets every response": """
        client  {get}{bad}{get2}
        >server {get}
        client  EOF
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client {403}
        log     deny 403 /secret
        >server {get2}
        >server END
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/2
        close
    """,
    "a half-close behind a pipelined piece of a request is seen at its turn": """
        client  {get}GET /jo
        >server {get}
        client  EOF
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client HTTP/1.1 400 …
        refused truncated 400
        >server END
        >client END
        close
    """,
    "a half-close behind a pipelined piece of a body is seen at its turn": """
        client  {get}{post}da
        >server {get}
        client  EOF
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client HTTP/1.1 400 …
        refused truncated 400
        >server END
        >client END
        close
    """,
    "Connection: close of the client ends the flow after its response": """
        client  GET /jobs/1 HTTP/1.1¶Host: a¶Connection: close¶¶{get2}
        >server GET /jobs/1 HTTP/1.1¶Host: a¶Connection: close¶¶
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >server END
        >client END
        client  EOF
        close
    """,
    "Connection: close of the server does as well": """
        client  {get}
        >server {get}
        server  HTTP/1.1 200 OK¶Connection: close¶Content-Length: 0¶¶
        >client HTTP/1.1 200 OK¶Connection: close¶Content-Length: 0¶¶
        log     allow 200 /jobs/1
        >server END
        >client END
    """,
    "a response that lasts until close ends in order": """
        client  {get}{get2}
        >server {get}
        server  HTTP/1.1 200 OK¶¶some
        >client HTTP/1.1 200 OK¶¶some
        server  more
        >client more
        server  EOF
        log     allow 200 /jobs/1
        >server END
        >client END
    """,
    "a truncated response is a reset": """
        client  {get}
        >server {get}
        server  HTTP/1.1 200 OK¶Content-Length: 10¶¶half
        >client HTTP/1.1 200 OK¶Content-Length: 10¶¶half
        server  EOF
        log     allow 200 /jobs/1
        abort   upstream_truncated
    """,
    "a truncated response head is a reset": """
        client  {get}
        >server {get}
        server  HTTP/1.1 200 O
        server  EOF
        log     allow 0 /jobs/1
        abort   upstream_truncated
    """,
    "a server that closes without a word is an end without a word": """
        client  {get}
        >server {get}
        server  EOF
        log     allow 0 /jobs/1
        >server END
        >client END
    """,
    "a reset under a request is told": """
        client  {get}
        >server {get}
        server  reset
        log     allow 0 /jobs/1
    """,
    # --- what answers nothing
    "bytes that answer nothing are not sent on": """
        client  {get}
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        server  HTTP/1.1 408 Request Timeout¶Content-Length: 0¶¶
        refused unsolicited_response 0
        >server END
        >client END
    """,
    "a second response in one read is not sent on": """
        client  {get}
        >server {get}
        server  {ok}{ok}
        >client {ok}
        log     allow 200 /jobs/1
        refused unsolicited_response 0
        >server END
        >client END
    """,
    "a second response before the body is done is not sent on": """
        client  {post}
        >server {post}
        server  {ok}
        >client {ok}
        server  {ok}
        log     allow 200 /jobs/1
        refused unsolicited_response 0
        >server END
        >client END
    """,
    "a response of uncertain framing is passed on, and nothing follows it": """
        client  {get}{get2}
        >server {get}
        server  HTTP/1.1 200 OK¶Content-Length: 2¶Content-Length: 3¶¶abc
        >client HTTP/1.1 200 OK¶Content-Length: 2¶Content-Length: 3¶¶abc
        server  {ok}
        >client {ok}
        server  EOF
        log     allow 0 /jobs/1
        >server END
        >client END
    """,
    # --- upgrade
    "an upgrade that is granted becomes a tunnel": """
        client  {ws}early
        >server {ws}
        server  {101}hello
        >client {101}hello
        log     allow 101 /jobs/ws
        >server early
        client  \\x00\\x01
        >server \\x00\\x01
        server  GET
        >client GET
        client  EOF
        >server END
        server  bye
        >client bye
        server  EOF
        >client END
        close
    """,
    "an upgrade that is declined is an ordinary exchange": """
        client  {ws}{get}
        >server {ws}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/ws
        >server {get}
    """,
    "a 101 that nobody asked for is a reset": """
        client  {get}
        >server {get}
        server  {101}
        log     allow 0 /jobs/1
        abort   unexpected_101
    """,
    "nothing behind a 101 that nobody asked for is sent on": """
        client  {get}
        >server {get}
        server  {101}{ok}
        log     allow 0 /jobs/1
        abort   unexpected_101
    """,
    "a 101 before the request's body is complete is a reset": """
        client  POST /jobs/ws HTTP/1.1¶Host: a¶Connection: Upgrade¶Upgrade: websocket¶Content-Length: 2¶¶
        >server POST /jobs/ws HTTP/1.1¶Host: a¶Connection: Upgrade¶Upgrade: websocket¶Content-Length: 2¶¶
        server  {101}
        log     allow 0 /jobs/ws
        abort   unexpected_101
    """,
    "the half-close of a client that upgrades is passed on behind what it sent": """
        client  {ws}early
        >server {ws}
        client  EOF
        server  {101}
        >client {101}
        log     allow 101 /jobs/ws
        >server early
        >server END
        server  EOF
        >client END
        close
    """,
    "interim responses pass as they come": """
        client  {get}
        >server {get}
        server  HTTP/1.1 103 Early Hints¶Link: </a>¶¶
        >client HTTP/1.1 103 Early Hints¶Link: </a>¶¶
        server  HTTP/1.1 102 Processing¶¶HTTP/1.1 200 OK¶Content-Le
        >client HTTP/1.1 102 Processing¶¶
        server  ngth: 0¶¶
        >client HTTP/1.1 200 OK¶Content-Length: 0¶¶
        log     allow 200 /jobs/1
    """,
    # --- back-pressure
    "a slow server stops the client being read": """
        client  {post}d
        >server {post}d
        server  slow
        pause   client
        server  fast
        resume  client
        client  ata
        >server ata
    """,
    "a slow client stops the server being read, but may send on its request": """
        client  {post}da
        >server {post}da
        client  slow
        pause   server
        client  ta
        >server ta
        client  fast
        resume  server
    """,
    "a client that reads no answers is not read between exchanges": """
        client  {get}
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        client  slow
        pause   client
        pause   server
        client  fast
        resume  client
        resume  server
    """,
    "nor once the exchange in which it became slow is over": """
        client  {get}
        >server {get}
        client  slow
        pause   server
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        pause   client
        client  {get2}
        resume  client
        >server {get2}
    """,
    "a client that pipelines for ever is not read past a bound": """
        client  {get}{many}
        >server {get}
        pause   client
        server  slow
        server  fast
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        resume  client
        >server {get2}
        pause   client
    """,
    "whoever ends is read until the client closes, so that it sees the end": """
        client  {get}{many}
        >server {get}
        pause   client
        server  EOF
        log     allow 0 /jobs/1
        >server END
        >client END
        resume  client
    """,
    # --- time
    "a head that trickles is answered 408": """
        tick    1
        tick    100
        client  GET /jobs
        tick    1
        client  /1
        tick    9
        client  2
        tick    2
        >client HTTP/1.1 408 Request Timeout¶…
        refused head_timeout 408
        >server END
        >client END
    """,
    "each head has its own time": """
        client  {bad}G
        >client {403}
        log     deny 403 /secret
        tick    1
        tick    9
        client  ET /secret HTTP/1.1¶Host: a¶¶G
        >client {403}
        log     deny 403 /secret
        tick    1
        tick    9
    """,
    "each head has its own time, also behind an exchange": """
        client  G
        tick    1
        client  ET /jobs/1 HTTP/1.1¶Host: a¶¶
        >server {get}
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        client  G
        tick    9.5
        tick    1
    """,
    "an idle connection ends without a word": """
        tick    1
        tick    3000
        client  {bad}
        >client {403}
        log     deny 403 /secret
        tick    1
        tick    3601
        >server END
        >client END
        tick    1
        tick    6
        close
    """,
    "an exchange in which nothing moves is a reset": """
        client  {get}
        >server {get}
        tick    1
        tick    3000
        server  HTTP/1.1 200 OK¶Content-Length: 2¶¶o
        >client HTTP/1.1 200 OK¶Content-Length: 2¶¶o
        tick    1
        tick    3601
        log     allow 200 /jobs/1
        abort   idle_timeout
    """,
    "a response that took long does not count against the next head": """
        client  {get}
        >server {get}
        tick    1
        tick    60
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        client  GET
        tick    1
    """,
    "a denied body that trickles is waited for no longer than a head": """
        client  POST /secret HTTP/1.1¶Host: a¶Content-Length: 4¶¶
        >client {403}
        log     deny 403 /secret
        tick    1
        client  d
        tick    11
        >server END
        >client END
    """,
    "a client that does not close after the end is left": """
        client  GET / HTTP/1.1¶¶
        >client HTTP/1.1 400 …
        refused host_missing 400
        >server END
        >client END
        tick    1
        client  x
        tick    4
        client  x
        tick    2
        close
        tick    100
        client  x
    """,
    # --- drain and failure
    "drain ends an idle flow": """
        drain
        >server END
        >client END
        client  EOF
        close
    """,
    "drain lets the exchange under way end": """
        client  {get}{get2}
        >server {get}
        drain
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >server END
        >client END
    """,
    "drain closes a tunnel": """
        client  {ws}
        >server {ws}
        server  {101}
        >client {101}
        log     allow 101 /jobs/ws
        drain
        close
    """,
    "a policy that breaks lets nothing through": """
        client  GET /raise HTTP/1.1¶Host: a¶¶
        abort   internal_error
        refused internal_error 0
        client  {get}
        fail    again
    """,
    "what breaks inside is a reset": """
        client  {get}
        >server {get}
        fail    oops
        abort   internal_error
        refused internal_error 0
        server  {ok}
    """,
}


@pytest.mark.parametrize("text", STORIES.values(), ids=STORIES)
def test_story(text: str) -> None:
    """Each happening has exactly the effects that the story tells."""
    Story().tell(text)


def test_the_rule_is_named_only_where_configured() -> None:
    """The reply names the rule in the configured field, with nothing in it that could break the reply."""
    story = Story(
        lambda head: Verdict("deny", False, f"a/b#\r\n{head.path.decode()}é"),
        HttpOptions(rule_header=b"x-kproxy-rule"),
    )
    story.tell("""
        client  {bad}
        >client HTTP/1.1 403 Forbidden¶Content-Type: text/plain¶Content-Length: 15¶x-kproxy-rule: a/b#??/secret?¶¶…
        log     deny 403 /secret
    """)
    Story(lambda _: Verdict("deny", False, ""), HttpOptions(rule_header=b"x-kproxy-rule")).tell("""
        client  {bad}
        >client {403}
        log     deny 403 /secret
    """)


def test_ambiguous_paths_pass_where_configured() -> None:
    """An operator whose servers read paths as the rules do may turn the refusal off."""
    Story(options=HttpOptions(refuse_ambiguous_paths=False)).tell("""
        client  GET /judged//x HTTP/1.1¶Host: a¶¶
        >server GET /judged//x HTTP/1.1¶Host: a¶¶
    """)


def test_an_ambiguous_path_is_no_ones_rule_but_keeps_its_name() -> None:
    """The log says why, and which rule would have let the request through."""
    story = Story()
    story.tell("""
        client  GET /judged/%2e%2e/x HTTP/1.1¶Host: a¶¶
        >client {403}
        log     deny 403 /judged/%2e%2e/x
    """)
    assert story.wire.judgement.reason == "ambiguous_path"
    assert story.wire.judgement.rule == ALLOW.rule


def always(judgement: Any) -> Any:
    """A policy that says this of every request."""
    return lambda _: judgement


AMBIGUOUS = "GET /judged//x HTTP/1.1¶Host: a¶¶"


def test_an_ambiguous_path_is_refused_whatever_is_audited_beside() -> None:
    """A policy that is only tried, and would deny the request, does not let it past an enforced path rule."""
    for judgement in (
        Verdict("audit", True, path_judged=True),
        PairJudgement(AUDIT, Verdict(path_judged=True)),
        PairJudgement(Verdict(path_judged=True), Verdict("audit", True, path_judged=True, path_tried=True)),
    ):
        story = Story(always(judgement))
        story.tell(f"""
            client  {AMBIGUOUS}
            >client {{403}}
            log     deny 403 /judged//x
        """)
        assert story.wire.judgement.rule == ALLOW.rule


def test_an_ambiguous_path_passes_and_is_told_where_path_rules_are_only_tried() -> None:
    """Audit mode lets pass what it would refuse, and says so; header edits that are due are still made."""
    tried = Verdict(path_judged=True, path_tried=True, edits=(HeaderEdit("add", b"x-a", b"1"),))
    tried = replace(tried, guarded=frozenset((b"x-a",)))
    for judgement in (tried, PairJudgement(ALLOW, tried)):
        story = Story(always(judgement))
        story.tell(f"""
            client  {AMBIGUOUS}
            >server GET /judged//x HTTP/1.1¶Host: a¶x-a: 1¶¶
            server  HTTP/1.1 204 No Content¶¶
            >client HTTP/1.1 204 No Content¶¶
            log     audit 204 /judged//x
        """)
        assert story.wire.judgement.reason == "audit: ambiguous_path"


def test_the_policy_is_asked_once_at_each_requests_turn() -> None:
    """A request that waited is judged by the policy that is in force when it is taken, and only then."""
    asked: list[bytes] = []
    verdicts = {b"/jobs/1": ALLOW, b"/jobs/2": ALLOW}

    def judge(head: RequestHead) -> Verdict:
        asked.append(head.path)
        return verdicts[head.path]

    story = Story(judge)
    story.tell("""
        client  {get}{get2}
        >server {get}
    """)
    assert asked == [b"/jobs/1"]
    verdicts[b"/jobs/2"] = DENY
    story.tell("""
        server  {ok}
        >client {ok}
        log     allow 200 /jobs/1
        >client {403}
        log     deny 403 /jobs/2
    """)
    assert asked == [b"/jobs/1", b"/jobs/2"]


def test_bytes_and_times_are_accounted() -> None:
    """Bytes are the original ones both ways; the clock is looked at three times for a request."""
    story = Story()
    story.tell("""
        client  {post}data
        >server {post}data
        server  {100}{ok}
        >client {100}{ok}
        log     allow 200 /jobs/1
    """)
    wire = story.wire
    assert wire.bytes_in == len(to_bytes("{post}data"))
    assert wire.bytes_out == len(to_bytes("{100}{ok}"))
    assert (wire.proxy_ns, wire.upstream_ns) == (1, 1)
    assert story.clock.looks == 3


def test_a_denial_is_accounted() -> None:
    """What the client sent and was answered counts, and no upstream was waited for."""
    story = Story()
    story.tell("""
        client  {bad}
        >client {403}
        log     deny 403 /secret
    """)
    wire = story.wire
    assert (wire.bytes_in, wire.bytes_out) == (len(to_bytes("{bad}")), len(to_bytes("{403}")))
    assert (wire.proxy_ns, wire.upstream_ns) == (1, 0)


def test_a_refusal_knows_its_head_where_there_was_one() -> None:
    """A body that is wrong at once is logged with the request that it belongs to."""
    story = Story()
    story.tell("""
        client  {chunked}zz¶
        >client HTTP/1.1 400 …
        refused chunk_size 400
        >server END
        >client END
    """)
    assert story.wire.refused_head is not None
    assert story.wire.refused_head.path == b"/jobs/1"


def test_options_come_from_the_configuration() -> None:
    """Every limit of the configuration file reaches the flow, in the flow's units."""
    limits = HttpLimits(
        request_line_bytes=1000,
        head_bytes=2000,
        head_fields=30,
        chunk_line_bytes=40,
        chunk_overhead_bytes=500,
        trailer_bytes=600,
        trailer_fields=7,
        head_seconds=0.5,
        idle_seconds=2.0,
        drain_bytes=9,
    )
    config = Config(
        node="n", rules=("r",), endpoints="e", deny_rule_header="x-rule", limits=ServiceLimits(http=limits)
    )
    assert HttpOptions.of(config) == HttpOptions(
        parse=Limits(1000, 2000, 30, 40, 500, 600, 7),
        head_ns=500_000_000,
        idle_ns=2_000_000_000,
        drain_bytes=9,
        rule_header=b"x-rule",
    )
    assert HttpOptions.of(Config(node="n", rules=("r",), endpoints="e")) == HttpOptions()
