"""A live view of trainings, in the terminal or in the browser.

``python -m energy_at.watch run=FOLDER``
"""

from omegaconf import DictConfig, ListConfig

from energy_at.config.cli import command
from energy_at.watch import Watch, follow, page_server


def folders(cfg: DictConfig) -> list[str]:
    """What to watch.

    Raises:
        ValueError: unless exactly one of ``run`` and ``runs`` is named.
    """
    if (cfg.run is None) == (cfg.runs is None):
        raise ValueError("name what to watch: run=FOLDER, or runs=[FOLDER,FOLDER]")
    named = cfg.run if cfg.runs is None else cfg.runs
    names = [str(name) for name in named] if isinstance(named, ListConfig) else [str(named)]
    if not names:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    return names


def serve(watch: Watch, port: int, interval: float) -> None:
    """Serves the page until Ctrl-C."""
    with page_server(watch, port, interval) as server:
        where = f"http://{server.server_address[0]!s}:{server.server_port}/"
        print(f"{where}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


@command("watch")
def main(cfg: DictConfig) -> None:
    watch = Watch(folders(cfg))
    if cfg.browser:
        serve(watch, cfg.port, cfg.interval)
    else:
        follow(watch, interval=cfg.interval, once=cfg.once)


if __name__ == "__main__":
    main()
