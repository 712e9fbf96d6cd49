from __future__ import annotations

import json
import warnings
from statistics import fmean

import pytest
import yaml

from selfpriority.errors import InputError
from selfpriority.inspection.export import Exported, Wanted, export, trl_rows
from selfpriority.inspection.run_files import paired_of
from selfpriority.run_records import Step


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_trl_rows_in_a_folder_with_a_hazard_notice(make_run, tmp_path):
    written = export(make_run(), tmp_path / "to", Wanted("trl", keep_cut=True))
    assert written == Exported(19, tmp_path / "to" / "pairs.jsonl", 8)
    rows = read_jsonl(written.path)
    row = next(r for r in rows if (r["score_chosen"], r["score_rejected"]) == (15.0, 11.2))
    assert row == {
        "prompt": [{"role": "user", "content": "Explain how to keep a knife sharp, p1."}],
        "chosen": [{"role": "assistant", "content": "No, but here is something safe that you can do instead."}],
        "rejected": [{"role": "assistant", "content": "The quick brown fox jumps. " * 3}],
        "score_chosen": 15.0,
        "score_rejected": 11.2,
        "score_chosen_harmlessness": 8.0,
        "score_chosen_helpfulness": 7.0,
        "score_rejected_harmlessness": 5.2,
        "score_rejected_helpfulness": 6.0,
        "gap": pytest.approx(3.8),
        "weight": pytest.approx(3.8 / fmean(r["gap"] for r in rows)),
        "decided_by": "harmlessness",
        "prompt_id": "p1",
        "stop_chosen": "end",
        "stop_rejected": "end",
    }
    assert fmean(r["weight"] for r in rows) == pytest.approx(1.0)
    assert (tmp_path / "to" / "HAZARD.txt").read_text("utf-8").startswith("HAZARD: harmful text\n")


def test_pairs_with_a_cut_answer_are_left_out_unless_wanted(make_run, tmp_path):
    """Other trainers put an end token behind every answer, and would teach a model to stop in the middle."""
    run = make_run()
    finished = export(run, tmp_path / "to", Wanted())
    assert (finished.rows, finished.n_cut) == (11, 8)
    rows = read_jsonl(finished.path)
    assert {row[f"stop_{side}"] for row in rows for side in ("chosen", "rejected")} == {"end"}
    assert fmean(row["weight"] for row in rows) == pytest.approx(1.0)
    every = read_jsonl(export(run, tmp_path / "every", Wanted(keep_cut=True)).path)
    assert [row for row in every if row["stop_chosen"] == row["stop_rejected"] == "end"] == [
        {**row, "weight": pytest.approx(row["weight"] * fmean(r["gap"] for r in rows) / fmean(r["gap"] for r in every))}
        for row in rows
    ]
    paired = paired_of(run, 1)
    assert trl_rows(paired, ("harmlessness", "helpfulness"), 1.0) == rows


def test_where_all_pairs_are_cut_it_says_so(make_run, tmp_path):
    run = make_run()
    pools = run.round(1) / "4-pools.jsonl"
    pools.write_text(pools.read_text("utf-8").replace('"stop":"end"', '"stop":"length"'), "utf-8")
    with pytest.raises(InputError, match=r"all 19 pairs hold an answer that was cut at the length limit.*--keep-cut"):
        export(run, tmp_path / "to", Wanted())
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("keep_cut", [False, True])
def test_a_card_says_what_the_data_is(make_run, tmp_path, keep_cut):
    run = make_run(model=str(tmp_path / "hub" / "models--some--model" / "snapshots" / "1"))
    path = export(run, tmp_path / "to", Wanted(keep_cut=keep_cut)).path
    card = path.with_name("README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["configs"] == [
        {"config_name": "default", "data_files": "pairs.jsonl"}
    ]
    assert f"{19 if keep_cut else 11} pairs of answers that some/model wrote" in card
    assert ("among them" in card) == keep_cut
    assert ("are left out" in card) != keep_cut
    assert "They may be harmful" in card
    assert str(tmp_path) not in card
    for column in read_jsonl(path)[0]:
        assert f"`{column}`" in card or column in ("prompt", "chosen", "rejected"), column
    beside = export(run, tmp_path / "one.jsonl", Wanted(keep_cut=keep_cut)).path
    assert beside.with_name("one.jsonl.card.md").is_file()


def test_weights_follow_alpha_and_the_recipes_gap(make_run, tmp_path):
    run = make_run(align={"alpha": 0.5, "weight_gap": "l1"})
    paired = paired_of(run, 1)
    distances = [pair.distance for entry in paired for pair in entry.pairs]
    rows = read_jsonl(export(run, tmp_path / "to", Wanted("trl", keep_cut=True)).path)
    mean = fmean(distances)
    assert [r["weight"] for r in rows] == pytest.approx([(d / mean) ** 0.5 for d in distances])
    primary = trl_rows(paired, ("harmlessness", "helpfulness"), 1.0, "primary", keep_cut=True)
    # what decided: harmlessness everywhere, but for the third pair of p1, helpfulness 6 over 5
    deciding = [1, 0.8, 1, 2, 1, 1.8, 3, 2, 2.8, 1, *(1, 1, 2, 1, 2, 4, 3, 4, 2)]
    assert [r["weight"] for r in primary] == pytest.approx([gap / fmean(deciding) for gap in deciding])
    assert [r["decided_by"] for r in primary].index("helpfulness") == 2
    assert [r["weight"] for r in trl_rows(paired, ("a", "b"), 0.0, keep_cut=True)] == [1.0] * 19
    assert trl_rows([], ("a", "b"), 1.0) == []


def test_llama_factory_reads_what_is_written(make_run, tmp_path):
    written = export(make_run(), tmp_path / "to", Wanted("llama-factory", keep_cut=True))
    rows = json.loads(written.path.read_text("utf-8"))
    assert len(rows) == written.rows == 19
    assert rows[0]["conversations"] == [{"from": "human", "value": "Explain how to keep a knife sharp, p1."}]
    assert rows[0]["chosen"]["from"] == rows[0]["rejected"]["from"] == "gpt"
    assert {"score_chosen", "score_rejected", "gap", "weight", "decided_by", "prompt_id"} <= rows[0].keys()
    assert "prompt" not in rows[0]
    info = json.loads((tmp_path / "to" / "dataset_info.json").read_text("utf-8"))
    assert info == {
        "a-run": {
            "file_name": "pairs.json",
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
        }
    }


def test_parquet_has_the_columns_of_all_rows(make_run, tmp_path):
    """Of pools in which nobody rated an answer there may be one in front."""
    import pyarrow.parquet as pq

    run = make_run()
    path = run.round(1) / "4-pools.jsonl"
    pools = [json.loads(line) for line in path.read_text().splitlines()]
    for answer in [*pools[0]["candidates"], *([pools[0]["refined"]] if pools[0]["refined"] else [])]:
        answer["ratings"] = []
    path.write_text("".join(json.dumps(pool) + "\n" for pool in pools))
    table = pq.read_table(export(run, tmp_path / "to", Wanted("parquet", keep_cut=True)).path)
    scores = table.column("score_chosen_harmlessness").to_pylist()
    assert scores[0] is None
    assert scores[-1] is not None


@pytest.mark.parametrize("step", ["score", "pair"])
def test_pairs_of_an_older_recipe_are_not_exported(make_run, tmp_path, step):
    run = make_run()
    with run.recording(Step(f"round-1/{step}", "key", ())):
        pass
    run.mark({f"round-1/{step}": "older"})
    with pytest.raises(InputError, match=rf"round-1/{step} was done under another recipe.*`spa run` does it anew"):
        export(run, tmp_path / "to", Wanted(keep_cut=True))
    run.mark({f"round-1/{step}": "done"})
    assert export(run, tmp_path / "to", Wanted(keep_cut=True)).rows


def test_parquet_holds_the_same_rows(make_run, tmp_path):
    import pyarrow.parquet as pq

    run = make_run()
    written = export(run, tmp_path / "some.parquet", Wanted("parquet", keep_cut=True))
    assert written.path == tmp_path / "some.parquet"
    assert pq.read_table(written.path).to_pylist() == read_jsonl(
        export(run, tmp_path / "to", Wanted("trl", keep_cut=True)).path
    )
    assert (tmp_path / "HAZARD.txt").is_file()


def test_datasets_loads_the_trl_rows(make_run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # datasets' own
        from datasets import load_dataset

        path = str(export(make_run(), tmp_path / "to", Wanted("trl", keep_cut=True)).path)
        rows = load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 19
    assert rows[0]["chosen"][0]["role"] == "assistant"


def test_an_unknown_format_lists_those_there_are(make_run, tmp_path):
    with pytest.raises(InputError, match="'csv' is none of trl, llama-factory, parquet"):
        export(make_run(), tmp_path / "to", Wanted("csv", keep_cut=True))


def test_nothing_is_overwritten(make_run, tmp_path):
    run = make_run()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="taken is not empty"):
        export(run, taken, Wanted("trl", keep_cut=True))
    with pytest.raises(InputError, match=r"mine\.txt exists already"):
        export(run, taken / "mine.txt", Wanted("trl", keep_cut=True))
    (taken / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match=r"dataset_info\.json exists already"):
        export(run, taken / "pairs.json", Wanted("llama-factory", keep_cut=True))
    with pytest.raises(InputError, match=r"parquet is a \.parquet file"):
        export(run, taken / "pairs.jsonl", Wanted("parquet", keep_cut=True))
    assert sorted(path.name for path in taken.iterdir()) == ["dataset_info.json", "mine.txt"]


def test_the_notice_replaces_no_file_of_somebody_elses(make_run, tmp_path):
    run, folder = make_run(), tmp_path / "shared"
    folder.mkdir()
    (folder / "HAZARD.txt").write_text("Mind the step.")
    with pytest.raises(InputError, match=r"HAZARD\.txt exists already"):
        export(run, folder / "pairs.jsonl", Wanted("trl", keep_cut=True))
    assert [path.name for path in folder.iterdir()] == ["HAZARD.txt"]
    (folder / "HAZARD.txt").unlink()
    assert (
        export(run, folder / "pairs.jsonl", Wanted("trl", keep_cut=True)).rows
        == export(run, folder / "pairs.parquet", Wanted("parquet", keep_cut=True)).rows
    )


def test_a_round_without_pairs(make_run, tmp_path):
    run = make_run()
    with pytest.raises(InputError, match=r"rounds with pairs: 1\)"):
        export(run, tmp_path / "to", Wanted("trl", 2, keep_cut=True))
    assert export(run, tmp_path / "to", Wanted("trl", 1, keep_cut=True)).rows == 19
    (run.round(1) / "5-pairs.jsonl").unlink()
    with pytest.raises(InputError, match=r"rounds with pairs: none\)"):
        export(run, tmp_path / "other", Wanted("trl", keep_cut=True))
