"""What `als train` is given: a YAML file and options after it -> checked configs."""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from als.config import TrainConfig, TrainerConfig
from als.errors import InputError

SECTIONS = ("model", "data", "optimizer", "trainer")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of C where there is one: much faster
LONGEST_CONFIG = 100_000  # characters
DEEPEST = 20  # levels of YAML
LONGEST = 300  # characters of what is said of it


def read_options(
    arguments: Sequence[str], description: str | None = None
) -> tuple[TrainConfig, TrainerConfig, bool]:
    """(run, arguments of lightning's Trainer, whether to resume) of a command line.

    arguments: CONFIG or `--config CONFIG` first, then options by their dotted names.

    Raises InputError for a file or an option that cannot be used.
    """
    parser = ArgumentParser(prog="als train CONFIG", description=description, exit_on_error=False)
    parser.parser_mode = MODE
    parser.add_argument("--config", action="config", help="YAML file; CONFIG is short for it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_class_arguments(TrainConfig)
    parser.add_class_arguments(TrainerConfig, "trainer")
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    try:
        values = parser.instantiate(parser.parse_args(list(arguments))).as_dict()
        resume, trainer = values.pop("resume"), values.pop("trainer")
        values.pop("config", None)
        return TrainConfig(**values), trainer, resume
    except Exception as error:  # jsonargparse ends with many kinds where a config is an odd one
        told = f"{_told(error)}; `als train --help` lists every option."
        told = str(error) if isinstance(error, InputError) else told
        if len(arguments) > 1 and arguments[0] == "--config":
            told = f"{arguments[1]} and the options after it: {told}"
        raise InputError(told) from error


def _told(error: Exception) -> str:
    """What jsonargparse says, on one line and without Python's own words."""
    told = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    one_of = "Does not validate against any of the Union subtypes Subtypes: "
    told = re.sub(f"{one_of}(.*?) Errors: .*Given value: (.*)", r"\2 is none of \1", told)
    told = re.sub(r"<class '(\w+)'>", r"\1", told).replace("NoneType", "null")
    told = re.sub(r"typing\.Literal\[(.*?)\]", r"\1", told)
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 3]}..."


def _load(text: str) -> Any:
    """YAML as jsonargparse reads it, but no section that is a value, and names as texts.

    A value in the place of a section would silently leave the section at its defaults, and of the
    classes [yes, no] YAML makes true and false. Nor a name twice in a section.
    """
    _check_events(text)
    root, value = yaml.compose(text, LOADER), get_loader("yaml")(text)
    if isinstance(root, yaml.MappingNode) and isinstance(value, dict):
        _take_names(root, value)
        for key, node in root.value:
            if key.value in SECTIONS and not isinstance(node, yaml.MappingNode):
                raise yaml.YAMLError(f"{key.value} is a section; indent its options below it")
    items = root.value if isinstance(root, yaml.SequenceNode) else []
    plain = all(isinstance(item, yaml.ScalarNode) for item in items)
    if items and plain and any(isinstance(item, str) for item in value):  # names are texts, all
        return [item.value for item in items]
    return value


def _check_events(text: str) -> None:
    """Raise YAMLError for what takes memory or time, or would be imported.

    Aliases make gigabytes of a few lines; deep nesting takes minutes.
    """
    if len(text) > LONGEST_CONFIG:
        raise yaml.YAMLError(f"longer than {LONGEST_CONFIG} characters")
    depth = 0
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name); write what it stands for")
        if isinstance(event, yaml.ScalarEvent) and event.value == "class_path":
            raise yaml.YAMLError("class_path; no option takes a class")


def _take_names(node: yaml.MappingNode, value: dict[str, Any]) -> None:
    """Put the names of classes in `value` as they are written.

    Raises YAMLError for a name that is twice in a section: YAML would drop the first.
    """
    seen = set()
    for key, inner in node.value:
        if str(key.value) in seen:
            line = key.start_mark.line + 1
            raise yaml.YAMLError(f"{key.value} is there twice, again in line {line}; give it once")
        seen.add(str(key.value))
        if isinstance(inner, yaml.MappingNode) and isinstance(value.get(key.value), dict):
            _take_names(inner, value[key.value])
        elif key.value in ("classes", "model.classes") and isinstance(inner, yaml.SequenceNode):
            if all(isinstance(item, yaml.ScalarNode) for item in inner.value):
                value[key.value] = [item.value for item in inner.value]


MODE = "run"  # a name for the reader among jsonargparse's
set_loader(MODE, _load, (yaml.YAMLError, RecursionError, ValueError))
