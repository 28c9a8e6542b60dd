"""A stand-in for a real model: a Llama that transformers trains on duo's own documents, with duo's own tokenizer.

    OMP_NUM_THREADS=1 python benchmarks/pretrained.py FOLDER [--steps 600] [--width 96] [--cache DIR]

FOLDER is then a model for `backbone.pretrained=FOLDER`, and what a hub's model would show can be tried offline.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from pairs import llama_of
from torch.nn import functional as F
from transformers import PreTrainedModel

from duo import BackboneConfig, recipe
from duo.data import TextData
from duo.stages.cache import default_cache


def train(folder: Path, steps: int, width: int, cache: Path) -> None:
    """Trains a Llama of 12 layers and saves it, and its tokenizer, in the folder."""
    torch.manual_seed(0)
    shape = BackboneConfig(width=width, heads=max(width // 32, 1), big=4 * width, tied=True)
    model, data = llama_of(shape), TextData(recipe.load("router_budget6").data, shape.vocabulary, cache)
    assert isinstance(model, PreTrainedModel)
    data.setup()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    stream, start = data.train_dataloader(), time.process_time()
    for step, batch in zip(range(steps), stream, strict=False):
        factor = min((step + 1) / 50, 0.55 + 0.45 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = 4e-3 * factor
        logits_BTV = model(batch.tokens_BT, use_cache=False).logits
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"step {step + 1}: {loss.item():.3f} nats, {time.process_time() - start:.0f} s", flush=True)
    model.save_pretrained(folder)
    data.tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--cache", type=Path, default=None, help="of the prepared documents (the user's)")
    options = parser.parse_args()
    train(options.folder, options.steps, options.width, options.cache or default_cache())
