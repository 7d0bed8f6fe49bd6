//! Rules of `[network.firewall]`: nobody locks himself out without saying so.

use super::Rules;
use super::links::place as interface_place;
use crate::model::{Callers, Firewall, FirewallRule, HostService, host_services};
use crate::words::{FirewallAction, Role};

const AT: &str = "network.firewall";

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else { return };
    let Some(firewall) = &network.firewall else { return };
    if firewall.operators.is_some() && firewall.machines.is_empty() {
        rules
            .error(&format!("{AT}.operators"), "the cluster's own machines are no operators, and would be cut off")
            .expected("`machines` with the ranges where the cluster's machines are");
    }
    if rules.has(&format!("{AT}.rules[{}]", firewall.rules.len())) {
        return;
    }
    for (index, rule) in firewall.rules.iter().enumerate() {
        one(rules, &place(index), rule);
    }
    let role = rules.parts.machine.as_ref().map_or(Role::Worker, |machine| machine.role);
    for service in host_services(role) {
        reachable(rules, firewall, service);
    }
}

fn place(index: usize) -> String {
    format!("{AT}.rules[{index}]")
}

fn one(rules: &mut Rules<'_>, at: &str, rule: &FirewallRule) {
    if let Some(protocol) = rule.protocol.filter(|protocol| !protocol.has_ports())
        && !rule.ports.is_empty()
    {
        let reason = format!("`{protocol}` has no ports");
        rules.error(&format!("{at}.ports"), reason).expected("`tcp` or `udp` as `protocol` with this key");
    }
    let fits_all = rule.protocol.is_none() && rule.ports.is_empty() && rule.from.is_empty() && rule.interface.is_none();
    if fits_all {
        rules
            .error(at, "the rule fits every packet")
            .expected("one of `protocol`, `ports`, `from` and `interface` at least");
    }
    let interfaces = rules.parts.network.as_ref().map(|network| &network.interfaces);
    if let (Some(wanted), Some(interfaces)) = (&rule.interface, interfaces) {
        // Those that are found by MAC address may have any name.
        let is_known = interfaces.is_empty()
            || interfaces.iter().enumerate().any(|(index, interface)| {
                interface.id.to_string() == wanted.as_str() || rules.has(&format!("{}.mac", interface_place(index)))
            });
        if !is_known {
            let reason = format!("no table of `network.interfaces` is about `{wanted}`");
            rules.warning(&format!("{at}.interface"), reason);
        }
    }
}

/// Whether somebody is left who reaches a service that others need.
fn reachable(rules: &mut Rules<'_>, firewall: &Firewall, service: &HostService) {
    let decides = firewall.rules.iter().position(|rule| match rule.action {
        FirewallAction::Accept => rule.concerns(service.ports),
        FirewallAction::Block => rule.covers(service.ports),
    });
    let Some(index) = decides.filter(|index| firewall.rules[*index].action == FirewallAction::Block) else { return };
    let reason = format!("nobody reaches the {} on port {} any more", service.name, service.ports);
    let is_told = firewall.operators.as_ref().is_some_and(Vec::is_empty);
    if service.callers == Callers::Operators && !is_told {
        let finding = rules.error(&place(index), format!("{reason}: the machine cannot be looked after"));
        finding.expected("a rule before it that accepts the port, or `operators = []` if this is meant");
    } else {
        rules.warning(&place(index), reason);
    }
}
