"""The three programs of the tutorial in one: customer asks preference, preference asks recommendation.

It runs alone (`python3 -c TEXT`), by the environment: SERVICE, VERSION, NEXT (the name it asks, none for the last one)
and DELAY_S. The answers have the tutorial's form: `customer => preference => recommendation v1 from 'pod': 3`. GET
/misbehave lets this replica answer 503 from then on, GET /behave ends that.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVICE, VERSION = os.environ["SERVICE"], os.environ.get("VERSION", "v1")
NEXT, DELAY_S = os.environ.get("NEXT", ""), float(os.environ.get("DELAY_S", "0"))
NAME = os.environ.get("HOSTNAME") or socket.gethostname()


class Handler(BaseHTTPRequestHandler):
    """One request; the user agent is handed on as baggage, as the tutorial's customer does."""

    protocol_version = "HTTP/1.1"
    count = 0
    broken = False
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answers."""
        if self.path.startswith("/health"):
            self.answer(200, "ok")
        elif self.path in ("/misbehave", "/behave"):
            Handler.broken = self.path == "/misbehave"
            self.answer(200, f"this replica will {self.path[1:]}")
        elif NEXT:
            self.hand_on()
        else:
            with Handler.lock:
                Handler.count += 1
                count = Handler.count
            time.sleep(DELAY_S)
            said = f"{SERVICE} {VERSION} from '{NAME}': {count}"
            self.answer(
                503 if Handler.broken else 200, f"{SERVICE} misbehavior from '{NAME}'" if Handler.broken else said
            )

    def hand_on(self) -> None:
        """Asks the next one and answers with what it says."""
        baggage = {
            name: value for name, value in self.headers.items() if name.lower().startswith(("baggage-", "user-"))
        }
        agent = self.headers.get("user-agent", "")
        baggage.setdefault("baggage-user-agent", agent)
        request = urllib.request.Request(f"http://{NEXT}:8080/", headers=baggage)
        try:
            with urllib.request.urlopen(request, timeout=30) as got:
                self.answer(200, f"{SERVICE} => {got.read().decode()}")
        except urllib.error.HTTPError as error:
            self.answer(503, f"{SERVICE} => Error: {error.code} - {error.read().decode()}")
        except OSError as error:
            self.answer(503, f"{SERVICE} => Error: {error}")

    def answer(self, status: int, text: str) -> None:
        """Writes an answer."""
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Many at once."""

    request_queue_size = 128


Server(("", 8080), Handler).serve_forever()
