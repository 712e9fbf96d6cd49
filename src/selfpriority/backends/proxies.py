"""Whether an address is reached through a proxy, and whose word that is. Sends nothing."""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
import urllib.request


def proxy_of(url: str) -> str | None:
    """The proxy for an address, as the environment or the system names it; None on the way to this machine.

    A proxy elsewhere that is asked for 127.0.0.1 looks at itself, and what it finds there is no server of the user's.
    """
    if proxy_variable(url) is None:
        return None
    named = urllib.request.getproxies()[urllib.parse.urlsplit(url).scheme]
    return named if "://" in named else f"http://{named}"


def proxy_variable(url: str) -> str | None:
    """What sends requests to an address through a proxy, a variable or the system; None where they go straight."""
    parts = urllib.parse.urlsplit(url)
    if is_this_machine(url) or urllib.request.proxy_bypass(parts.netloc):
        return None
    if parts.scheme not in urllib.request.getproxies():  # which knows that an empty lower-case name switches it off
        return None
    name = f"{parts.scheme}_proxy"
    return name if os.environ.get(name) else name.upper() if os.environ.get(name.upper()) else "the system's settings"


def is_this_machine(url: str) -> bool:
    """Whether an address is on this machine, by its name alone."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
