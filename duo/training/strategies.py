"""Strategies of several processes by name: `fsdp2` shards a backbone that is being trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from duo.routing.registry import unknown

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from duo.training.lightning_module import DuoModule

SHARDED = "fsdp2"
USUAL = ("auto", "ddp", SHARDED)
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

Tree = TypeVar("Tree")


class Sharded(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy, all processes sharing one copy of the weights (FSDP2).

    Its checkpoints are those of one process: another number of processes, or ddp, goes on from them. Lightning's own
    tell an optimizer's states by the order of the model's parameters, which is not that of an optimizer's groups.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Joins the other processes; left alone, Lightning would split every product among those of a node."""
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning asks for `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights, on the first process; on the others nothing in their place."""
        return gather(Strategy.lightning_module_state_dict(self), self.is_global_zero)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole states, on the first process; on the others nothing in their place."""
        return gather(Strategy.optimizer_state(self, optimizer), self.is_global_zero)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """A checkpoint as it is on the disk, which every process reads."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Gives every process its shards of the whole weights."""
        assert self.lightning_module is not None
        held, whole = self.lightning_module.state_dict(), checkpoint["state_dict"]
        state = {name: _shard(value, held[name]) if name in held else value for name, value in whole.items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Gives every process its shards of the whole states."""
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            states = {
                number: {name: _shard(value, held[number]) for name, value in state.items()}
                for number, state in whole["state"].items()
            }
            optimizer.load_state_dict({**whole, "state": states})


StrategyRegistry.register(SHARDED, Sharded, description="a backbone that is being trained, sharded")


def gather(tree: Tree, keep: bool = True) -> Tree:
    """The same with whole tensors on the CPU where there were shards, or None in their place; by all processes at once.

    Args:
        tree: dictionaries and lists.
        keep: whether this process keeps them.
    """

    def whole(value: DTensor) -> Tensor | None:
        full = value.full_tensor()
        return full.cpu() if keep else None

    return tree_map_only(DTensor, whole, tree)


def _shard(whole: Any, like: Tensor) -> Any:
    """A whole tensor sharded as a parameter of its shape is; anything else as it is."""
    if not (isinstance(like, DTensor) and isinstance(whole, Tensor) and whole.shape == like.shape):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def shard(module: DuoModule, mesh: DeviceMesh, precision: str) -> None:
    """Shards a module's parameters in place, each block a unit, embeddings and head in the root's.

    The root is the module itself: its weights are whole from the beginning of a step, for the head is applied behind
    the backbone's pass, where the loss is made.

    Args:
        mesh: the processes.
        precision: Lightning's; in mixed ones blocks are gathered in 16 bits.
    """
    half = HALVES.get(precision)
    # inputs are not cast: the stream stays in 32 bits, as without sharding
    policy = MixedPrecisionPolicy(half, torch.float32 if half else None, cast_forward_inputs=False)
    for block in module.backbone.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "training_step")


def shards(module: DuoModule, options: Mapping[str, Any]) -> bool:
    """Whether a training is sharded: the backbone learns, and the router, which may search, does not."""
    learns = [any(p.requires_grad for p in part.parameters()) for part in (module.backbone, module.router)]
    return options.get("strategy") == SHARDED and learns == [True, False]


def take_weights(module: DuoModule) -> DuoModule:
    """A copy with the module's weights, to be sharded; the module itself has none until `give_back`."""
    shared = {id(parameter): parameter for parameter in module.backbone.parameters()}
    taken = copy.deepcopy(module, shared)
    module.backbone.to("meta")
    return taken


def give_back(trained: DuoModule, module: DuoModule) -> None:
    """The whole weights of a module that was trained in shards; by all processes at once."""
    module.backbone.load_state_dict(gather(trained.backbone.state_dict()), assign=True)


def check_strategy(value: Any) -> None:
    """Raises ValueError for a strategy that Lightning and duo do not know, or that would train something else."""
    if str(value).startswith("fsdp") and value != SHARDED and value in StrategyRegistry:
        # flat shards: no matrix is told from a bias by its shape, no checkpoint is another strategy's
        raise ValueError(f"trainer.strategy={value} is torch's first FSDP: use trainer.strategy={SHARDED}, its second")
    if value not in ("auto", *StrategyRegistry.available_strategies()):
        raise ValueError(unknown("strategy", f"trainer.strategy={value}", [f"trainer.strategy={n}" for n in USUAL]))
