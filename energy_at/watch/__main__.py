"""A live view of trainings, in the terminal or in the browser.

Step, rate, time left, delta energies, AAE share, FGSM - PGD accuracy, alarms; in the terminal until
they are over, in the browser with every curve.

    python -m energy_at.watch run=FOLDER
    python -m energy_at.watch run=FOLDER browser=true port=8000
    python -m energy_at.watch runs=[FOLDER,FOLDER]
    python -m energy_at.watch run=SWEEP once=true
"""

from omegaconf import DictConfig

from energy_at.config.cli import command
from energy_at.runs.selection import named_folders, require_one_named
from energy_at.watch.server import HOST, PageServer
from energy_at.watch.state import Watch
from energy_at.watch.terminal import follow


@command("watch")
def main(cfg: DictConfig) -> None:
    require_one_named(cfg)
    watch = Watch(named_folders(cfg.run if cfg.runs is None else cfg.runs))
    if not cfg.browser:
        follow(watch, interval=cfg.interval, once=cfg.once)
        return
    with PageServer(watch, cfg.port, cfg.interval) as server:
        print(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
