//! IP addresses and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Errors, Path};
use crate::status::FieldError;

/// An address as fields take it that are older than the strict rules: leading zeros and IPv4 within IPv6 are told, other
/// spellings than the canonical one are not. What was there before (`old`) stays allowed.
pub fn legacy_ip(path: &Path<'_>, text: &str, old: &[String], errors: &mut Errors) {
    if old.iter().any(|o| o == text) {
        return;
    }
    strict_ip(path, text, errors);
}

/// An address in its canonical spelling.
pub fn canonical_ip(path: &Path<'_>, text: &str, errors: &mut Errors) {
    let told = errors.len();
    let Some(ip) = strict_ip(path, text, errors) else { return };
    if errors.len() == told && ip.to_string() != text {
        let why = format!("must be in canonical form (\"{ip}\")");
        errors.push(FieldError::invalid(path, text, why));
    }
}

fn strict_ip(path: &Path<'_>, text: &str, errors: &mut Errors) -> Option<IpAddr> {
    let Some(ip) = parse_sloppy(text) else {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, text, why));
        return None;
    };
    if text.parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(path, text, "must not have leading 0s"));
    } else if is_mapped(text) {
        errors.push(FieldError::invalid(path, text, "must not be an IPv4-mapped IPv6 address"));
    }
    Some(ip)
}

/// What is wrong with the spelling of an address that is taken all the same.
#[must_use]
pub fn ip_warning(path: &Path<'_>, text: &str) -> Option<String> {
    let ip = parse_sloppy(text)?;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(own)) if own.to_ipv4_mapped().is_none() => {
            let other = own.to_string() != text;
            let told = format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{own}\")");
            other.then_some(told)
        }
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!("{path}: non-standard IP address {text:?} is invalid: use \"{ip}\"")),
    }
}

/// What is wrong with the spelling of a range that is taken all the same.
#[must_use]
pub fn cidr_warnings(path: &Path<'_>, text: &str) -> Vec<String> {
    let Some((ip, length)) = parse_cidr_sloppy(text) else { return Vec::new() };
    let network = masked(ip, length);
    let mut out = Vec::new();
    if network != ip {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        out.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be \"{network}/{length}\" or \"{ip}/{bits}\"?)"
        ));
    }
    let (address, digits) = text.split_once('/').unwrap_or((text, ""));
    let odd = address.parse::<IpAddr>().is_err() || is_mapped(address) || digits.len() > 1 && digits.starts_with('0');
    if odd {
        out.push(format!("{path}: non-standard CIDR value {text:?} is invalid: use \"{network}/{length}\""));
    } else if out.is_empty() && ip.is_ipv6() && format!("{ip}/{length}") != text {
        out.push(format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{ip}/{length}\")"
        ));
    }
    out
}

/// A range as fields take it that are older than the strict rules.
pub fn legacy_cidr(path: &Path<'_>, text: &str, old: &[String], errors: &mut Errors) {
    if old.iter().any(|o| o == text) {
        return;
    }
    strict_cidr(path, text, errors);
}

/// A range in its canonical spelling.
pub fn canonical_cidr(path: &Path<'_>, text: &str, errors: &mut Errors) {
    let told = errors.len();
    let Some((ip, length)) = strict_cidr(path, text, errors) else { return };
    let canonical = format!("{}/{length}", masked(ip, length));
    if errors.len() == told && canonical != text {
        errors.push(FieldError::invalid(path, text, format!("must be in canonical form (\"{canonical}\")")));
    }
}

fn strict_cidr(path: &Path<'_>, text: &str, errors: &mut Errors) -> Option<(IpAddr, u8)> {
    let Some((ip, length)) = parse_cidr_sloppy(text) else {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, text, why));
        return None;
    };
    let (address, digits) = text.split_once('/').unwrap_or((text, ""));
    let why = if address.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) {
        Some("must not have leading 0s in IP or prefix length")
    } else if is_mapped(address) {
        Some("must not have an IPv4-mapped IPv6 address")
    } else {
        (masked(ip, length) != ip).then_some("must not have bits set beyond the prefix length")
    };
    errors.extend(why.map(|why| FieldError::invalid(path, text, why)));
    Some((ip, length))
}

/// An address; numbers of IPv4 may have leading zeros, which say nothing, and IPv4 within IPv6 is IPv4.
#[must_use]
pub fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|ip| ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// A range: an address and how many of its bits are given.
#[must_use]
pub fn parse_cidr_sloppy(text: &str) -> Option<(IpAddr, u8)> {
    let (address, digits) = text.split_once('/')?;
    let ip = parse_sloppy(address)?;
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let trimmed = digits.trim_start_matches('0');
    let length: u8 = if trimmed.is_empty() { 0 } else { trimmed.parse().ok()? };
    let bits = if address.contains(':') { 128 } else { 32 };
    let length = (length <= bits).then_some(length)?;
    // Of IPv4 within IPv6 the bits of IPv4 count.
    if ip.is_ipv4() && bits == 128 { Some((ip, length.saturating_sub(96))) } else { Some((ip, length)) }
}

/// The address without what lies beyond the prefix.
#[must_use]
pub fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(length.into())).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(length.into())).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

fn is_mapped(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|ip| ip.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_strict() {
        type Check = fn(&Path<'_>, &str, &mut Errors);
        let (ip, cidr): (Check, Check) = (|p, t, e| legacy_ip(p, t, &[], e), |p, t, e| legacy_cidr(p, t, &[], e));
        let cases: [(Check, &str, &str); 11] = [
            (ip, "10.0.0.1", ""),
            (ip, "2001:DB8::1", ""),
            (ip, "10.0.0.01", "leading 0s"),
            (ip, "::ffff:10.0.0.1", "IPv4-mapped"),
            (ip, "10.0.0.256", "valid IP address"),
            (canonical_ip, "2001:DB8::1", "canonical form (\"2001:db8::1\")"),
            (cidr, "10.0.0.0/8", ""),
            (cidr, "10.0.0.1/8", "bits set beyond"),
            (cidr, "10.0.0.0/08", "leading 0s in IP or prefix"),
            (cidr, "10.0.0.0/33", "valid CIDR"),
            (canonical_cidr, "2001:DB8::/32", "canonical form (\"2001:db8::/32\")"),
        ];
        for (check, text, told) in cases {
            let mut errors = Errors::new();
            check(&Path::root("f"), text, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert!(texts.len() == usize::from(!told.is_empty()), "{text}: {texts:?}");
            assert!(texts.iter().all(|t| t.contains(told)), "{text}: {texts:?}");
        }
    }
}
