"""Entries that claim what is not so."""

import re
from pathlib import Path

from safetensors.numpy import load, save

from duo.evaluation.format import sequences_of
from duo.evaluation.intervals import estimate_loss


def entry_of(store, name="softmax_budget"):
    """The digest, head and files of an entry by its name."""
    for digest in store.digests("entries"):
        head = store.head("entries", digest)
        if head["name"] == name:
            files = {file: store.file("entries", digest, file, head) for file in head["files"]}
            head.pop("files")
            return digest, head, files
    raise AssertionError(name)


def forged(store, change, name="softmax_budget"):
    """Adds a copy of an entry in which `change(head, files)` has altered something; returns its digest."""
    _, head, files = entry_of(store, name)
    change(head, files)
    return store.add("entries", head, files)


def lower(head, files):
    sequences = load(files["sequences.safetensors"])
    for part in ("scores", "subset"):
        sequences[f"{part}/held/loss_ZB"] = sequences[f"{part}/held/loss_ZB"] - 1
        found = estimate_loss(sequences_of(sequences, f"{part}/held/"))
        head["row"][part]["held"] |= {"loss": found.value, "loss_interval": found.interval}
    files["sequences.safetensors"] = save(sequences)


def setting(*path, value):
    """A change of one field of the head."""

    def change(head, _):
        for key in path[:-1]:
            head = head[key]
        head[path[-1]] = value

    return change


def appended(text):
    """A change that puts a line behind an entry's recipe."""

    def change(_, files):
        files["recipe.yaml"] += text.encode()

    return change


def republished(board, about=(), **fields):
    """Publishes a board's backbone again with other words about it; returns the change of an entry that names it."""
    (published,) = board.digests("backbones")
    head = board.head("backbones", published)
    weights = board.file("backbones", published, "weights.safetensors", head)
    head |= {"about": head["about"] | dict(about), **fields}
    other = board.add("backbones", head, {"weights.safetensors": weights})

    def change(_, files):
        files["recipe.yaml"] = files["recipe.yaml"].replace(published.encode(), other.encode())

    return change


def elsewhere(change):
    """The same change in an entry that claims to come from another machine, where rounding is forgiven."""

    def changed(head, files):
        change(head, files)
        head["provenance"]["device"] = "a machine far away"

    return changed


def rewritten(head, files):
    """Losses per sequence of another router, with the same sum."""
    sequences = load(files["sequences.safetensors"])
    loss_B = sequences["scores/held/loss_ZB"][0]
    loss_B[: len(loss_B) // 2 * 2 : 2] += 3
    loss_B[1 : len(loss_B) // 2 * 2 : 2] -= 3
    files["sequences.safetensors"] = save(sequences)


def shifted(head, files):
    sequences = load(files["sequences.safetensors"])
    for name in sequences:
        if name.endswith("sequence_B"):
            sequences[name] = sequences[name] + 1
    files["sequences.safetensors"] = save(sequences)


def reshaped(head, files):
    sequences = load(files["sequences.safetensors"])
    sequences["scores/held/loss_ZB"] = sequences["scores/held/loss_ZB"][0].copy()
    files["sequences.safetensors"] = save(sequences)


def reseeded(seed):
    """A change of an entry's seed."""

    def change(_, files):
        files["recipe.yaml"] = re.sub(rb"(?m)^seed: 0$", b"seed: %d" % seed, files["recipe.yaml"])

    return change


def board_path(board):
    return Path(board.location)
