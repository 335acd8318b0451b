"""A token bucket: how fast somebody may go on."""

from __future__ import annotations


class Bucket:
    """Lets `rate` things a second pass for long, and `burst` at once. `now` is any clock in seconds."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> float:
        """Takes one; how many seconds to wait before the next, 0 for none."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._left / self._rate)

    def give_back(self) -> None:
        """Takes back a take: what was asked did not happen."""
        self._left += 1
