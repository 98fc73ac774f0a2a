//! Answers questions about data in JSON lines, one line a question: `{"ask": "ks", "a": […], "b": […]}`.
//! `interop/test_statistics.py` compares the answers with scipy, statsmodels and ruptures.

use std::error::Error;
use std::io::{self, BufRead as _, Write as _};

use serde::Deserialize;
use serde_json::{Value, json};
use throughline_govern::detect::{
    CusumConfig, CusumDetector, Detector as _, SeasonalConfig, SeasonalDetector, TimeSpan,
    average_run_length, change_points, threshold_for_run_length,
};
use throughline_govern::experiment::{Sequential, check_split, sequential_difference};
use throughline_govern::signals::{cosine_similarity, forecast_error_mape};
use throughline_govern::statistics::{
    Binned, RobustDistance, Side, benjamini_hochberg, chi_square_fit, chi_square_sf, fisher_exact,
    kolmogorov_sf, kolmogorov_smirnov, median_absolute_deviation, normal_cdf, normal_quantile,
    quantile, skewness, two_proportions, wilson_interval,
};

#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Question {
    Normal { x: Vec<f64>, p: Vec<f64> },
    ChiSquare { x: Vec<f64>, degrees: usize },
    Kolmogorov { x: Vec<f64> },
    Ks { a: Vec<f64>, b: Vec<f64> },
    Shape { a: Vec<f64>, shares: Vec<f64> },
    Proportions { good: [u64; 2], total: [u64; 2], side: String },
    Fisher { table: [u64; 4], side: String },
    Fit { counts: Vec<u64>, shares: Vec<f64> },
    Wilson { good: f64, total: f64, alpha: f64 },
    Adjust { p: Vec<f64> },
    Changes { series: Vec<f64>, min_points: usize, penalty: f64 },
    HoltWinters { series: Vec<f64>, level: f64, trend: f64, season: Vec<f64>, weights: [f64; 3] },
    Robust { points: Vec<Vec<f64>> },
    Cusum { series: Vec<f64>, k: f64, warm_up: u64 },
    RunLength { k: f64, h: f64, run_length: f64 },
    Sequential { a: Vec<f64>, b: Vec<f64>, alpha: f64, tau: f64 },
    Split { counts: Vec<u64>, shares: Vec<f64> },
    Cosine { a: Vec<f32>, b: Vec<f32> },
    Mape { forecast: Vec<f64>, actual: Vec<f64> },
}

fn side(text: &str) -> Side {
    match text {
        "greater" => Side::Greater,
        "less" => Side::Less,
        _ => Side::Both,
    }
}

fn answer(question: Question) -> Value {
    match question {
        Question::Normal { x, p } => json!({
            "cdf": x.into_iter().map(normal_cdf).collect::<Vec<_>>(),
            "quantile": p.into_iter().map(normal_quantile).collect::<Vec<_>>(),
        }),
        Question::ChiSquare { x, degrees } => {
            json!(x.into_iter().map(|x| chi_square_sf(x, degrees)).collect::<Vec<_>>())
        }
        Question::Kolmogorov { x } => {
            json!(x.into_iter().map(kolmogorov_sf).collect::<Vec<_>>())
        }
        Question::Ks { a, b } => {
            json!(kolmogorov_smirnov(&Binned::of_numbers(&a), &Binned::of_numbers(&b)))
        }
        Question::Shape { a, shares } => json!({
            "skewness": skewness(&a),
            "mad": median_absolute_deviation(&a),
            "quantiles": shares.iter().map(|share| quantile(&a, *share)).collect::<Vec<_>>(),
        }),
        Question::Proportions { good, total, side: text } => {
            let test = two_proportions((good[0], total[0]), (good[1], total[1]), side(&text));
            json!(test.map(|test| [test.z, test.p_value]))
        }
        Question::Fisher { table: [a, b, c, d], side: text } => {
            json!(fisher_exact(a, b, c, d, side(&text)))
        }
        Question::Fit { counts, shares } => json!(chi_square_fit(&counts, &shares)),
        Question::Wilson { good, total, alpha } => json!(wilson_interval(good, total, alpha)),
        Question::Adjust { p } => json!(benjamini_hochberg(&p)),
        Question::Changes { series, min_points, penalty } => {
            let changes = change_points(&series, min_points, Some(penalty));
            json!(changes.iter().map(|change| change.at).collect::<Vec<_>>())
        }
        Question::HoltWinters { series, level, trend, season, weights } => {
            json!(forecasts(&series, level, trend, season, weights))
        }
        Question::Robust { points } => {
            let fitted = RobustDistance::fit(&points);
            let distances = fitted.map(|fitted| {
                points.iter().map(|point| fitted.squared_distance(point)).collect::<Vec<_>>()
            });
            json!(distances)
        }
        Question::Cusum { series, k, warm_up } => json!(sums(&series, k, warm_up)),
        Question::RunLength { k, h, run_length } => json!({
            "run_length": average_run_length(k, h, true),
            "h": threshold_for_run_length(k, run_length, true),
        }),
        Question::Sequential { a, b, alpha, tau } => {
            let of =
                Sequential { control: a.into_iter().collect(), treatment: b.into_iter().collect() };
            json!(sequential_difference(&of, alpha, tau, false))
        }
        Question::Split { counts, shares } => {
            json!(check_split(&counts, &shares, 0.001).map(|check| check.p_value))
        }
        Question::Cosine { a, b } => json!(cosine_similarity(&a, &b)),
        Question::Mape { forecast, actual } => {
            json!(forecast_error_mape(forecast.into_iter().zip(actual)).value)
        }
    }
}

fn span(at: usize) -> TimeSpan {
    TimeSpan { from_unix_nano: at as u64, to_unix_nano: at as u64 + 1 }
}

/// The one-step forecasts of Holt and Winters from a known state.
fn forecasts(
    series: &[f64],
    level: f64,
    trend: f64,
    season: Vec<f64>,
    [level_weight, trend_weight, season_weight]: [f64; 3],
) -> Vec<Option<f64>> {
    // Without enough errors nothing is clipped.
    let min_errors = u32::MAX;
    let config = SeasonalConfig {
        level_weight,
        trend_weight,
        season_weight,
        min_errors,
        ..SeasonalConfig::default()
    };
    let mut detector = SeasonalDetector::with_state(config, level, trend, season);
    series
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let forecast = detector.forecast().map(|forecast| forecast.value);
            detector.observe(span(at), &Some(*value));
            forecast
        })
        .collect()
}

/// The greater sum of a CUSUM that has learned from the first windows and nearly nothing since.
fn sums(series: &[f64], reference: f64, warm_up_windows: u64) -> Vec<Option<f64>> {
    let mut detector = CusumDetector::new(CusumConfig {
        reference,
        warm_up_windows,
        half_life_windows: 1e12,
        in_control_run_windows: 1e9,
        min_effect: f64::MAX,
        ..CusumConfig::default()
    });
    series
        .iter()
        .enumerate()
        .map(|(at, value)| {
            detector.observe(span(at), &(*value, 100));
            detector.latest().map(|reading| reading.statistic)
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        writeln!(out, "{}", answer(question))?;
    }
    Ok(())
}
