"""Classes by likelihood are those of Bayes' rule."""

import itertools

import pytest
import torch

from models.objectives.likelihood_classifier import LikelihoodClassifier
from tests.zoo import build, node


def classifier() -> LikelihoodClassifier:
    """Of images of 2 x 2 at three levels and two classes: all 81 can be listed."""
    generator = build(
        "transformer", "generate", task={"levels": 3, "height": 2, "width": 2, "n_classes": 2}
    )
    return LikelihoodClassifier(generator=generator).eval()


@torch.no_grad()
def test_scores_are_log_likelihoods_and_their_softmax_is_the_posterior() -> None:
    model = classifier()
    images = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    scores = model.classify(images)  # (81, C)
    assert scores.shape == (81, 2)
    torch.testing.assert_close(scores.exp().sum(0), torch.ones(2), atol=1e-4, rtol=0)
    joint = torch.stack([
        model.generator.log_prob(images, torch.full((81,), label)).nats.exp() / 2
        for label in range(2)
    ], 1)  # fmt: skip
    torch.testing.assert_close(scores.softmax(-1), joint / joint.sum(1, keepdim=True))
    torch.testing.assert_close(model(pixels=images).logits, scores)
    assert (scores[:, 0] - scores[:, 1]).abs().max() > 1e-3


def test_training_sees_the_right_class_alone() -> None:
    model = classifier()
    images, labels = torch.randint(3, (5, 2, 2)), torch.tensor([0, 1, 1, 0, 1])
    out = model(pixels=images, labels=labels)
    expected = -model.generator.log_prob(images, labels).nats.mean() / 4
    torch.testing.assert_close(out.loss, expected)


def test_costs_count_every_class() -> None:
    model = classifier()
    assert model.forwards_per_image == 2
    assert model.flops(3, 4) == 2 * model.generator.flops(3, 4)
    assert model.train_flops(3, 4) == model.generator.flops(3, 4)


@pytest.mark.parametrize("name", ["mamba", "resnet"])
def test_it_is_the_generators_own_network(name: str) -> None:
    """Of the same size, with the same solved width: one training could serve both."""
    crossed = node(f"{name} under autoregressive", "classify")["generator"]
    assert crossed == node(name, "generate")
