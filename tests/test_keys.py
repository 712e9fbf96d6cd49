"""Whose keys go where: to servers of models alone, and never readable for everybody on the way."""

from __future__ import annotations

import pytest

from selfpriority import recipe
from tests.test_recipes import SMALL, refusal, write


def with_key(tmp_path, url: str, name: str) -> str:
    return refusal(write(tmp_path, SMALL), f"backend={{kind: openai, base_url: '{url}', api_key_env: {name}}}")


OTHER_SECRETS = """
AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GITHUB_TOKEN GH_TOKEN HF_TOKEN HUGGINGFACEHUB_API_TOKEN DATABASE_URL DB_PASSWORD
PASSWORD SSH_PRIVATE_KEY SSH_AUTH_SOCK NPM_TOKEN PATH WANDB_API_KEY STRIPE_SECRET_KEY CI_JOB_TOKEN HOME
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", OTHER_SECRETS)
def test_a_variable_that_holds_no_key_of_a_server_is_refused(tmp_path, name):
    said = with_key(tmp_path, "https://h/v1", name)
    assert "backend.api_key_env: is not named as a key for this server" in said
    assert name not in said  # it may be a secret itself


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://router.huggingface.co/v1", "HF_TOKEN"),
        ("https://models.github.ai/inference", "GITHUB_TOKEN"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", "AWS_BEARER_TOKEN_BEDROCK"),
        ("http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
        ("http://127.8.9.10:8000/v1", "VLLM_API_KEY"),
        ("http://localhost/v1", "VLLM_API_KEY"),
        ("http://[::1]:8000/v1", "VLLM_API_KEY"),
        ("https://10.0.0.5/v1", "VLLM_API_KEY"),
    ],
)
def test_a_key_may_go_home_or_to_this_machine_or_over_https(tmp_path, url, name):
    backend = f"backend={{kind: openai, base_url: '{url}', api_key_env: {name}}}"
    assert recipe.load(write(tmp_path, SMALL), [backend]).backend.api_key_env == name


@pytest.mark.parametrize("host", ["huggingface.co.elsewhere.org", "nothuggingface.co", "elsewhere.org"])
def test_a_host_that_only_sounds_like_home_is_none(tmp_path, host):
    assert "may go to huggingface.co alone" in with_key(tmp_path, f"https://{host}/v1", "HF_TOKEN")


@pytest.mark.parametrize(
    "host",
    ["h", "10.0.0.5", "192.168.1.2:8000", "localhost.elsewhere.org", "127.0.0.1.elsewhere.org", "[fe80::1]", "0x7f"],
)
def test_a_key_goes_over_plain_http_to_another_machine_only_when_told(tmp_path, host):
    said = with_key(tmp_path, f"http://{host}/v1", "MY_KEY")
    assert "use https, or set insecure_http: true" in said
    assert len(said.splitlines()) == 1
    told = f"backend={{kind: openai, base_url: 'http://{host}/v1', api_key_env: MY_KEY, insecure_http: true}}"
    assert recipe.load(write(tmp_path, SMALL), [told]).backend.insecure_http
    unsent = f"backend={{kind: openai, base_url: 'http://{host}/v1'}}"  # no key, no danger
    assert recipe.load(write(tmp_path, SMALL), [unsent]).backend.api_key_env is None
