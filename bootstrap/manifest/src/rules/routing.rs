//! Rules of `[[network.rules]]` and of the tables that they choose.

use std::collections::BTreeMap;

use super::Rules;

/// The kernel's own: its default, main and local tables.
const KERNELS: std::ops::RangeInclusive<u32> = 253..=255;
/// The one that a rule may choose of them.
const MAIN: u32 = 254;

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else { return };
    for (index, interface) in network.interfaces.iter().enumerate() {
        for (nth, route) in interface.routes.iter().enumerate() {
            if let Some(table) = route.table.filter(|table| KERNELS.contains(table)) {
                let key = format!("network.interfaces[{index}].routes[{nth}].table");
                rules
                    .error(&key, format!("table {table} is the kernel's own"))
                    .expected("another number, or none for the main table");
            }
        }
    }
    if rules.has(&format!("network.rules[{}]", network.rules.len())) {
        return;
    }
    let routes = || network.interfaces.iter().flat_map(|interface| &interface.routes);
    let mut priorities = BTreeMap::new();
    for (index, rule) in network.rules.iter().enumerate() {
        let at = format!("network.rules[{index}]");
        if let Some(earlier) = priorities.insert(rule.priority, index) {
            let reason = format!("`network.rules[{earlier}]` has the priority {}, too", rule.priority);
            rules.error(&format!("{at}.priority"), reason).expected("one rule per priority");
        }
        if rule.from.is_none() && rule.to.is_none() && rule.mark.is_none() && rule.incoming.is_none() {
            rules
                .error(&at, "the rule fits every packet")
                .expected("one of `from`, `to`, `mark` and `incoming` at least");
        }
        if let (Some(from), Some(to)) = (rule.from, rule.to)
            && from.is_ipv4() != to.is_ipv4()
        {
            rules
                .error(&format!("{at}.to"), format!("no packet from `{from}` goes to `{to}`"))
                .expected("a range of the same address family");
        }
        if KERNELS.contains(&rule.table) && rule.table != MAIN {
            let reason = format!("table {} is the kernel's own", rule.table);
            rules.error(&format!("{at}.table"), reason).expected("another number; 254 is the main table");
        } else if rule.table != MAIN && !routes().any(|route| route.table == Some(rule.table)) {
            rules.warning(&format!("{at}.table"), format!("no route is in table {}", rule.table));
        }
    }
}
