"""Which of the processes that train together this is; known before any of them has begun."""

import os

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, Lightning and srun


def is_first() -> bool:
    """Whether this process is alone, or the one of them that writes and speaks."""
    return all(os.environ.get(name, "0") == "0" for name in _VARIABLES)
