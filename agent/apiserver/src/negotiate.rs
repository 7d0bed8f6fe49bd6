//! Media types of requests and answers.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::status::{Failure, Result};

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// In which form objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they are.
    Object,
    /// `as=Table`
    Table,
    /// `as=PartialObjectMetadata`
    Metadata,
    /// `as=PartialObjectMetadataList`
    MetadataList,
}

/// The version of `meta.k8s.io` that tables and metadata forms are written in. Their fields are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Meta {
    /// `v1`
    #[default]
    V1,
    /// `v1beta1`, which old clients ask for.
    V1Beta1,
}

impl Meta {
    /// Group and version.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }

    fn named(group: &str, version: &str) -> Option<Self> {
        match (group, version) {
            ("meta.k8s.io", "v1") => Some(Self::V1),
            ("meta.k8s.io", "v1beta1") => Some(Self::V1Beta1),
            _ => None,
        }
    }
}

/// What a client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// How bytes are written.
    pub encoding: Encoding,
    /// In which form.
    pub form: Form,
    /// In which version forms other than the object itself are.
    pub meta: Meta,
    /// Indented JSON.
    pub pretty: bool,
}

/// The media types of API objects, as error texts list them.
pub const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl Encoding {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch.
    #[must_use]
    pub fn watch_media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    fn from_media_type(text: &str) -> Option<Self> {
        match text {
            "application/json" => Some(Self::Json),
            "application/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// The media type of logs.
const TEXT: &str = "text/plain";

/// What the routing layer looks for in what a client accepts.
#[derive(Clone, Copy)]
enum Route {
    Nothing,
    Objects,
    /// What has no watches.
    Parts,
    Texts,
}

struct Clause<'a> {
    media: &'a str,
    quality: f32,
    transform: &'a str,
    group: &'a str,
    version: &'a str,
    pretty: Option<&'a str>,
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let mut clause = Clause { media, quality: 1.0, transform: "", group: "", version: "", pretty: None };
    for part in parts {
        match part.split_once('=') {
            Some(("q", value)) => clause.quality = value.parse().unwrap_or(1.0),
            Some(("as", value)) => clause.transform = value,
            Some(("g", value)) => clause.group = value,
            Some(("v", value)) => clause.version = value,
            Some(("pretty", value)) => clause.pretty = Some(value),
            _ => {}
        }
    }
    clause
}

/// The form of a page that is a text for people, or an object that is asked for by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structured {
    /// A text.
    Text,
    /// An object of `config.k8s.io`.
    Object {
        /// JSON or YAML.
        encoding: Encoding,
        /// Its version.
        version: &'static str,
    },
}

/// The form in which a client wants the page of this kind; none if there is no such form.
#[must_use]
pub fn structured(headers: &HeaderMap, kind: &str) -> Option<Structured> {
    let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if text.trim().is_empty() {
        return Some(Structured::Text);
    }
    let mut clauses: Vec<Clause<'_>> = text.split(',').map(clause).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses.iter().find_map(|clause| {
        let version = ["v1alpha1", "v1beta1"].into_iter().find(|version| *version == clause.version);
        let version = version.filter(|_| clause.transform == kind && clause.group == "config.k8s.io");
        let encoding = match clause.media {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        };
        let is_text = matches!(clause.media, "text/plain" | "text/*" | "*/*") && clause.transform.is_empty();
        match (version, encoding) {
            (Some(version), Some(encoding)) => Some(Structured::Object { encoding, version }),
            _ => is_text.then_some(Structured::Text),
        }
    })
}

impl Accept {
    /// The same for objects that have no protobuf form: the next clause that has another.
    ///
    /// # Errors
    /// When there is none.
    pub fn without_protobuf(self, headers: &HeaderMap) -> Result<Self> {
        if self.encoding != Encoding::Protobuf || self.form != Form::Object {
            return Ok(self);
        }
        let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let others: Vec<&str> =
            text.split(',').filter(|c| !c.contains("vnd.kubernetes.protobuf") || c.contains("as=")).collect();
        let value = others.join(",").parse().map_err(|_| Failure::not_acceptable(&MEDIA_TYPES))?;
        if others.is_empty() {
            return Err(Failure::not_acceptable(&MEDIA_TYPES));
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value);
        Self::parse(&headers, true)
    }

    /// Plain JSON.
    pub const JSON: Self = Self { encoding: Encoding::Json, form: Form::Object, meta: Meta::V1, pretty: false };

    /// What a client gets that takes none of our encodings: what a person reads, unless a pattern of it fits JSON.
    #[must_use]
    pub fn fallback(headers: &HeaderMap) -> Self {
        let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let fits = text.split(',').map(clause).any(|c| c.media == "application/*" && c.transform.is_empty());
        Self { pretty: !fits, ..Self::JSON }
    }

    /// Picks the first acceptable clause, best quality first. `forms` says whether Table and metadata forms are served
    /// here.
    pub fn parse(headers: &HeaderMap, forms: bool) -> Result<Self> {
        Self::read(headers, forms, Route::Objects)
    }

    /// The same for parts of objects, of which there are no watches.
    pub fn of_part(headers: &HeaderMap) -> Result<Self> {
        Self::read(headers, true, Route::Parts)
    }

    /// In which encoding a client that asks for a text is told what is wrong with that. A text is known to the routing
    /// layer only, and nothing below it writes one that is asked for by this name alone.
    pub fn of_text(headers: &HeaderMap) -> Result<Self> {
        Self::read(headers, false, Route::Texts)
    }

    /// The same where nothing routes requests by what they accept.
    pub fn unrouted(headers: &HeaderMap) -> Result<Self> {
        Self::read(headers, true, Route::Nothing)
    }

    fn read(headers: &HeaderMap, forms: bool, route: Route) -> Result<Self> {
        let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut clauses: Vec<Clause<'_>> = text.split(',').filter(|c| !c.trim().is_empty()).map(clause).collect();
        if clauses.is_empty() {
            return Ok(Self::JSON);
        }
        // The routing layer knows whole names only, the encoders below it patterns too.
        let named = |c: &Clause<'_>| c.media == "*/*" || Encoding::from_media_type(c.media).is_some();
        match route {
            Route::Parts if !clauses.iter().any(named) => return Err(Failure::no_such_representation()),
            Route::Objects if !clauses.iter().any(named) => return Err(Failure::no_representation()),
            Route::Texts if !clauses.iter().any(|c| named(c) || c.media == TEXT) => {
                return Err(Failure::no_such_text());
            }
            _ => {}
        }
        clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
        clauses.iter().find_map(|c| c.accept(forms)).ok_or_else(|| Failure::not_acceptable(&MEDIA_TYPES))
    }

    /// Whether aggregated discovery is wanted, and in which encoding.
    #[must_use]
    pub fn wants_aggregated_discovery(headers: &HeaderMap) -> Option<Encoding> {
        let text = headers.get(ACCEPT)?.to_str().ok()?;
        text.split(',').map(clause).find_map(|c| {
            let named = c.transform == "APIGroupDiscoveryList" && c.group == "apidiscovery.k8s.io" && c.version == "v2";
            if named { Encoding::from_media_type(c.media) } else { None }
        })
    }
}

impl Clause<'_> {
    fn accept(&self, forms: bool) -> Option<Accept> {
        let encoding = match self.media {
            "*/*" | "application/*" => Encoding::Json,
            other => Encoding::from_media_type(other)?,
        };
        let meta = Meta::named(self.group, self.version);
        let is_form = forms && meta.is_some();
        let form = match self.transform {
            "" if self.group.is_empty() && self.version.is_empty() => Form::Object,
            "Table" if is_form && encoding != Encoding::Protobuf => Form::Table,
            "PartialObjectMetadata" if is_form => Form::Metadata,
            "PartialObjectMetadataList" if is_form => Form::MetadataList,
            _ => return None,
        };
        let pretty = self.pretty.is_some_and(|p| p == "1" || p == "true");
        Some(Accept { encoding, form, meta: meta.unwrap_or_default(), pretty })
    }
}

/// Whether a client takes JSON where there is nothing else.
#[must_use]
pub fn takes_json(headers: &HeaderMap) -> bool {
    let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.trim().is_empty() || text.split(',').map(clause).any(|c| matches!(c.media, "*/*" | "application/json"))
}

/// The encoding of a request body.
pub fn body_encoding(headers: &HeaderMap) -> Result<Encoding> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Encoding::Json) };
    let text = value.to_str().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim();
    match media {
        "" => Ok(Encoding::Json),
        // Clients such as curl and wget name this when nobody told them the type.
        "application/x-www-form-urlencoded" => Ok(Encoding::Json),
        _ => Encoding::from_media_type(&media.to_ascii_lowercase()).ok_or_else(|| {
            let list = MEDIA_TYPES.join(", ");
            Failure::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: {list}"
            ))
        }),
    }
}

/// Whether answers to this client are indented: asked for, or a person at a browser or curl.
#[must_use]
pub fn is_pretty(headers: &HeaderMap, query: &crate::request::Query) -> bool {
    let wish = query.get("pretty");
    if !wish.is_empty() {
        return matches!(wish, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|a| agent.starts_with(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_texts_unless_their_type_is_named() {
        let of = |text: &'static str| {
            structured(&HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static(text))]), "Flagz")
        };
        assert_eq!((of(""), of("*/*"), of("application/json")), (Some(Structured::Text), Some(Structured::Text), None));
        let object = |encoding, version| Some(Structured::Object { encoding, version });
        assert_eq!(of("application/json;v=v1alpha1;g=config.k8s.io;as=Flagz"), object(Encoding::Json, "v1alpha1"));
        assert_eq!(of("application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz"), object(Encoding::Yaml, "v1beta1"));
        assert_eq!(of("application/json;v=v1beta1;g=config.k8s.io;as=Statusz"), None);
    }

    fn accept(text: &str) -> Result<Accept> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accept::parse(&headers, true)
    }

    #[test]
    fn the_first_known_clause_wins() {
        let text = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(text).unwrap().form, Form::Table);
        let old = accept("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json").unwrap();
        assert_eq!((old.form, old.meta), (Form::Table, Meta::V1Beta1));
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf,application/json").unwrap().encoding,
            Encoding::Protobuf
        );
        assert_eq!(accept("application/cbor, application/json;q=0.5").unwrap().encoding, Encoding::Json);
        assert_eq!(accept("text/html").unwrap_err().code().as_u16(), 406);
    }

    #[test]
    fn parts_of_objects_have_no_watches() {
        let headers = HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static("text/plain"))]);
        let told = Accept::of_part(&headers).unwrap_err().message().to_owned();
        assert!(told.starts_with("406:") && !told.contains("stream=watch"), "{told}");
    }

    #[test]
    fn a_text_is_routed_but_not_written() {
        let told = |text: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static(text))]);
            Accept::of_text(&headers).map_or_else(|failure| failure.message().to_owned(), |_| "taken".to_owned())
        };
        assert_eq!([told(""), told("*/*"), told("text/plain, application/json;q=0.1")], ["taken"; 3]);
        assert!(told("text/plain").starts_with("only the following media types are accepted: application/json"));
        assert!(told("application/json;as=Table;v=v1;g=meta.k8s.io").starts_with("only the following"));
        assert!(told("text/*").ends_with("Available representations: text/plain, application/json, application/yaml, application/vnd.kubernetes.protobuf"));
    }
}
