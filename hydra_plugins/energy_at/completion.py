"""Shell completion that knows the folders within a group: ``experiment=rivals/fgsm``."""

from hydra._internal.core_plugins.bash_completion import BashCompletion

from energy_at.config.keys import nested_choices


class NestedCompletion(BashCompletion):
    """The answers of ``-sc query=nested``: Hydra's, and choices in folders of a group."""

    @staticmethod
    def provides() -> str:
        return "nested"

    def _query_config_groups(
        self, word: str, config_name: str | None, words: list[str]
    ) -> tuple[list[str], bool]:
        found, exact = super()._query_config_groups(word, config_name, words)
        group, equals, choice = word.partition("=")
        if equals:
            nested = (c for c in nested_choices(self.config_loader, group.lstrip("+~")) if "/" in c)
            found += [f"{group}={name}" for name in nested if name.startswith(choice)]
        return found, exact
