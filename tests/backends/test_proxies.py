"""A proxy variable of the environment: never on the way to this machine, and named where a server cannot be reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selfpriority.backends.openai import OpenaiModel
from selfpriority.backends.proxies import is_this_machine, proxy_variable
from selfpriority.errors import InputError
from selfpriority.language_model import Completion, Generate, ask
from selfpriority.records import Message
from tests.backends.conftest import Server, chat

HELLO = Generate((Message("user", "Hello"),), 1, 0.0, 1.0, 8, 0)
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", NOWHERE)


def test_a_server_on_this_machine_is_asked_past_the_proxy(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(lambda body, n: chat("Hi"))
    monkeypatch.delenv("NO_PROXY")
    [answer] = ask(OpenaiModel("m", server.settings(retries=0)), [HELLO])
    assert isinstance(answer, Completion)
    assert answer.texts[0].text == "Hi"


def test_the_variable_is_named_where_its_proxy_does_not_lead_on(serving: Callable[..., Server]) -> None:
    settings = serving(lambda body, n: chat("Hi")).settings(base_url="http://judge.example/v1", retries=0)
    with pytest.raises(InputError, match=r"through the proxy that http_proxy names \(NO_PROXY leaves a host out\)"):
        ask(OpenaiModel("m", settings), [HELLO])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://gpu.localhost/v1", True),
        ("http://localhost.example/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, expected: bool) -> None:
    assert is_this_machine(url) == expected


def test_whose_word_a_proxy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "near.example")
    monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
    assert proxy_variable("http://judge.example/v1") == "http_proxy"
    assert proxy_variable("https://judge.example/v1") == "HTTPS_PROXY"
    monkeypatch.setenv("https_proxy", "")  # switches the other spelling off
    assert proxy_variable("https://judge.example/v1") is None
    assert proxy_variable("http://near.example/v1") is None
    assert proxy_variable("http://localhost/v1") is None
