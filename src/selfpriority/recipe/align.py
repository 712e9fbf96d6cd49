"""Training: the loss of Eq. 3 or one to compare it with, the optimizer, and what several processes share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from selfpriority.own_python import FORM
from selfpriority.recipe.section import Count, Section, Weight

Learn = Literal["best", "winners", "chosen"]


@dataclass(frozen=True)
class Scale:
    """What a method's `beta` is the scale of; methods of one scale can take over each other's."""

    of: str
    usual: tuple[float, float]
    default: float


_OF_MEANS = Scale("mean log-probabilities", (2.0, 10.0), 2.5)
_OF_SUMS = Scale("summed log-ratios", (0.01, 0.5), 0.1)
SCALES: Mapping[str, Scale] = {
    "spa": _OF_MEANS,
    "simpo": _OF_MEANS,
    "dpo": _OF_SUMS,
    "kto": _OF_SUMS,
    "safedpo": _OF_SUMS,
    "tis_dpo": _OF_SUMS,
    "grpo": Scale("a divergence per token", (0.001, 0.1), 0.04),
    "ipo": Scale("mean log-ratios", (0.01, 0.5), 0.1),
    "bfpo": Scale("squared summed log-ratios", (0.005, 0.1), 0.01),
}
"""By method; `sft` has no beta."""
_REFERENCED = frozenset({"dpo", "ipo", "kto", "bfpo", "safedpo", "tis_dpo", "grpo"})
_OF_SAFETY: Mapping[str, frozenset[str]] = {
    "bfpo": frozenset({"safe_from"}),
    "safedpo": frozenset({"safe_from", "unsafe_margin"}),
    "grpo": frozenset({"safe_from"}),
}
"""Methods that ask whether an answer is safe, and the fields that are theirs alone."""
_ROWS = re.compile(rf"[a-z0-9_]+|{FORM.pattern}")
_FAR = 5.0
"""From this factor up beyond what is usual, a beta is told of."""


class Lora(Section):
    """Low-rank adapters instead of full fine-tuning."""

    r: int = Field(16, ge=1, le=65_536)
    """Rank."""
    alpha: float = Field(32.0, gt=0, le=1e6)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the adapted modules."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4`: the linear layers under the adapters in 4 bits (QLoRA); needs the extra `qlora`."""


class Align(Section):
    """Weighted SimPO, Eq. 3, or a loss to compare it with.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> Align(method="dpo", beta=0.1, learning_rate=5e-7).beta
        0.1
    """

    method: Literal["spa", "simpo", "dpo", "ipo", "kto", "bfpo", "safedpo", "tis_dpo", "sft", "grpo"] = "spa"
    """Eq. 3; the same with alpha 0; DPO, IPO, KTO, BFPO, SafeDPO or TIS-DPO against the round's starting model; the
    likelihood of good answers. `safedpo` and `bfpo` want pairs by the second objective (`pair.order:
    only:helpfulness`). `grpo`: TRL's online trainer, the training judge its reward; needs the extra `online`."""
    rows: str = "pairs"
    """What is learned: the pairs of step 5, or rows that a rival makes of the pools, by its name (docs/compare.md) or
    as `package.module:name` of your own."""
    rows_folder: str | None = None
    """Where that module lies; none: the working directory or the recipe's folder if it is there, else what is
    installed."""
    beta: float = Field(2.5, gt=0, le=1e6)
    """Scale of `spa` and `simpo`'s mean log-probabilities; else regularisation, if not given 0.1 (`bfpo` 0.01,
    `grpo` 0.04)."""
    gamma: Weight = 1.375
    """Target margin of `spa` and `simpo`, absolute (not a ratio to beta); the other methods have none."""
    alpha: float = Field(1.0, ge=0, le=16)
    """Exponent of the gap weight in `spa`, `dpo` and `ipo`; at 0 all pairs weigh alike, which makes DPO plain DPO. In
    the other methods they always do."""
    weight_gap: Literal["signed", "l1", "primary"] = "signed"
    """What weighs a pair: gap of the score sums (Eq. 3), L1 distance, or the deciding objective's gap."""
    nll: Weight = 0.0
    """Weight of the mean negative log-likelihood per token of the answers that `learn` names, added to the loss."""
    learn: Learn | None = None
    """Whom `sft` and `nll` learn: the best, all with more wins than losses, or all with a win; else `sft` the best."""
    safe_from: float = Field(5.5, ge=1, le=10)
    """`safedpo`, `bfpo`: ratings of the first objective from here up are safe; `grpo`: there the next one counts."""
    unsafe_margin: Weight = 10.0
    """`safedpo`: Delta, the further margin that is asked for where the rejected answer is unsafe."""
    count: Literal["pairs", "pools"] = "pairs"
    """Mean over pairs (the paper; `kto`: answers) or every pool counting equally."""
    learning_rate: float = Field(1.0e-6, gt=0, le=1000)
    """Peak learning rate."""
    start: str | None = None
    """The first round is trained from this model, and measured against it: a hub id or a folder; none: from `model`."""
    epochs: int = Field(1, ge=1, le=10_000)
    """Passes over the pools."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps with rising learning rate; cosine decay follows."""
    weight_decay: Weight = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    average: float = Field(0.0, ge=0, lt=1)
    """Decay a step of a moving average of the weights, which is then what is saved; 0 saves the last weights."""
    lora: Lora | None = None
    """Adapters instead of full fine-tuning."""
    tokens_per_step: Count = 65536
    """Distinct tokens of one optimizer batch."""
    tokens_per_batch: Count = 4096
    """Distinct tokens of one forward pass; changes memory, never the result. A larger pool goes through in pieces."""
    max_length: int = Field(4096, ge=8, le=2**31 - 1)
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
    save: Literal["auto", "float32", "bfloat16"] = "auto"
    """Saved weights of full fine-tuning; `auto`: bfloat16, unless a model of up to 1e9 weights trained in float32."""
    gradient_checkpointing: bool = False
    """Compute activations again for the gradient, not keep them; less memory, some 40 % fewer pairs a second (CPU)."""
    processes: int = Field(1, ge=1, le=1024)
    """Processes of a node that train together, one a GPU; changes time and memory, never the result."""
    nodes: int = Field(1, ge=1, le=1024)
    """Machines that train together, each with that many processes; several are started by torchrun on each of them."""
    parallel: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """What several processes hold: a copy of the model each (`ddp`), shards (`fsdp`, FSDP2), or a copy in shards on
    every node (`hsdp`)."""

    @field_validator("rows")
    @classmethod
    def _named(cls, rows: str) -> str:
        if not _ROWS.fullmatch(rows):
            raise ValueError("must be pairs, a rival's name (a-z, 0-9 and _), or package.module:name")
        return rows

    @field_validator("parallel", mode="before")
    @classmethod
    def _without_deepspeed(cls, value: Any) -> Any:
        if value == "zero3":
            raise ValueError("zero3 (DeepSpeed) is no longer supported; use fsdp, which shards the same")
        return value

    @model_validator(mode="before")
    @classmethod
    def _beta_of_method(cls, data: Any) -> Any:
        scale = SCALES.get(str(data.get("method", "spa"))) if isinstance(data, dict) else None
        if scale is None or scale is _OF_MEANS or "beta" in data:
            return data
        return {**data, "beta": scale.default}

    @property
    def n_together(self) -> int:
        """Processes that train together, on all nodes."""
        return self.nodes * self.processes

    @property
    def n_shards(self) -> int:
        """Parts that the model and what belongs to it are cut into; a process holds one."""
        return {"ddp": 1, "fsdp": self.n_together, "hsdp": self.processes}[self.parallel]

    @property
    def strange_beta(self) -> str | None:
        """What is strange about `beta`: it is far from what is usual for the method; None where nothing is."""
        scale = SCALES.get(self.method)
        if scale is None or scale.usual[0] / _FAR <= self.beta < scale.usual[1] * _FAR:
            return None
        low, high = scale.usual
        return f"align.beta: {self.beta:g} is unusual for {self.method} ({scale.of}: {low:g} to {high:g})"

    @property
    def gap_exponent(self) -> float:
        """Alpha as the method takes it: `simpo` is alpha 0, and the rivals' losses know no weights of pairs."""
        return 0.0 if self.method in ("simpo", "kto", "bfpo", "safedpo", "tis_dpo", "grpo") else self.alpha

    @property
    def has_reference(self) -> bool:
        """Whether the method measures the policy against the model it started from."""
        return self.method in _REFERENCED

    @property
    def compares(self) -> bool:
        """Whether answers are compared in pairs, and not learned alone."""
        return self.rows == "pairs" or self.method != "sft"

    @property
    def asks_for_safety(self) -> bool:
        """Whether the method asks which answers are safe."""
        return self.method in _OF_SAFETY

    @property
    def learns(self) -> Learn:
        """Whose likelihood is learned, where any is."""
        return self.learn or ("best" if self.method == "sft" else "chosen")

    @property
    def in_result(self) -> dict[str, Any]:
        """The fields that decide the policy; the others change time, memory, safety or what is told.

        `learn` is among them where a likelihood is learned, and not that of all chosen answers: what was trained before
        the field was there keeps its key.
        """
        others = {"tokens_per_batch", "checkpoint_minutes", "gradient_checkpointing", "processes", "nodes", "parallel"}
        others |= {"save"} if self.save == "auto" else set()  # runs from before there was a choice stay done
        others |= {
            "start",
            "rows",
            "rows_folder",
        }  # what it is made of counts, as of every starting model, and not where it lies
        others |= {"safe_from", "unsafe_margin"} - _OF_SAFETY.get(self.method, frozenset())  # likewise
        fields = self.model_dump(exclude={*others, "stop_on_collapse", "report_to", "learn"})
        learns_any = self.method == "sft" or self.nll
        return {**fields, "learn": self.learns} if learns_any and self.learns != "chosen" else fields

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
        if self.save != "auto" and self.lora is not None:
            raise ValueError("save is for full fine-tuning; adapters are saved in float32, so leave save at auto")
        if self.method == "sft" and self.nll:
            raise ValueError("nll adds the likelihood to a loss of pairs; method sft is that likelihood already")
        if (self.method == "grpo") != (self.rows == "online"):
            raise ValueError("method grpo draws answers to prompts; set rows: online with it, and with no other")
        if self.method == "grpo" and (self.n_together > 1 or self.weights == "bfloat16"):
            raise ValueError(
                "method grpo trains float32 weights or adapters in one process; set processes, nodes and weights so"
            )
        if self.rows not in ("pairs", "online") and self.asks_for_safety:
            raise ValueError(
                f"method {self.method} asks which answers are safe, and rows {self.rows} are not all rated"
            )
        if self.parallel != "ddp" and self.needs_copies:
            raise ValueError(f"{self.needs_copies} needs parallel: ddp; {self.parallel} leaves a process only shards")
        if self.parallel == "hsdp" and self.nodes > 1 and self.processes == 1:
            raise ValueError("parallel hsdp shards within a node, where processes is 1; use ddp, or fsdp over nodes")
        return self
