"""How often pages ask for news, by how many look on."""

import gc
from types import SimpleNamespace

import pytest

from pages.shared import pace


@pytest.fixture
def asking(monkeypatch):
    """asking(session): its interval, where it wants 2 s; no session but those of the test."""
    monkeypatch.setattr(pace, "_visitors", type(pace._visitors)())
    streamlit = SimpleNamespace()
    monkeypatch.setattr(pace, "st", streamlit)

    def ask(session):
        streamlit.session_state = session
        return pace.paced(2.0)

    return ask


def test_few_get_news_as_often_as_they_want_and_many_less_often(asking):
    sessions = [{} for _ in range(40)]
    intervals = [asking(session) for session in sessions]
    assert intervals[: pace.FULL_RATE_SESSIONS] == [2.0] * pace.FULL_RATE_SESSIONS
    assert intervals[5] == pytest.approx(2.0 * 6 / pace.FULL_RATE_SESSIONS)
    assert intervals == sorted(intervals)
    assert intervals[-1] == 2.0 * pace.MAX_SLOWDOWN


def test_a_session_counts_once_and_no_longer_than_it_lasts(asking):
    sessions = [{} for _ in range(6)]
    for session in sessions * 3:
        many = asking(session)
    assert many == pytest.approx(2.0 * 6 / pace.FULL_RATE_SESSIONS)
    last = sessions[-1]
    del session, sessions
    gc.collect()
    assert asking(last) == 2.0
