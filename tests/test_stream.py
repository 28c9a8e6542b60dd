"""The stream of training batches: what is given when, resumed, and shared by processes."""

import numpy as np
import pytest

from duo.data.stream import Rounds, Share, Shuffled


def stream(share=Share(), total=8, length=40, rows=50, first=0):  # noqa: B008 # it never changes
    return Shuffled(lambda rows: rows, rows, (3,), Rounds(length, total, share, first))


def test_every_sequence_is_trained_on_once_before_any_is_again():
    seen = np.concatenate([*stream()])
    for start in range(0, 300, 50):
        assert sorted(seen[start : start + 50]) == list(range(50))


def test_every_round_of_a_stream_is_whole_and_goes_on_through_the_data():
    rounds, endless = stream(length=5), stream(length=15)
    batches = []
    for _ in range(3):
        iterator = iter(rounds)
        batches += [next(iterator) for _ in range(5)]  # as Lightning does: it stops by length
    assert np.array_equal(np.stack(batches), np.stack([*endless]))


def test_a_stream_goes_on_where_it_was():
    whole = [*stream()]
    first = iter(before := stream())
    for _ in range(13):
        next(first)
    after = stream()
    after.load_state_dict(before.state_dict())
    assert np.array_equal(np.concatenate([*after]), np.concatenate(whole[13:]))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_every_batch(world):
    parts = [[*stream(Share(rank, world))] for rank in range(world)]
    for index, whole in enumerate(stream()):
        assert sorted(np.concatenate([part[index] for part in parts])) == sorted(whole)
