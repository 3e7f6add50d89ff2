"""A base model's card as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from service.catalog import BaseModelEntry
from service.workers.capacity import GB
from trainer.contract.base_model import BaseModelCard


def describe_card(entry: BaseModelEntry, card: BaseModelCard) -> Iterator[str]:
    """Yield the card's lines."""
    origin = "" if card.family_known else " (unknown to this release: found by inspecting the model)"
    stops = ", ".join(
        f"{token} ({number})" for token, number in zip(card.end_of_turn_tokens, card.end_of_turn_ids, strict=True)
    )
    yield f"{entry.id}: {entry.place}"
    yield f"  family            {card.family}, {card.model_class}{origin}"
    yield f"  parameters        {card.parameters:,}"
    yield f"  context           {card.context_length:,} tokens"
    yield f"  ends a turn       {stops}"
    yield f"  thinking switch   {card.thinking_switch or 'none'}"
    if card.template_settings:
        yield f"  template run with {', '.join(f'{name}: {value}' for name, value in card.template_settings.items())}"
    yield f"  adapter targets   {', '.join(card.adapter_targets) or 'none'}"
    for group in card.targets.left_out:
        yield f"  no adapter on     {group.name}: {group.reason}"
    yield f"  GGUF export       {'yes' if card.gguf.works else f'no: {card.gguf.reason}'}"
    yield "  methods           GPU memory in bf16, in 4 bits"
    reasons: dict[str, list[str]] = {}
    for name, support in card.methods.items():
        if support.works:
            memory = card.memory[name]
            yield f"    {name:<15} {_in_gb(memory.bf16):>9}, {_in_gb(memory.four_bit):>9}"
        else:
            reasons.setdefault(support.reason, []).append(name)
    for reason, names in reasons.items():
        yield f"  not {', '.join(names)}: {reason.rstrip('.')}."
    yield f"  Memory: {card.memory_assumptions}"
    for note in card.notes:
        yield f"  Note: {note}"


def _in_gb(number: int) -> str:
    return f"{number / GB:.1f} GB"
