"""Why a machine cannot speak to its control plane: what TLS libraries say in riddles, said so that it can be mended.

Asked after a connection failed: it connects once more, takes the server's certificate without believing it, and
compares it with this machine's clock.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
from collections.abc import Callable

from cryptography import x509

TIMEOUT_S = 5.0


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def diagnose(target: str, error: str, now: Callable[[], dt.datetime] = utc_now) -> str:
    """What is wrong with the way to `HOST:PORT`, in a sentence with a remedy; empty when nothing more can be said than
    the error."""
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            leaf = await _leaf(host, int(port))
    except TimeoutError:
        return f"nothing answers at {target}: check the address in the bundle, and firewalls on the way"
    except ssl.SSLError as failed:
        return f"what answers at {target} does not speak TLS ({failed.reason}): is it the control plane?"
    except OSError as failed:
        why = os.strerror(failed.errno) if failed.errno else str(failed)
        return f"{target} cannot be reached ({why}): check the address in the bundle, and that the mesh runs"
    return _judge(leaf, error, target, now())


def _judge(leaf: x509.Certificate, error: str, target: str, now: dt.datetime) -> str:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not begins <= now <= ends:
        return (
            f"by the clock of this machine it is {now:%Y-%m-%d %H:%M:%S}Z, but the control plane's certificate is good "
            f"from {begins:%Y-%m-%d %H:%M:%S}Z to {ends:%Y-%m-%d %H:%M:%S}Z: set the clock"
        )
    if "CERTIFICATE_VERIFY_FAILED" in error:
        return (
            f"the certificate of {target} is not vouched for by root-cert.pem of the bundle: the bundle is of another "
            "mesh or the root was replaced, make it anew with `lateen vm entry configure`"
        )
    return ""


async def _leaf(host: str, port: int) -> x509.Certificate:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # looked at, not believed
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return x509.load_der_x509_certificate(encoded)
