"""Shell completion that knows the folders within a group: ``experiment=rivals/fgsm``."""

import os

from hydra._internal.core_plugins.bash_completion import BashCompletion

from energy_at.config.keys import nested_choices


class NestedCompletion(BashCompletion):
    """The answers of ``-sc query=nested``, one a line: Hydra's, and choices in folders of a group.

    Paths are left to the shell, which has to quote them.
    """

    @staticmethod
    def provides() -> str:
        return "nested"

    def query(self, config_name: str | None) -> None:
        line = self.strip_python_or_app_name(os.environ["COMP_LINE"])
        word = line.rpartition(" ")[2]
        if self._get_filename(word) == (None, None):
            print("\n".join(self._query(config_name, line)))

    def _query_config_groups(
        self, word: str, config_name: str | None, words: list[str]
    ) -> tuple[list[str], bool]:
        found, exact = super()._query_config_groups(word, config_name, words)
        group, equals, choice = word.partition("=")
        if equals:
            nested = (c for c in nested_choices(self.config_loader, group.lstrip("+~")) if "/" in c)
            found += [f"{group}={name}" for name in nested if name.startswith(choice)]
        return found, exact
