"""Errors as servers in the field word them: what each means, and that none is learned from in silence."""

from __future__ import annotations

import gzip
import json
import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest

from selfpriority.backends.cache import Cached
from selfpriority.backends.openai import OpenaiModel
from selfpriority.backends.server_errors import error_inside, pause_wanted, server_error
from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Choice, Choose, Completion, Failure, Generate, Text, ask
from selfpriority.records import Message
from tests.backends.conftest import Reply, chat


def question(text: str = "Hello?", n: int = 1) -> Generate:
    return Generate((Message("user", text),), n=n, temperature=0.7, top_p=0.9, max_new_tokens=20, seed=5)


def digits(text: str = "Rate it.") -> Choose:
    return Choose(((Message("user", text),),), tuple("0123456789"))


def failed(status: int, message: str, **more: object) -> Reply:
    return Reply({"error": {"message": message, **more}}, status)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        # of the account, whatever the status
        (402, "Insufficient Balance", "account"),
        (400, "You have reached your specified API usage limits. You will regain access on 2026-12-01", "account"),
        (400, "Your credit balance is too low to access the API. Please go to Plans & Billing", "account"),
        (429, "You exceeded your current quota, please check your plan. insufficient_quota", "account"),
        (403, "This request requires more credits: out of credits, add at the billing page", "account"),
        # of the key, whatever else the body says
        (401, "Incorrect API key provided: see our content policy", "key"),
        (400, "API key not valid. Please pass a valid API key.", "key"),
        (403, "The key may not use this model", "key"),
        # of this request
        (403, "openai/m requires moderation on Provider. Your input was flagged for \"violence\"", "refused"),
        (400, "The response was filtered due to the prompt triggering content management policy", "refused"),
        (400, "<400> InternalError: DataInspectionFailed data_inspection_failed", "refused"),
        (400, "the request exceeds the available context size. exceed_context_size_error", "too_long"),
        (500, "the request exceeds the available context size", "too_long"),
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000", "too_long"),
        (400, "Input is too long for requested model.", "too_long"),
        (413, "Payload Too Large", "too_long"),
        (422, "Something else", "rejected"),
        # of the moment
        (429, "Rate limit reached for requests", "again"),
        (529, "Overloaded", "again"),
        (503, "The queue is full", "again"),
        # of the recipe
        (404, "The model `m` does not exist", "model"),
        (308, "", "moved"),
        (400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "form"),
        (400, "Unsupported value: 'temperature' does not support 0.7. Only the default (1) value", "form"),
        (422, "seed: Extra inputs are not permitted", "form"),
    ],
)  # fmt: skip
def test_what_an_error_means(status, words, kind):
    assert server_error(status, json.dumps({"error": {"message": words}})).kind == kind


@pytest.mark.parametrize(
    ("words", "parameter"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.2 with this model", "temperature"),
        ("Unrecognized request argument supplied: seed", "seed"),
        ("`n` must be 1: more is not supported", "n"),
        ("logprobs is not supported by this model", "logprobs"),
        ("This text says nothing of it, and it is a seed of doubt", ""),
    ],
)
def test_which_parameter_is_refused(words, parameter):
    assert server_error(400, words).parameter == parameter


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("Retry-After", lambda now: "2.5", 2.5),
        ("retry-after", lambda now: formatdate(now + 30, usegmt=True), 30),
        ("Retry-After", lambda now: formatdate(now - 30, usegmt=True), 0),
        ("retry-after-ms", lambda now: "1500", 1.5),
        ("x-ratelimit-reset-requests", lambda now: "1m30s", 90),
        ("x-ratelimit-reset-tokens", lambda now: "6ms", 0.006),
        ("X-RateLimit-Reset", lambda now: f"{(now + 20) * 1000:.0f}", 20),
        ("X-RateLimit-Reset", lambda now: f"{now + 20:.0f}", 20),
        ("x-ratelimit-reset", lambda now: "12", 12),
        ("Retry-After", lambda now: "soon", 0),
        ("Retry-After", lambda now: "nan", 0),
    ],
)
def test_how_long_a_server_asks_to_wait(name, value, seconds):
    assert pause_wanted({name: value(time.time())}) == pytest.approx(seconds, abs=1.1 if seconds > 15 else 1e-6)


def test_of_several_limits_the_one_that_is_used_up_is_waited_for():
    headers = {
        "x-ratelimit-reset-requests": "24h0m0s", "x-ratelimit-remaining-requests": "7",
        "x-ratelimit-reset-tokens": "1.5s", "x-ratelimit-remaining-tokens": "0",
    }  # fmt: skip
    assert pause_wanted(headers) == pytest.approx(1.5)
    assert pause_wanted({**headers, "x-ratelimit-remaining-tokens": "9"}) == pytest.approx(86_400)  # it does not say


def test_a_moment_may_be_a_date_as_anthropic_writes_it():
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert pause_wanted({"anthropic-ratelimit-requests-reset": later.isoformat()}) == pytest.approx(30, abs=5)
    assert pause_wanted({"anthropic-ratelimit-requests-reset": "tomorrow"}) == 0


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": 429, "message": "Rate limited upstream"}, "again", 429),
        ({"code": "502", "message": "Provider returned error"}, "again", 502),
        ({"code": "rate_limit_exceeded"}, "again", 429),
        ({"type": "overloaded_error"}, "again", 503),
        ({"code": 402, "message": "More credits, please"}, "account", 402),
        ({"message": "Input was flagged by moderation"}, "refused", 400),
        ("out of credits", "account", 400),
    ],
)
def test_an_error_inside_a_success_is_read_by_its_code(error, kind, status):
    inside = error_inside({"error": error})
    assert inside is not None
    assert (inside.kind, inside.status) == (kind, status)
    assert error_inside({"error": None, "choices": [{}]}) is None


@pytest.mark.parametrize(
    "reply",
    [
        failed(402, "Insufficient Balance"),
        failed(400, "You have reached your specified API usage limits."),
        Reply({"error": {"code": 402, "message": "out of credits"}}),
    ],
    ids=["402", "400", "200 with 402 inside"],
)
def test_a_used_up_account_stops_and_the_same_command_continues_once_it_is_paid(serving, tmp_path, reply):
    paid = []
    server = serving(
        lambda body, n: reply if n > 3 and not paid else chat(f"answer to {body['messages'][0]['content']}")
    )
    settings, requests = server.settings(concurrency=1), [question(str(i)) for i in range(8)]
    with pytest.raises(WorkFailed, match="money or quota is used up"):
        ask(Cached(OpenaiModel("m", settings), tmp_path / "cache.sqlite"), requests)
    assert len(server.bodies) == 4  # it is not tried again either
    paid.append(True)
    answers = ask(Cached(OpenaiModel("m", settings), tmp_path / "cache.sqlite"), requests)
    assert [answer.texts[0].text for answer in answers] == [f"answer to {i}" for i in range(8)]
    assert len(server.bodies) == 4 + 5  # the three that were answered are not asked again


def test_a_wrong_key_whose_body_speaks_of_policy_is_a_wrong_key(serving, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-1")
    server = serving(lambda body, n: failed(401, "Invalid key. See our content policy."))
    with pytest.raises(InputError, match="refuses the key"):
        ask(OpenaiModel("m", server.settings(api_key_env="MY_KEY", concurrency=1)), [question()])


def test_a_moderated_prompt_costs_that_prompt_alone(serving):
    def respond(body, n):
        flagged = "bad" in body["messages"][0]["content"]
        return failed(403, "m requires moderation. Your input was flagged") if flagged else chat("Fine.")

    first, bad, last = ask(
        OpenaiModel("m", serving(respond).settings()), [question("a"), question("bad"), question("b")]
    )
    assert bad.reason == "refused"
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
         "limit_field=max_completion_tokens"),
        ("Unrecognized request argument supplied: seed", r"leave_out=\[seed\]"),
        ("Unsupported value: 'temperature' does not support 0.7 with this model", r"leave_out=\[temperature"),
    ],
)  # fmt: skip
def test_a_form_that_the_server_refuses_is_found_by_the_first_request(serving, message, remedy):
    server = serving(lambda body, n: failed(400, message))
    with pytest.raises(InputError, match=remedy):
        ask(OpenaiModel("m", server.settings(concurrency=1)), [question(str(i)) for i in range(6)])
    assert len(server.bodies) == 1


def test_what_is_left_out_is_not_sent_and_makes_another_model_to_the_cache(serving):
    server = serving(lambda body, n: chat("Yes."))
    model = OpenaiModel("m", server.settings(leave_out=["seed", "temperature"]))
    ask(model, [question()])
    assert not {"seed", "temperature"} & set(server.bodies[0])
    assert server.bodies[0]["top_p"] == 0.9
    assert model.fingerprint != OpenaiModel("m", server.settings()).fingerprint


def test_many_rejections_in_a_row_are_no_property_of_the_prompts(serving, tmp_path):
    server = serving(lambda body, n: failed(400, "odd"))
    settings, requests = server.settings(concurrency=1), [question(str(i)) for i in range(30)]
    with pytest.raises(WorkFailed, match="took none of the last 10 requests"):
        ask(Cached(OpenaiModel("m", settings), tmp_path / "cache.sqlite"), requests)
    healed = serving(lambda body, n: chat("Yes."))
    model = OpenaiModel("m", healed.settings())
    model._settings = settings  # the same address to the cache
    assert all(isinstance(a, Completion) for a in ask(Cached(model, tmp_path / "cache.sqlite"), requests))


def test_three_prompts_that_nobody_can_answer_are_not_a_lost_server(serving):
    nothing = Reply({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]})
    server = serving(lambda body, n: nothing if "odd" in body["messages"][0]["content"] else chat("Fine."))
    model = OpenaiModel("m", server.settings(retries=0, concurrency=1))
    answers = ask(model, [question("odd 1"), question("odd 2"), question("odd 3"), question("even")])
    assert [getattr(answer, "reason", "answered") for answer in answers] == ["garbage"] * 3 + ["answered"]


def poisoned(bad: Reply):
    """A server on which `bad` falls for whatever is odd."""
    return lambda body, n: bad if "odd" in body["messages"][0]["content"] else chat("Fine.")


UNANSWERABLE = [
    Reply({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
    failed(500, "the engine has died on this one"),
    failed(422, "cannot be processed"),
    failed(403, "Your input was flagged by moderation"),
    Reply("{"),
    Reply("", cut=True),
]


@pytest.mark.parametrize("bad", UNANSWERABLE, ids=["null", "500", "422", "403", "half", "cut"])
@pytest.mark.parametrize("n_even", [1, 0], ids=["after an answer", "from the beginning"])
def test_no_number_of_prompts_that_nobody_can_answer_is_a_lost_server(serving, tmp_path, bad, n_even):
    """As many in a row as there are, also where they come first: the next command begins with them."""
    server = serving(poisoned(bad))
    asked = [question(f"even {i}") for i in range(n_even)] + [question(f"odd {i}") for i in range(25)]
    model = OpenaiModel("m", server.settings(retries=0, concurrency=1))
    answers = ask(Cached(model, tmp_path / "a"), [*asked, question("even")])
    assert all(isinstance(answer, Failure) for answer in answers[n_even:-1])
    assert isinstance(answers[-1], Completion)


@pytest.mark.parametrize("bad", UNANSWERABLE, ids=["null", "500", "422", "403", "half", "cut"])
def test_a_server_that_never_answers_is_still_found(serving, tmp_path, bad):
    server = serving(lambda body, n: bad)
    with pytest.raises((WorkFailed, InputError)) as caught:
        ask(OpenaiModel("m", server.settings(retries=0, concurrency=2)), [question(f"{i}") for i in range(40)])
    assert "\n" not in str(caught.value)
    assert len(server.bodies) < 20


@pytest.mark.parametrize("status", [400, 403, 451, 200])
def test_a_wrong_key_that_is_told_in_words_of_policy_is_no_refusal_and_not_kept(serving, tmp_path, status):
    server = serving(lambda body, n: failed(status, "This key violates our content policy."))
    asked = [question(f"{i}") for i in range(8)]
    settings = server.settings(concurrency=8)
    with pytest.raises(InputError, match=r"refuses even a greeting|refuses the key|wants a key"):
        ask(Cached(OpenaiModel("m", settings), tmp_path / "a"), asked)
    healed = serving(lambda body, n: chat("Yes."))
    model = OpenaiModel("m", healed.settings())
    model._settings = settings  # the same address to the cache
    assert all(isinstance(answer, Completion) for answer in ask(Cached(model, tmp_path / "a"), asked))


def choice(finish: object, content: object, **message: object) -> Reply:
    row = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return Reply({"choices": [row], "usage": {"completion_tokens": 3}})


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (choice("stop", "Yes."), Text("Yes.", 3, "end")),
        (choice("eos", "Yes."), Text("Yes.", 3, "end")),
        (choice("eos_token", "Yes."), Text("Yes.", 3, "end")),
        (choice("end_turn", "Yes."), Text("Yes.", 3, "end")),
        (choice("STOP", "Yes."), Text("Yes.", 3, "end")),
        (choice("MAX_TOKENS", "Yes"), Text("Yes", 3, "length")),
        (choice("length", "Yes"), Text("Yes", 3, "length")),
        (choice("who_knows", "Yes"), Text("Yes", 3, "length")),
        (choice(None, "Yes"), Text("Yes", 3, "length")),
        (choice("length", None, reasoning_content="Let me think"), Text("", 3, "length", "Let me think")),
        (choice("stop", [{"type": "text", "text": "Y"}, {"type": "image"}, {"text": "es."}]), Text("Yes.", 3, "end")),
        (choice("stop", "half \ud83d"), Text("half \N{REPLACEMENT CHARACTER}", 3, "end")),
    ],
)  # fmt: skip
def test_how_servers_say_that_an_answer_ended(serving, reply, text):
    (answer,) = ask(OpenaiModel("m", serving(lambda body, n: reply).settings()), [question()])
    assert answer == Completion((text,))


@pytest.mark.parametrize("finish", ["content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "refusal"])
def test_how_servers_say_that_a_filter_kept_it_back(serving, finish):
    (answer,) = ask(OpenaiModel("m", serving(lambda body, n: choice(finish, None)).settings()), [question()])
    assert answer.reason == "refused"


def top(*entries: dict) -> Reply:
    reply = choice("length", "7")
    reply.body["choices"][0]["logprobs"] = {"content": [{"token": "7", "top_logprobs": list(entries)}]}
    return reply


def test_tokens_are_read_in_every_spelling(serving):
    entries = [
        {"token": "\u2581" + "7", "logprob": math.log(0.5)},
        {"token": "\u0120" + "7", "logprob": math.log(0.2)},
        {"token": None, "bytes": [32, 55], "logprob": math.log(0.1)},
        {"token": "8", "logprob": -9999.0},
    ]
    (answer,) = ask(OpenaiModel("m", serving(lambda body, n: top(*entries)).settings()), [digits()])
    assert isinstance(answer, Choice)
    assert answer.probabilities[0][7] == pytest.approx(0.8)
    assert answer.probabilities[0][8] == 0.0


@pytest.mark.parametrize("logprob", ["NaN", "Infinity", "0.7", '"x"', "null"])
def test_a_log_probability_that_is_none_is_garbage_and_not_kept(serving, tmp_path, logprob):
    body = json.dumps(top({"token": "7", "logprob": -0.1}).body).replace("-0.1", logprob)
    server = serving(lambda sent, n: Reply(body) if n <= 2 else top({"token": "7", "logprob": -0.1}))
    model = OpenaiModel("m", server.settings(retries=1))
    (first,) = ask(Cached(model, tmp_path / "cache.sqlite"), [digits()])
    (second,) = ask(Cached(model, tmp_path / "cache.sqlite"), [digits()])
    assert isinstance(first, Failure)
    assert first.reason == "garbage"
    assert isinstance(second, Choice)


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1e400}}',
        '{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": {"completion_tokens": "x"}}',
        '{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": [1]}',
    ],
)
def test_odd_counts_of_tokens_cost_nothing(serving, body):
    (answer,) = ask(OpenaiModel("m", serving(lambda sent, n: Reply(body)).settings()), [question()])
    assert answer == Completion((Text("Hi", 0, "end"),))


def test_nesting_without_end_is_garbage(serving):
    server = serving(lambda body, n: Reply("[" * 200_000))
    (answer,) = ask(OpenaiModel("m", server.settings(retries=0)), [question()])
    assert answer.reason == "garbage"


def test_packed_bodies_are_unpacked_and_bombs_are_not(serving):
    def packed(data: bytes) -> Reply:
        return Reply(gzip.compress(data), headers={"Content-Encoding": "gzip"})

    server = serving(lambda body, n: packed(json.dumps(chat("Hi.").body).encode()))
    assert ask(OpenaiModel("m", server.settings()), [question()]) == [Completion((Text("Hi.", 7, "end"),))]
    bomb = serving(lambda body, n: packed(b" " * 80_000_000))
    (answer,) = ask(OpenaiModel("m", bomb.settings(retries=0, timeout=20)), [question()])
    assert answer.reason == "garbage"


def test_a_reply_that_drips_for_ever_times_out(serving):
    server = serving(lambda body, n: Reply("x" * 400, drip=0.05))
    began = time.monotonic()
    (answer,) = ask(OpenaiModel("m", server.settings(retries=0, timeout=0.4)), [question()])
    assert answer.reason == "timeout"
    assert time.monotonic() - began < 5


def test_a_date_in_retry_after_is_obeyed(serving):
    later = formatdate(time.time() + 2, usegmt=True)
    server = serving(lambda body, n: Reply("slow", 429, {"Retry-After": later}) if n == 1 else chat("Yes."))
    began = time.monotonic()
    ask(OpenaiModel("m", server.settings()), [question()])
    assert 0.3 < time.monotonic() - began < 5
