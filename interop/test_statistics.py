"""The statistics of governance against other implementations, on the same data."""

import json
import os
import subprocess

import numpy as np
import pytest
import ruptures
from scipy import special, stats
from statsmodels.robust.covariance import cov_ogk
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint, proportions_ztest
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from conftest import ROOT

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def ask():
    given = os.environ.get("THROUGHLINE_STATISTICS")
    command = [given] if given else ["cargo", "run", "--quiet", "-p", "throughline-govern", "--example", "statistics"]

    def ask(what, **data):
        question = json.dumps({"ask": what, **data}, default=lambda array: array.tolist())
        done = subprocess.run(command, input=question + "\n", capture_output=True, text=True, cwd=ROOT, check=True)
        return json.loads(done.stdout)

    return ask


def near(ours, theirs, rel=1e-9, abs=1e-12):
    assert ours == pytest.approx(theirs, rel=rel, abs=abs)


def test_tails(ask):
    x = np.linspace(-8, 8, 41)
    p = np.concatenate([np.logspace(-12, -1, 12), np.linspace(0.1, 0.999, 20)])
    normal = ask("normal", x=x, p=p)
    near(normal["cdf"], stats.norm.cdf(x).tolist(), abs=0)
    near(normal["quantile"], stats.norm.ppf(p).tolist())
    for degrees in (1, 2, 5, 40):
        x = np.linspace(0.01, 120, 50)
        near(ask("chi_square", x=x, degrees=degrees), stats.chi2.sf(x, degrees).tolist(), rel=1e-8)
    x = np.linspace(0.2, 4, 39)
    near(ask("kolmogorov", x=x), special.kolmogorov(x).tolist())


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_kolmogorov_smirnov(ask, shift):
    a, b = RNG.lognormal(0, 0.5, 400), RNG.lognormal(shift, 0.5, 900)
    distance, p = ask("ks", a=a, b=b)
    theirs = stats.ks_2samp(a, b, method="exact")
    near(distance, theirs.statistic)
    # Ours is asymptotic with a correction, theirs exact.
    near(p, theirs.pvalue, rel=0.15)


def test_shapes(ask):
    a = RNG.lognormal(3, 0.8, 501)
    shares = [0.0, 0.05, 0.5, 0.95, 1.0]
    ours = ask("shape", a=a, shares=shares)
    near(ours["skewness"], stats.skew(a, bias=False))
    near(ours["mad"], [np.median(a), stats.median_abs_deviation(a)])
    near(ours["quantiles"], np.quantile(a, shares).tolist())


@pytest.mark.parametrize("side,theirs", [("greater", "larger"), ("less", "smaller"), ("both", "two-sided")])
def test_proportions(ask, side, theirs):
    good, total = [431, 480], [500, 520]
    z, p = proportions_ztest(good, total, alternative=theirs)
    near(ask("proportions", good=good, total=total, side=side), [z, p])
    # Where few are expected, the exact test.
    _, p = ask("proportions", good=[3, 100], total=[9, 102], side=side)
    name = side if side != "both" else "two-sided"
    near(p, stats.fisher_exact([[3, 6], [100, 2]], alternative=name).pvalue)


def test_fisher(ask):
    for _ in range(30):
        table = RNG.integers(0, 60, 4)
        for side, name in (("greater", "greater"), ("less", "less"), ("both", "two-sided")):
            theirs = stats.fisher_exact(table.reshape(2, 2), alternative=name).pvalue
            near(ask("fisher", table=table, side=side), theirs, rel=1e-7)
    near(ask("fisher", table=[900, 4100, 1, 9999], side="greater"),
         stats.fisher_exact([[900, 4100], [1, 9999]], alternative="greater").pvalue, rel=1e-7, abs=0)


def test_fits_intervals_and_corrections(ask):
    counts, shares = [480, 310, 210], np.array([0.5, 0.3, 0.2])
    theirs = stats.chisquare(counts, shares * sum(counts))
    near(ask("fit", counts=counts, shares=shares), [theirs.statistic, theirs.pvalue])
    near(ask("wilson", good=17.0, total=40.0, alpha=0.05), list(proportion_confint(17, 40, 0.05, method="wilson")))
    p = RNG.uniform(0, 0.2, 50) ** 2
    near(ask("adjust", p=p), multipletests(p, method="fdr_bh")[1].tolist())


def test_changes(ask):
    for levels in ([0, 5, 1], [0, 3], [2, 2], [0, 1, 4, 0]):
        series = np.concatenate([level + RNG.normal(0, 0.5, 60) for level in levels])
        theirs = ruptures.Binseg(model="l2", min_size=5, jump=1).fit(series).predict(pen=20)
        assert ask("changes", series=series, min_points=5, penalty=20.0) == theirs[:-1]


def test_holt_winters(ask):
    period = 24
    at = np.arange(period * 12)
    series = 100 + 0.05 * at + 20 * np.sin(at * 2 * np.pi / period) + RNG.normal(0, 2, at.size)
    season = (20 * np.sin(np.arange(period) * 2 * np.pi / period)).tolist()
    model = ExponentialSmoothing(
        series, trend="add", seasonal="add", seasonal_periods=period, initialization_method="known",
        initial_level=100.0, initial_trend=0.05, initial_seasonal=season,
    )
    alpha, beta, gamma = 0.3, 0.02, 0.15
    theirs = model.fit(smoothing_level=alpha, smoothing_trend=beta, smoothing_seasonal=gamma, optimized=False)
    ours = ask("holt_winters", series=series, level=100.0, trend=0.05, season=season, weights=[alpha, beta, gamma])
    near(ours, theirs.fittedvalues.tolist(), rel=1e-6)


def test_robust_distances(ask):
    base = RNG.normal(size=(400, 1))
    points = np.hstack([3 * base + RNG.normal(size=(400, 1)), base, RNG.normal(size=(400, 2))])
    points[:80] += [20, -10, 5, 5]
    theirs = cov_ogk(points, reweight=None)
    near(ask("robust", points=points), (theirs.mahalanobis_raw / theirs.scale_factor_raw).tolist(), rel=1e-6)


def test_cusum(ask):
    series = np.concatenate([RNG.normal(10, 2, 200), RNG.normal(11, 2, 40)])
    warm_up, k = 100, 0.5
    ours = ask("cusum", series=series, k=k, warm_up=warm_up)
    # The recursion on what was learned so far: mean and variance of all windows before.
    up = down = 0.0
    learned = list(series[:warm_up])
    for at in range(warm_up, series.size):
        mean, sigma = np.mean(learned), np.std(learned)
        z = (series[at] - mean) / sigma
        up, down = max(0.0, up + z - k), max(0.0, down - z - k)
        near(ours[at], max(up, down), rel=1e-6, abs=1e-9)
        learned.append(mean + np.clip(z, -3, 3) * sigma)


def test_run_lengths(ask):
    # Two-sided CUSUM with k = 1/2: the table of Montgomery.
    for h, book in ((4, 168), (5, 465)):
        near(ask("run_length", k=0.5, h=h, run_length=book)["run_length"], book, rel=0.03)
        near(ask("run_length", k=0.5, h=h, run_length=book)["h"], h, rel=0.01)


def test_sequential(ask):
    a, b = RNG.normal(0, 1, 800), RNG.normal(0.25, 1.4, 600)
    alpha, tau = 0.05, 0.2
    ours = ask("sequential", a=a, b=b, alpha=alpha, tau=tau)
    variance = a.var(ddof=1) / a.size + b.var(ddof=1) / b.size
    difference = b.mean() - a.mean()
    # The Bayes factor of the normal mixture, from the two densities of the difference.
    factor = stats.norm.pdf(difference, 0, np.sqrt(variance + tau**2)) / stats.norm.pdf(difference, 0, np.sqrt(variance))
    near(ours["p_value"], min(1.0, 1 / factor), rel=1e-6)
    # At the ends of the interval the factor is 1 / alpha.
    for end in (ours["low"], ours["high"]):
        off = difference - end
        at_end = stats.norm.pdf(off, 0, np.sqrt(variance + tau**2)) / stats.norm.pdf(off, 0, np.sqrt(variance))
        near(at_end, 1 / alpha, rel=1e-6)


def test_split(ask):
    counts, shares, mass = np.array([5200, 4800]), np.array([0.5, 0.5]), 1000
    ours = ask("split", counts=counts, shares=shares)
    mixture = stats.dirichlet_multinomial(shares * mass, counts.sum()).logpmf(counts)
    theirs = stats.multinomial(counts.sum(), shares).logpmf(counts)
    near(ours, min(1.0, np.exp(theirs - mixture)), rel=1e-6)


def test_small_ones(ask):
    a, b = RNG.normal(size=64).astype(np.float32), RNG.normal(size=64).astype(np.float32)
    cosine = float(np.dot(a.astype(float), b.astype(float)) / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float)))
    near(ask("cosine", a=a, b=b), cosine, rel=1e-5)
    forecast, actual = RNG.uniform(50, 150, 40), RNG.uniform(50, 150, 40)
    near(ask("mape", forecast=forecast, actual=actual), float(np.mean(np.abs((actual - forecast) / actual)) * 100))
