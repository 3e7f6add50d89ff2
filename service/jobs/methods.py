"""The wire's `method` as the trainer's, and what is wrong with it in the words of the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from service.jobs.schemas import JobCreate
from service.kit.errors import InvalidRequest
from service.kit.problem_words import join_alternatives, word_problem
from trainer.contract.methods import METHODS_BY_TYPE, Method
from trainer.contract.methods.base import LoraParameters
from trainer.frozen import Frozen

METHOD: TypeAdapter[Method] = TypeAdapter(Method)


def parse_method(body: JobCreate) -> Method:
    """Turn the wire's `method`, or the older `hyperparameters`, into the trainer's. Raises InvalidRequest."""
    if body.method is None:
        kind: Any = "supervised"
        block: Any = {} if body.hyperparameters is None else {"hyperparameters": body.hyperparameters}
        place = "hyperparameters"
    else:
        kind = body.method.get("type")
        block = body.method.get(kind) if isinstance(kind, str) else None
        block = {} if block is None else block
        place = f"method.{kind}"
    if kind == "reinforcement":
        block = _without_response_format(block)
    if body.lora is not None:
        block = _with_lora(block, body.lora, place if body.method is None else f"{place}.hyperparameters")
    if kind not in METHODS_BY_TYPE:
        raise InvalidRequest(
            f"`method.type` is {kind!r}; this service trains: {', '.join(METHODS_BY_TYPE)}.", param="method.type"
        )
    try:
        return METHOD.validate_python({"type": kind, kind: block})
    except ValidationError as error:
        raise _explain_invalid(error.errors(include_url=False, include_input=False), kind, place) from error


def _without_response_format(block: Any) -> Any:
    """Leave out a `response_format` that asks for text, which answers are. Raises InvalidRequest for another one."""
    if not isinstance(block, dict):
        return block
    method_block = dict(cast("dict[str, Any]", block))
    if method_block.pop("response_format", None) not in (None, {"type": "text"}):
        param = "method.reinforcement.response_format"
        raise InvalidRequest(
            f"{param} is not supported: a training samples its answers as free text, and nothing holds them to a "
            "schema. Leave it out, ask for JSON in the prompts, and let the grader check it: "
            "{{sample.output_json}} is the value of an answer that is JSON.",
            param=param,
        )
    return method_block


def _with_lora(block: Any, lora: LoraParameters, place: str) -> Any:
    """Put the top-level `lora` among the hyperparameters. Raises InvalidRequest if one is there already."""
    if not isinstance(block, dict):
        return block  # the method's own check reports what is wrong with it
    method_block = cast("dict[str, Any]", block)
    hyperparameters = method_block.get("hyperparameters")
    if hyperparameters is not None and not isinstance(hyperparameters, dict):
        return method_block
    own = cast("dict[str, Any]", hyperparameters or {})
    if "lora" in own:
        raise InvalidRequest(f"lora is given twice, here and as {place}.lora: leave one of them out.", param="lora")
    return {**method_block, "hyperparameters": {**own, "lora": lora.model_dump(exclude_unset=True)}}


def load_method(method: Mapping[str, Any]) -> Method:
    """Return a job's method from its row."""
    return METHOD.validate_python(method)


def _explain_invalid(details: list[ErrorDetails], kind: str, place: str) -> InvalidRequest:
    """Name the field in the words of the request, and everything that is wrong with it."""
    problems = [word_problem((place, *_location_parts(item, kind, place)), item) for item in details]
    faults = join_alternatives(
        problem._replace(sentence="is not a hyperparameter of this method")
        if problem.kind == "extra_forbidden"
        else problem
        for problem in problems
    )
    named_faults = {".".join(name): fault for name, fault in faults.items()}
    sentences = [f"{name}: {fault}" for name, fault in named_faults.items()]
    return InvalidRequest("; ".join(sentences) + ".", param=next(iter(named_faults)))


def _location_parts(item: ErrorDetails, kind: str, place: str) -> list[str]:
    """Return an error's place without what pydantic puts in for the members of unions."""
    parts = [str(part) for part in item["loc"] if part != kind and "[" not in str(part)]
    if place == "hyperparameters" and parts[:1] == ["hyperparameters"]:
        parts = parts[1:]
    parts = [part for part in parts if part not in _UNION_TAGS]
    return _without_grader_tags(parts) if parts[:1] == ["grader"] else parts


def _without_grader_tags(parts: list[str]) -> list[str]:
    """Leave out the types that pydantic puts behind a grader's place; a grader's name in a `multi` may be one, too."""
    own_parts: list[str] = []
    after_multi = False
    """Whether the next part is the name of a grader in a `multi`."""
    for part in parts:
        if part in _GRADERS and not after_multi:
            after_multi = part == "many"
            continue
        own_parts.append(part)
        after_multi = False
    return own_parts


def _subclass_names(kind: type[Frozen]) -> Iterator[str]:
    for below in kind.__subclasses__():
        yield below.__name__
        yield from _subclass_names(below)


_GRADERS = ("string_check", "text_similarity", "python", "score_model", "label_model", "multi", "one", "many")
_UNION_TAGS = frozenset(
    {"int", "float", "constrained-int", "constrained-float", "constrained-str", *_subclass_names(Frozen)}
)
