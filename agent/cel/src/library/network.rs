//! Addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("ip", "(string) -> ip", ip),
    ("ip", "cidr.() -> ip", address),
    ("isIP", "(string) -> bool", is_ip),
    ("ip.isCanonical", "(string) -> bool", is_canonical),
    ("family", "ip.() -> int", family),
    ("isUnspecified", "ip.() -> bool", is_unspecified),
    ("isLoopback", "ip.() -> bool", is_loopback),
    ("isLinkLocalMulticast", "ip.() -> bool", is_link_local_multicast),
    ("isLinkLocalUnicast", "ip.() -> bool", is_link_local_unicast),
    ("isGlobalUnicast", "ip.() -> bool", is_global_unicast),
    ("string", "(ip) -> string", to_string),
    ("cidr", "(string) -> cidr", cidr),
    ("isCIDR", "(string) -> bool", is_cidr),
    ("containsIP", "cidr.(string) -> bool", contains_ip),
    ("containsIP", "cidr.(ip) -> bool", contains_ip),
    ("containsCIDR", "cidr.(string) -> bool", contains_cidr),
    ("containsCIDR", "cidr.(cidr) -> bool", contains_cidr),
    ("prefixLength", "cidr.() -> int", prefix_length),
    ("masked", "cidr.() -> cidr", masked),
    ("string", "(cidr) -> string", to_string),
];

fn text<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v str> {
    args.get(at).and_then(Value::as_str).ok_or_else(EvalError::no_overload)
}

fn read_ip(text: &str) -> Result<IpAddr> {
    let unreadable = |why: &str| {
        let text = format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {why}");
        EvalError::new(text)
    };
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Err(EvalError::new(format!("IP address {text:?} with zone value is not allowed")));
    }
    let ip: IpAddr = text.parse().map_err(|_| unreadable("unable to parse IP"))?;
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(ip)
}

fn read_cidr(text: &str) -> Result<IpNet> {
    let step = "network address parse error during conversion from string";
    let length = text.rsplit_once('/').map(|(_, length)| length);
    let leading_zero = length.is_some_and(|l| l.len() > 1 && l.starts_with(['0', '+']));
    let net = text.parse::<IpNet>().ok().filter(|_| !leading_zero);
    let why = if length.is_none() { "no '/'" } else { "ParseAddr: unable to parse IP" };
    let net = net.ok_or_else(|| EvalError::new(format!("{step}: {step}: netip.ParsePrefix({text:?}): {why}")))?;
    if matches!(net.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(EvalError::new(format!("{step}: IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(net)
}

fn ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    read_ip(text(args, 0)?).map(Value::Ip)
}

fn is_ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(read_ip(text(args, 0)?).is_ok()))
}

fn is_canonical<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = text(args, 0)?;
    Ok(Value::Bool(read_ip(text)?.to_string() == text))
}

fn the_ip(args: &[Value<'_>]) -> Result<IpAddr> {
    match args.first() {
        Some(Value::Ip(ip)) => Ok(*ip),
        _ => Err(EvalError::no_overload()),
    }
}

fn the_cidr(args: &[Value<'_>]) -> Result<IpNet> {
    match args.first() {
        Some(Value::Cidr(net)) => Ok(*net),
        _ => Err(EvalError::no_overload()),
    }
}

fn family<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(if the_ip(args)?.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(the_ip(args)?.is_unspecified()))
}

fn is_loopback<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(the_ip(args)?.is_loopback()))
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(link_local_multicast(the_ip(args)?)))
}

fn is_link_local_unicast<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(link_local_unicast(the_ip(args)?)))
}

fn is_global_unicast<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let ip = the_ip(args)?;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast(ip);
    Ok(Value::Bool(!broadcast && !other))
}

fn to_string<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Ip(ip) => Ok(Value::from(ip.to_string())),
        Value::Cidr(net) => Ok(Value::from(net.to_string())),
        _ => Err(EvalError::no_overload()),
    }
}

fn cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    read_cidr(text(args, 0)?).map(Value::Cidr)
}

fn is_cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(read_cidr(text(args, 0)?).is_ok()))
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let net = the_cidr(args)?;
    let ip = match &args[1] {
        Value::Ip(ip) => *ip,
        other => read_ip(other.as_str().ok_or_else(EvalError::no_overload)?)?,
    };
    Ok(Value::Bool(net.contains(&ip)))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let net = the_cidr(args)?;
    let other = match &args[1] {
        Value::Cidr(net) => *net,
        other => read_cidr(other.as_str().ok_or_else(EvalError::no_overload)?)?,
    };
    Ok(Value::Bool(net.contains(&other.network()) && net.prefix_len() <= other.prefix_len()))
}

fn prefix_length<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(the_cidr(args)?.prefix_len().into()))
}

fn address<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Ip(the_cidr(args)?.addr()))
}

fn masked<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Cidr(the_cidr(args)?.trunc()))
}
