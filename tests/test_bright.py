"""Bright ground under a cloud mask: simulated ground truth, and a plain reading of the rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minetrace.kernels import bright
from minetrace.kernels.bright import restore_bright

N = 60
GROUND = {"tailings": (0.28, 0.33, 0.38), "forest": (0.03, 0.05, 0.3), "salt": (0.5, 0.5, 0.45)}


def views_of(ground: str, rng: np.random.Generator, *, noise: float = 0.05) -> np.ndarray:
    """(band, time): light and atmosphere change each view by some percent in all bands alike."""
    level = np.array(GROUND[ground])[:, None]
    return level * (1 + noise * rng.standard_normal(N)) + 0.003 * rng.standard_normal((3, N))


def clouded(views: np.ndarray, dates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Real cloud, thin to thick: a grey veil of reflectance 0.25 to 0.9 over the ground."""
    thickness = rng.uniform(0.35, 1.0, dates.sum())
    grey = rng.uniform(0.45, 0.9, dates.sum())
    out = views.copy()
    out[:, dates] = views[:, dates] * (1 - thickness) + grey * thickness
    return out


def restored(views: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """Dates that the kernel gives back."""
    cloud = flagged[:, None].copy()
    restore_bright(views[:, :, None].astype(np.float32), cloud)
    assert not (cloud[:, 0] & ~flagged).any()
    return flagged & ~cloud[:, 0]


def share_of(rng: np.random.Generator, share: float) -> np.ndarray:
    out = np.zeros(N, bool)
    out[rng.permutation(N)[: round(share * N)]] = True
    return out


@pytest.mark.parametrize("ground", ["tailings", "salt"])
@pytest.mark.parametrize("seed", range(5))
def test_bright_ground_masked_on_most_dates_is_restored(ground, seed):
    rng = np.random.default_rng(seed)
    flagged = share_of(rng, 0.8)
    back = restored(views_of(ground, rng), flagged)
    assert back.sum() >= 0.9 * flagged.sum()


@pytest.mark.parametrize("seed", range(5))
def test_a_real_cloud_over_bright_ground_stays_masked(seed):
    rng = np.random.default_rng(seed)
    ground, real = views_of("tailings", rng), share_of(rng, 0.25)
    views = clouded(ground, real, rng)
    flagged = real | share_of(rng, 0.7)
    back = restored(views, flagged)
    false = flagged & ~real
    assert back[false].mean() >= 0.9
    # what passes as ground is a veil that changes the ground by no more than the tolerance
    changed = np.abs(views - ground).max(axis=0)
    assert back[real].mean() <= 0.2
    assert changed[back & real].max(initial=0) <= 0.4 * max(GROUND["tailings"])


@pytest.mark.parametrize("cover", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_cloud_over_dark_ground_stays_masked(cover, seed):
    rng = np.random.default_rng(seed)
    real = share_of(rng, cover)
    assert not restored(clouded(views_of("forest", rng), real, rng), real).any()


def test_a_mask_that_is_right_about_bright_ground_stands():
    """Flagged on less than half of the dates: cloud is the likelier reason."""
    rng = np.random.default_rng(1)
    views = views_of("tailings", rng)
    assert not restored(views, share_of(rng, 29 / 60)).any()
    assert restored(views, share_of(rng, 30 / 60)).any()


def test_steady_dark_ground_is_not_the_matter():
    rng = np.random.default_rng(1)
    assert not restored(views_of("forest", rng, noise=0.01), share_of(rng, 0.8)).any()


def test_a_view_must_agree_in_every_band():
    rng = np.random.default_rng(1)
    views, odd = views_of("tailings", rng, noise=0.01), share_of(rng, 0.1)
    views[2, odd] *= 1.5
    flagged = share_of(rng, 0.8)
    np.testing.assert_array_equal(restored(views, flagged), flagged & ~odd)


def test_few_views_say_nothing():
    rng = np.random.default_rng(1)
    views = views_of("tailings", rng)
    flagged = np.zeros(N, bool)
    flagged[:4] = True
    views[:, 5:] = np.nan
    assert not restored(views, flagged).any()
    views[:, 5] = views[:, 4]
    assert restored(views, flagged).any()


def test_ground_that_is_never_clear_needs_more_constancy():
    """Two views of three alike are enough beside clear ones, but not alone."""
    rng = np.random.default_rng(2)
    views = views_of("tailings", rng, noise=0.01)
    odd = share_of(rng, 0.34)
    views[:, odd] *= 2
    flagged = np.ones(N, bool)
    assert not restored(views, flagged).any()
    flagged[np.flatnonzero(~odd)[:6]] = False
    assert (restored(views, flagged) == flagged & ~odd).all()


def test_clear_views_overrule_a_level_made_of_cloud():
    """Where clear views show dark ground, a steady veil is not the ground."""
    rng = np.random.default_rng(3)
    views = views_of("salt", rng, noise=0.01)
    clear = share_of(rng, 0.2)
    views[:, clear] = 0.05
    assert not restored(views, ~clear).any()


def plain_rule(views: list[list[float]], flagged: list[bool]) -> list[bool]:
    """The rule once more, date by date; views as date → bands, None where nothing was seen."""
    seen = [t for t, v in enumerate(views) if v is not None]
    masked = [t for t in seen if flagged[t]]
    out = list(flagged)
    if len(seen) < 6 or len(masked) < 0.5 * len(seen):
        return out
    levels = [
        float(np.percentile([views[t][b] for t in seen], 25)) for b in range(len(views[seen[0]]))
    ]
    if np.mean(levels) < 0.15:
        return out
    agree = [
        t for t in seen
        if all(abs(views[t][b] - level) <= max(0.02, 0.2 * level) for b, level in enumerate(levels))
    ]  # fmt: skip
    clear = [t for t in seen if not flagged[t]]
    enough = 0.5 if clear else 0.75
    if len(agree) < enough * len(seen):
        return out
    if len([t for t in agree if t in clear]) < 0.5 * len(clear):
        return out
    for t in agree:
        out[t] = False
    return out


# 64ths: sums and quartiles are exact, so that no decision hangs on rounding but the tolerance's
VALUE = st.integers(0, 40).map(lambda v: v / 64)


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.tuples(VALUE, VALUE)), st.booleans()),
        min_size=1, max_size=14,
    ),
    st.sampled_from([None, 20 / 64, 30 / 64]),
)  # fmt: skip
def test_the_kernel_is_the_plain_rule(series, steady):
    views = [v for v, _ in series]
    if steady is not None:
        views = [v and ((steady, v[1] if i % 4 == 0 else steady)) for i, v in enumerate(views)]
    flagged = [f and v is not None for (_, f), v in zip(series, views, strict=True)]
    stack = np.array([v or (np.nan, np.nan) for v in views], np.float32).T[:, :, None].copy()
    cloud = np.array(flagged)[:, None]
    restore_bright(stack, cloud)
    assert cloud[:, 0].tolist() == plain_rule(views, flagged)


def test_the_stated_numbers_are_the_kernels_own():
    assert (bright.MIN_VIEWS, bright.MASKED_SHARE, bright.LEVEL, bright.BRIGHT) == (
        6,
        0.5,
        0.25,
        0.15,
    )
    assert (bright.TOLERANCE, bright.SLACK, bright.STEADY_SHARE, bright.LONE_SHARE) == (
        0.2, 0.02, 0.5, 0.75,
    )  # fmt: skip
