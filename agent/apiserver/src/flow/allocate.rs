//! How seats that some levels do not need are lent to others.

/// One level's part in an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What it would like; at least the lower bound.
    pub target: f64,
    /// The least it gets.
    pub lower: f64,
    /// The most it gets.
    pub upper: f64,
}

/// Targets below this count as this, so that bounds can be told as multiples of them.
const MIN_TARGET: f64 = 0.001;
/// What sums may be off by.
const EPSILON: f64 = 1e-7;

/// Divides `sum` so that everybody gets the same multiple of their target, or the bound that is nearest to that.
/// Returns the parts and the multiple; none if the bounds do not allow the sum.
#[must_use]
pub fn allocate(sum: f64, claims: &[Claim]) -> Option<(Vec<f64>, f64)> {
    let is_sound = |c: &Claim| c.lower >= 0.0 && c.target >= c.lower && c.upper >= c.lower;
    let (least, most): (f64, f64) = (claims.iter().map(|c| c.lower).sum(), claims.iter().map(|c| c.upper).sum());
    if !claims.iter().all(is_sound) || sum < least - EPSILON || sum > most + EPSILON {
        return None;
    }
    let target = |c: &Claim| c.target.max(MIN_TARGET);
    let part = |c: &Claim, factor: f64| (factor * target(c)).clamp(c.lower, c.upper);
    // The sum of all parts grows with the factor, in straight lines between the factors at which a bound is met.
    let mut knees: Vec<f64> = claims.iter().flat_map(|c| [c.lower / target(c), c.upper / target(c)]).collect();
    knees.sort_by(f64::total_cmp);
    let total = |factor: f64| claims.iter().map(|c| part(c, factor)).sum::<f64>();
    let above = knees.iter().position(|k| total(*k) >= sum).unwrap_or(knees.len().saturating_sub(1));
    let high = *knees.get(above)?;
    let low = if above == 0 { high } else { knees[above - 1] };
    let (at_low, at_high) = (total(low), total(high));
    let factor =
        if at_high - at_low > EPSILON { low + (high - low) * (sum - at_low) / (at_high - at_low) } else { high };
    Some((claims.iter().map(|c| part(c, factor)).collect(), factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sum: f64, claims: &[(f64, f64, f64)]) -> Option<Vec<f64>> {
        let claims: Vec<Claim> = claims.iter().map(|&(target, lower, upper)| Claim { target, lower, upper }).collect();
        let (parts, _) = allocate(sum, &claims)?;
        Some(parts.into_iter().map(|p| (p * 1000.0).round() / 1000.0).collect())
    }

    #[test]
    fn without_bounds_everybody_gets_the_same_share_of_what_they_want() {
        assert_eq!(parts(30.0, &[(10.0, 0.0, 100.0), (5.0, 0.0, 100.0)]), Some(vec![20.0, 10.0]));
    }

    #[test]
    fn bounds_hold_and_the_rest_is_divided() {
        assert_eq!(parts(30.0, &[(10.0, 0.0, 12.0), (5.0, 0.0, 100.0)]), Some(vec![12.0, 18.0]));
        assert_eq!(parts(30.0, &[(0.0, 20.0, 99.0), (20.0, 0.0, 99.0)]), None, "a target below its bound");
        assert_eq!(parts(30.0, &[(20.0, 20.0, 99.0), (40.0, 0.0, 99.0)]), Some(vec![20.0, 10.0]));
    }

    #[test]
    fn what_cannot_be_divided_is_not() {
        assert_eq!(parts(3.0, &[(4.0, 4.0, 8.0)]), None);
        assert_eq!(parts(9.0, &[(4.0, 4.0, 8.0)]), None);
        assert_eq!(parts(4.0, &[(4.0, 4.0, 8.0)]), Some(vec![4.0]));
        assert_eq!(parts(8.0, &[(4.0, 4.0, 8.0)]), Some(vec![8.0]));
    }

    #[test]
    fn idle_levels_share_in_proportion_to_nothing_in_particular() {
        assert_eq!(parts(9.0, &[(0.0, 0.0, 9.0), (0.0, 0.0, 9.0), (0.0, 0.0, 9.0)]), Some(vec![3.0; 3]));
    }
}
