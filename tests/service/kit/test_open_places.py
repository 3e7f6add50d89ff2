"""What is open is counted by project and in all, and one more is refused by a sentence."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.kit.open_places import OpenPlaces, TooManyOpen


def test_a_project_and_the_process_have_a_bound_and_what_closes_makes_room() -> None:
    places = OpenPlaces("event streams", per_project=2, total=3, retry_after=5)
    with ExitStack() as greedy, ExitStack() as quiet:
        for _ in range(2):
            greedy.enter_context(places.hold_place("a"))
        with (
            pytest.raises(TooManyOpen, match="2 event streams of this project are open") as refused,
            places.hold_place("a"),
        ):
            pass
        assert (refused.value.status, refused.value.headers, refused.value.retry) == (429, {"retry-after": "5"}, True)
        quiet.enter_context(places.hold_place("安静"))
        with pytest.raises(TooManyOpen, match="3 event streams in this process"), places.hold_place("c"):
            pass
        greedy.close()
        with places.hold_place("c"):
            assert (places.count_open(), places.count_open("c"), places.count_open("a")) == (2, 1, 0)
    assert places.count_open() == 0
