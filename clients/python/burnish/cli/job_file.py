"""A job described in a YAML file: all arguments of an order, checked, each fault named with its line."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union, cast, get_args, get_origin

import click

from burnish._text import printable_text
from burnish.cli.bounded_yaml import YamlFault, import_yaml, loader_class

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

FILES = ("training_file", "validation_file")
_LARGEST = 2**20


class JobFileError(click.ClickException):
    """The file does not describe a job; a fault as that of an option would be."""

    exit_code = 2


class JobFile(NamedTuple):
    """What a file says: the arguments (paths count from the file's folder), and the line of each of its places."""

    name: str
    arguments: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def line_of(self, param: str) -> int | None:
        """Return the line of what the server calls `param` (`method.dpo.hyperparameters.beta`), None if not in here."""
        place = tuple(param.split("."))
        if place[0] == "method" and place not in self.lines:
            place = place[2:]  # hyperparameters may stand beside the method's name
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines[place] if place else None


def read_job_file(path: Path) -> JobFile:
    """Read and check a file; `-` is standard input. Raises JobFileError that names the lines, OSError."""
    name = "standard input" if str(path) == "-" else path.name
    with click.open_file(str(path), "rb") as file:
        content: bytes = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise JobFileError(f"{name} is too large to describe a job.")
    node = _parse_yaml(name, content)
    lines: dict[tuple[str, ...], int] = {}
    faults = [*_collect_lines(node, (), lines)]
    arguments = _construct_values(name, node) if not faults else {}
    faults += _find_faults(arguments, lines) if not faults else []
    if faults:
        sentences = [f"{name}, line {line}: {reason}" for line, reason in sorted(faults)]
        raise JobFileError(printable_text("\n".join(sentences)))
    folder = Path() if str(path) == "-" else path.parent
    for file_argument in FILES:
        value = arguments.get(file_argument)
        if value is not None and ((folder / value).is_file() or not value.startswith("file-")):
            arguments[file_argument] = str(folder / value)
    return JobFile(name, arguments, lines)


def _parse_yaml(name: str, content: bytes) -> Any:
    yaml = import_yaml()
    try:
        node = yaml.compose(content, loader_class())
    except YamlFault as fault:
        raise JobFileError(printable_text(f"{name}, line {fault.line}: {fault.reason}")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise JobFileError(printable_text(f"{name}{where}: this is not YAML: {error.problem}.")) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise JobFileError(printable_text(f"{name} is not YAML: {' '.join(str(error).split())}.")) from None
    if not isinstance(node, yaml.MappingNode):
        raise JobFileError(f"{name} must hold names with values, such as `model: smollm2-135m-instruct`.")
    return node


def _collect_lines(node: Any, place: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Iterator[tuple[int, str]]:
    """Write down the line of each key, and yield those that come twice."""
    yaml = import_yaml()
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*place, str(number))] = item.start_mark.line + 1
            yield from _collect_lines(item, (*place, str(number)), lines)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in keys and name != "<<":
                yield line, f"{name[:64]} stands here a second time."
            keys.add(name)
            lines[(*place, name)] = line
            yield from _collect_lines(value, (*place, name), lines)


def _construct_values(name: str, node: Any) -> dict[str, Any]:
    yaml = import_yaml()
    loader = loader_class()("")
    try:
        values = loader.construct_document(node)
        json.dumps(values, allow_nan=False)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobFileError(printable_text(f"{name}, line {line}: {error.problem}.")) from None
    except (TypeError, ValueError) as error:
        raise JobFileError(printable_text(f"{name} holds something that JSON has no form for: {error}.")) from None
    # A known name without a value says nothing; an unknown one is a fault all the same.
    known_names = _list_known_names(())
    return {
        key: value
        for key, value in cast("dict[str, Any]", values).items()
        if value is not None or key not in known_names
    }


def _find_faults(arguments: dict[str, Any], lines: dict[tuple[str, ...], int]) -> list[tuple[int, str]]:
    from pydantic import ValidationError

    try:
        _arguments_adapter().validate_python(arguments, strict=True)
    except ValidationError as error:
        messages_by_place: dict[tuple[str, ...], list[str]] = {}
        for detail in error.errors():
            messages_by_place.setdefault(_place_in_file(detail["loc"], lines), []).append(_fault_reason(detail))
        # For a value with several forms, the error inside the likeliest form says more than the other mismatches.
        innermost_places = [
            place
            for place in messages_by_place
            if not any(place == other_place[: len(place)] != other_place for other_place in messages_by_place)
        ]
        return [(lines.get(place, 1), _fault_sentence(place, messages_by_place[place])) for place in innermost_places]
    return []


def _place_in_file(location: tuple[int | str, ...], lines: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """Return the place in the file, without the names of forms that pydantic puts between."""
    place: tuple[str, ...] = ()
    for part in location:
        if (*place, str(part)) in lines:
            place = (*place, str(part))
    return place


def _fault_sentence(place: tuple[str, ...], reasons: list[str]) -> str:
    return f"{'.'.join(place) or 'a key'} {'; or '.join(dict.fromkeys(reasons))}."


def _fault_reason(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return f"lacks {detail['loc'][-1]}"
    if detail["type"] != "extra_forbidden":
        reason = detail["msg"].removeprefix("Input ")
        return reason[0].lower() + reason[1:]
    near = get_close_matches(str(detail["loc"][-1]), _list_known_names(detail["loc"][:-1]), 1)
    return "is not known here" + (f"; {near[0]} is" if near else "")


def _list_known_names(place: tuple[int | str, ...]) -> list[str]:
    from burnish import job_arguments as known

    inside = {
        "lora": known.Lora,
        "budget": known.Budget,
        "resources": known.Resources,
        "expires_after": known.JobExpiry,
    }
    kind = inside.get(str(place[0]), known.Wandb) if place else known.CreateJob
    return list(kind.__annotations__)


@cache
def _arguments_adapter() -> TypeAdapter[Any]:
    """Return what checks all arguments of an order; the options may give what a file lacks."""
    from pydantic import TypeAdapter

    from burnish.job_arguments import CreateJob

    return TypeAdapter(_strict_type(CreateJob, whole=False))


def _strict_type(hint: Any, *, whole: bool = True) -> Any:
    """Return a type without the free form that stands beside a known one, and without room for unknown names.

    `whole`: what is required must be there.
    """
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        free = any(_is_known(option) for option in options)
        strict_options = [_strict_type(option) for option in options if not (free and get_origin(option) is dict)]
        return Union[tuple(strict_options)]  # noqa: UP007 - as many as there are
    if get_origin(hint) is list:
        return list[_strict_type(get_args(hint)[0])]
    return _strict_members(hint, whole) if _is_known(hint) else hint


def _is_known(hint: Any) -> bool:
    return hasattr(hint, "__total__")


def _strict_members(hint: Any, whole: bool) -> Any:
    from pydantic import with_config
    from typing_extensions import NotRequired, Required, TypedDict, get_type_hints

    members: dict[str, Any] = {}
    for name, member in get_type_hints(hint, include_extras=True).items():
        is_required = whole and (hint.__total__ or get_origin(member) is Required)
        kind = _strict_type(get_args(member)[0] if get_origin(member) is Required else member)
        members[name] = kind if is_required else NotRequired[kind]
    make: Any = TypedDict
    # A method has hyperparameters of its own.
    extra = "allow" if hint.__name__ == "Hyperparameters" else "forbid"
    return with_config({"extra": extra})(make(hint.__name__, members))
