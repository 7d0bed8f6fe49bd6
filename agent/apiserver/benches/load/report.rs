//! The figures of both servers beside one another.

use crate::figures::{Cost, Found, Goal, Whose};

/// Prints all that was found. Returns whether no goal is missed.
pub(crate) fn print(found: &[(Whose, Found)]) -> bool {
    println!("{:58}{:^30}{:^30}", "", "upstream", "ours");
    let columns = format!("{:>9}{:>9}{:>12}", "wall s", "CPU s", "value");
    println!("{:58}{columns}{columns}{:>10}{:>10}", "", "ratio", "goal");
    let mut missed = 0;
    for (_, ours) in found.iter().filter(|(whose, _)| *whose == Whose::Ours) {
        let is_same = |other: &Found| other.figure == ours.figure && other.pods == ours.pods;
        let upstream = found.iter().find(|(whose, other)| *whose == Whose::Upstream && is_same(other));
        let upstream = upstream.map(|(_, found)| found);
        let (_, goal) = ours.figure.row();
        let ratio = upstream.map(|upstream| ours.value / upstream.value);
        let told = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} x"));
        let columns = upstream.map_or_else(|| format!("{:30}", ""), columns_of) + &columns_of(ours);
        let (told, wanted, is_met) = match goal {
            // How often a size is in another says nothing here.
            Goal::AtMost(most) => (String::new(), format!("≤ {most}"), Some(ours.value <= most)),
            Goal::TimesUpstream(least) => (told, format!("≥ {least} x"), ratio.map(|ratio| ratio >= least)),
        };
        missed += usize::from(is_met == Some(false));
        let verdict = is_met.map_or("", |is_met| if is_met { "met" } else { "MISSED" });
        println!("{:58}{columns}{told:>10}{wanted:>10}  {verdict}", ours.name());
    }
    println!("{missed} goals missed");
    missed == 0
}

fn columns_of(found: &Found) -> String {
    let cost = found
        .cost
        .map_or_else(|| format!("{:18}", ""), |Cost { wall, cpu, .. }| format!("{:9.2}{cpu:9.2}", wall.as_secs_f64()));
    format!("{cost}{:12.1}", found.value)
}
