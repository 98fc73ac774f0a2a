//! Fisher's exact test of a 2×2 table.

use libm::lgamma;

use super::Side;

/// Probabilities this close to that of the table count as equal to it, relative.
const TIE: f64 = 1.0 + 1e-7;

/// ln of `n` over `k`.
fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| lgamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// ln P(X = k): of `population` things `marked` are marked, and `drawn` are drawn without returning.
fn ln_point(k: u64, population: u64, marked: u64, drawn: u64) -> f64 {
    ln_choose(marked, k) + ln_choose(population - marked, drawn - k) - ln_choose(population, drawn)
}

/// P(X ≥ `k`) of a hypergeometric variable.
pub fn hypergeometric_sf(k: u64, population: u64, marked: u64, drawn: u64) -> f64 {
    let lowest = drawn.saturating_sub(population - marked);
    let highest = marked.min(drawn);
    if k <= lowest {
        return 1.0;
    }
    if k > highest {
        return 0.0;
    }
    // From k upwards each point follows from the one below; far above the mean they only fall.
    let (n, m, d) = (population as f64, marked as f64, drawn as f64);
    let mut point = 1.0;
    let mut sum = 1.0;
    for at in k..highest {
        let x = at as f64;
        point *= (m - x) * (d - x) / ((x + 1.0) * (n - m - d + x + 1.0));
        sum += point;
        if point < sum * 1e-17 && x > d * m / n {
            break;
        }
    }
    (ln_point(k, population, marked, drawn) + sum.ln()).exp().min(1.0)
}

/// p-value of the table `[[a, b], [c, d]]` (Fisher 1922): whether the share of `a` in its row differs
/// from that of `c`. Two-sided, tables that are not more likely than this one count.
pub fn fisher_exact(a: u64, b: u64, c: u64, d: u64, side: Side) -> f64 {
    let (population, marked, drawn) = (a + b + c + d, a + c, a + b);
    match side {
        Side::Greater => hypergeometric_sf(a, population, marked, drawn),
        // Fewer of the one are more of the other.
        Side::Less => hypergeometric_sf(b, population, b + d, drawn),
        Side::Both => {
            let lowest = drawn.saturating_sub(population - marked);
            let highest = marked.min(drawn);
            let seen = ln_point(a, population, marked, drawn);
            let is_counted = |point: &f64| *point <= seen + TIE.ln();
            (lowest..=highest)
                .map(|k| ln_point(k, population, marked, drawn))
                .filter(is_counted)
                .map(f64::exp)
                .sum::<f64>()
                .min(1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lady_tasting_tea() {
        // Three of four right: P(X ≥ 3) = (16 + 1) / 70.
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} for {b}");
        near(fisher_exact(3, 1, 1, 3, Side::Greater), 17.0 / 70.0);
        near(fisher_exact(3, 1, 1, 3, Side::Less), 69.0 / 70.0);
        near(fisher_exact(3, 1, 1, 3, Side::Both), 34.0 / 70.0);
        near(fisher_exact(0, 0, 0, 0, Side::Greater), 1.0);
        near(hypergeometric_sf(5, 8, 4, 4), 0.0);
    }
}
