//! Medians, and how far the rounds lie apart.

use std::time::Duration;

/// The middle one; the upper one of two.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied()
}

/// So much of the values are not greater.
pub(crate) fn percentile(values: &[Duration], part: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let last = sorted.len().saturating_sub(1);
    sorted.get(((sorted.len() as f64 * part) as usize).min(last)).copied().unwrap_or_default()
}

/// One figure of each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

impl Rounds {
    /// The median of the rounds.
    pub(crate) fn median(&self) -> f64 {
        median(&self.0).unwrap_or(f64::NAN)
    }
    /// From the lowest to the highest round.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let fold = |first: f64, pick: fn(f64, f64) -> f64| self.0.iter().copied().fold(first, pick);
        (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_rounds_and_their_ends() {
        let rounds = Rounds(vec![3.0, 1.0, 2.0]);
        assert_eq!((rounds.median(), rounds.spread()), (2.0, (1.0, 3.0)));
        assert!(Rounds::default().median().is_nan());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0.99), Duration::from_millis(100));
        assert_eq!(percentile(&values, 0.5), Duration::from_millis(51));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
