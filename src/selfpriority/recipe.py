"""What a user may set: one frozen class per step, bounds in the type, one sentence a field.

The only place with defaults; knows nothing of models. A mistake is an `InputError`: file, field, value, remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from selfpriority.errors import InputError
from selfpriority.mistakes import mistake_lines
from selfpriority.recipe_file import off, read_yaml, set_field

# capitals and short words: a key that was pasted in place of the name must not enter the run directory
VARIABLE = r"^[A-Z][A-Z0-9]{0,15}(_[A-Z0-9]{1,15}){0,7}$"
Probability = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every recipe section: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Prompts(Section):
    """Where prompts come from."""

    source: str
    """A .jsonl, .csv, .parquet or .txt file, a hub data set id, or a shipped set (`demo`)."""
    config: str | None = None
    """Configuration of a hub data set that has several."""
    split: str | None = None
    """Split of a hub data set; of a file or shipped set, the rows with this value in their `split` column
    (a shipped set without it: `train`)."""
    column: str = "prompt"
    """Column that holds the prompt."""
    kind_column: str = "kind"
    """Column, if there is one, that says what a prompt is (harmful, ordinary, ...), for the reports."""
    limit: int | None = Field(None, ge=1)
    """Take at most this many prompts."""
    shuffle: bool = False
    """Shuffle, with the recipe's seed, before the limit."""


class HfBackend(Section):
    """transformers in this process."""

    kind: Literal["hf"] = "hf"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the hardware has it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    tokens_per_batch: int = Field(16384, ge=1)
    """Token budget of one generation batch, prompt and new tokens together."""
    max_batch: int = Field(96, ge=1)
    """Most sequences generated together."""


class ScriptedBackend(Section):
    """Deterministic stand-in for tests: answers are a function of the request."""

    kind: Literal["scripted"]
    delay: float = Field(0.0, ge=0)
    """Seconds a batch takes."""


class OpenaiBackend(Section):
    """A server that speaks the protocol of OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, ..."""

    kind: Literal["openai"]
    base_url: str = Field(pattern=r"^https?://[^\s@?#]+$", repr=False)
    """Address up to and with `/v1`, without a key or password in it."""
    model: str | None = None
    """The model's name at the server; none: the name it is asked for by."""
    api_key_env: str | None = Field(None, pattern=VARIABLE, repr=False)
    """Name, in capitals, of the environment variable that holds the key; none: OPENAI_API_KEY, for OpenAI alone."""
    concurrency: int = Field(8, ge=1, le=256)
    """Requests under way at once."""
    timeout: float = Field(120.0, gt=0)
    """Seconds of silence after which a request is tried again."""
    retries: int = Field(5, ge=0, le=20)
    """Further tries after a rate limit, a server error, a cut connection or a time-out."""
    backoff: float = Field(1.0, ge=0)
    """Seconds before the first further try; they double with each, unless the server names a time."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the length limit."""


def _of_kind(value: Any) -> Any:
    return {"kind": "hf", **value} if isinstance(value, dict) else value


Backend = Annotated[HfBackend | ScriptedBackend | OpenaiBackend, Field(discriminator="kind"), BeforeValidator(_of_kind)]


class Sample(Section):
    """Candidates y_1..y_n of every prompt."""

    n: int = Field(8, ge=2, le=64)
    """Candidates a prompt; more than the number of objectives, or the covariance has no full rank."""
    temperature: float = Field(1.2, gt=0, le=5)
    """Sampling temperature; above 1 for diverse answers where the model stays coherent."""
    top_p: Probability = 0.95
    """Nucleus sampling: smallest set of tokens that holds this probability."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer in tokens."""
    personas: str = "default"
    """`default` (shipped), `none`, or a YAML file of {name, text} system prompts."""
    plain: float = Field(0.0, ge=0, le=1)
    """Share of the candidates sampled without a persona."""
    keep_cut: bool = True
    """Whether an answer cut at the length limit may enter a pool."""


class Score(Section):
    """Who rates, and how."""

    judge: str = "self"
    """`self` (the policy), a model, or a folder of fitted heads (or the shipped `demo-train`, `ranking`): probe."""
    method: Literal["expected", "verbal", "probe", "reward"] = "expected"
    """Digit probabilities, a written rating, heads on hidden states, or sequence-classification models."""
    rewards: dict[str, str] = {}
    """For `method: reward`: a sequence-classification model per objective."""
    backend: Backend | None = None
    """Who runs a judge in words; none: the recipe's backend."""
    mass_floor: Probability = 0.5
    """Expected ratings whose digits hold less probability than this are unrated."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest written verdict in tokens (`verbal`)."""
    require_signal: bool = True
    """Refuse to train on a judge whose agreement with the labelled answers may be chance."""


class Refine(Section):
    """One improved answer per pool."""

    n: int = Field(1, ge=1, le=16)
    """Refinements a prompt; the lexicographically best is kept."""
    temperature: float = Field(0.7, ge=0, le=5)
    """Sampling temperature of the refinement; 0 is greedy."""
    top_p: Probability = 0.95
    """Nucleus sampling."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest refinement in tokens."""
    keep_cut: bool = True
    """Whether a refinement cut at the length limit may enter a pool."""


class Denoise(Section):
    """Which prompts' ratings can be trusted."""

    consistency: Annotated[Literal["strict", "off"] | Share, BeforeValidator(off)] = "strict"
    """`strict`: the refined answer beats every candidate on every objective; a number: that share; `off`."""
    keep_lowest: float | None = Field(0.32, gt=0, le=1)
    """tau as a quantile: keep this share of the prompts left, lowest det(covariance) first; 1.0 keeps all."""
    max_det: float | None = Field(None, gt=0)
    """tau as a number: the largest det(covariance) kept."""
    epsilon: float = Field(1e-6, ge=0)
    """A determinant up to this counts as 0: the ratings do not vary."""

    @model_validator(mode="before")
    @classmethod
    def _one_tau(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("max_det") is not None:
            if data.get("keep_lowest") is not None:
                raise ValueError("set max_det or keep_lowest, not both: each is a reading of tau")
            return {**data, "keep_lowest": None}
        return data


class PairRules(Section):
    """Which answers of a pool make a preference pair."""

    margin: float = Field(1.0, ge=0)
    """delta of Eq. 2: smallest L1 distance of the score vectors."""
    against: Literal["all", "refined"] = "all"
    """All ordered pairs of the pool, or only those with the refined answer."""
    resolution: float = Field(1.0, ge=0)
    """Grid on which every objective but the last is compared; 0 compares exactly."""
    threshold: float | None = Field(None, ge=1, le=10)
    """Scores from here up count as equal on every objective but the last."""
    conflicts: Literal["keep", "drop"] = "keep"
    """Whether pairs stay whose chosen answer loses on lower objectives what it wins; Eq. 3 weighs them by the loss."""
    most_loss: float | None = Field(None, ge=0)
    """The most a chosen answer may lose on any one objective; 0: nothing at all; none: anything, the paper."""


class Lora(Section):
    """Low-rank adapters instead of full fine-tuning."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float = Field(32.0, gt=0)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the adapted modules."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4`: the linear layers under the adapters in 4 bits (QLoRA); needs the extra `qlora`."""


class Align(Section):
    """Weighted SimPO, Eq. 3, or a loss to compare it with."""

    method: Literal["spa", "simpo", "dpo", "ipo", "sft"] = "spa"
    """Eq. 3; the same with alpha 0; DPO or IPO against the round's starting model; the chosen answers' likelihood."""
    beta: float = Field(2.5, gt=0)
    """Scale of the length-normalised log-probabilities; the regularisation of `dpo` and `ipo`, 0.1 if not given."""
    gamma: float = Field(1.375, ge=0)
    """Target margin of `spa` and `simpo`, absolute (not a ratio to beta)."""
    alpha: float = Field(1.0, ge=0)
    """Exponent of the gap weight in `spa`, `dpo` and `ipo`; at 0 all pairs weigh alike, which makes DPO plain DPO."""
    weight_gap: Literal["signed", "l1", "primary"] = "signed"
    """What weighs a pair: gap of the score sums (Eq. 3), L1 distance, or the deciding objective's gap."""
    nll: float = Field(0.0, ge=0)
    """Weight of the chosen answers' mean negative log-likelihood per token, added to the loss; every answer once."""
    count: Literal["pairs", "pools"] = "pairs"
    """Mean over pairs (the paper) or every pool counting equally."""
    learning_rate: float = Field(1.0e-6, gt=0)
    """Peak learning rate."""
    epochs: int = Field(1, ge=1)
    """Passes over the pools."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps with rising learning rate; cosine decay follows."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    average: float = Field(0.0, ge=0, lt=1)
    """Decay a step of a moving average of the weights, which is then what is saved; 0 saves the last weights."""
    lora: Lora | None = None
    """Adapters instead of full fine-tuning."""
    tokens_per_step: int = Field(65536, ge=1)
    """Distinct tokens of one optimizer batch."""
    tokens_per_batch: int = Field(4096, ge=1)
    """Distinct tokens of one forward pass; changes memory, never the result. A larger pool goes through in pieces."""
    max_length: int = Field(4096, ge=8)
    """Longest prompt plus response in tokens; longer ones are dropped, never cut."""
    stop_on_collapse: float | None = Field(None, gt=0)
    """Stop when chosen and rejected answers both lost this many nats per token; the last checkpoint stays."""
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Trackers that are shown the numbers of every step, never a text."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """A checkpoint at least this often."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Weights of full fine-tuning; with `bfloat16` the optimizer holds the bits that complete them to float32."""
    gradient_checkpointing: bool = False
    """Compute activations again for the gradient, not keep them; less memory, some 40 % fewer pairs a second (CPU)."""
    processes: int = Field(1, ge=1, le=1024)
    """Processes of this machine that train together, one a GPU; changes time and memory, never the result."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What several processes hold: a copy of the model each (`ddp`), or shards (FSDP2)."""

    @field_validator("parallel", mode="before")
    @classmethod
    def _without_deepspeed(cls, value: Any) -> Any:
        if value == "zero3":
            raise ValueError("zero3 (DeepSpeed) is no longer supported; use fsdp, which shards the same")
        return value

    @model_validator(mode="before")
    @classmethod
    def _beta_of_method(cls, data: Any) -> Any:
        lacks_beta = isinstance(data, dict) and data.get("method") in ("dpo", "ipo") and "beta" not in data
        return {**data, "beta": 0.1} if lacks_beta else data

    @property
    def gap_exponent(self) -> float:
        """Alpha as the method takes it: `simpo` is alpha 0."""
        return 0.0 if self.method == "simpo" else self.alpha

    @property
    def in_result(self) -> dict[str, Any]:
        """The fields that decide the policy; the others change time, memory, safety or what is told."""
        others = {"tokens_per_batch", "checkpoint_minutes", "gradient_checkpointing", "processes", "parallel"}
        return self.model_dump(exclude={*others, "stop_on_collapse", "report_to"})

    @property
    def needs_copies(self) -> str | None:
        """The field, if any, that only whole copies of the model can follow, not shards."""
        in_4_bits = self.lora is not None and self.lora.quantize == "nf4"
        given = {"average": self.average, "weights": self.weights == "bfloat16", "lora.quantize": in_4_bits}
        return next((name for name, is_given in given.items() if is_given), None)

    @model_validator(mode="after")
    def _possible(self) -> Align:
        if self.weights == "bfloat16" and self.lora is not None:
            raise ValueError("weights is for full fine-tuning; an adapter's base follows dtype or lora.quantize")
        if self.weights == "bfloat16" and self.dtype == "float32":
            raise ValueError("weights bfloat16 cannot be multiplied in dtype float32; leave dtype at auto")
        if self.method == "sft" and self.nll:
            raise ValueError("nll adds the likelihood to a loss of pairs; method sft is that likelihood already")
        if self.parallel != "ddp" and self.needs_copies:
            raise ValueError(f"{self.needs_copies} needs parallel: ddp; {self.parallel} leaves a process only shards")
        return self


class OtherJudge(Section):
    """A further judge of the evaluation."""

    judge: str
    """As `score.judge`; `self` means the vanilla model."""
    method: Literal["expected", "verbal", "probe", "reward"] = "expected"
    """As `score.method`."""
    rewards: dict[str, str] = {}
    """As `score.rewards`."""
    backend: Backend | None = None
    """As `score.backend`."""


class OtherSystem(Section):
    """A further system of the evaluation."""

    model: str = "self"
    """A hub id, a folder or an embedded name; `self`: the recipe's model."""
    how: Literal["plain", "constitution"] = "plain"
    """What stands before every prompt: nothing, or the constitution's text as a system prompt."""


class Evaluate(Section):
    """Who is better, on prompts that training never saw."""

    prompts: Prompts | None = None
    """Held-out prompts; none: no evaluation."""
    more_prompts: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], Prompts] = {}
    """Further held-out sets by a name of their own (transfer, over-refusal), each with a table of its own."""
    more_systems: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], OtherSystem] = {}
    """Further systems by a name of their own, evaluated as the others are."""
    reference: str | None = None
    """A system that every other one is compared with as well, beside `vanilla`."""
    judge: str = "self"
    """The outside judge: as `score.judge`; `self` means the vanilla model."""
    method: Literal["expected", "verbal", "probe", "reward"] = "expected"
    """As `score.method`."""
    rewards: dict[str, str] = {}
    """As `score.rewards`."""
    backend: Backend | None = None
    """As `score.backend`."""
    more_judges: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], OtherJudge] = {}
    """Further judges by a name of their own; the summary reports how far they agree."""
    comparer: OtherJudge | None = None
    """Asked in words which of two answers is better, in both orders; none: wins come from the ratings."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer in tokens."""
    temperature: float = Field(0.0, ge=0, le=5)
    """0 is greedy."""
    pairwise: bool = True
    """Report win, tie and lose per objective, by prompt."""
    tie: float = Field(0.5, ge=0)
    """Ratings this close are a tie in the pairwise table."""
    safe_kinds: tuple[str, ...] = ("ordinary", "safe", "benign", "unharmful", "harmless")
    """Kinds of prompts that nobody should refuse: refusals of them are over-refusals."""
    lambdas: tuple[Annotated[float, Field(ge=0)], ...] = (5.0, 10.0, 20.0)
    """Weights of HH_lambda = (lambda * primary + secondary) / (lambda + 1)."""


class Recipe(Section):
    """Everything a run depends on."""

    model: str
    """A hub id, a folder, or an embedded name (`smollm2-135m`)."""
    prompts: Prompts
    """Training prompts."""
    constitution: str = "harmless-helpful"
    """A shipped constitution or a folder of one's own."""
    rounds: int = Field(1, ge=1, le=10)
    """How often collect and align repeat, each round from the last policy."""
    prompts_per_round: Literal["same", "new"] = "same"
    """`same`: every round uses all prompts; `new`: the prompts are split evenly over the rounds."""
    sample: Sample = Sample()
    score: Score = Score()
    refine: Refine = Refine()
    denoise: Denoise = Denoise()
    pair: PairRules = PairRules()
    align: Align = Align()
    evaluate: Evaluate = Evaluate()
    backend: Backend = HfBackend()
    """Who runs `model`; a trained policy, which is on no server, always runs in this process."""
    seed: int = Field(0, ge=0)
    """Seeds prompts, sampling and training."""

    @field_validator("prompts", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `FIELD=VALUE` overrides (dotted paths) applied.

    Raises:
        InputError: one line per mistake: file, field, value, what is allowed.
    """
    data = read_yaml(path)
    for override in overrides:
        set_field(data, override)
    return parse(data, str(path))


def parse(data: object, name: str) -> Recipe:
    """The recipe in parsed YAML; `name` is what error messages call it."""
    if not isinstance(data, dict):
        raise InputError(f"{name}: a recipe is a mapping of fields, this is {type(data).__name__}")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(*dict.fromkeys(mistake_lines(error, name, Recipe))) from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default visible."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
