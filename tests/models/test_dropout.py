"""Dropout from explicit generators."""

from __future__ import annotations

import math

import pytest
import torch

from nigradat.models.dropout import SeededDropout, dropout_modules, one_network_draw, seed_dropout


def test_evaluation_passes_through() -> None:
    x = torch.randn(3, 4)
    assert SeededDropout(0.5).eval()(x) is x
    assert SeededDropout(0.0).train()(x) is x  # nothing to drop, so no generator is asked for


def test_training_needs_a_generator() -> None:
    with pytest.raises(RuntimeError, match="generator"):
        SeededDropout(0.5).train()(torch.ones(3))


def test_training_drops_each_element_at_its_rate() -> None:
    p, n = 0.3, 100_000
    module = SeededDropout(p).train()
    seed_dropout(module, 1)
    out = module(torch.ones(2, n))
    kept = out > 0
    assert torch.unique(out).tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=5 * math.sqrt(p * (1 - p) / (2 * n)))
    agree = float((kept[0] == kept[1]).float().mean())  # independent rows agree with p^2 + (1 - p)^2
    expected = p**2 + (1 - p) ** 2
    assert agree == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n))


def test_the_seed_decides_and_calls_go_on() -> None:
    module, x = SeededDropout(0.5).train(), torch.ones(1000)
    draws = []
    for seed in (1, 1, 2):
        seed_dropout(module, seed)
        draws.append((module(x), module(x)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[0][1])
    assert not torch.equal(draws[0][0], draws[2][0])


@pytest.mark.parametrize("rows", [1, 2])
def test_some_pairs_get_the_masks_of_the_whole_batch(rows: int) -> None:
    """``rows`` of a pair: one net a side sees one, a shared one sees both."""
    module, x = SeededDropout(0.5).train(), torch.ones((5 * rows, 7))
    seed_dropout(module, 1)
    whole = module(x).unflatten(0, (5, rows))
    for pairs in ([0, 2, 4], [1, 3], [0]):
        seed_dropout(module, 1, of=(5, pairs))
        assert torch.equal(module(x[: len(pairs) * rows]).unflatten(0, (-1, rows)), whole[pairs])


def test_the_global_random_state_is_not_touched() -> None:
    module = SeededDropout(0.5).train()
    seed_dropout(module, 1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    module(torch.ones(10))
    with one_network_draw(module, 3):
        module(torch.ones(10))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_one_draw_is_one_network(training: bool) -> None:
    module = SeededDropout(0.5).train(training)
    with one_network_draw(module, 7):
        first, again = module(torch.ones(4, 200)), module(torch.ones(2, 200))
    assert all(torch.equal(row, first[0]) for row in [*first, *again])
    with one_network_draw(module, 7):
        assert torch.equal(module(torch.ones(1, 200))[0], first[0])
    with one_network_draw(module, 8):
        assert not torch.equal(module(torch.ones(1, 200))[0], first[0])


def test_two_modules_have_masks_of_their_own_in_any_order() -> None:
    a, b = SeededDropout(0.5), SeededDropout(0.5)
    both, x = torch.nn.ModuleList([a, b]).eval(), torch.ones(1, 500)
    with one_network_draw(both, 1):
        first = (a(x), b(x))
    with one_network_draw(both, 1):
        second = (b(x), a(x))
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])
    assert not torch.equal(first[0], first[1])


def test_everything_is_restored_after_an_error() -> None:
    model = torch.nn.Sequential(SeededDropout(0.5), SeededDropout(0.0), SeededDropout(0.2))
    seed_dropout(model, 1)
    before = [(m.generator, m.mask, m.sampling) for m in model]

    def fail() -> None:
        with one_network_draw(model, 2):
            model(torch.ones(1, 3))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    after = [(m.generator, m.mask, m.sampling) for m in model]
    assert all(x is y for one, two in zip(before, after, strict=True) for x, y in zip(one, two, strict=True))


def test_draws_may_be_nested() -> None:
    module, x = SeededDropout(0.5).eval(), torch.ones(1, 100)
    with one_network_draw(module, 1):
        outer = module(x)
        with one_network_draw(module, 2):
            assert not torch.equal(module(x), outer)
        assert torch.equal(module(x), outer)
    assert module(x) is x


def test_only_modules_that_drop_are_listed() -> None:
    model = torch.nn.Sequential(SeededDropout(0.0), torch.nn.Dropout(0.5), SeededDropout(0.1))
    assert dropout_modules(model) == [model[2]]


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_rates(p: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        SeededDropout(p)
