from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from selfpriority.backends import batches, decoding
from selfpriority.backends.batches import passes
from selfpriority.backends.decoding import Sampling, generate, next_token_logits
from selfpriority.backends.hidden_states import span_means
from selfpriority.backends.pulse import Beat, listening
from selfpriority.errors import WorkFailed


def sampling(temperature: float = 1.0, top_p: float = 1.0, seed: int = 0) -> Sampling:
    return Sampling(temperature, top_p, max_new_tokens=40, end_ids=frozenset({2}), pad_id=2, seed=seed)


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def test_dropping_finished_rows_changes_nothing(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy rows that end at different lengths, with and without compaction."""
    prompts = [[1, 5 + i, 40 + 3 * i] for i in range(12)]
    ends = frozenset(range(0, 384, 12))  # end tokens often, so that rows finish apart
    greedy = Sampling(0.0, 1.0, max_new_tokens=40, end_ids=ends, pad_id=2, seed=0)
    compacted = generate(model, prompts, [1] * 12, greedy)
    monkeypatch.setattr(decoding, "_COMPACT_AT", 0.0)
    assert generate(model, prompts, [1] * 12, greedy) == compacted
    assert len({len(ids) for ids in compacted}) > 2


def test_few_rows_a_pass_change_nothing(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws, logits of choices and hidden states: one row a forward pass against all of them."""
    prompts = [[1, *range(5, 9 + i)] for i in range(7)]
    rows = [(ids, [range(1, len(ids))]) for ids in prompts]

    def everything() -> tuple[list[list[int]], torch.Tensor, torch.Tensor, torch.Tensor]:
        alone = next_token_logits(model, [[]] * 7, [[ids] for ids in prompts], 2)
        shared = next_token_logits(model, prompts, [[[20], [21, 22]]] * 7, 2)
        means = span_means(model, rows, [1], 2)[1]
        return generate(model, prompts, [2] * 7, sampling(top_p=0.9)), alone, shared, means

    drawn, *numbers = everything()
    monkeypatch.setattr(batches, "PASS_TOKENS", 1)
    drawn_singly, *numbers_singly = everything()
    assert drawn_singly == drawn
    for singly, together in zip(numbers_singly, numbers, strict=True):
        torch.testing.assert_close(singly, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefixes", [[[], []], [[1, 7, 9], [1]]], ids=["nothing shared", "a beginning shared"])
def test_endings_follow_the_row_they_stand_behind(model, prefixes) -> None:
    suffixes, endings = [[[20, 4], [21]], [[5, 6, 7]]], [[], [[30], [31, 32]]]
    read = next_token_logits(model, prefixes, suffixes, 2, endings)
    whole = [[*prefixes[0], 20, 4], [*prefixes[0], 21]]
    whole += [[*prefixes[1], 5, 6, 7, *ending] for ending in ([], [30], [31, 32])]
    with torch.inference_mode():
        expected = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in whole])
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pass_tokens", [10_000, 1], ids=["in one pass", "row by row"])
@pytest.mark.parametrize("endings", [None, [[[30]], [], [[31, 32]]]], ids=["no endings", "endings"])
def test_what_all_prefixes_begin_with_is_read_once_for_all(model, endings, pass_tokens, monkeypatch) -> None:
    """Against every row read by itself; what is forwarded is counted."""
    monkeypatch.setattr(batches, "PASS_TOKENS", pass_tokens)
    common = [1, *range(100, 140)]
    prefixes = [[*common, 7, 8, 9], [*common, 11], [*common, 12, 13]]
    suffixes = [[[20, 4], [21]], [[5, 6, 7]], [[8]]]
    forwarded: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: forwarded.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        read = next_token_logits(model, prefixes, suffixes, 2, endings)
    finally:
        handle.remove()
    whole = [
        [*prefix, *suffix, *ending]
        for prefix, group, behind in zip(prefixes, suffixes, endings or [[]] * 3, strict=True)
        for suffix in group
        for ending in ([], *behind)
    ]
    with torch.inference_mode():
        expected = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in whole])
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-5)
    assert forwarded.count(len(common) + 1) == 1
    assert sum(forwarded) < len(common) + 50


@pytest.mark.parametrize("pass_tokens", [10_000, 1], ids=["in one pass", "row by row"])
def test_what_all_prompts_begin_with_is_read_once_for_all(model, pass_tokens, monkeypatch) -> None:
    """A constitution before every prompt: the same draws as by themselves; what is forwarded is counted."""
    common = [1, *range(100, 100 + decoding._WORTH_DRAWING)]
    prompts, copies = [[*common, 7, 8, 9], [*common, 11], [*common, 12, 13]], [2, 1, 3]
    with monkeypatch.context() as before:
        before.setattr(decoding, "_WORTH_DRAWING", 10_000)
        whole = generate(model, prompts, copies, sampling(top_p=0.9))
    monkeypatch.setattr(batches, "PASS_TOKENS", pass_tokens)
    forwarded: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: forwarded.append(given["input_ids"].numel()), with_kwargs=True
    )
    heard: list[Beat] = []
    try:
        with listening(heard.append):
            drawn = generate(model, prompts, copies, sampling(top_p=0.9))
    finally:
        handle.remove()
    assert drawn == whole
    assert forwarded[0] == len(common) + 1
    # three tokens of a prompt's own and the column of its padding, then one a row and step
    assert sum(forwarded[1:]) == 3 * 4 + sum(sum(len(ids) > step for ids in drawn) for step in range(1, 40))
    assert heard[0].tokens == 6  # a prompt that was read is no answer


@pytest.mark.parametrize("endings", [None, [[[30], [31, 32]]]], ids=["no endings", "endings"])
def test_many_suffixes_are_read_in_parts_behind_a_prefix_that_is_computed_once(model, endings) -> None:
    """Whole and in parts of eight; every token of the prefix is forwarded once, and no suffix more than its padding."""
    prefix, suffixes = [1, *range(5, 60)], [[100 + n, *range(200, 202 + n % 3)] for n in range(20)]
    forwarded: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: forwarded.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        whole = next_token_logits(model, [prefix], [suffixes], 2, endings)
        n_whole = len(forwarded)
        parts = next_token_logits(model, [prefix], [suffixes], 2, endings, most=1)
    finally:
        handle.remove()
    assert [n for n in forwarded if n == len(prefix) + 1] == [57, 57]
    assert len(forwarded) == n_whole + 1 + 3 * (n_whole - 1)
    # 20 suffixes of up to 5 tokens, then two endings of up to 2 behind each, every row with the column of its padding
    assert forwarded[:n_whole] == [57, 20 * 6, 40 * 3][:n_whole] == [57, 120, *([120] if endings else [])]
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    few = next_token_logits(model, [prefix], [suffixes[:8]], 2, endings, most=1)  # never fewer at once
    assert torch.equal(few, next_token_logits(model, [prefix], [suffixes[:8]], 2, endings))


def test_copies_of_a_prompt_are_continuations_of_it(model) -> None:
    drawn = generate(model, [[1, 7, 9], [1, 30]], [3, 2], sampling(temperature=0.0))
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[3] == drawn[4]
    assert drawn[0] == generate(model, [[1, 7, 9]], [1], sampling(temperature=0.0))[0]
    assert drawn[3] == generate(model, [[1, 30]], [1], sampling(temperature=0.0))[0]


def test_the_same_seed_draws_the_same(model) -> None:
    first = generate(model, [[1, 7, 9]], [4], sampling(seed=3))
    assert generate(model, [[1, 7, 9]], [4], sampling(seed=3)) == first
    assert generate(model, [[1, 7, 9]], [4], sampling(seed=4)) != first


@given(st.lists(st.floats(-6, 6), min_size=2, max_size=30), st.floats(0.05, 1.0), st.floats(0.2, 3.0))
@settings(deadline=None, max_examples=60)
def test_draws_stay_in_the_nucleus(logits: list[float], top_p: float, temperature: float) -> None:
    rows = torch.tensor([logits]).expand(64, -1)
    generator = torch.Generator().manual_seed(0)
    tokens = decoding._draw(rows, sampling(temperature, top_p), generator)
    probabilities = torch.softmax(torch.tensor(logits) / temperature, dim=-1)
    for token in tokens.tolist():
        above = probabilities[probabilities > probabilities[token]].sum()
        assert float(above) < top_p + 1e-5


def test_draws_follow_the_nucleus_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125])).expand(20_000, -1)
    generator = torch.Generator().manual_seed(0)
    tokens = decoding._draw(logits, sampling(top_p=0.7), generator)
    shares = torch.bincount(tokens, minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0.0, 0.0]), atol=0.015, rtol=0)


def test_a_broken_distribution_is_an_error() -> None:
    logits = torch.full((2, 5), float("nan"))
    with pytest.raises(WorkFailed, match="not finite"):
        decoding._draw(logits, sampling(), torch.Generator())


@pytest.mark.parametrize("most", [1, 40, 100])
def test_prompts_in_pieces_are_bit_for_bit_the_whole(model, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    prompts = [[1, *range(5, 8 + 3 * i)] for i in range(7)]
    whole = generate(model, prompts, [1, 2, 1, 1, 3, 1, 1], sampling(seed=5))
    ones = generate(model, prompts, [1] * 7, sampling(seed=5))
    monkeypatch.setattr(decoding, "passes", lambda lengths: passes(lengths, most))
    assert len(passes([len(prompt) for prompt in prompts], most)) > 1
    assert generate(model, prompts, [1, 2, 1, 1, 3, 1, 1], sampling(seed=5)) == whole
    assert generate(model, prompts, [1] * 7, sampling(seed=5)) == ones


def test_what_a_model_does_after_its_head_is_not_lost_in_pieces(model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled:
        """A model whose logits are not its head's output."""

        def __getattr__(self, name: str):
            return getattr(model, name)

        def __call__(self, **given):
            found = model(**given)
            found.logits = found.logits * 0.25
            return found

    prompts = [[1, *range(5, 8 + 3 * i)] for i in range(7)]
    greedy = sampling(temperature=0.0)
    whole = decoding.next_token_logits(Scaled(), prompts, [[[9]]] * 7, 2)
    drawn = generate(Scaled(), prompts, [1] * 7, greedy)
    monkeypatch.setattr(decoding, "passes", lambda lengths: passes(lengths, 40))
    assert generate(Scaled(), prompts, [1] * 7, greedy) == drawn
    torch.testing.assert_close(decoding.next_token_logits(Scaled(), prompts, [[[9]]] * 7, 2), whole)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
@settings(deadline=None, max_examples=80)
def test_pieces_hold_every_row_once_and_stay_within_their_bound(lengths: list[int], most: int) -> None:
    pieces = passes(lengths, most)
    assert [row for piece in pieces for row in range(len(lengths))[piece]] == list(range(len(lengths)))
    sizes = [len(lengths[piece]) for piece in pieces]
    widths = [max(lengths[piece]) for piece in pieces]
    assert all(size * width <= most or size == 1 for size, width in zip(sizes, widths, strict=True))
    for size, piece in zip(sizes, pieces[1:], strict=False):  # none ends before it must
        rows = lengths[piece.start - size : piece.start + 1]
        assert len(rows) * max(rows) > most


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_pass_is_as_wide_as_its_own_rows(model, monkeypatch: pytest.MonkeyPatch, is_sorted: bool) -> None:
    """Prompts of very different lengths: the same draws, logits and states, and hardly a position for nothing."""
    prompts = [[1, *range(5, 5 + n)] for n in (3, 90, 4, 5, 60, 3, 4, 30)]
    if is_sorted:
        prompts.sort(key=len, reverse=True)
    rows = [(ids, [range(1, len(ids))]) for ids in prompts]

    def everything() -> tuple[list[list[int]], torch.Tensor, torch.Tensor]:
        alone = next_token_logits(model, [[]] * 8, [[ids] for ids in prompts], 2)
        return generate(model, prompts, [1] * 8, sampling(seed=5)), alone, span_means(model, rows, [1], 2)[1]

    drawn, *numbers = everything()
    monkeypatch.setattr(batches, "PASS_TOKENS", 95)
    forwarded: list[tuple[int, ...]] = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _, __, given: forwarded.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    try:
        drawn_in_passes, *numbers_in_passes = everything()
    finally:
        hook.remove()
    assert drawn_in_passes == drawn
    for some, whole in zip(numbers_in_passes, numbers, strict=True):
        torch.testing.assert_close(some, whole, atol=1e-5, rtol=0)
    read = [rows * width for rows, width in forwarded if width > 1]
    needed = sum(len(ids) + 1 for ids in prompts)  # with the column of padding
    assert sum(read) < 3 * (1.3 if is_sorted else 1.8) * needed  # as one block it is three times 3.5


def test_a_batch_tells_how_far_it_is(model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[1, *range(5, 9 + i)] for i in range(6)]
    heard: list[Beat] = []
    with listening(heard.append):
        drawn = generate(model, prompts, [2] * 6, sampling())
    assert [one.answers for one in heard] == sorted(one.answers for one in heard)
    assert heard[-1] == Beat(12, sum(map(len, drawn)))
    monkeypatch.setattr(batches, "PASS_TOKENS", 1)
    heard.clear()
    with listening(heard.append):
        next_token_logits(model, prompts, [[[20]]] * 6, 2)
        span_means(model, [(ids, [range(1, len(ids))]) for ids in prompts], [1], 2)
    assert [one.answers for one in heard] == [1, 2, 3, 4, 5, 6] * 2
