"""What Envoy says against a configuration, in words of the configuration. What is not known here stays as it is."""

from __future__ import annotations

import re
from typing import Final

_KNOWN: Final = (
    (
        r"[Ii]nvalid regex|no argument for repetition operator|missing \)|bad repetition",
        "a regular expression is not valid",
    ),
    (
        r"unknown cluster '?(?:outbound\|)?(\d+)\|(\w*)\|([^']+)'?",
        r"it refers to \3 port \1, which this proxy does not know",
    ),
    (r"Only unique values for domains are permitted.*?domain (\S+)", r"two hosts claim \1 in one route table"),
    (r"Only a single wildcard domain", "two hosts claim every name (*) in one route table"),
    (r"error adding listener.*?has duplicate address '([^']+)'", r"two listeners claim \1"),
    (r"[Cc]annot bind '([^']+)'", r"the address \1 is taken on the Pod"),
    (r"Didn't find a registered implementation for.*?'([^']+)'", r"this Envoy has no extension \1"),
    (r"[Ff]ailed to load (?:certificate|private key|incomplete)", "a certificate or key cannot be read"),
    (r"Not supported field in StreamInfo: (\S+)", r"a header value names a variable that there is not: \1"),
    (r"Proto constraint validation failed \((.*)\)", r"a value is outside of what is allowed (\1)"),
)


def translated(words: str) -> str:
    """The same in plain words; Envoy's own where they are not known."""
    for pattern, plain in _KNOWN:
        found = re.search(pattern, words)
        if found is not None:
            return found.expand(plain)
    return words
