from __future__ import annotations

import torch

from trainer.engine.scoring.generation import cut_to_nucleus, draw_tokens


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
    assert cut_to_nucleus(probabilities, 0.85).tolist() == torch.tensor([[0.0, 0.5, 0.4], [0.2, 0.2, 0.6]]).tolist()
    assert cut_to_nucleus(probabilities, 1e-9).argmax(-1).tolist() == [1, 2]
    assert (cut_to_nucleus(probabilities, 1e-9) > 0).sum(-1).tolist() == [1, 1]
    assert cut_to_nucleus(probabilities, 1.0) is probabilities


def test_a_row_is_drawn_alone_as_in_a_batch_of_one() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(3))
    alone = [draw_tokens(logits, 0.7, 0.9, torch.Generator().manual_seed(seed)) for seed in range(20)]
    batch = [draw_tokens(logits[None], 0.7, 0.9, torch.Generator().manual_seed(seed))[0] for seed in range(20)]
    assert torch.equal(torch.stack(alone), torch.stack(batch))
    assert len({int(token) for token in alone}) > 3
