"""Cron schedules: five fields, or a word such as `@hourly`.

Fields are minute, hour, day of month, month and day of week (0 and 7 are Sunday), each `*`, a number, a name (`mon`,
`jan`), a range `a-b`, any of them with a step `/n`, and lists of these. As in cron, when both days are restricted
either of them is enough.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_HORIZON: Final = dt.timedelta(days=366 * 5)


class Schedule(msgspec.Struct, frozen=True):
    """The moments of a schedule; None stands for an unrestricted day."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None

    def after(self, moment: dt.datetime) -> dt.datetime | None:
        """The first moment of the schedule after this one, None when there is none within five years."""
        at = moment.replace(second=0, microsecond=0) + dt.timedelta(minutes=1)
        end = moment + _HORIZON
        while at < end:
            if at.month not in self.months or not self._on_day(at):
                at = at.replace(hour=0, minute=0) + dt.timedelta(days=1)
            elif at.hour not in self.hours:
                at = at.replace(minute=0) + dt.timedelta(hours=1)
            elif at.minute not in self.minutes:
                at += dt.timedelta(minutes=1)
            else:
                return at
        return None

    def _on_day(self, at: dt.datetime) -> bool:
        day = None if self.days is None else at.day in self.days
        weekday = None if self.weekdays is None else at.isoweekday() % 7 in self.weekdays
        if day is None or weekday is None:
            return day is not False and weekday is not False
        return day or weekday


def parse_schedule(text: str) -> Schedule:
    """The schedule that a text means. ValueError says which field is wrong."""
    fields = _WORDS.get(text.strip(), text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f'"{text[:80]}" has {len(fields)} fields instead of five')
    minutes, hours, days, months, weekdays = (
        _field(part, name, low, high, words) for part, (name, low, high, words) in zip(fields, _FIELDS, strict=True)
    )
    return Schedule(
        minutes,
        hours,
        None if fields[2].startswith("*") else days,
        months,
        None if fields[4].startswith("*") else frozenset(day % 7 for day in weekdays),
    )


def _field(text: str, name: str, low: int, high: int, words: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span in ("*", "?"):
                begin, end = low, high
            else:
                begin = _number(first, low, words)
                end = _number(last, low, words) if dash else (high if slash else begin)
            stride = int(step) if slash else 1
        except ValueError:
            raise ValueError(f'"{part[:40]}" cannot be a {name}') from None
        if not (low <= begin <= end <= high) or stride < 1:
            raise ValueError(f'"{part[:40]}" is not a {name} from {low} to {high}')
        found.update(range(begin, end + 1, stride))
    return frozenset(found)


def _number(text: str, low: int, words: tuple[str, ...]) -> int:
    return words.index(text) + low if text in words else int(text)
