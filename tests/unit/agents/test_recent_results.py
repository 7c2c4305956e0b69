"""What is remembered of results: the newest, within bounds."""

from agents.recent_results import RecentResults


def test_the_oldest_make_room_by_number_and_by_size() -> None:
    recent = RecentResults(results=3, size=100)
    for name in "abcd":
        recent.put(name, name.encode())
    assert [recent.get(name) for name in "abcd"] == [None, b"b", b"c", b"d"]
    recent.put("b", b"again")  # the newest now
    recent.put("e", b"x" * 95)
    assert [recent.get(name) for name in "bcde"] == [b"again", None, None, b"x" * 95]
    recent.put("f", b"y" * 101)  # larger than all there is room for
    assert [recent.get(name) for name in "bef"] == [None, None, None]
