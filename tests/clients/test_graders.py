from __future__ import annotations

from typing import Any

import pytest

from burnish import BadRequestError
from tests.clients.scripted import Answer, Driver, Server, refusal

PATH = "/v1/fine_tuning/alpha/graders"
CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "含有答案",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "like",
}
METADATA: dict[str, Any] = {
    "name": "含有答案",
    "type": "string_check",
    "errors": {"invalid_variable_error": True, "messages": ["no 'answer'"], "a_flag_of_the_future": True},
    "execution_time": 0.01,
    "scores": {},
    "token_usage": 25,
    "sampled_model_name": "tiny",
}
TOLD: dict[str, Any] = {
    "reward": 0.0,
    "metadata": METADATA,
    "sub_rewards": {"a": 0.5},
    "model_grader_token_usage_per_model": {
        "tiny": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    },
}


def test_a_run_sends_the_grader_and_reads_the_reward(driver: Driver, server: Server) -> None:
    server.on("POST", f"{PATH}/run", Answer(TOLD))
    told = driver.call("graders.run", grader=CHECK, model_sample="答案是巴黎", item={"answer": "巴黎"})
    assert (told.reward, told.sub_rewards, told.metadata.token_usage) == (0.0, {"a": 0.5}, 25)
    assert (told.metadata.errors.invalid_variable_error, told.metadata.errors.other_error) == (True, False)
    assert told.metadata.errors.messages == ["no 'answer'"]
    assert told.metadata.errors.a_flag_of_the_future
    assert told.model_grader_token_usage_per_model["tiny"].total_tokens == 25
    assert server.seen[0].json() == {
        "grader": CHECK,
        "model_sample": "答案是巴黎",
        "item": {"answer": "巴黎"},
    }
    driver.call("graders.run", grader=CHECK, model_sample="")
    assert server.seen[1].json() == {"grader": CHECK, "model_sample": ""}


def test_a_validation_answers_the_grader_or_raises(driver: Driver, server: Server) -> None:
    refused = refusal(400, "grader.operation: must be 'eq'.", param="grader.operation")
    server.on("POST", f"{PATH}/validate", [Answer({"grader": CHECK}), refused])
    assert driver.call("graders.validate", grader=CHECK).grader == CHECK
    with pytest.raises(BadRequestError, match="must be 'eq'") as raised:
        driver.call("graders.validate", grader={**CHECK, "operation": "is"})
    assert raised.value.param == "grader.operation"
