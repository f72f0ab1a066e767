"""Times as files hold them: ISO 8601, in any zone or none."""

from __future__ import annotations

from datetime import UTC, datetime


def in_utc(text: str) -> datetime:
    """Return a time that can be compared: in UTC, also where it names no zone.

    Raises:
        ValueError: It is no time, or one that has no date in UTC.
    """
    time = datetime.fromisoformat(text)
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is not a date and time in UTC") from error
