"""Makes a model as others make theirs: transformers trains it for some minutes, and saves it with its tokenizer.

    OMP_NUM_THREADS=1 python benchmarks/make_model.py OUT [--family llama|qwen2] [--layers 12] [--minutes 4]

OUT is then a folder for `backbone.pretrained=OUT`, on which all that is said of a hub's model can be tried offline. It
trains on the built-in training documents, so that no hold-out of duo's has been seen, with a byte-level BPE of its own
(`<|endoftext|>` ends a document). Minutes are of the processor; the learning rate falls to a tenth by them.
OUT/tasks holds two tasks for `tasks=[continue_text,continue_code] task_path=OUT/tasks`: which of four pieces of the
hold-outs goes on where another one ends?
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from duo import recipe
from duo.data import TextData
from duo.data.documents import split
from duo.data.shelf import open_shelf
from duo.data.sources import find_files
from duo.stages.cache import default_cache

FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
END = "<|endoftext|>"
LEARNING_RATE = 4e-3
WARM_UP = 50  # steps
PIECE = re.compile(r"(.{200}\S*)(\s+\S.{20,40}?(?=\s))", re.DOTALL)
"""Some words of a document, and those that follow, with the space between them."""
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
target_delimiter: ""
doc_to_text: "{{{{front}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
"""


def save_tokenizer(folder: Path, documents: Iterable[str], vocabulary: int) -> None:
    """Trains a byte-level BPE, and saves it as transformers does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)


def save_task(folder: Path, name: str, documents: Iterable[str], questions: int = 400) -> None:
    """A task of lm-eval: pieces of documents, the words that follow, and words that follow three other pieces."""
    pieces = [piece for text in documents for piece in PIECE.findall(text)]
    draw = random.Random(0)
    draw.shuffle(pieces)
    rows = []
    for (front, behind), *others in zip(*[iter(pieces[: 4 * questions])] * 4, strict=True):
        choices = [behind, *(other for _, other in others)]
        draw.shuffle(choices)
        rows.append({"front": front, "choices": choices, "label": choices.index(behind)})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=(folder / f"{name}.jsonl").absolute()))


def train(model: torch.nn.Module, data: TextData, minutes: float) -> Iterator[str]:
    """Trains until the minutes are over; yields now and then where it stands."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    start, losses = time.process_time(), list[float]()
    for step, batch in enumerate(data.train_dataloader()):
        spent = (time.process_time() - start) / 60
        if losses and (step % 100 == 0 or spent > minutes):
            yield f"step {step}, {spent:.1f} min: {sum(losses) / len(losses):.3f} nats"
            losses = []
        if spent > minutes:
            return
        factor = 0.55 + 0.45 * math.cos(math.pi * spent / minutes)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min((step + 1) / WARM_UP, factor)
        loss = loss_of(model, batch.tokens_BT, batch.labels_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())


def loss_of(model: torch.nn.Module, tokens_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats."""
    return F.cross_entropy(model(tokens_BT, use_cache=False).logits.flatten(0, 1), labels_BT.flatten())


@torch.no_grad()
def held_out(model: torch.nn.Module, data: TextData, name: str, batches: int = 16) -> float:
    """Mean loss on the first batches of a hold-out."""
    losses = [loss_of(model, batch.tokens_BT, batch.labels_BT) for batch in islice(data.holdout(name), batches)]
    return float(torch.stack(losses).mean())


def unigram(data: TextData, name: str) -> float:
    """What the training tokens' frequencies lose on a hold-out."""
    count_V = torch.from_numpy(data.count_tokens("train")).double() + 1
    used_V = torch.from_numpy(data.count_tokens(f"holdouts.{name}")).double()
    return float(-(used_V * (count_V / count_V.sum()).log()).sum() / used_V.sum())


def main() -> None:
    """Makes the model, and says what it knows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--family", choices=FAMILIES, default="llama")
    for name, default in ("layers", 12), ("width", 96), ("heads", 4), ("vocabulary", 2048):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--minutes", type=float, default=4, help="of the processor (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="of the prepared documents (the user's)")
    options = parser.parse_args()
    settings = replace(recipe.load("router_budget6").data, batch_size=8)
    with tempfile.TemporaryDirectory() as place, open_shelf(Path(place, "shelf"), settings.seed) as shelf:
        split(settings, find_files(settings), shelf)
        save_tokenizer(options.folder, shelf.texts("train"), options.vocabulary)
        for name in "text", "code":
            save_task(options.folder / "tasks", f"continue_{name}", shelf.texts(f"holdouts.{name}"))
    settings = replace(settings, tokenizer=str(options.folder))
    data = TextData(settings, options.vocabulary, options.cache or default_cache())
    data.setup()
    torch.manual_seed(0)
    config, kind = FAMILIES[options.family]
    end = data.tokenizer.token_to_id(END)
    model = kind(
        config(
            vocab_size=options.vocabulary, hidden_size=options.width, intermediate_size=4 * options.width,
            num_hidden_layers=options.layers, num_attention_heads=options.heads, num_key_value_heads=options.heads // 2,
            max_position_embeddings=1024, tie_word_embeddings=True, attn_implementation="sdpa",
            bos_token_id=end, eos_token_id=end,
        )
    )  # fmt: skip
    for told in train(model, data, options.minutes):
        print(told, flush=True)
    model.save_pretrained(options.folder)
    for name in data.holdouts:
        print(f"{name}: {held_out(model, data, name):.3f} nats, by frequencies alone {unigram(data, name):.3f}")


if __name__ == "__main__":
    main()
