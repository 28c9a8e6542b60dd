"""Which of several processes this one is, as the environment says; contradictions make runs wait or be silent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

from duo.doctor.finding import Finding
from duo.storage.processes import is_chief

NUMBERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "SLURM_NTASKS",
    "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NNODES", "SLURM_STEP_ID",
)  # fmt: skip
WORDS = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NTASKS_PER_NODE")
"""Variables that number processes: no others are shown."""

BELOW = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""A number of a process, and the count of processes that belongs to it."""


def processes(environment: Mapping[str, str]) -> Iterator[Finding]:
    """The variables that are set, what Lightning makes of them, whether this process writes, and contradictions."""
    for name in (*NUMBERS, *WORDS):
        if name in environment:
            yield Finding(name, environment[name])
    wrong = [*contradictions(environment)]
    for sentence in wrong:
        yield Finding("contradiction", sentence, sentence)
    try:
        yield Finding("lightning sees", _cluster())
        yield Finding("writes, speaks", "this process" if is_chief() else "another process: this one is silent")
    except (ValueError, KeyError, RuntimeError) as error:
        yield Finding(
            "lightning sees", f"{type(error).__name__}: {error}", "" if wrong else f"Lightning fails: {error}"
        )


def _cluster() -> str:
    """The environment that Lightning detects, in its order."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.lsf import LSFEnvironment
    from lightning.fabric.plugins.environments.mpi import MPIEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is said here in one line
        kinds = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
        kind = next((kind for kind in kinds if kind.detect()), LightningEnvironment)
        found = kind()
        return f"{kind.__name__}, process {found.global_rank()} of {found.world_size()}"


def contradictions(environment: Mapping[str, str]) -> Iterator[str]:
    """What the variables say that cannot all be so: a sentence each, with the variable and the way out.

    >>> [*contradictions({"RANK": "1"})]
    ['RANK=1 is set without WORLD_SIZE: start by torchrun or srun, or unset RANK']
    """
    numbers = {name: environment[name] for name in NUMBERS if name in environment}
    for name in [name for name, value in numbers.items() if not value.isdecimal()]:
        yield f"{name}={numbers.pop(name)} is no whole number: unset {name}"
    torchrun, srun = "TORCHELASTIC_RUN_ID" in environment, "SLURM_STEP_ID" in numbers
    for rank, size in BELOW:
        if rank in numbers and size not in environment:
            yield f"{rank}={numbers[rank]} is set without {size}: start by torchrun or srun, or unset {rank}"
        elif rank in numbers and size in numbers and int(numbers[rank]) >= int(numbers[size]):
            yield f"{rank}={numbers[rank]} is none of the {size}={numbers[size]} processes: unset both"
    if int(numbers.get("WORLD_SIZE", 1)) > 1 and not torchrun:
        yield (
            f"WORLD_SIZE={numbers['WORLD_SIZE']}, but no torchrun started this process: it would wait for the others; "
            "start by torchrun, or unset WORLD_SIZE"
        )
    alone = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")  # there Lightning does not look at SLURM
    if int(numbers.get("SLURM_NTASKS", 1)) > 1 and not (srun or torchrun or alone):
        yield f"SLURM_NTASKS={numbers['SLURM_NTASKS']}, but no srun started this process: start by srun, or set it to 1"
    if not torchrun and {"RANK", "SLURM_PROCID"} <= {*numbers} and int(numbers["RANK"]) != int(numbers["SLURM_PROCID"]):
        yield f"RANK={numbers['RANK']} and SLURM_PROCID={numbers['SLURM_PROCID']} are not the same process: unset RANK"
