"""Which environment variables may hold the key of a server of models, and where a key may go. Reads none of them."""

from __future__ import annotations

import ipaddress
import urllib.parse

_KEYS = frozenset({"KEY", "APIKEY", "TOKEN"})
"""One of these words is in the name of a key."""
_HOMES = {
    "AWS": "amazonaws.com",
    "GH": "github.ai",
    "GITHUB": "github.ai",
    "HF": "huggingface.co",
    "HUGGING": "huggingface.co",
    "HUGGINGFACE": "huggingface.co",
    "HUGGINGFACEHUB": "huggingface.co",
    "WANDB": "wandb.ai",
}
"""Word in a name -> the only host whose servers of models take such a key; elsewhere it opens far more than a model."""
_OTHERS = frozenset(
    """
    SECRET PRIVATE PASSWORD PASSWD PASSPHRASE SSH GPG PGP SIGNING ENCRYPTION DATABASE DB STORAGE SESSION REFRESH GITLAB
    BITBUCKET CI NPM PYPI TWINE CARGO DOCKER KUBE VAULT STRIPE SLACK SENTRY KAGGLE
    """.split()  # noqa: SIM905 - a list of one word a line hides the file
)
"""Words in the names of secrets that no server of models takes."""


def key_doubt(variable: str, base_url: str, insecure_http: bool) -> str:
    """Why the key in `variable` is not sent to `base_url`; empty where it may be. The name is not told."""
    address = urllib.parse.urlsplit(base_url)
    host = (address.hostname or "").rstrip(".")
    words = variable.split("_")
    homes = [_HOMES[word] for word in words if word in _HOMES]
    at_home = all(host == home or host.endswith(f".{home}") for home in homes)
    if not _KEYS & {*words} or _OTHERS & {*words} or not at_home:
        there = f" and may go to {homes[0]} alone" if homes else ""
        return (
            f"is not named as a key for this server{there}; put the server's own key into a variable such as "
            f"MY_SERVER_API_KEY"
        )
    if address.scheme == "http" and not insecure_http and not is_this_machine(host):
        return "the key would go unencrypted over http to another machine; use https, or set insecure_http: true"
    return ""


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine by its very name, without asking anybody."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
