//! Rules that choose the table of routes for a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use serde::{Deserialize, Serialize};

use crate::error::tolerate;
use crate::{Error, Netlink, Result};

/// A rule. A packet that it fits looks its way up in the rule's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it is for packets of IPv4, else of IPv6.
    pub is_ipv4: bool,
    /// Lower comes first.
    pub priority: u32,
    /// Senders that it fits.
    pub from: Option<IpNet>,
    /// Receivers that it fits.
    pub to: Option<IpNet>,
    /// The mark of packets that it fits.
    pub mark: Option<u32>,
    /// The name of the link by which packets come in that it fits.
    pub incoming: Option<String>,
    /// The table.
    pub table: u32,
}

impl Rule {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Priority(self.priority));
        // The header has room for small numbers only; the kernel prefers the attribute.
        message.header.table = u8::try_from(self.table).unwrap_or_default();
        message.attributes.push(RuleAttribute::Table(self.table));
        if let Some(from) = self.from {
            message.header.src_len = from.prefix_len();
            message.attributes.push(RuleAttribute::Source(from.network()));
        }
        if let Some(to) = self.to {
            message.header.dst_len = to.prefix_len();
            message.attributes.push(RuleAttribute::Destination(to.network()));
        }
        message.attributes.extend(self.mark.map(RuleAttribute::FwMark));
        message.attributes.extend(self.incoming.clone().map(RuleAttribute::Iifname));
        message
    }

    fn subject(&self) -> String {
        format!("{} to table {}", self.priority, self.table)
    }
}

impl Netlink {
    /// All rules that choose a table.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let found = self.handle.rule().get(version).execute();
            let messages: Vec<RuleMessage> = found.try_collect().await.map_err(|e| Error::new("list", "rules", e))?;
            rules.extend(messages.iter().filter_map(from_message));
        }
        Ok(rules)
    }

    /// Adds a rule, unless it is there.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        let done = request.execute().await.map_err(|e| Error::new("add rule", rule.subject(), e));
        tolerate(done, Error::is_exists)
    }

    /// Removes a rule.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<()> {
        let done = self.handle.rule().del(rule.message()).execute().await;
        tolerate(done.map_err(|e| Error::new("delete rule", rule.subject(), e)), Error::is_missing)
    }
}

fn from_message(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let is_ipv4 = match header.family {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    if header.action != RuleAction::ToTable {
        return None;
    }
    let any: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let range = |length: u8| (length > 0).then(|| IpNet::new(any, length).ok()).flatten();
    let mut rule = Rule {
        is_ipv4,
        priority: 0,
        from: range(header.src_len),
        to: range(header.dst_len),
        mark: None,
        incoming: None,
        table: u32::from(header.table),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(address) => rule.from = IpNet::new(*address, header.src_len).ok(),
            RuleAttribute::Destination(address) => rule.to = IpNet::new(*address, header.dst_len).ok(),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            RuleAttribute::Iifname(name) => rule.incoming = Some(name.clone()),
            _ => {}
        }
    }
    Some(rule)
}
