//! What browsers are told: which pages of other origins may ask this server (CORS), and that it is to be asked over TLS
//! only (HSTS).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

/// What a page of an allowed origin may do.
const ALLOWED: [(HeaderName, &str); 4] = [
    (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
    ),
    (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
];

/// Nothing, unless somebody says so.
#[derive(Clone, Debug, Default)]
pub struct Browsers {
    origins: Vec<Regex>,
    transport_security: Option<HeaderValue>,
}

/// Why browsers cannot be told that.
#[derive(Debug, thiserror::Error)]
pub enum BrowsersError {
    /// No pattern at all.
    #[error("empty value in --cors-allowed-origins")]
    EmptyOrigin,
    /// A pattern that cannot be read.
    #[error("--cors-allowed-origins has an invalid regular expression: {0}")]
    Pattern(#[source] Box<regex::Error>),
    /// A pattern that a stranger's host may hold, too.
    #[error(
        "--cors-allowed-origins has an invalid regular expression: regular expression does not pin to start/end of host \
         in the origin header: {0:?} must contain '^' or '//', and '$' or ':'"
    )]
    Unpinned(String),
    /// No directive at all.
    #[error("empty value in strict-transport-security-directives")]
    EmptyDirective,
    /// One that does not exist.
    #[error(
        "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. \
         see https://tools.ietf.org/html/rfc6797#section-6.1 for more information"
    )]
    UnknownDirective,
}

impl Browsers {
    /// Patterns of origins whose pages may ask, and directives about TLS.
    ///
    /// # Errors
    /// When one of them says nothing, or too much.
    pub fn try_new(origins: &[String], directives: &[String]) -> Result<Self, BrowsersError> {
        let origins = origins.iter().map(|text| pattern(text)).collect::<Result<_, _>>()?;
        directives.iter().try_for_each(|text| check(text))?;
        let joined = directives.join("; ");
        let transport_security = Some(joined).filter(|joined| !joined.is_empty());
        let value = |text: String| HeaderValue::from_str(&text).map_err(|_| BrowsersError::UnknownDirective);
        Ok(Self { origins, transport_security: transport_security.map(value).transpose()? })
    }

    /// The origin of a request, if its pages may ask.
    #[must_use]
    pub fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok().filter(|text| !text.is_empty())?;
        self.origins.iter().any(|pattern| pattern.is_match(text)).then(|| origin.clone())
    }

    /// Tells what goes with every answer, and with those for an allowed origin.
    pub fn tell(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        if let Some(directives) = &self.transport_security {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| directives.clone());
        }
        let Some(origin) = origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.extend(ALLOWED.map(|(name, value)| (name, HeaderValue::from_static(value))));
    }
}

/// A pattern has to say where the host begins and ends: `example.com` would be found in `example.com.evil.org`.
fn pattern(text: &str) -> Result<Regex, BrowsersError> {
    if text.is_empty() {
        return Err(BrowsersError::EmptyOrigin);
    }
    let pattern = Regex::new(text).map_err(|error| BrowsersError::Pattern(Box::new(error)))?;
    let has = |marks: [&str; 2]| marks.into_iter().any(|mark| text.contains(mark));
    if has(["^", "//"]) && has(["$", ":"]) { Ok(pattern) } else { Err(BrowsersError::Unpinned(text.to_owned())) }
}

fn check(directive: &str) -> Result<(), BrowsersError> {
    match directive {
        "includeSubDomains" | "preload" => Ok(()),
        _ if directive.trim().is_empty() => Err(BrowsersError::EmptyDirective),
        _ if directive.split('=').count() == 2 && directive.starts_with("max-age=") => Ok(()),
        _ => Err(BrowsersError::UnknownDirective),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browsers(origins: &[&str], directives: &[&str]) -> Result<Browsers, BrowsersError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Browsers::try_new(&owned(origins), &owned(directives))
    }

    #[test]
    fn origins_are_patterns_with_both_ends() {
        let origin = |text: &'static str| HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(text))]);
        let found = browsers(&[r"//example\.com(:|$)", r"^https://b\.org$"], &[]).unwrap();
        assert!(found.allowed(&origin("https://example.com:8443")).is_some());
        assert!(found.allowed(&origin("https://example.com.evil.org")).is_none());
        assert!(found.allowed(&HeaderMap::new()).is_none());
        assert!(matches!(browsers(&["example.com"], &[]), Err(BrowsersError::Unpinned(_))));
        assert!(matches!(browsers(&["^(:$"], &[]), Err(BrowsersError::Pattern(_))));
        assert!(matches!(browsers(&[""], &[]), Err(BrowsersError::EmptyOrigin)));
    }

    #[test]
    fn directives_are_told_in_one_header() {
        let mut headers = HeaderMap::new();
        browsers(&[], &["max-age=31536000", "includeSubDomains"]).unwrap().tell(&mut headers, None);
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=31536000; includeSubDomains");
        assert!(matches!(browsers(&[], &["max-age"]), Err(BrowsersError::UnknownDirective)));
        assert!(matches!(browsers(&[], &[" "]), Err(BrowsersError::EmptyDirective)));
    }
}
