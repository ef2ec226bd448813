"""A live view of trainings, in the terminal or in the browser.

``python -m energy_at.watch run=FOLDER``
"""

from omegaconf import DictConfig

from energy_at.config.cli import command
from energy_at.runs.folder import named_folders, require_one_named
from energy_at.watch import Watch, follow, page_server


def serve(watch: Watch, port: int, interval: float) -> None:
    """Serves the page until Ctrl-C."""
    with page_server(watch, port, interval) as server:
        where = f"http://{server.server_address[0]!s}:{server.server_port}/"
        print(f"{where}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


@command("watch")
def main(cfg: DictConfig) -> None:
    require_one_named(cfg)
    watch = Watch(named_folders(cfg.run if cfg.runs is None else cfg.runs))
    if cfg.browser:
        serve(watch, cfg.port, cfg.interval)
    else:
        follow(watch, interval=cfg.interval, once=cfg.once)


if __name__ == "__main__":
    main()
