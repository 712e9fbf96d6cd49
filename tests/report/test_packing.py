"""What a page carries: whole where it fits, cut by a stated rule where it does not."""

import base64
import json
import random
import zlib

from selfpriority.records import Message
from selfpriority.report.catalogue import HELD_OUT, Entry, Shown
from selfpriority.report.packing import BLOCK_CHARACTERS, Packed, pack

chance = random.Random(5)


def noise(n: int) -> str:
    """Text that hardly compresses."""
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=n))


def entries(n: int, length: int) -> list[Entry]:
    def answers(role: str, names: tuple[str, ...]) -> tuple[Shown, ...]:
        return tuple(Shown(name, role, noise(length), (5.0, None)) for name in names)

    turns = (Message("user", "What is it?"),)
    tested = [Entry(f"h{i}", HELD_OUT, "a", HELD_OUT, turns, answers("system", ("vanilla", "spa"))) for i in range(n)]
    trained = [
        Entry(f"t{i}", "round 1", "a", "kept", turns, answers("candidate", ("y1", "y2", "y3", "y4"))) for i in range(n)
    ]
    for entry in trained:
        for answer in entry.answers:
            object.__setattr__(answer, "scores", (5.0, 2.0))
    return tested + trained


def opened(packed: Packed) -> tuple[dict, list[dict]]:
    index, *blocks = (json.loads(zlib.decompress(base64.b64decode(text))) for text in (packed.index, *packed.blocks))
    return index, [body for block in blocks for body in block]


def test_what_fits_is_whole_and_in_order():
    packed = pack(entries(5, 300), {"tie": 0.5})
    index, bodies = opened(packed)
    assert packed.notes == ()
    assert index["tie"] == 0.5
    assert index["id"] == [f"h{i}" for i in range(5)] + [f"t{i}" for i in range(5)]
    assert [len(answer["text"]) for answer in bodies[0]["answers"]] == [300, 300]
    assert index["scores"][0] == [[5.0, None], [5.0, None]]
    assert index["scores"][5] == [[5.0, 2.0], []]


def test_blocks_start_where_the_index_says():
    many = entries(400, 500)
    packed = pack(many, {})
    index, _ = opened(packed)
    assert len(packed.blocks) > 1
    assert len(index["blocks"]) == len(packed.blocks)
    for start, block in zip(index["blocks"], packed.blocks, strict=True):
        bodies = json.loads(zlib.decompress(base64.b64decode(block)))
        assert bodies[0]["answers"][0]["text"] == many[start].answers[0].text
        assert sum(len(a["text"]) for body in bodies[:-1] for a in body["answers"]) <= BLOCK_CHARACTERS


def test_candidates_are_cut_before_the_answers_of_systems_and_the_page_says_so():
    packed = pack(entries(50, 3000), {}, most=480_000)
    _, bodies = opened(packed)
    assert packed.size <= 480_000
    assert packed.notes == (
        "Candidates and refined answers are cut after 1,000 characters to keep this file under 15 MB.",
    )
    assert {len(answer["text"]) for answer in bodies[0]["answers"]} == {3000}
    cut = bodies[50]["answers"][0]
    assert (len(cut["text"]), cut["length"]) == (1000, 3000)


def test_what_never_fits_is_thinned_evenly():
    packed = pack(entries(600, 400), {}, most=40_000)
    index, _ = opened(packed)
    assert packed.size <= 40_000
    assert len(index["id"]) < 1200
    assert index["id"][:2] in (["h0", "h4"], ["h0", "h8"], ["h0", "h2"])
    assert packed.notes[0].endswith("evenly spaced in their order: more would not fit one file.")


def test_the_note_counts_what_was_there():
    packed = pack(entries(600, 400), {}, most=40_000)
    index, _ = opened(packed)
    assert packed.notes[0].startswith(f"{len(index['id']):,} of 1,200 prompts")


def test_half_a_surrogate_pair_is_not_the_end():
    broken = Entry("p", HELD_OUT, "a", HELD_OUT, (Message("user", "\ud83d"),))
    index, _ = opened(pack([broken], {}))
    assert index["text"] == ["?"]


def test_no_prompts_make_an_empty_index():
    index, bodies = opened(pack([], {}))
    assert (index["id"], index["blocks"], bodies) == ([], [], [])
