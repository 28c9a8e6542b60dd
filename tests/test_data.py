import json

import numpy as np
import pytest
import torch
from conftest import split_of
from datasets import Dataset

from duo.data import DataConfig, TextData
from duo.data.prepare import prepare
from duo.data.token_text import token_bytes
from duo.data.tokenizer import END, train_tokenizer
from duo.data.tokens import pack, read


def of_files(files, **changes):
    return DataConfig(
        **{
            "source": "files",
            "train": [f"{files}/train*.txt"],
            "holdouts": {"held": [f"{files}/held*.txt"]},
            "tokens": 32,
        }
        | changes
    )


def test_no_builtin_document_is_in_two_splits_and_all_are_used():
    parts = split_of(DataConfig())
    used = [set(parts.train), *map(set, parts.calibration.values()), *map(set, parts.holdouts.values())]
    assert list(parts.holdouts) == list(parts.calibration) == ["text", "code"]
    assert len(set.union(*used)) == sum(map(len, used)) > 600
    assert sum(len(text) for text in parts.train) > 15e6
    assert all("import" in text or "def " in text or "#" in text or '"' in text for text in parts.holdouts["code"])


def test_a_split_depends_on_its_seed_alone():
    assert split_of(DataConfig()) == split_of(DataConfig())
    assert split_of(DataConfig(seed=1)).holdouts["text"] != split_of(DataConfig()).holdouts["text"]


@pytest.fixture(scope="module")
def builtin(tmp_path_factory):
    config = DataConfig(train_bytes=300_000, tokens=64, calibration_tokens=4096)
    return TextData(config, 512, tmp_path_factory.mktemp("builtin"))


def test_builtin_hold_outs_have_the_tokens_asked_for(builtin):
    data = builtin
    assert data.holdouts == data.calibration == ["text", "code"]
    for name in data.holdouts:
        assert sum(batch.labels_BT.numel() for batch in data.holdout(name)) == 65536
        assert sum(batch.labels_BT.numel() for batch in data.calibration_set(name)) == 4096
    first = data.holdout("text")[0]
    assert torch.equal(first.tokens_BT[:, 1:], first.labels_BT[:, :-1])
    text = data.tokenizer.decode(first.labels_BT[0].tolist(), skip_special_tokens=True)
    assert len(text.encode()) == int(first.bytes_B[0])
    ids = [data.holdout(name)[0].sequence_B for name in data.holdouts]
    assert not set(ids[0].tolist()) & set(ids[1].tolist())


def test_the_subset_is_the_beginning_of_one_sequence_of_every_document_of_the_hold_out(files, tmp_path):
    data = TextData(of_files(files, subset_sequences=10, subset_tokens=10, batch_size=2), 300, tmp_path)
    whole = {
        int(i): row for batch in data.holdout("held") for i, row in zip(batch.sequence_B, batch.tokens_BT, strict=True)
    }
    some = [*data.subset("held")]
    assert sorted(torch.cat([batch.document_B for batch in some]).tolist()) == list(range(10))
    for batch in some:
        assert batch.tokens_BT.shape[1] == 10
        for i, row in zip(batch.sequence_B, batch.tokens_BT, strict=True):
            assert torch.equal(row, whole[int(i)][:10])


def test_builtin_hold_outs_and_calibration_sets_are_of_many_documents_and_no_sequence_of_two(builtin):
    end = builtin.tokenizer.token_to_id(END)
    sets = [(builtin.holdout, builtin.holdouts, 40), (builtin.calibration_set, builtin.calibration, 16)]
    for batches, names, least in sets:
        for name in names:
            document_N = np.concatenate([batch.document_B for batch in batches(name)])
            share_D = np.bincount(document_N) / len(document_N)
            assert len(share_D) >= least
            assert 0 < share_D.min() <= share_D.max() <= 1 / 20
            assert not any((batch.tokens_BT == end).any() for batch in batches(name))


def test_packing_loses_nothing_but_the_last_rest():
    documents = ["one two three", "four", "five six seven eight nine ten"] * 40
    tokenizer = train_tokenizer(documents, 280)
    packed = np.concatenate([*pack(tokenizer, documents, 17)])["id"]
    stream = [token for text in documents for token in (*tokenizer.encode(text).ids, tokenizer.token_to_id(END))]
    assert packed.tolist() == stream[: len(stream) // 17 * 17]
    assert tokenizer.decode(packed.tolist()[: stream.index(tokenizer.token_to_id(END))]) == documents[0]


@pytest.mark.parametrize("text", ["plain", "naïve café — 漢字 \U0001f600", "\ttabs\n\n    and  spaces\x00"])
def test_token_bytes_sum_to_the_text(text):
    tokenizer = train_tokenizer([text, "some other words"], 300)
    ids = tokenizer.encode(text).ids
    assert token_bytes(tokenizer)[ids].sum() == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert token_bytes(tokenizer)[tokenizer.token_to_id(END)] == 0


def test_the_tokenizer_sees_training_documents_alone(files, tmp_path):
    (tmp_path / "held.txt").write_text("qqqqqqqqqqzzzzzzzzzz " * 200)
    config = of_files(files, holdouts={"held": [f"{tmp_path}/held.txt"]})
    tokenizer = read(prepare(config, 400, tmp_path))[0]
    assert not any("qq" in token or "zz" in token for token in tokenizer.get_vocab())


def test_two_percent_of_the_training_documents_calibrate_where_nothing_else_does(tmp_path):
    for index in range(200):
        (tmp_path / f"{index}.txt").write_text(f"document number {index} " * 60)
    (tmp_path / "held.md.txt").write_text("something else " * 60)
    config = of_files(tmp_path, train=[f"{tmp_path}/[0-9]*.txt"])
    parts = split_of(config)
    assert [*parts.calibration] == ["train"]
    assert (len(parts.calibration["train"]), len(parts.train)) == (4, 196)
    assert TextData(config, 300, tmp_path / "cache").calibration_set("train")[0].domain == "train"


def test_given_calibration_sets_are_used_and_their_documents_not_trained_on(files):
    config = of_files(files, calibration={"cal": [f"{files}/train1*.txt"]})
    parts = split_of(config)
    assert [*parts.calibration] == ["cal"]
    assert not set(parts.train) & set(parts.calibration["cal"])
    assert not set(parts.train) & set(parts.holdouts["held"])


def test_a_hold_out_may_have_a_calibration_set_of_its_own_name(files, tmp_path):
    sets = {"calibration": {"held": [f"{files}/train1*.txt"]}, "holdouts": {"held": [f"{files}/held*.txt"]}}
    data = TextData(of_files(files, **sets), 300, tmp_path / "cache")
    assert (data.holdouts, data.calibration, data.foreign) == (["held"], ["held"], [])
    split = split_of(of_files(files, **sets))
    assert not set(split.calibration["held"]) & set(split.holdouts["held"])
    assert TextData(of_files(files, **sets | {"calibration": {}}), 300, tmp_path / "cache").foreign == ["held"]
    with pytest.raises(ValueError, match=r"data.holdouts.train has the name of the training documents"):
        of_files(files, holdouts={"train": [f"{files}/held*.txt"]})


def test_no_document_of_files_is_in_two_splits_or_twice_in_one(files):
    held, train = f"{files}/held*.txt", f"{files}/train*.txt"
    config = of_files(
        files, train=[train, held], holdouts={"a": [held, f"{files}/held0.txt"], "b": [f"{files}/train1*.txt", held]},
        calibration={"c": [f"{files}/train1*.txt", f"{files}/train2*.txt"]},
    )  # fmt: skip
    parts = split_of(config)
    used = [parts.train, *parts.calibration.values(), *parts.holdouts.values()]
    assert sum(map(len, used)) == len(set().union(*used))
    assert len(parts.holdouts["a"]) == 10
    with pytest.raises(ValueError, match=r"data\.holdouts\.b holds no document"):
        split_of(of_files(files, holdouts={"a": [held], "b": [held]}))


def test_text_jsonl_and_parquet_give_the_same_documents(tmp_path):
    texts = [f"document {index} says é\n{'words ' * index}" for index in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts))
    Dataset.from_dict({"text": texts}).to_parquet(str(tmp_path / "a.parquet"))
    for index, text in enumerate(texts):
        (tmp_path / f"{index}.txt").write_text(text)
    (tmp_path / "held.txt").write_text("held")
    found = [
        {*split_of(of_files(tmp_path, train=[f"{tmp_path}/{pattern}"])).train}
        for pattern in ("a.jsonl", "a.parquet", "[0-9]*.txt")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0] <= {*texts}


def test_what_is_prepared_is_found_again_and_depends_on_the_documents(files, tmp_path):
    config = of_files(files)
    folder = prepare(config, 300, tmp_path)
    stamp = (folder / "tokenizer.json").stat().st_mtime_ns
    assert prepare(config, 300, tmp_path) == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == stamp
    other = prepare(of_files(files, train=[f"{files}/train1*.txt"]), 300, tmp_path)
    assert other != folder
    assert read(other)[2] != read(folder)[2]


def test_half_prepared_data_is_made_anew(files, tmp_path):
    config = of_files(files)
    folder = prepare(config, 300, tmp_path / "a")
    half_done = tmp_path / "b" / "data" / f"{folder.name}.part"
    half_done.mkdir(parents=True)
    (half_done / "tokenizer.json").write_text("{")
    again = prepare(config, 300, tmp_path / "b")
    assert read(again)[2] == read(folder)[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": ["/nowhere/*.txt"]}, r"data\.train: '/nowhere/\*\.txt' matches no file"),
        ({"holdouts": {"held": ["/nowhere/x.txt"]}}, r"data\.holdouts\.held: '/nowhere/x\.txt'"),
        ({"train": ["{files}/empty.txt"]}, r"data\.train holds no document: no text is in .*empty.txt"),
        ({"train": ["{files}/broken.jsonl"]}, "broken.jsonl cannot be read"),
        ({"train": ["{files}/broken.parquet"]}, "broken.parquet cannot be read"),
        ({"train": ["{files}/latin.txt"]}, "latin.txt cannot be read"),
        ({"train": ["{files}/a.csv"]}, "unknown kind '.csv'"),
        ({"train": ["{files}/other.jsonl"]}, "no column 'text' but body"),
        ({"holdouts": {"held": ["{files}/short.txt"]}}, r"data\.holdouts\.held is shorter than one sequence"),
    ],
)
def test_bad_files_are_named(tmp_path, files, change, said):
    for name, content in {
        "empty.txt": b"", "broken.jsonl": b'{"text": "a"}\n{"te', "broken.parquet": b"PAR1no", "latin.txt": b"caf\xe9",
        "a.csv": b"a,b", "other.jsonl": b'{"body": "a"}\n', "short.txt": b"short",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    fill = lambda value: [text.replace("{files}", str(tmp_path)) for text in value]  # noqa: E731
    change = {
        key: {k: fill(v) for k, v in value.items()} if isinstance(value, dict) else fill(value)
        for key, value in change.items()
    }
    with pytest.raises(ValueError, match=said):
        prepare(of_files(files, **change), 300, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "web"}, "data.source='web'"),
        ({"source": "files"}, "needs data.train"),
        ({"train": ["x"]}, "set data.source=files"),
        ({"tokens": 0}, "data.tokens=0"),
        ({"holdout_tokens": 0}, "data.holdout_tokens=0"),
        ({"train_bytes": -1}, "data.train_bytes=-1"),
        ({"holdout_documents": 0}, "data.holdout_documents=0"),
    ],
)
def test_impossible_configs_name_the_field(change, said):
    with pytest.raises(ValueError, match=said):
        DataConfig(**change)


def test_a_vocabulary_below_all_bytes_is_refused():
    with pytest.raises(ValueError, match="backbone.vocabulary=100"):
        train_tokenizer(["text"], 100)
