"""The child that routes: it has inputs, and neither labels nor hold-outs."""

from __future__ import annotations

from pathlib import Path

import torch

from duo.backbone import Backbone, BackboneConfig, Counts
from duo.evaluation.decide import asks_for_labels, decide
from duo.leaderboard.sealed.protocol import BACKBONE, ROUTER, Answer, read_job, write_answer
from duo.progress import track
from duo.routing import registry
from duo.routing.router import Spec
from duo.storage.weights import load_weights


def route(folder: Path) -> None:
    """Does the job in the folder, and answers there.

    The router's code runs in this very process: what is said here of its own FLOPs, passes and seconds is the meter's
    word, as far as that code leaves it alone. All that follows from the routes (loss, shares, the backbone's FLOPs, the
    budget) the parent derives itself.

    Raises:
        ValueError: whatever the router's code raises, but for asking for labels, which is an answer.
    """
    job, parts = read_job(folder)
    torch.set_num_threads(job.threads)
    backbone = Backbone(BackboneConfig(**job.backbone))
    load_weights(backbone, folder / BACKBONE)
    torch.manual_seed(job.seed)  # as when it was first built: what it draws may be kept in no weights
    counts = Counts(**job.budget)
    router = registry.build(job.router, Spec(backbone.config.layers, backbone.config.width, counts), job.options)
    load_weights(router, folder / ROUTER)
    backbone.to(job.device).requires_grad_(False), router.to(job.device)
    routes, spent = [], []
    try:
        for batches in track(parts, "part"):
            decided = decide(backbone, router, track(batches, "batch"), job.seed)
            found = [(run.weight_BTLM.argmax(-1).to("cpu", torch.uint8), cost) for _, run, cost in decided]
            routes.append([route_BTL for route_BTL, _ in found])
            spent.append([cost for _, cost in found])
    except ValueError as error:
        if not asks_for_labels(error):
            raise
        write_answer(folder, Answer(asked_for_labels=True))
    else:
        write_answer(folder, Answer(spent=spent), routes)
