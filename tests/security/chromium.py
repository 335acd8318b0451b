"""A real Chromium, driven over its own pipe: messages of JSON, each ended by a zero byte.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any, Final, Self

WITHIN_S: Final = 60.0
Json = dict[str, Any]


class Chromium:
    """One browser with one page and a fresh profile. Use it as a context manager."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        script = f'exec chromium "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["bash", "-c", script, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={self._profile}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*command, "about:blank"], pass_fds=(to_browser, from_browser), stdout=quiet, stderr=quiet
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._got = b""
        target = self._browser("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._browser("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def go(self, url: str) -> None:
        """Opens an address, as if it were typed."""
        found = self._page("Page.navigate", url=url)
        assert not found.get("errorText"), found

    def run(self, script: str) -> Any:
        """The value of an expression on the page; None while the page is changing."""
        found = self._page("Runtime.evaluate", expression=script, returnByValue=True)
        return found.get("result", {}).get("value")

    def cookies(self) -> list[Json]:
        """All that it keeps, also those that no script can read."""
        return self._browser("Storage.getCookies")["cookies"]

    def until(self, script: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + WITHIN_S
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"{script}: {self.run('document.documentElement.outerHTML')}"
            time.sleep(0.05)
        return found

    def click(self, selector: str) -> None:
        """A click on an element, once it is there."""
        self.until(f"document.readyState == 'complete' && !!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).click()")

    def fill(self, selector: str, text: str) -> None:
        """Types into a field, once it is there."""
        self.until(f"document.readyState == 'complete' && !!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).focus()")
        self._page("Input.insertText", text=text)

    def _page(self, method: str, **parameters: Any) -> Json:
        return self._ask({"method": method, "params": parameters, "sessionId": self._session})

    def _browser(self, method: str, **parameters: Any) -> Json:
        return self._ask({"method": method, "params": parameters})

    def _ask(self, message: Json) -> Json:
        self._number += 1
        os.write(self._out, json.dumps({"id": self._number, **message}).encode() + b"\0")
        end = time.monotonic() + WITHIN_S
        while True:
            while b"\0" in self._got:
                text, _, self._got = self._got.partition(b"\0")
                answer: Json = json.loads(text)
                if answer.get("id") == self._number:
                    return answer.get("result", {})
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium does not answer {message['method']}"
            more = os.read(self._in, 1 << 16)
            assert more, "Chromium has ended"
            self._got += more
