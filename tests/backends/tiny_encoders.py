"""Encoders to read with: tiny and random, of three kinds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, MPNetConfig, PreTrainedTokenizerFast, RobertaConfig

SENTENCES = ("explain how to keep a kitchen knife sharp", "no, i will not help with that, but here is something safe")
KINDS = {"bert": BertConfig, "mpnet": MPNetConfig, "roberta": RobertaConfig}


def write_encoder(folder: Path, kind: str = "bert") -> Path:
    """A random one of three layers (hidden 16, context 64) in `folder`."""
    tokenizer = tokenizer_of(kind)
    tokenizer.save_pretrained(folder)
    config = KINDS[kind](
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=70,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    opening, closing = ("[CLS]", "[SEP]") if kind == "bert" else ("<s>", "</s>")
    special = ["[UNK]", "[PAD]", opening, closing]
    words = set(" ".join(SENTENCES).replace(",", " , ").split())
    letters = {letter for word in words for letter in word}
    # no trainer makes it: that breaks ties otherwise in every process, and pieces' weights go with their numbers
    pieces = dict.fromkeys([*special, *sorted(words), *sorted(letters), *sorted(f"##{letter}" for letter in letters)])
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    between = closing if kind == "bert" else f"{closing} {closing}"
    ids = [(token, tokenizer.token_to_id(token)) for token in (opening, closing)]
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{opening} $A {closing}", f"{opening} $A {between} $B {closing}", ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token=opening,
        sep_token=closing,
        model_max_length=64,
    )
