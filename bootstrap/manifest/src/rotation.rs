//! One CA, or one secret that CAs come from, takes the place of another one.

/// Whether whoever trusts the ones may go over to trusting the others. The first of each issues.
///
/// What issues now stays trusted, and what is to issue was trusted before: so two who are one step apart always trust
/// each other, and each step can be taken back.
#[must_use]
pub fn is_one_step<T: PartialEq>(before: &[T], after: &[T]) -> bool {
    match (before.first(), after.first()) {
        (Some(was), Some(is)) => after.contains(was) && before.contains(is),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbouring_steps_know_each_other() {
        let steps: [&[&str]; 4] = [&["old"], &["old", "new"], &["new", "old"], &["new"]];
        for (at, before) in steps.iter().enumerate() {
            for (to, after) in steps.iter().enumerate() {
                assert_eq!(is_one_step(before, after), at.abs_diff(to) <= 1, "{before:?} {after:?}");
            }
        }
        assert!(!is_one_step(&["old"], &["other"]) && !is_one_step::<u8>(&[], &[]));
    }
}
