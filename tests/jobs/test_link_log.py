"""What a process says of its links."""

import logging
from collections.abc import Iterator

import pytest

from jobs.link_log import show_links

LINKS = logging.getLogger("braidflow.quic")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    ours = logging.getLogger("braidflow")
    before = ours.handlers[:], ours.level, ours.propagate
    aioquic = logging.getLogger("quic")
    level = aioquic.level
    yield
    ours.handlers[:], ours.level, ours.propagate = before
    aioquic.setLevel(level)


def say(text: str, *, at: float) -> None:
    record = LINKS.makeRecord(LINKS.name, logging.INFO, "", 0, text, (), None)
    record.created = at
    LINKS.handle(record)


def test_a_line_is_said_again_after_a_minute_only(capsys: pytest.CaptureFixture[str]) -> None:
    show_links("job")
    show_links("job")
    for at in (0.0, 1.0, 59.0, 61.0, 62.0):
        say("h:1 cannot be reached", at=at)
    say("other", at=62.0)
    assert capsys.readouterr().err.splitlines() == [
        "job: h:1 cannot be reached",
        "job: h:1 cannot be reached",
        "job: other",
    ]


def test_what_is_only_of_interest_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    show_links("job")
    LINKS.info("%s has a new certificate", "leaf")
    LINKS.debug("nothing")
    logging.getLogger("braidflow.mesh").info("%s cannot be reached", "n1")
    assert capsys.readouterr().err.splitlines() == [
        "job: leaf has a new certificate",
        "job: n1 cannot be reached",
    ]
