"""The core of an HTTP/1.1 flow, as stories: who says what, and what must follow."""

from __future__ import annotations

import pytest
from story import Story

STORIES = {
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
    "nothing is sent on of a head that is not whole": """
        client  GET /jobs/1 HTTP/1.1¶Ho
        client  st: a¶
        client  ¶
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
}


@pytest.mark.parametrize("text", STORIES.values(), ids=STORIES)
def test_story(text: str) -> None:
    """Each happening has exactly the effects that the story tells."""
    Story().tell(text)
