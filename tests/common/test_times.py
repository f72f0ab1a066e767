from datetime import UTC, datetime

import pytest

from perpo.common.times import in_utc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01T00:30:00+02:00", datetime(2026, 1, 31, 22, 30, tzinfo=UTC)),
        ("2026-01-31T22:30:00-05:00", datetime(2026, 2, 1, 3, 30, tzinfo=UTC)),
        ("2026-02-01T01:00:00", datetime(2026, 2, 1, 1, tzinfo=UTC)),
        ("2026-02-01T01:00:00Z", datetime(2026, 2, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_any_zone_become_utc(text, expected):
    assert in_utc(text) == expected
    assert in_utc(text).utcoffset().total_seconds() == 0


@pytest.mark.parametrize("text", ["", "yesterday", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_what_is_no_time_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".+"):
        in_utc(text)
