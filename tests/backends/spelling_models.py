"""Small models whose tokenizers spell digits as those in use do; the tokenizers are real, the weights random."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.conftest import SENTENCES, tiny_llama

SPECIAL = ("<unk>", "<s>", "</s>")
MARK = "\u2581"
WIDTH = 32


def instructed(gap: str, end: str = " [/INST]") -> str:
    """Mistral's chat template; `gap` stands before an answer."""
    return (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '"
        + end
        + "' }}{% elif m.role == 'assistant' %}{{ '"
        + gap
        + "' + m.content + eos_token }}{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
    )


def told(opening: str) -> str:
    """A template that opens the assistant's turn with `opening`."""
    return (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content }}{% elif m.role == 'assistant' %}{{ '"
        + opening
        + "' + m.content + eos_token }}{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + opening + "' }}{% endif %}"
    )


def trained(before: Any, n: int = 600) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of byte-pair encoding, in order."""
    import json

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = before
    trainer = trainers.BpeTrainer(vocab_size=n, initial_alphabet=list("0123456789[]/"), show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES, "USER: it\nASSISTANT: it [INST] it [/INST]"], trainer)
    stored = json.loads(tokenizer.to_str())["model"]
    return sorted(stored["vocab"], key=stored["vocab"].get), [tuple(pair) for pair in stored["merges"]]


def sentence_pieces(prepends: bool, joined_digits: bool = False) -> Tokenizer:
    """Llama-2's tokenizer with its `Prepend` normaliser, or Mistral v0.3's with its `Metaspace` pretokenizer."""
    pieces, merges = trained(
        pre_tokenizers.Sequence([pre_tokenizers.Metaspace(MARK), pre_tokenizers.Digits(individual_digits=True)])
    )
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    joined = [MARK + digit for digit in "0123456789"] if joined_digits else []
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *bytes_, *pieces, MARK * 2, *joined]))}
    merges = [*merges, (MARK, MARK), *((MARK, piece[1:]) for piece in joined)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if prepends:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def byte_level(splits_digits: bool) -> Tokenizer:
    """As Llama-3's, Qwen's and SmolLM2's, whose digits stand alone, or as GPT-2's, which has a piece for " 7"."""
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    before = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    pieces, merges = trained(before if splits_digits else bytes_)
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces]
    if not splits_digits:
        pieces += ["\u0120" + digit for digit in "0123456789"]
        merges = [*merges, *(("\u0120", digit) for digit in "0123456789")]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = before if splits_digits else bytes_
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram() -> Tokenizer:
    """As T5's: a space mark before every word, a piece for some digits behind it, the rest apart."""
    pieces = [(piece, -1.0 if piece in SPECIAL else -8.0) for piece in SPECIAL]
    letters = sorted({letter for text in SENTENCES for letter in text if letter != " "} | set("0123456789[]/:\n"))
    pieces += [(letter, -6.0) for letter in (MARK, *letters)]
    pieces += [(MARK + digit, -5.0) for digit in "123"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(MARK, prepend_scheme="always")
    return tokenizer


@dataclass(frozen=True)
class Shape:
    """A tokenizer with its template."""

    tokenizer: Tokenizer
    template: str
    control: tuple[str, ...] = ()
    """Turns' marks that are tokens of their own."""

    def save(self, folder: Path) -> Path:
        """A random Llama with this tokenizer in `folder`."""
        fast = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
        )
        marks = [AddedToken(mark, special=True, normalized=False) for mark in self.control]
        fast.add_special_tokens({"additional_special_tokens": marks}) if marks else None
        fast.chat_template = self.template
        fast.save_pretrained(folder)
        llama(len(fast)).save_pretrained(folder)
        return folder


def llama(n_tokens: int) -> Any:
    """Room for long tokenizers' texts, and a head of its own to rig."""
    return tiny_llama(n_tokens, max_position_embeddings=8192, tie_word_embeddings=False)


def answers_in_digits(folder: Path) -> None:
    """Weights by which the last token decides: behind the user's turn a space piece, behind that the digits."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    close, space = tokenizer("Yes [/INST]")["input_ids"][-1], tokenizer.convert_tokens_to_ids(MARK)
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        read, said = model.model.embed_tokens.weight, model.lm_head.weight
        for place, token in enumerate((close, space)):
            read[token] = torch.eye(WIDTH)[place]
        said.zero_()
        said[space, 0] = said[digits, 1] = 2.0  # times sqrt(WIDTH) behind the norm: 11.3
        said[digits[7], 1] += 0.3
    model.save_pretrained(folder)


MISTRAL = Shape(sentence_pieces(prepends=True), instructed(gap=""))
"""v0.2 as it was first published: the template sets no space, the tokenizer does."""
