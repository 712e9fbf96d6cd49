"""Who runs a model: transformers here, a server, or a stand-in for tests. Opens none."""

from __future__ import annotations

import json
import urllib.parse
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from selfpriority.recipe.keys import key_doubt
from selfpriority.recipe.section import Count, Section

# capitals and short words: a key that was pasted in place of the name must not enter the run directory
VARIABLE = r"^[A-Z][A-Z0-9]{0,15}(_[A-Z0-9]{1,15}){0,7}$"


class HfBackend(Section):
    """transformers in this process.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> model = open_model("my-model", HfBackend(device="cpu", dtype="float32"))
    """

    kind: Literal["hf"] = "hf"
    """Who answers."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the hardware has it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    tokens_per_batch: Count | Literal["auto"] = "auto"
    """Token budget of a generation batch, prompt and new tokens; `auto`: by the memory as a run starts, or 16384."""
    memory: float | None = Field(None, gt=0, le=100_000)
    """GB of the GPU that `auto` counts with and `spa plan` holds the phases against; none: that of the GPU here."""
    max_batch: Count = 96
    """Most sequences generated together."""

    @property
    def batch_tokens(self) -> int:
        """The budget as a number, where no run has settled it."""
        return 16384 if self.tokens_per_batch == "auto" else self.tokens_per_batch


# engine arguments that this program sets, and where a recipe says what they say
_SAID_ELSEWHERE = {
    "dtype": "backend.dtype",
    "gpu_memory_utilization": "backend.memory_share",
    "tensor_parallel_size": "backend.tensor_parallel",
    "model": "model",
    "seed": "seed",
    "trust_remote_code": "trust_remote_code",
}
_NOBODY_S = (
    "tokenizer",
    "skip_tokenizer_init",
    "generation_config",
    "logprobs_mode",
    "enable_lora",
    "max_lora_rank",
    "hf_token",
    "data_parallel_size",
)


class VllmBackend(Section):
    """vLLM as an engine of this program, in a process and, if need be, an environment of its own.

    Raises:
        ValidationError: an unknown field, a value out of its bounds, or an engine argument that is not free.

    Examples:
        >>> VllmBackend(kind="vllm", python="/opt/vllm/bin/python", engine={"max_model_len": 4096}).dtype
        'bfloat16'
    """

    kind: Literal["vllm"]
    """Who answers."""
    python: str | None = None
    """Interpreter of the environment that has vLLM, which needs nothing of this program; none: this one's."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Arithmetic of the engine."""
    memory_share: float = Field(0.8, gt=0, le=1)
    """Of a GPU's memory for the engine; heads and reward models that run beside it need the rest."""
    tensor_parallel: int = Field(1, ge=1, le=64)
    """GPUs that a model is spread over."""
    engine: dict[str, Any] = Field({})
    """Further arguments of `vllm.LLM`: `max_model_len`, `quantization`, `enforce_eager`, ...; what the recipe says
    elsewhere and what answers are read by is refused."""

    @field_validator("engine")
    @classmethod
    def _are_free(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name in _SAID_ELSEWHERE:
                raise ValueError(f"{name} is said elsewhere: write {_SAID_ELSEWHERE[name]}")
            if name in _NOBODY_S:
                raise ValueError(f"{name} cannot be chosen, for answers are read by it; leave it out")
        try:
            json.dumps(given)
        except TypeError as error:  # YAML knows dates
            raise ValueError(f"holds what no engine argument is: {error}") from None
        return given


class ScriptedBackend(Section):
    """Deterministic stand-in for tests: answers are a function of the request."""

    kind: Literal["scripted"]
    """Who answers."""
    delay: float = Field(0.0, ge=0, le=3600)
    """Seconds a batch takes."""


def _local(value: Any) -> Any:
    return {"kind": "hf", **value} if isinstance(value, dict) else value


class RayBackend(Section):
    """Replicas of a local backend on a Ray cluster, each an actor with the model open.

    Raises:
        ValidationError: an unknown field, a value out of its bounds, or arithmetic that a node would choose itself.

    Examples:
        >>> RayBackend(kind="ray", replicas=4, each=HfBackend(dtype="bfloat16")).depth
        2
    """

    kind: Literal["ray"]
    """Who answers."""
    each: Annotated[HfBackend | VllmBackend | ScriptedBackend, Field(discriminator="kind"), BeforeValidator(_local)]
    """What every replica runs."""
    replicas: int = Field(1, ge=1, le=10_000)
    """How many there are."""
    gpus: float = Field(1.0, ge=0, le=64)
    """GPUs that each takes."""
    cpus: float = Field(1.0, ge=0, le=1024)
    """CPUs that each takes."""
    address: str | None = None
    """Of the cluster: `auto`, or `HOST:PORT` of its head; none: `$RAY_ADDRESS`, else this machine alone."""
    depth: int = Field(2, ge=1, le=64)
    """Tasks that a replica has at a time: one in hand, the others waiting there."""

    @field_validator("each")
    @classmethod
    def _says_its_arithmetic(cls, each: Any) -> Any:
        if isinstance(each, HfBackend) and each.dtype == "auto":
            raise ValueError("dtype: auto may mean one thing on one node and another on the next; say which")
        return each


class Prices(Section):
    """What a server charges for a million tokens, in any one currency."""

    read: float = Field(ge=0, le=1e6)
    """Tokens of prompts."""
    written: float = Field(ge=0, le=1e6)
    """Tokens of answers, thinking included."""
    known: float | None = Field(None, ge=0, le=1e6)
    """Tokens of prompts that the server finds in its cache; none: as any other."""


class OpenaiBackend(Section):
    """A server that speaks the protocol of OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, ...

    Raises:
        ValidationError: an unknown field, no address, or a key that may not go there.

    Examples:
        >>> OpenaiBackend(kind="openai", base_url="http://localhost:8000/v1", concurrency=8).timeout
        120.0
    """

    kind: Literal["openai"]
    """Who answers."""
    base_url: str = Field(pattern=r"^https?://[^\s@?#]+$", repr=False)
    """Address up to and with `/v1`, without a key or password in it."""
    model: str | None = None
    """The model's name at the server; none: the name it is asked for by."""
    insecure_http: bool = False
    """Whether a key may go over plain http to another machine, where anybody on the way can read it."""
    api_key_env: str | None = Field(None, pattern=VARIABLE, repr=False)
    """Name, in capitals, of the environment variable that holds the key; none: OPENAI_API_KEY, for OpenAI alone."""
    concurrency: int = Field(64, ge=1, le=1024)
    """Most requests under way at once, and most connections; how many the server bears is found out below that."""
    timeout: float = Field(120.0, gt=0, le=86_400)
    """Seconds after which a try that is not answered whole is given up, and made again."""
    timeout_in_all: float | None = Field(None, gt=0, le=604_800)
    """Seconds for all tries of a request and the pauses between them; none: 1,800, or more where `timeout` wants it."""
    retries: int = Field(5, ge=0, le=20)
    """Further tries after a rate limit, a server error, a cut connection or a time-out."""
    backoff: float = Field(1.0, ge=0, le=3600)
    """Seconds before the first further try; they double with each, unless the server names a time."""
    prices: Prices | None = None
    """Of a million tokens; none: the cost is unknown, unless the server names it."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the length limit."""
    leave_out: tuple[Literal["seed", "temperature", "top_p"], ...] = ()
    """Parameters that are not sent, for servers that refuse them."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            urllib.parse.urlsplit(url).port  # noqa: B018 # reading it looks at host and port
        except ValueError:
            raise ValueError("is no address: its host or its port cannot be read") from None
        return url

    @field_validator("api_key_env")
    @classmethod
    def _only_a_servers_key(cls, variable: str | None, info: ValidationInfo) -> str | None:
        address = info.data.get("base_url")  # none where it is itself a mistake
        if variable and address and (doubt := key_doubt(variable, address, info.data.get("insecure_http", False))):
            raise ValueError(doubt)
        return variable


Backend = Annotated[
    HfBackend | VllmBackend | ScriptedBackend | OpenaiBackend | RayBackend,
    Field(discriminator="kind"),
    BeforeValidator(_local),
]


def engine_of(backend: Backend) -> Backend:
    """What computes: of replicas that which each runs."""
    return backend.each if isinstance(backend, RayBackend) else backend
