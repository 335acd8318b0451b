"""Small protobuf values that several features write: durations, percentages, text comparisons, any-messages."""

from __future__ import annotations

from envoy.type.matcher.v3.string_pb2 import StringMatcher
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from lateen.intent.route import MatchKind, TextMatch

TYPE_PREFIX = "type.googleapis.com/"


def set_seconds(duration: Duration, seconds: float) -> None:
    """Writes seconds into a Duration, to the nearest nanosecond, and marks it as set even when it is zero."""
    nanos = round(seconds * 1_000_000_000)
    duration.seconds, duration.nanos = divmod(nanos, 1_000_000_000)
    duration.SetInParent()


def set_percent(fraction: FractionalPercent, percent: float) -> None:
    """Writes a percentage of 0 to 100 with four decimals."""
    fraction.numerator = round(min(max(percent, 0), 100) * 10_000)
    fraction.denominator = FractionalPercent.MILLION


def set_text(matcher: StringMatcher, text: TextMatch) -> None:
    """Writes a comparison other than PRESENT."""
    match text.kind:
        case MatchKind.EXACT:
            matcher.exact = text.value
        case MatchKind.PREFIX:
            matcher.prefix = text.value
        case MatchKind.REGEX:
            matcher.safe_regex.regex = text.value
        case MatchKind.PRESENT:
            raise ValueError("presence is not a comparison of texts")
    if text.ignore_case and text.kind is not MatchKind.REGEX:
        matcher.ignore_case = True


def pack(target: Any, message: Message) -> None:
    """Writes a message into an Any, with the same bytes each time."""
    target.type_url = TYPE_PREFIX + message.DESCRIPTOR.full_name
    target.value = message.SerializeToString(deterministic=True)
