"""Whether an address is reached through a proxy, and whose word that is. Sends nothing."""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
import urllib.request


def proxy_handler(url: str) -> urllib.request.ProxyHandler:
    """The proxies for an address: those of the environment, and none on the way to this machine.

    A proxy elsewhere that is asked for 127.0.0.1 looks at itself, and what it finds there is no server of the user's.
    """
    return urllib.request.ProxyHandler({} if is_this_machine(url) else None)


def proxy_variable(url: str) -> str | None:
    """The environment variable that sends requests to an address through a proxy; None where they go straight."""
    parts = urllib.parse.urlsplit(url)
    if is_this_machine(url) or urllib.request.proxy_bypass(parts.netloc):
        return None
    names = (f"{parts.scheme}_proxy", "all_proxy")
    given = [name for name in os.environ if name.lower() in names and os.environ[name]]
    return min(given, key=lambda name: (names.index(name.lower()), name), default=None)


def is_this_machine(url: str) -> bool:
    """Whether an address is on this machine, by its name alone."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
