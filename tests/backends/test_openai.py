"""An endpoint that behaves and one that does not: a real server on this machine, no mocks."""

from __future__ import annotations

import json
import math
import socket
import time

import pytest
from pydantic import ValidationError

from selfpriority.backends.cache import Cached
from selfpriority.backends.http import GREETING, key_variable
from selfpriority.backends.openai import OpenaiModel
from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Choice, Choose, Classify, Completion, Embed, Failure, Generate, Text, ask
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Message
from tests.backends.conftest import Reply, chat

SECRET = "sk-do-not-write-this-anywhere"


def question(text: str = "Hello?", n: int = 1, seed: int = 5) -> Generate:
    return Generate((Message("user", text),), n=n, temperature=0.7, top_p=0.9, max_new_tokens=20, seed=seed)


def digits(text: str = "Rate it.") -> Choose:
    return Choose(((Message("user", text),),), tuple("0123456789"))


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    return Reply({"error": {"code": code, "message": message}}, status, headers)


def logprobs(**chances: float) -> Reply:
    top = [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]
    return chat("7", logprobs={"content": [{"token": "7", "logprob": -1.0, "top_logprobs": top}]})


def test_a_good_answer(serving, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    server = serving(lambda body, n: chat("Hi there."))
    (answer,) = ask(OpenaiModel("small", server.settings(api_key_env="OPENAI_API_KEY")), [question()])
    assert answer == Completion((Text("Hi there.", 7, "end"),))
    assert server.keys == [f"Bearer {SECRET}"]
    assert server.bodies == [
        {
            "path": "/v1/chat/completions",
            "model": "small",
            "messages": [{"role": "user", "content": "Hello?"}],
            "max_tokens": 20,
            "temperature": 0.7,
            "top_p": 0.9,
            "n": 1,
            "seed": 5,
        }
    ]


def test_without_a_key_none_is_sent_and_names_can_be_the_servers(serving):
    server = serving(lambda body, n: chat("Hi.", finish="length"))
    settings = server.settings(model="served-name", limit_field="max_completion_tokens", base_url=server.base_url + "/")
    (answer,) = ask(OpenaiModel("small", settings), [question()])
    assert answer == Completion((Text("Hi.", 7, "length"),))
    assert server.keys == [None]
    assert (server.bodies[0]["model"], server.bodies[0]["max_completion_tokens"]) == ("served-name", 20)


def test_n_answers_from_one_request_or_from_several(serving):
    many = serving(lambda body, n: chat(*(f"{i}" for i in range(body["n"]))))
    (answer,) = ask(OpenaiModel("m", many.settings()), [question(n=3)])
    assert [text.text for text in answer.texts] == ["0", "1", "2"]
    assert len(many.bodies) == 1

    single = serving(lambda body, n: chat(f"seed {body['seed']}"))  # gives one whatever is asked
    (answer,) = ask(OpenaiModel("m", single.settings()), [question(n=3)])
    assert [text.text for text in answer.texts] == ["seed 5", "seed 6", "seed 7"]

    strict = serving(lambda body, n: chat("x") if body["n"] == 1 else error(400, "unsupported_value", "n"))
    (answer,) = ask(OpenaiModel("m", strict.settings()), [question(n=2)])
    assert len(answer.texts) == 2


def test_a_request_that_is_rejected_itself_costs_no_other_its_draws_at_once(serving):
    def respond(body, n):
        return error(400, "odd") if "odd" in body["messages"][0]["content"] else chat(*["x"] * body["n"])

    server = serving(respond)
    odd, *others = ask(OpenaiModel("m", server.settings(concurrency=1)), [question(t, n=3) for t in ("odd", "a", "b")])
    assert odd.reason == "rejected"
    assert [len(answer.texts) for answer in others] == [3, 3]
    assert [body["n"] for body in server.bodies] == [3, 1, 3, 3]


def test_a_choice_that_is_none_leaves_the_others_of_its_reply(serving, tmp_path):
    """A hidden budget of thoughts that is used up gives a null; the draws beside it are paid for."""

    def respond(body, n):
        reply = chat("one", "two", "three")
        if n == 1:
            reply.body["choices"][1] = {"index": 1, "message": {"content": None}, "finish_reason": "length"}
        return reply

    server = serving(respond)
    model = OpenaiModel("m", server.settings())
    (answer,) = ask(Cached(model, tmp_path / "cache.sqlite"), [question(n=3)])
    assert [text.text for text in answer.texts] == ["one", "three"]
    assert [failure.reason for failure in answer.missing] == ["garbage"]
    assert len(server.bodies) == 1
    (again,) = ask(Cached(model, tmp_path / "cache.sqlite"), [question(n=3)])
    assert len(again.texts) == 3


def test_digits_from_token_probabilities(serving):
    server = serving(lambda body, n: logprobs(**{"7": 0.5, " 7": 0.1, "8": 0.2, "10": 0.1, "The": 0.05}))
    (answer,) = ask(OpenaiModel("m", server.settings()), [digits()])
    assert isinstance(answer, Choice)
    assert answer.probabilities[0][7] == pytest.approx(0.6)  # both spellings
    assert answer.probabilities[0][8] == pytest.approx(0.2)
    assert answer.probabilities[0][1] == 0.0  # "10" is no 1
    body = server.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"], body["temperature"]) == (True, 20, 1, 0.0)


def places(*given: tuple[str | None, dict[str, float]]) -> Reply:
    """A reply of several tokens: what was written in each place, and what might have been."""
    told = [
        {
            "token": written,
            "logprob": -0.1,
            "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top.items()],
        }
        for written, top in given
    ]
    return chat("7", logprobs={"content": told})


@pytest.mark.parametrize("space", ["\u2581", " ", "", "\u0120"], ids=["sentencepiece", "llama.cpp", "vllm", "bytes"])
def test_behind_a_bare_space_the_digit_is_read(serving, space):
    """Llama-2 and Mistral write a space piece before a digit: each way in which servers spell it."""
    first = (space, {space: 0.9, "3": 0.02, "\u25813": 0.01, "The": 0.05})
    second = ("7", {"7": 0.6, "\u25817": 0.1, "3": 0.2, "10": 0.05})
    server = serving(lambda body, n: places(*(first, second)[: body["max_tokens"]]))
    (answer,) = ask(OpenaiModel("m", server.settings()), [digits()])
    assert answer.probabilities[0][7] == pytest.approx(0.9 * 0.7)
    assert answer.probabilities[0][3] == pytest.approx(0.03 + 0.9 * 0.2)
    assert sum(answer.probabilities[0]) == pytest.approx(0.03 + 0.9 * 0.9)  # "The" is what is missing, the space is not
    once, twice = server.bodies
    assert (once["max_tokens"], twice) == (1, {**once, "max_tokens": 2})


def test_a_space_in_bytes_alone(serving):
    def respond(body, n):
        top = [{"bytes": [*spelled.encode()], "logprob": math.log(p)} for spelled, p in ((" ", 0.9), ("7", 0.05))]
        digit = [{"bytes": [*spelled.encode()], "logprob": math.log(p)} for spelled, p in (("7", 0.8), (" 8", 0.1))]
        content = [{**top[0], "top_logprobs": top}, {**digit[0], "top_logprobs": digit}]
        return chat("7", logprobs={"content": content[: body["max_tokens"]]})

    (answer,) = ask(OpenaiModel("m", serving(respond).settings()), [digits()])
    assert answer.probabilities[0][7] == pytest.approx(0.05 + 0.9 * 0.8)
    assert answer.probabilities[0][8] == pytest.approx(0.9 * 0.1)


@pytest.mark.parametrize(
    "top",
    [{"7": 0.9, " ": 0.1}, {" 7": 0.6, "8": 0.3}, {" ": 0.5, "The": 0.4}, {"\n": 0.9, "7": 0.05}, {"The": 1.0}],
    ids=["a digit", "a digit with its space", "half a space", "a line end", "a word"],
)
def test_a_server_that_does_not_begin_with_a_space_is_asked_once_and_as_ever(serving, top):
    server = serving(lambda body, n: logprobs(**top))
    (answer,) = ask(OpenaiModel("m", server.settings()), [digits()])
    assert answer.probabilities[0] == tuple(
        pytest.approx(sum(p for token, p in top.items() if token.strip() == digit)) for digit in "0123456789"
    )
    assert server.bodies == [
        {
            "path": "/v1/chat/completions",
            "model": "m",
            "messages": [{"role": "user", "content": "Rate it."}],
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": 20,
        }
    ]


@pytest.mark.parametrize(
    "longer",
    [
        places((" ", {" ": 0.9})),
        places(("The", {" ": 0.9, "The": 0.1}), ("7", {"7": 0.9})),
        places((None, {" ": 0.9}), ("7", {"7": 0.9})),
    ],
    ids=["no second place", "another token was drawn", "the drawn one is not told"],
)
def test_a_second_place_that_is_not_behind_the_space_says_nothing(serving, longer):
    server = serving(lambda body, n: longer if body["max_tokens"] == 2 else places((" ", {" ": 0.9, "7": 0.05})))
    (answer,) = ask(OpenaiModel("m", server.settings()), [digits()])
    assert answer.probabilities[0][7] == pytest.approx(0.05)
    assert sum(answer.probabilities[0]) == pytest.approx(0.05)
    assert len(server.bodies) == 2


def test_what_fails_on_the_second_asking_fails_alone(serving, tmp_path):
    """The contexts before it are kept, and the next command asks for what is missing only."""

    def respond(body, n):
        if body["max_tokens"] == 1:
            return places((" ", {" ": 0.9}))
        return (
            Reply("{{{{")
            if "odd" in body["messages"][0]["content"] and n < 6
            else places((" ", {" ": 0.9}), ("7", {"7": 0.8}))
        )

    server = serving(respond)
    request = Choose(((Message("user", "even"),), (Message("user", "odd"),)), ("7",))
    model = OpenaiModel("m", server.settings(retries=1, concurrency=1))
    (first,) = ask(Cached(model, tmp_path / "cache.sqlite"), [request])
    assert first.probabilities == ((pytest.approx(0.72),),)
    assert [failure.reason for failure in first.missing] == ["garbage"]
    (second,) = ask(Cached(model, tmp_path / "cache.sqlite"), [request])
    assert second.probabilities == ((pytest.approx(0.72),), (pytest.approx(0.72),))
    assert [body["messages"][0]["content"] for body in server.bodies] == ["even"] * 2 + ["odd"] * 5


@pytest.mark.parametrize("reply", [chat("7"), error(400, "unsupported_parameter", "logprobs")], ids=["left out", "400"])
def test_a_server_without_probabilities_is_said_and_not_papered_over(serving, reply):
    """deepeval#1029: a silent fall-back from expected ratings to another kind."""
    server = serving(lambda body, n: reply)
    with pytest.raises(InputError, match=r"gives no token probabilities.*method: verbal"):
        ask(OpenaiModel("m", server.settings()), [digits()])


def test_one_reply_without_probabilities_is_one_failure(serving):
    server = serving(lambda body, n: chat("7") if "odd" in body["messages"][0]["content"] else logprobs(**{"7": 0.9}))
    model = OpenaiModel("m", server.settings(concurrency=1))
    good, odd = ask(model, [digits(), digits("odd")])
    assert isinstance(good, Choice)
    assert odd.reason == "unsupported"


@pytest.mark.parametrize(
    "bad",
    [
        error(429, "rate_limit_exceeded"),
        error(500, "server_error"),
        Reply("upstream is gone", 503),
        Reply('{"choices": [', cut=True),
        Reply("<html>not what you asked for</html>"),
        Reply({"choices": []}),
        Reply({"choices": [{"message": {"content": None}}]}),
        Reply([1, 2]),
        Reply({"choices": "abc"}),
    ],
    ids=["429", "500", "503", "cut", "html", "no choice", "no text", "a list", "a string"],
)
def test_what_may_pass_is_tried_again(serving, bad):
    server = serving(lambda body, n: bad if n < 3 else chat("At last."))
    (answer,) = ask(OpenaiModel("m", server.settings()), [question()])
    assert answer == Completion((Text("At last.", 7, "end"),))
    assert len(server.bodies) == 3


def test_silence_is_tried_again(serving):
    server = serving(lambda body, n: Reply({}, delay=0.6) if n == 1 else chat("Awake."))
    (answer,) = ask(OpenaiModel("m", server.settings(timeout=0.2)), [question()])
    assert isinstance(answer, Completion)


def test_the_server_may_name_the_pause(serving):
    server = serving(lambda body, n: error(429, "slow down", **{"Retry-After": "0.4"}) if n == 1 else chat("Yes."))
    start = time.monotonic()
    ask(OpenaiModel("m", server.settings()), [question()])
    assert 0.4 <= time.monotonic() - start < 3


def test_a_text_that_always_fails_costs_that_text_alone(serving):
    """distilabel#1182: one bad rating kills the batch."""
    broken = error(500, "server_error")
    server = serving(lambda body, n: broken if "poison" in body["messages"][0]["content"] else chat("Fine."))
    model = OpenaiModel("m", server.settings(retries=1, concurrency=1))
    first, bad, last = ask(model, [question("a"), question("poison"), question("b")])
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    assert bad == Failure("server_error", "HTTP 500")


def test_garbage_for_ever_is_a_failure_with_its_reason(serving):
    server = serving(lambda body, n: Reply("{{{{"))
    (answer,) = ask(OpenaiModel("m", server.settings(retries=1)), [question()])
    assert isinstance(answer, Failure)
    assert answer.reason == "garbage"


@pytest.mark.parametrize(
    "reply",
    [
        chat("", finish="content_filter"),
        Reply({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}),
        error(400, "content_filter", "The prompt triggered the content management policy"),
    ],
    ids=["finish reason", "refusal", "400"],
)
def test_refused_content_is_an_outcome_of_its_own(serving, reply):
    """PyRIT#2072: a content filter crashes the scorer."""
    server = serving(lambda body, n: chat("Hello!") if body["messages"] == GREETING else reply)
    (answer,) = ask(OpenaiModel("m", server.settings()), [question()])
    assert answer.reason == "refused"
    asked = [body for body in server.bodies if body["messages"] != GREETING]
    assert len(asked) == 1  # asking again would not help


FILTERED = {"message": {"content": None}, "finish_reason": "content_filter"}


def test_one_filtered_choice_costs_that_choice_alone(serving, tmp_path):
    def many(body, n):
        reply = chat(*(f"{i}" for i in range(body["n"])))
        reply.body["choices"][2] = FILTERED
        return reply

    server = serving(many)
    (answer,) = ask(Cached(OpenaiModel("m", server.settings()), tmp_path / "cache.sqlite"), [question(n=4)])
    assert [text.text for text in answer.texts] == ["0", "1", "3"]
    assert [failure.reason for failure in answer.missing] == ["refused"]
    assert len(server.bodies) == 1
    (again,) = ask(Cached(OpenaiModel("m", server.settings()), tmp_path / "cache.sqlite"), [question(n=4)])
    assert again == answer
    assert len(server.bodies) == 1


def test_a_filtered_eighth_answer_does_not_lose_the_seven_before_it(serving):
    server = serving(lambda body, n: Reply({"choices": [FILTERED]}) if n == 8 else chat(f"{n}"))
    (answer,) = ask(OpenaiModel("m", server.settings(concurrency=1)), [question(n=8)])
    assert [text.text for text in answer.texts] == ["1", "2", "3", "4", "5", "6", "7"]
    assert [failure.reason for failure in answer.missing] == ["refused"]


def test_what_breaks_half_way_keeps_what_was_paid_for(serving):
    server = serving(lambda body, n: chat("Paid for.") if n == 1 else error(500, "gone"))
    (answer,) = ask(OpenaiModel("m", server.settings(retries=0)), [question(n=3)])
    assert len(answer.texts) == 1
    assert [failure.reason for failure in answer.missing] == ["server_error"] * 2
    assert len(server.bodies) == 2


def test_too_long_and_rejected_are_failures_of_the_request(serving):
    def respond(body, n):
        long = "long" in body["messages"][0]["content"]
        return error(400, "context_length_exceeded" if long else "bad_value", "the text of the request, quoted")

    model = OpenaiModel("m", serving(respond).settings())
    long, odd = ask(model, [question("long"), question("odd")])
    assert long.reason == "too_long"
    assert odd == Failure("rejected", "HTTP 400")  # the server's words may quote the prompt


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, r"refuses the key \(HTTP 401\): \$OPENAI_API_KEY is wrong"),
        (403, "refuses the key"),
        (404, "knows no model 'nobody'"),
        (307, "points elsewhere"),
    ],
)
def test_what_the_recipe_has_wrong_is_one_line(serving, monkeypatch, status, told):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    where = {"Location": "http://127.0.0.1:9/"} if status == 307 else {}
    server = serving(lambda body, n: error(status, "no", f"your key {SECRET} is bad", **where))
    with pytest.raises(InputError, match=told) as caught:
        ask(OpenaiModel("nobody", server.settings(api_key_env="OPENAI_API_KEY")), [question()])
    assert len(caught.value.lines) == 1
    assert SECRET not in str(caught.value)


def test_a_missing_key_is_called_missing(serving):
    server = serving(lambda body, n: error(401, "no"))
    with pytest.raises(InputError, match=r"\$MY_KEY is not set"):
        ask(OpenaiModel("m", server.settings(api_key_env="MY_KEY")), [question()])


@pytest.mark.parametrize(
    ("base_url", "named", "variable"),
    [
        ("https://api.openai.com/v1", None, "OPENAI_API_KEY"),
        ("https://api.openai.com/v1", "MY_KEY", "MY_KEY"),
        ("http://api.openai.com/v1", None, None),
        ("https://api.openai.com.elsewhere.org/v1", None, None),
        ("http://127.0.0.1:8000/v1", None, None),
        ("http://127.0.0.1:8000/v1", "MY_KEY", "MY_KEY"),
    ],
)
def test_a_key_goes_to_openai_or_where_it_is_told_to_go(base_url, named, variable):
    assert key_variable(OpenaiBackend(kind="openai", base_url=base_url, api_key_env=named)) == variable


def test_another_server_gets_no_key_unasked(serving, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serving(lambda body, n: error(401, "no"))
    with pytest.raises(InputError, match=r"wants a key \(HTTP 401\); name the environment variable .* in api_key_env"):
        ask(OpenaiModel("m", server.settings()), [question()])
    assert server.keys == [None]


def test_a_key_that_cannot_be_sent_is_not_quoted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n{SECRET}")
    with pytest.raises(InputError, match="no key has") as caught:
        OpenaiModel("m", OpenaiBackend(kind="openai", base_url="https://api.openai.com/v1"))
    assert SECRET not in str(caught.value)


def test_nobody_there_is_one_line(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = OpenaiBackend(kind="openai", base_url=f"http://127.0.0.1:{port}/v1", retries=1, backoff=0.01)
    with pytest.raises(InputError, match=r"cannot be reached.*\(2 tries\); is the server running"):
        ask(OpenaiModel("m", settings), [question()])


def test_a_server_that_goes_away_stops_the_work_and_loses_nothing(serving, tmp_path):
    server = serving(lambda body, n: chat("Paid for.") if n <= 3 else error(503, "gone"))
    settings = server.settings(retries=1, concurrency=1)
    requests = [question(str(i)) for i in range(12)]
    with pytest.raises(WorkFailed, match="does not answer: HTTP 503"):
        ask(Cached(OpenaiModel("m", settings), tmp_path / "cache.sqlite"), requests)

    again = serving(lambda body, n: chat("Later."))
    moved = OpenaiModel("m", again.settings())
    moved._settings = settings  # the same address to the cache
    answers = ask(Cached(moved, tmp_path / "cache.sqlite"), requests)
    assert [answer.texts[0].text for answer in answers] == ["Paid for."] * 3 + ["Later."] * 9


def test_failures_that_may_pass_are_not_kept(serving, tmp_path):
    server = serving(lambda body, n: Reply("{{{{") if n <= 2 else chat("Good."))
    model = OpenaiModel("m", server.settings(retries=1))
    (first,) = ask(Cached(model, tmp_path / "cache.sqlite"), [question()])
    (second,) = ask(Cached(model, tmp_path / "cache.sqlite"), [question()])
    assert first.reason == "garbage"
    assert isinstance(second, Completion)


def test_requests_are_under_way_together_and_answers_keep_their_places(serving):
    server = serving(lambda body, n: Reply(chat(body["messages"][0]["content"]).body, delay=0.2))
    start = time.monotonic()
    answers = ask(OpenaiModel("m", server.settings(concurrency=8)), [question(str(i)) for i in range(16)])
    assert time.monotonic() - start < 16 * 0.2 / 2
    assert [answer.texts[0].text for answer in answers] == [str(i) for i in range(16)]


def test_hidden_states_and_classes_are_unsupported(serving):
    server = serving(lambda body, n: chat("no"))
    turns = (Message("user", "Hello?"),)
    answers = ask(OpenaiModel("m", server.settings()), [Embed(turns, "Hi.", (1,)), Classify(turns, "Hi.")])
    assert [answer.reason for answer in answers] == ["unsupported"] * 2
    assert server.bodies == []


def test_no_key_in_fingerprint_settings_or_cache(serving, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serving(lambda body, n: chat("Hi."))
    settings = server.settings(api_key_env="OPENAI_API_KEY")
    model = OpenaiModel("m", settings)
    ask(Cached(model, tmp_path / "cache.sqlite"), [question()])
    assert server.keys == [f"Bearer {SECRET}"]
    assert SECRET not in model.fingerprint + json.dumps(settings.model_dump())
    assert not [path for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://me:secret@host/v1", "https://host/v1?key=secret", "ftp://h"])
def test_addresses_that_hold_a_secret_or_are_none(url):
    with pytest.raises(ValidationError):
        OpenaiBackend(kind="openai", base_url=url)
