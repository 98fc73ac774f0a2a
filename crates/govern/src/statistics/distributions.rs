//! Tails and quantiles of the distributions that tests refer to.

use libm::{erfc, lgamma};

/// Terms of a series or fraction after which it is taken as it is; all converge far earlier.
const MAX_TERMS: usize = 10_000;

/// Relative change at which a series has converged.
const CONVERGED: f64 = 1e-15;

/// P(Z ≤ `z`) of a standard normal variable.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// P(Z > `z`) of a standard normal variable, exact far into the tail.
pub fn normal_sf(z: f64) -> f64 {
    0.5 * erfc(z / std::f64::consts::SQRT_2)
}

/// The `z` below which a standard normal variable is with probability `p`: Acklam's rational
/// approximation, made exact by one step of Halley's method. Infinite at 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    const LOW: f64 = 0.024_25;
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let horner = |factors: &[f64], x: f64| factors.iter().fold(0.0, |sum, factor| sum * x + factor);
    let z = if p < LOW {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / (horner(&D, q) * q + 1.0)
    } else {
        let q = p - 0.5;
        let r = q * q;
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    };
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if density <= 0.0 {
        return z;
    }
    let u = (normal_cdf(z) - p) / density;
    z - u / (1.0 + 0.5 * z * u)
}

/// Q(a, x), the upper regularised incomplete gamma function: its series below `a + 1`, its continued
/// fraction (Lentz) above (Abramowitz and Stegun 6.5.29 and 6.5.31).
fn gamma_sf(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - lgamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..MAX_TERMS {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term.abs() < sum.abs() * CONVERGED {
                break;
            }
        }
        return (1.0 - front * sum).clamp(0.0, 1.0);
    }
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut h = d;
    for i in 1..MAX_TERMS {
        let an = -(i as f64) * (i as f64 - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b, TINY);
        c = nonzero(b + an / c, TINY);
        let step = d * c;
        h *= step;
        if (step - 1.0).abs() < CONVERGED {
            break;
        }
    }
    (front * h).clamp(0.0, 1.0)
}

fn nonzero(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

/// P(X > `x`) of a χ² variable with `degrees` of freedom; 1 when there are none.
pub fn chi_square_sf(x: f64, degrees: usize) -> f64 {
    if degrees == 0 { 1.0 } else { gamma_sf(degrees as f64 / 2.0, x / 2.0) }
}

/// The number below which a χ² variable is with probability `p`, by bisection; infinite at 1.
pub fn chi_square_quantile(p: f64, degrees: usize) -> f64 {
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while 1.0 - chi_square_sf(high, degrees) < p && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if 1.0 - chi_square_sf(middle, degrees) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// P(K > `lambda`) of Kolmogorov's distribution: 2 Σ (−1)^(k−1) exp(−2k²λ²); below 1 the other form
/// of the theta function, which converges there.
pub fn kolmogorov_sf(lambda: f64) -> f64 {
    use std::f64::consts::PI;
    if lambda <= 0.0 {
        return 1.0;
    }
    if lambda < 1.0 {
        let below: f64 = (1..=20)
            .map(|k| {
                let odd = f64::from(2 * k - 1);
                (-odd * odd * PI * PI / (8.0 * lambda * lambda)).exp()
            })
            .sum();
        return (1.0 - (2.0 * PI).sqrt() / lambda * below).clamp(0.0, 1.0);
    }
    let tail: f64 = (1..=20)
        .map(|k| {
            let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
            sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
        })
        .sum();
    (2.0 * tail).clamp(0.0, 1.0)
}

/// Wilson's interval (1927) of a proportion with `good` of `total`, at confidence `1 − alpha`; the
/// whole of 0 to 1 when there is nothing.
pub fn wilson_interval(good: f64, total: f64, alpha: f64) -> (f64, f64) {
    if total <= 0.0 {
        return (0.0, 1.0);
    }
    let z = normal_quantile(1.0 - alpha / 2.0);
    let (p, z2) = (good / total, z * z);
    let middle = (p + z2 / (2.0 * total)) / (1.0 + z2 / total);
    let half = z / (1.0 + z2 / total) * (p * (1.0 - p) / total + z2 / (4.0 * total * total)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_tables() {
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} for {b}");
        near(normal_cdf(1.96), 0.975_002_104_851_779_5);
        near(normal_sf(8.0), 6.220_960_574_271_785e-16);
        near(normal_quantile(0.975), 1.959_963_984_540_054);
        near(normal_quantile(1e-9), -5.997_807_015_008_182);
        near(chi_square_sf(3.841_458_820_694_124, 1), 0.05);
        near(chi_square_sf(0.5, 3), 0.918_891_411_654_676);
        near(chi_square_sf(100.0, 10), 5.449_701_982_920_52e-17);
        near(chi_square_quantile(0.95, 1), 3.841_458_820_694_124);
        near(kolmogorov_sf(1.358_098_639_322_550_5), 0.05);
        near(kolmogorov_sf(0.5), 0.963_945_243_664_875);
        assert_eq!((chi_square_sf(5.0, 0), kolmogorov_sf(0.0)), (1.0, 1.0));
    }

    #[test]
    fn wilson_stays_within_what_can_be() {
        assert_eq!(wilson_interval(0.0, 0.0, 0.05), (0.0, 1.0));
        let (low, high) = wilson_interval(0.0, 20.0, 0.05);
        assert!(low == 0.0 && (high - 0.161_125).abs() < 1e-5, "{low} {high}");
    }
}
