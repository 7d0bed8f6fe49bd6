//! The address of the API that the masters have in turn.

use crate::VirtualAddressStatus;
use crate::table::span;

impl VirtualAddressStatus {
    /// For people, some seconds after boot.
    #[must_use]
    pub fn describe(&self, now_seconds: f64) -> String {
        let place = if self.interface.is_empty() { String::new() } else { format!(" on {}", self.interface) };
        let holder = match &self.holder {
            Some(_) if self.is_here => format!("is here{place}"),
            Some(holder) => format!("is at {holder}"),
            None => "is nowhere".to_owned(),
        };
        let why_not =
            if self.why_not.is_empty() { String::new() } else { format!("; not this machine: {}", self.why_not) };
        format!("virtual address {} {holder}, for {}{why_not}", self.address, span(now_seconds - self.since_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_who_has_it_and_why_not_this_machine() {
        let here = VirtualAddressStatus {
            address: "10.0.0.5".to_owned(),
            interface: "eth0".to_owned(),
            is_here: true,
            holder: Some("10.0.0.2".to_owned()),
            since_seconds: 10.0,
            ..VirtualAddressStatus::default()
        };
        assert_eq!(here.describe(22.0), "virtual address 10.0.0.5 is here on eth0, for 12s");
        let there = VirtualAddressStatus { is_here: false, why_not: "it starts".to_owned(), ..here };
        assert_eq!(
            there.describe(22.0),
            "virtual address 10.0.0.5 is at 10.0.0.2, for 12s; not this machine: it starts"
        );
        let nowhere = VirtualAddressStatus { holder: None, why_not: String::new(), ..there };
        assert_eq!(nowhere.describe(22.0), "virtual address 10.0.0.5 is nowhere, for 12s");
    }
}
