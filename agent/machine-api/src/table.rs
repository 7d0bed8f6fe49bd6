//! Tables for people.

/// What a table shows a line of.
pub trait Row {
    /// The heads of the columns.
    const HEAD: &'static [&'static str];

    /// The cells.
    fn cells(&self) -> Vec<String>;
}

/// A table, whose columns are as wide as they must be. Numbers stand to the right.
#[must_use]
pub fn table<R: Row>(rows: &[R]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let width = |column: usize| {
        let widths = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        widths.chain(R::HEAD.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..R::HEAD.len()).map(width).collect();
    let is_number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
    let is_right = |column: usize| {
        let mut full = cells.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
        full.peek().is_some() && full.all(|cell| is_number(cell) && !cell.contains([' ', ':']))
    };
    let right: Vec<bool> = (0..R::HEAD.len()).map(is_right).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).zip(&right).map(|((cell, width), is_right)| {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            if *is_right { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let head: Vec<String> = R::HEAD.iter().map(|head| (*head).to_owned()).collect();
    std::iter::once(line(&head)).chain(cells.iter().map(|cells| line(cells))).collect()
}

/// A size, in the largest unit of which there is at least one.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return bytes.to_string();
    };
    let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
    format!("{}.{tenths}{unit}", bytes >> shift)
}

/// A length of time, in its two largest units.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is negative or too large is cut")]
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, minutes) => format!("{minutes}m{rest}s"),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair(&'static str, u64);

    impl Row for Pair {
        const HEAD: &'static [&'static str] = &["NAME", "SIZE"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), size(self.1)]
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let text = table(&[Pair("etcd", 1536), Pair("kubelet", 7)]);
        assert_eq!(text, "NAME      SIZE\netcd     1.5Ki\nkubelet      7\n");
        assert_eq!(table::<Pair>(&[]), "NAME  SIZE\n");
    }

    #[test]
    fn sizes_and_spans_have_units() {
        assert_eq!([size(1023), size(3 << 30), size(u64::MAX)], ["1023", "3.0Gi", "16777215.9Ti"]);
        assert_eq!([span(-3.0), span(59.9), span(3700.0), span(200_000.0)], ["0s", "59s", "1h1m", "2d7h"]);
    }
}
