"""Errors that end what somebody asked for. What is wrong with configuration is a Finding instead.

LateenError           message, remedy
|- SettingsError      lateen.daemon.settings
`- ...                each beside what raises it
"""

from __future__ import annotations


class LateenError(Exception):
    """Something that the person who asked can mend: `str()` says what and where, `remedy` what to do."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
