import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.learned_score import LearnedScore


def test_learned_score_is_its_definition():
    torch.manual_seed(0)
    score = LearnedScore(channels=5, hidden=4)
    x = torch.randn(2, 5, 7, 9)
    patches = F.unfold(x, 3, padding=1)
    hidden = (score.convolution.weight.flatten(1) @ patches + score.convolution.bias[:, None]).relu()
    logit = (score.output.weight.flatten(1) @ hidden + score.output.bias[:, None]).view(2, 7, 9)
    torch.testing.assert_close(score(x), logit.exp().log1p())


def test_scores_stay_positive():
    score = LearnedScore(channels=2)
    with torch.no_grad():
        score.output.bias.fill_(-1000)
    assert (score(torch.zeros(1, 2, 3, 3)) > 0).all()


def test_no_width():
    with pytest.raises(ValueError, match=r"^Expected hidden of at least 1 \(got 0\)$"):
        LearnedScore(channels=2, hidden=0)
