//! Which span something belongs to, as servers tell one another: the W3C's `traceparent` and `tracestate`.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::span::CURRENT;

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest `tracestate` that is passed on; what is longer need not be.
const MAX_STATE_BYTES: usize = 512;
const SAMPLED: u8 = 1;

/// A span somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    /// Whether the trace is recorded.
    pub(crate) is_sampled: bool,
    /// What others say of it, passed on.
    pub(crate) state: String,
}

impl Context {
    /// The span that a request says it belongs to; none if it says nothing that can be read.
    #[must_use]
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(PARENT).iter();
        let (Some(parent), None) = (all.next(), all.next()) else { return None };
        let mut context = Self::parse(parent.to_str().ok()?)?;
        let states: Option<Vec<&str>> = headers.get_all(STATE).iter().map(|value| value.to_str().ok()).collect();
        context.state =
            states.map(|states| states.join(",")).filter(|s| s.len() <= MAX_STATE_BYTES).unwrap_or_default();
        Some(context)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version = bytes::<1>(parts.next()?)?[0];
        let (trace, span) = (bytes::<16>(parts.next()?)?, bytes::<8>(parts.next()?)?);
        let flags = bytes::<1>(parts.next()?)?[0];
        // Later versions may say more.
        let is_whole = version == 0 && parts.next().is_none() || (1..=254).contains(&version);
        let is_real = trace != [0; 16] && span != [0; 8];
        (is_whole && is_real).then(|| Self { trace, span, is_sampled: flags & SAMPLED != 0, state: String::new() })
    }

    fn text(&self) -> String {
        format!("00-{}-{}-{:02x}", stdx::hex(&self.trace), stdx::hex(&self.span), u8::from(self.is_sampled))
    }

    /// Tells another server.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        let state = Some(self.state.as_str()).filter(|state| !state.is_empty());
        for (name, text) in [(PARENT, Some(&*self.text())), (STATE, state)] {
            headers.remove(&name);
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
                headers.insert(name, value);
            }
        }
    }

    /// As OTLP has it.
    pub(crate) fn flags(&self) -> u32 {
        u32::from(self.is_sampled)
    }
}

/// Tells a server that is about to be asked which span asks.
pub fn inject(headers: &mut HeaderMap) {
    let _outside = CURRENT.try_with(|current| current.context.put(headers));
}

/// Lower case digits only, as the rules have it.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * N || !is_hex {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_told_is_read() {
        let headers = HeaderMap::from_iter([
            (PARENT, HeaderValue::from_static(TEXT)),
            (STATE, HeaderValue::from_static("a=1,b=2")),
        ]);
        let context = Context::extract(&headers).unwrap();
        assert!(context.is_sampled && context.trace[0] == 0x4b && context.span[7] == 0xb7);
        let mut told = HeaderMap::new();
        context.put(&mut told);
        assert_eq!(told, headers);
    }

    #[test]
    fn what_breaks_the_rules_is_nothing() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(text), None, "{text}");
        }
        assert!(Context::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some());
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in ".{0,80}") {
            let _any = Context::parse(&text);
        }

        #[test]
        fn contexts_come_back(trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), is_sampled: bool) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let context = Context { trace, span, is_sampled, state: String::new() };
            prop_assert_eq!(Context::parse(&context.text()), Some(context));
        }
    }
}
