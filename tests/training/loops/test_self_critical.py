"""Laws of self-critical training: sentences drawn as likely as they are, REINFORCE's gradient, a run like any other."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.bundle.vocabulary import Vocabulary
from tests.training.loops.test_loop import assert_same_run, run
from tests.training.shapes import ALONE, GRID, VOCABULARY, make_store, make_table
from training.data.batches import CaptionTable
from training.data.examples import Example
from training.data.features import FeatureStore
from training.loops.sampler import Sampler, draw
from training.loops.self_critical import RewardEpoch, SelfCritic
from training.models.attention import AttentionConfig
from training.models.checkpoint import make_decoder
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.options import ScstOptions

SHORT = Vocabulary.build(["a b"], min_count=1)
NEVER = [SHORT.pad_id, SHORT.unk_id, SHORT.start_id]


def tiny() -> CaptionDecoder:
    torch.manual_seed(3)
    decoder = CaptionDecoder(
        DecoderConfig(4, len(SHORT), SHORT.pad_id, bottleneck=5, units=6, embedding=5, logit_hidden=5)
    )
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3)
    return decoder.eval()


def sentences(longest: int) -> list[list[int]]:
    """Every sentence that can be said: ended, or cut at `longest` words."""
    words = [SHORT.ids["a"], SHORT.ids["b"]]
    said = [[*row, SHORT.end_id] for n in range(longest) for row in itertools.product(words, repeat=n)]
    return said + [list(row) for row in itertools.product(words, repeat=longest)]


def log_probability(decoder: CaptionDecoder, features: Tensor, row: list[int]) -> Tensor:
    """By steps one by one, over the words that can be said."""
    state, context = decoder.start(features[None])
    total, word = torch.zeros(()), SHORT.start_id
    for following in row:
        logits, state = decoder.step(torch.tensor([word]), state, context)
        allowed = logits[0].clone()
        allowed[NEVER] = -torch.inf
        total = total + allowed.log_softmax(dim=0)[following]
        word = following
    return total


def laid_out(rows: list[list[int]], longest: int) -> Tensor:
    return torch.tensor([[SHORT.start_id, *row, *[SHORT.pad_id] * (longest - len(row))] for row in rows])


def short_critic(**changes: Any) -> SelfCritic:
    examples = [Example("0", ("a b", "a")), Example("1", ("b b", "b a b")), Example("2", ("a a",))]
    store = FeatureStore(("0", "1", "2"), np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16))
    table = CaptionTable.build(examples, [store], SHORT, max_words=3)
    options = ScstOptions(**({"batch_size": 3, "max_words": 2, "samples": 2} | changes))
    return SelfCritic(tiny(), options, table, table, ALONE)


# Sentences


def test_sentences_are_drawn_as_often_as_they_are_likely() -> None:
    decoder, features, drawn = tiny(), torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), 4000
    torch.manual_seed(0)
    said = Sampler(SHORT, max_words=2).say(decoder, features, drawn)
    assert said.shape == (2 * drawn, 3)
    for image in range(2):
        counts = Counter(tuple(row) for row in said[image * drawn : (image + 1) * drawn].tolist())
        for row, key in zip(sentences(2), laid_out(sentences(2), 2).tolist(), strict=True):
            share = float(log_probability(decoder, features[image], row).detach().exp())
            deviation = (share * (1 - share) / drawn) ** 0.5
            assert counts.pop(tuple(key), 0) / drawn == pytest.approx(share, abs=4 * deviation + 1e-9)
        assert not counts  # nothing else was ever said


def test_greedy_says_the_likeliest_word_each_time() -> None:
    decoder, features = tiny(), torch.randn(5, 4)
    said = Sampler(SHORT, max_words=4, greedy=True).say(decoder, features)
    for start, row in zip(features, said.tolist(), strict=True):
        word, (state, context) = SHORT.start_id, decoder.start(start[None])
        for following in row[1:]:
            if word == SHORT.end_id:
                assert following == SHORT.pad_id
                continue
            logits, state = decoder.step(torch.tensor([word]), state, context)
            logits[:, NEVER] = -torch.inf
            word = int(logits.argmax())
            assert following == word


@pytest.mark.parametrize("greedy", [True, False])
def test_what_is_no_word_is_never_said(greedy: bool) -> None:
    decoder = tiny()
    with torch.no_grad():
        decoder.output.bias[NEVER] = 100.0
    said = Sampler(SHORT, 5, greedy).say(decoder, torch.randn(40, 4), 3)
    assert (said[:, 0] == SHORT.start_id).all()
    for row in said[:, 1:].tolist():
        until = row.index(SHORT.end_id) + 1 if SHORT.end_id in row else 5
        assert not set(row[:until]) & set(NEVER)
        assert set(row[until:]) <= {SHORT.pad_id}


def test_words_of_no_chance_are_not_drawn_by_rounding() -> None:
    logits = torch.zeros(20_000, 5)
    logits[:, :2] = -200.0
    torch.manual_seed(0)
    assert set(draw(logits, [4]).tolist()) == {2, 3}


# The gradient


def test_the_mean_gradient_over_all_samples_is_that_of_the_expected_reward() -> None:
    critic = short_critic()
    rows, image = sentences(2), 1
    features = torch.from_numpy(critic.train_table.features_of(np.array([image])))
    rewards = np.array([critic.reward_of(np.array([image]), laid_out([row], 2))[0] for row in rows])
    logs = torch.stack([log_probability(critic.decoder, features[0], row) for row in rows])
    assert float(logs.detach().exp().sum()) == pytest.approx(1, abs=1e-5)
    expected = (logs.exp() * torch.from_numpy(rewards).float()).sum()
    parameters = list(critic.decoder.parameters())
    uphill = torch.autograd.grad(expected, parameters)
    assert max(float(up.abs().max()) for up in uphill) > 0.01
    # every pair of samples, each learnt from against the other one as its baseline
    pairs = list(itertools.product(range(len(rows)), repeat=2))
    chances = logs.detach().exp()
    weights = [[chances[i] * chances[j] * (rewards[k] - rewards[i + j - k]) / 2 for k in (i, j)] for i, j in pairs]
    said = laid_out([rows[k] for pair in pairs for k in pair], 2)
    loss = critic.loss(features, said, torch.tensor(weights, dtype=torch.float32).ravel(), drawn=True)
    for up, down in zip(uphill, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(-down, up, atol=2e-6, rtol=1e-4)


def test_bleu_is_worth_its_weight_beside_cider() -> None:
    images, said = np.array([0, 1, 2]), laid_out([[SHORT.ids["a"], SHORT.end_id]] * 3, 2)
    without, half, whole = (short_critic(bleu=weight).reward_of(images, said) for weight in (0.0, 1.0, 2.0))
    assert (half > without).all()  # "a" stands in a caption of each
    np.testing.assert_allclose(whole - half, half - without)


def test_what_a_sample_is_worth_is_less_its_baseline() -> None:
    images, critic = np.array([1, 0]), short_critic(samples=6)
    with torch.no_grad():
        critic.decoder.output.weight.zero_()  # every word as likely as another
    torch.manual_seed(1)
    said, rewards, advantages = critic.draw(torch.from_numpy(critic.train_table.features_of(images)), images)
    assert said.shape[0] == 12
    np.testing.assert_allclose(rewards.ravel(), critic.reward_of(images, said))
    assert rewards.std() > 0
    others = np.array([[np.delete(row, i).mean() for i in range(6)] for row in rewards])
    np.testing.assert_allclose(advantages.reshape(2, 6), rewards - others, atol=1e-5)


def test_the_loss_of_true_captions_is_their_cross_entropy() -> None:
    critic = short_critic()
    table = critic.train_table
    batch = table.gather(table.offsets[:3])
    features, tokens = torch.from_numpy(batch.features), torch.from_numpy(batch.tokens)
    loss = critic.loss(features, tokens, torch.ones(3), drawn=False)
    logs = critic.decoder(features, tokens[:, :-1]).log_softmax(dim=-1).gather(2, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(loss, -logs[tokens[:, 1:] != SHORT.pad_id].sum())


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_a_step_weighs_the_cross_entropy_of_true_captions_beside_the_reward(weight: float) -> None:
    critic = short_critic(cross_entropy=weight)
    with torch.no_grad():
        critic.decoder.output.bias[SHORT.end_id] = 30.0  # every sentence is empty, so that no reward moves anything
    batch = critic.train_table.gather(critic.train_table.offsets[:3])
    true = critic.loss(torch.from_numpy(batch.features), torch.from_numpy(batch.tokens), torch.ones(3), drawn=False)
    before = critic.decoder.output.weight.detach().clone()
    counts, _ = critic.take_step(batch, 0)
    assert float(counts[0]) == pytest.approx(weight * float(true.detach()) / 3, abs=1e-6)
    assert torch.equal(critic.decoder.output.weight, before) == (weight == 0)


# The run

PLAIN = DecoderConfig(6, len(VOCABULARY), VOCABULARY.pad_id, bottleneck=8, units=16, embedding=8, logit_hidden=8)
LOOKING = {"sizes": AttentionConfig(**asdict(PLAIN), height=GRID[0], width=GRID[1], value_size=8), "grid": GRID}


def make_critic(
    validation: CaptionTable | None = None, sizes: DecoderConfig = PLAIN, grid: Sequence[int] = (), **changes: Any
) -> SelfCritic:
    options = {"epochs": 3, "batches": 5, "batch_size": 8, "max_words": 5, "learning_rate": 1e-2}
    torch.manual_seed(0)
    made = ScstOptions(**(options | changes))
    tables = make_table(20, grid=grid), validation or make_table(9, seed=1, grid=grid)
    return SelfCritic(make_decoder(sizes), made, *tables, ALONE)


def test_logits_are_lowered_by_the_logarithm_of_the_frequency_before_training() -> None:
    store = FeatureStore(("0",), np.zeros((1, 4), dtype=np.float16))
    table = CaptionTable.build([Example("0", ("a a a", "b a"))], [store], SHORT, max_words=3)
    before = tiny().output.bias.detach()
    for decoder, expected in (
        (SelfCritic(tiny(), ScstOptions(batch_size=1, logit_adjustment=0.5), table, table, ALONE).decoder, 0.5),
        (SelfCritic(tiny(), ScstOptions(batch_size=1), table, table, ALONE).decoder, 0.0),
    ):
        lowered = before - decoder.output.bias.detach()
        difference = lowered[SHORT.ids["a"]] - lowered[SHORT.ids["b"]]
        assert float(difference) == pytest.approx(expected * np.log(5 / 2), abs=1e-5)  # "a" 4 times, "b" once
        assert not lowered[[SHORT.end_id, SHORT.pad_id, SHORT.unk_id, SHORT.start_id]].any()


@pytest.mark.parametrize("kind", [{}, LOOKING], ids=["lstm", "attention"])
def test_the_expected_reward_rises(tmp_path: Path, kind: dict[str, Any]) -> None:
    critic = make_critic(epochs=3, batches=30, learning_rate=2e-2, **kind)
    before = fmean(critic.validation_ciders().values())
    run(critic, tmp_path)
    rewards = [epoch.sample_reward for epoch in critic.history]
    assert rewards[-1] > rewards[0] + 0.5
    assert critic.history[-1].validation_cider > before + 0.5
    assert critic.history[-1].train_reward > rewards[0]


def test_nothing_learnt_hangs_on_what_people_say_of_validation_images(tmp_path: Path) -> None:
    examples = [Example(f"{i:02}.jpg", ("a red circle", "a red red square")) for i in range(9)]
    other = CaptionTable.build(examples, [make_store(9, seed=1)], VOCABULARY, max_words=5)
    critics = [make_critic(epochs=1), make_critic(validation=other, epochs=1)]
    epochs = [next(critic.train(tmp_path)) for critic in critics]
    assert epochs[0].validation_cider != epochs[1].validation_cider
    assert epochs[0].train_reward == epochs[1].train_reward
    for these, those in zip(*(critic.decoder.parameters() for critic in critics), strict=True):
        assert torch.equal(these, those)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "schedule": "cosine", "dropout": 0.2, "cross_entropy": 0.1},
        {"warmup": 4, "bf16": True},
        {"cross_entropy": 0.1, "dropout": 0.2, **LOOKING},
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    one = run(make_critic(**changes), whole)
    part.mkdir()
    next(make_critic(**changes).train(part))
    torch.manual_seed(99)  # nothing hangs on what generators were left at
    other = make_critic(**changes)
    other.resume(part)
    assert len(other.history) == 1
    assert_same_run(one, run(other, part), whole, part)


def noted(number: int, cider: float) -> RewardEpoch:
    return RewardEpoch(number, 1.0, 1.0, cider, 9.0, learning_rate=1e-3, seconds=1.0, precision="float32")


def test_the_best_epoch_is_of_the_highest_validation_cider() -> None:
    critic = make_critic()
    scores = ((1, 0.3), (2, 0.5), (3, 0.5), (4, 0.4))
    critic.history = [noted(number, cider) for number, cider in scores]
    assert critic.best is critic.history[1]


def test_an_epoch_shows_as_many_batches_as_the_images_make() -> None:
    assert make_critic(batches=0, batch_size=6).batches == 3
    assert make_critic(batches=0, batch_size=64).batches == 1
