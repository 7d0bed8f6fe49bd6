//! Reads `[outbound]`. That what belongs together is given together is a rule.

use crate::model::{Login, Outbound, OutboundProxy, OutboundServer};
use crate::reader::Section;

pub(super) fn outbound(section: &Section<'_>) -> Option<Outbound> {
    let servers = section.map_sections("servers").into_iter().map(|(host, inner)| (host, server(&inner))).collect();
    let proxy = section.section("proxy");
    let is_given = proxy.is_given();
    let proxy = self::proxy(&proxy);
    (!is_given || proxy.is_some()).then_some(Outbound { servers, proxy })
}

fn server(section: &Section<'_>) -> OutboundServer {
    let user = section.one("username").zip(section.secret("password"));
    let token = section.secret("bearer-token").map(Login::Token);
    let login = user.map(|(name, secret)| Login::User(name, secret)).or(token);
    OutboundServer { login, ca: section.one("ca") }
}

fn proxy(section: &Section<'_>) -> Option<OutboundProxy> {
    let url = section.one("url");
    let user = section.one("username").zip(section.secret("password"));
    let except = section.list("except");
    Some(OutboundProxy { url: url?, user, except })
}
