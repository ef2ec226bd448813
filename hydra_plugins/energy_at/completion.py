"""Shell completion that knows the folders within a group: ``experiment=rivals/fgsm``."""

from collections.abc import Iterator

from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.object_type import ObjectType


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
            nested = self._nested(group.lstrip("+~"), config_name, words)
            found += [f"{group}={name}" for name in nested if name.startswith(choice)]
        return found, exact

    def _nested(self, group: str, config_name: str | None, words: list[str]) -> Iterator[str]:
        def options(of: str, kind: ObjectType) -> list[str]:
            return self.config_loader.get_group_options(of, kind, config_name, words)

        for folder in options(group, ObjectType.GROUP):
            inside = f"{group}/{folder}"
            names = [*options(inside, ObjectType.CONFIG), *self._nested(inside, config_name, words)]
            yield from (f"{folder}/{name}" for name in names)
