//! Where spans go to, and how many: upstream's `TracingConfiguration`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const GROUP: &str = "apiserver.config.k8s.io";
const KIND: &str = "TracingConfiguration";
const MILLION: i32 = 1_000_000;
const OPTIONS: &str =
    "Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md";

/// Where a collector listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Host and port.
    Host(String),
    /// A socket of this machine; with `@` in front it lies in no folder.
    Socket(String),
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::Host("localhost:4317".to_owned())
    }
}

/// What is sent where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The collector. What is sent there is not encrypted.
    pub endpoint: Endpoint,
    /// Of a million traces that nobody asked for, how many are recorded.
    pub rate_per_million: u32,
}

/// Why spans cannot be sent as a file says. What is wrong with a value is told as upstream does.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("unable to read tracing configuration from {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no such document.
    #[error("unable to decode tracing configuration data: {0}")]
    Decode(String),
    /// Values that cannot be.
    #[error("failed to validate tracing configuration: {0}")]
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i32>,
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or says what cannot be.
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let read = std::fs::read_to_string(path);
        Self::parse(&read.map_err(|source| SettingsError::Read { path: path.to_owned(), source })?)
    }

    /// Reads a document, YAML or JSON.
    ///
    /// # Errors
    /// When it says what cannot be.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let document: Document =
            serde_yaml_ng::from_str(text).map_err(|error| SettingsError::Decode(error.to_string()))?;
        let version = document.api_version.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/'));
        if document.kind != KIND || !version.is_some_and(|version| VERSIONS.contains(&version)) {
            let (kind, version) = (&document.kind, &document.api_version);
            let wanted = format!("it must be a {KIND} of {GROUP}/{}", VERSIONS.join(", /"));
            return Err(SettingsError::Decode(format!("a {kind:?} of {version:?} is not known here: {wanted}")));
        }
        let (rate, mut wrong) = (document.sampling_rate_per_million.unwrap_or(0), Vec::new());
        let mut rate_is = |why: &str| wrong.push(format!("samplingRatePerMillion: Invalid value: {rate}: {why}"));
        if rate < 0 {
            rate_is("sampling rate must be positive");
        }
        if rate > MILLION {
            rate_is("sampling rate per million must be less than or equal to one million");
        }
        let endpoint = document.endpoint.as_deref().map_or(Ok(Endpoint::default()), endpoint);
        let endpoint = endpoint.map_err(|why| wrong.push(format!("endpoint: Invalid value: {why}")));
        match (endpoint, u32::try_from(rate)) {
            (Ok(endpoint), Ok(rate_per_million)) if wrong.is_empty() => Ok(Self { endpoint, rate_per_million }),
            _ if wrong.len() == 1 => Err(SettingsError::Invalid(wrong.concat())),
            _ => Err(SettingsError::Invalid(format!("[{}]", wrong.join(", ")))),
        }
    }
}

/// Reads an endpoint as gRPC names them.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (scheme, rest) = text.split_once("//").map_or(("dns", text), |(scheme, rest)| {
        // A server to look names up at is not asked.
        let rest = rest.split_once('/').filter(|_| scheme == "dns:").map_or(rest, |(_server, name)| name);
        (scheme.strip_suffix(':').unwrap_or(scheme), rest)
    });
    let quoted = stdx::quoted(text).to_string();
    match scheme {
        "dns" => {
            let uri: Result<http::Uri, _> = format!("http://{rest}").parse();
            let is_whole = uri.is_ok_and(|uri| uri.port_u16().is_some() && uri.path() == "/" && uri.query().is_none());
            if is_whole { Ok(Endpoint::Host(rest.to_owned())) } else { Err(format!("{quoted}: expected host:port")) }
        }
        "unix" => Ok(Endpoint::Socket(rest.to_owned())),
        "unix-abstract" => Ok(Endpoint::Socket(format!("@{rest}"))),
        other => Err(format!("{quoted}: unsupported scheme: {other}.  {OPTIONS}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(rest: &str) -> Result<Settings, String> {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{rest}");
        Settings::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn documents_are_read() {
        let plain = parse("").unwrap();
        assert_eq!(plain, Settings { endpoint: Endpoint::Host("localhost:4317".into()), rate_per_million: 0 });
        for (text, wanted) in [
            ("collector:4317", Endpoint::Host("collector:4317".into())),
            ("dns:///collector:4317", Endpoint::Host("collector:4317".into())),
            ("dns://192.0.2.53/[::1]:4317", Endpoint::Host("[::1]:4317".into())),
            ("unix:///run/otel.sock", Endpoint::Socket("/run/otel.sock".into())),
            ("unix-abstract://otel", Endpoint::Socket("@otel".into())),
        ] {
            let found = parse(&format!("endpoint: {text:?}\nsamplingRatePerMillion: 100")).unwrap();
            assert_eq!((found.endpoint, found.rate_per_million), (wanted, 100), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let begins = "failed to validate tracing configuration: ";
        for (text, why) in [
            ("samplingRatePerMillion: -1", "samplingRatePerMillion: Invalid value: -1: sampling rate must be positive"),
            (
                "samplingRatePerMillion: 1000001",
                "samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to \
                 one million",
            ),
            ("endpoint: collector", "endpoint: Invalid value: \"collector\": expected host:port"),
        ] {
            assert_eq!(parse(text).unwrap_err(), format!("{begins}{why}"));
        }
        let told = parse("endpoint: http://a:1").unwrap_err();
        assert!(told.contains("\"http://a:1\": unsupported scheme: http.  Options are none, dns,"), "{told}");
        assert!(parse("endpont: a:1").unwrap_err().contains("unknown field"));
        assert!(Settings::parse("kind: TracingConfiguration\napiVersion: v1").is_err());
        assert!(matches!(Settings::from_file(Path::new("/nowhere")), Err(SettingsError::Read { .. })));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in ".{0,60}") {
            let _any = endpoint(&text);
            let _any = Settings::parse(&text);
        }
    }
}
