"""Keys of YAML that stand twice in one mapping, of which YAML's readers silently take the last."""

from __future__ import annotations

from typing import Any


def refuse_repeated_keys(text: str) -> None:
    """Refuse YAML in which a mapping has a key twice: a forgotten dash makes one item of two.

    Raises:
        yaml.YAMLError: It has, or it cannot be read.
    """
    import yaml

    waiting: list[Any] = [yaml.compose(text, Loader=yaml.SafeLoader)]
    seen: set[int] = set()  # an anchor may stand within itself
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if key.value in keys if isinstance(key, yaml.ScalarNode) else False:
                    raise yaml.YAMLError(
                        f"line {key.start_mark.line + 1}: '{key.value:.60}' is there twice in one item, so that a dash "
                        "may be missing"
                    )
                keys |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
                waiting.append(value)
