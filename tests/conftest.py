"""What all tests share."""

from __future__ import annotations

import asyncio

# Without this, asyncio makes the main thread an event loop when pytest-asyncio asks for the one before its own, and
# nobody closes it: an unclosed loop is a warning, and warnings are errors here.
asyncio.set_event_loop(None)
