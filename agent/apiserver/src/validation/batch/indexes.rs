//! Lists of indexes, such as `1,3-5`.

/// How many indexes there are, all below `completions` and in order.
pub(super) fn count(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, None);
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first and last index of an interval.
fn interval(part: &str, completions: i32) -> Result<(i32, i32), String> {
    let mut limits = part.split('-');
    let (first, last, more) = (limits.next().unwrap_or_default(), limits.next(), limits.next());
    if more.is_some() {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let read = |text: &str| -> Result<i32, String> {
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {}", stdx::quoted(text)))?;
        if number >= i64::from(completions) {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(i32::try_from(number).unwrap_or(i32::MIN))
    };
    let start = read(first)?;
    let Some(last) = last else { return Ok((start, start)) };
    let end = read(last)?;
    if start >= end {
        return Err(format!("non-increasing order, previous: {start}, current: {end}"));
    }
    Ok((start, end))
}

/// The first index that both lists have; what is no interval is passed over.
pub(super) fn first_common(a: &str, b: &str, completions: i32) -> Option<i32> {
    let intervals = |text: &str| -> Vec<(i32, i32)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (intervals(a), intervals(b));
    let (mut i, mut j) = (0, 0);
    while let (Some((a_start, a_end)), Some((b_start, b_end))) = (a.get(i), b.get(j)) {
        if a_start <= b_end && b_start <= a_end {
            return Some(*a_start.max(b_start));
        }
        if a_start <= b_start { i += 1 } else { j += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count("0,2-4", 5), Ok(4));
        for (text, why) in
            [("2,1", "non-increasing"), ("5", "too large"), ("a", "cannot convert"), ("1-2-3", "fragment")]
        {
            assert!(count(text, 5).is_err_and(|e| e.contains(why)), "{text}");
        }
        assert_eq!(first_common("0-2,4", "3,4", 5), Some(4));
        assert_eq!(first_common("0", "1", 5), None);
    }
}
