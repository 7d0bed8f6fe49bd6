//! Updates in registries: an OCI artifact with one layer, which is the update file.

use std::fmt;
use std::str::FromStr;

use http::Method;
use http::header::ACCEPT;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use stdx::hex;
use url::Url;

use crate::access::{Ask, Way, document};
use crate::download::Source;
use crate::error::Error;
use crate::outbound::{Outbound, Peer};
use crate::sign::encode;
use crate::{is_private, shown};

/// The media type of the layer that is an update file.
pub const UPDATE_TYPE: &str = "application/vnd.keelson.update.v1";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Registries take no larger manifests, either.
const MANIFEST_BYTES: usize = 4 << 20;
const SCHEME: &str = "oci://";
const NAME_CHARS: usize = 255;
const TAG_CHARS: usize = 128;
const DIGEST_CHARS: usize = 64;

/// What a registry has there: `oci://REGISTRY/REPOSITORY:TAG`, `oci://REGISTRY/REPOSITORY@sha256:DIGEST`, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, perhaps with a port.
    pub registry: String,
    /// Name in the registry.
    pub repository: String,
    tag: Option<String>,
    /// SHA-256 of the manifest, in hexadecimal digits.
    digest: Option<String>,
}

impl Reference {
    /// Whether it can mean one content only.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.digest.is_some()
    }

    /// What it is asked for by.
    fn name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@sha256:{digest}"))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error::Address { text: text.to_owned(), reason: reason.to_owned() })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let rest = text.strip_prefix(SCHEME).unwrap_or(text);
    let (registry, rest) = rest.split_once('/').ok_or("it names no registry: oci://REGISTRY/REPOSITORY:TAG")?;
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.strip_prefix("sha256:").ok_or("its digest is no sha256:…")?)),
        None => (rest, None),
    };
    let (repository, tag) = match rest.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (rest, None),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let begins_well = registry.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[');
    let has_host = begins_well && registry.bytes().all(is_host);
    if !has_host || format!("https://{registry}/").parse::<Url>().is_err() {
        return Err("its registry is no host");
    }
    if repository.len() > NAME_CHARS || !repository.split('/').all(is_part) {
        return Err("the name of its repository has other characters than a-z, 0-9 and . _ - between them");
    }
    let is_tag = |tag: &str| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        tag.len() <= TAG_CHARS
            && tag.bytes().next().is_some_and(is_word)
            && tag.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("its tag is none");
    }
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digest.is_some_and(|digest| digest.len() != DIGEST_CHARS || !digest.bytes().all(is_digit)) {
        return Err("its digest has not 64 hexadecimal digits");
    }
    if tag.is_none() && digest.is_none() {
        return Err("it has neither a tag nor a digest");
    }
    let own = |text: &str| text.to_owned();
    Ok(Reference { registry: own(registry), repository: own(repository), tag: tag.map(own), digest: digest.map(own) })
}

/// A part of a repository's name: words between which single signs stand.
fn is_part(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(is_word);
    let bytes = part.as_bytes();
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|byte| is_word(byte) || b"._-".contains(byte))
}

/// Where a registry, or a mirror of it, is served.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address, without `/v2`.
    pub url: Url,
    /// Who is there.
    pub peer: Peer,
    /// Whether it is another registry's mirror, and has to be told whose.
    pub is_mirror: bool,
}

impl Place {
    /// The registry itself.
    ///
    /// # Errors
    /// When its name is none of a host.
    pub fn of(reference: &Reference, outbound: &Outbound) -> Result<Self, Error> {
        let host = cri::host_of(&reference.registry);
        let url: Result<Url, _> = format!("https://{host}").parse();
        let bad = |error: url::ParseError| Error::Address { text: reference.to_string(), reason: error.to_string() };
        let url = url.map_err(bad)?;
        Ok(Self { peer: outbound.registry(&url, None), url, is_mirror: false })
    }

    fn url(&self, reference: &Reference, kind: &str, name: &str) -> Result<Url, Error> {
        let base = self.url.as_str().trim_end_matches('/');
        let whose = if self.is_mirror { format!("?ns={}", encode(&reference.registry)) } else { String::new() };
        let text = format!("{base}/v2/{}/{kind}/{name}{whose}", reference.repository);
        text.parse().map_err(|error: url::ParseError| Error::Address { text, reason: error.to_string() })
    }
}

/// An update in a registry.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The same by its digest.
    pub reference: Reference,
    /// The file.
    pub source: Source,
    /// Whether nobody on the way can have put another content in its place.
    pub is_proved: bool,
}

/// Looks for an update in these places, one after the other; it may be so large.
///
/// # Errors
/// What the last of them said.
pub async fn resolve(reference: &Reference, places: &[Place], limit: u64) -> Result<Artifact, Error> {
    let mut failed = Error::Address { text: reference.to_string(), reason: "nobody serves its registry".to_owned() };
    for place in places {
        match resolve_at(reference, place, limit).await {
            Ok(artifact) => return Ok(artifact),
            Err(error) => {
                tracing::info!(place = shown(&place.url), error = %stdx::chain(&error), "no update from there");
                failed = error;
            }
        }
    }
    Err(failed)
}

async fn resolve_at(reference: &Reference, place: &Place, limit: u64) -> Result<Artifact, Error> {
    let mut way = Way::new(place.peer.clone());
    let url = place.url(reference, "manifests", &reference.name())?;
    let accept = [&[MANIFEST][..], &INDEXES].concat().join(", ");
    let answer = way.get(Ask::new(Method::GET, &url).header(ACCEPT, &accept)?).await?;
    let body = document(&url, answer, MANIFEST_BYTES).await?;
    let found = hex(digest(&SHA256, &body).as_ref());
    if let Some(wanted) = reference.digest.as_ref().filter(|wanted| **wanted != found) {
        return Err(Error::Digest { url: shown(&url), found, wanted: wanted.clone() });
    }
    let none = |reason: String| Error::NoUpdate { reference: reference.to_string(), reason };
    let layer = layer(&body).map_err(none)?;
    if layer.size > limit {
        return Err(Error::TooLarge { url: reference.to_string(), limit });
    }
    let blob = layer.digest.strip_prefix("sha256:").filter(|digest| digest.len() == DIGEST_CHARS);
    let sha256 = blob.ok_or_else(|| none(format!("its layer has the digest {:?}", layer.digest)))?;
    let source = Source {
        url: place.url(reference, "blobs", &layer.digest)?,
        peer: place.peer.clone(),
        limit,
        bytes: Some(layer.size),
        sha256: Some(sha256.to_owned()),
    };
    let is_proved = reference.is_pinned() || is_private(&place.url, &place.peer.trust);
    Ok(Artifact { reference: Reference { digest: Some(found), ..reference.clone() }, source, is_proved })
}

/// What counts of a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    layers: Vec<Layer>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// The one layer that is an update.
fn layer(body: &[u8]) -> Result<Layer, String> {
    let manifest: Manifest = serde_json::from_slice(body).map_err(|error| format!("its manifest: {error}"))?;
    if manifest.manifests.is_some() || INDEXES.contains(&manifest.media_type.as_str()) {
        return Err("it is an index of several manifests; name the one that is meant by its digest".to_owned());
    }
    let kinds = manifest.layers.iter().map(|layer| layer.media_type.clone()).collect::<Vec<_>>().join(", ");
    let mut updates: Vec<Layer> = manifest.layers.into_iter().filter(|layer| layer.media_type == UPDATE_TYPE).collect();
    match (updates.len(), updates.pop()) {
        (1, Some(layer)) => Ok(layer),
        (0, _) => Err(format!("it has no layer of the type {UPDATE_TYPE}, but: {kinds}")),
        (count, _) => Err(format!("it has {count} layers of the type {UPDATE_TYPE}")),
    }
}

/// Where a challenge sends whoever wants a token: `Bearer realm="…",service="…",scope="…"`.
pub(crate) fn token_address(challenge: &str) -> Option<Url> {
    let words = challenge.get(..7).filter(|word| word.eq_ignore_ascii_case("bearer ")).map(|_| &challenge[7..])?;
    let mut rest = words.trim();
    let (mut realm, mut query) = (None, Vec::new());
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        match name.trim() {
            "realm" => realm = Some(value),
            name @ ("service" | "scope") => query.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    let mut url: Url = realm?.parse().ok()?;
    url.query_pairs_mut().extend_pairs(query);
    matches!(url.scheme(), "http" | "https").then_some(url)
}

/// The token of an answer, which has one of two names.
pub(crate) fn parse_token(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_say_what_they_mean() {
        let digest = "0123456789abcdef".repeat(4);
        for good in [
            "oci://registry.example.com/keelson:0.2.0".to_owned(),
            format!("oci://[::1]:5000/a/b-c/d__e@sha256:{digest}"),
            format!("oci://localhost:5000/keelson:v1@sha256:{digest}"),
        ] {
            let read: Reference = good.parse().unwrap();
            assert_eq!(read.to_string(), good);
            assert_eq!(good.trim_start_matches(SCHEME).parse::<Reference>().unwrap(), read);
        }
        for (bad, why) in [
            ("keelson:1", "no registry"),
            ("oci://r.example.com/keelson", "neither"),
            ("oci://r.example.com/Keelson:1", "repository"),
            ("oci://r.example.com/a//b:1", "repository"),
            ("oci://r.example.com/keelson:", "tag"),
            ("oci://r.example.com/keelson:-1", "tag"),
            ("oci://user:pw@r.example.com/keelson:1", "no host"),
            ("oci:///keelson:1", "no host"),
            ("./keelson:1", "no host"),
            ("oci://r.example.com/keelson@sha512:00", "sha256"),
            ("oci://r.example.com/keelson@sha256:00", "64"),
        ] {
            let error = stdx::chain(&bad.parse::<Reference>().unwrap_err()).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn one_layer_is_the_update() {
        let layer_of = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"sha256:0","size":5}}"#);
        let manifest = |layers: &[String]| format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","));
        let found = |text: &str| layer(text.as_bytes());
        let own = layer_of(UPDATE_TYPE);
        let other = layer_of("text/plain");
        assert_eq!(found(&manifest(&[other.clone(), own.clone()])).unwrap().size, 5);
        assert!(found(&manifest(&[other])).unwrap_err().contains("but: text/plain"));
        assert!(found(&manifest(&[own.clone(), own])).unwrap_err().contains("2 layers"));
        assert!(found(r#"{"manifests":[]}"#).unwrap_err().contains("index"));
        assert!(found("[]").unwrap_err().contains("its manifest"));
    }

    #[test]
    fn challenges_say_where_tokens_are() {
        let url = token_address(
            "Bearer realm=\"https://auth.example.com/token\",service=\"r.example.com\",scope=\"repository:a/b:pull,push\"",
        );
        let wanted = "https://auth.example.com/token?service=r.example.com&scope=repository%3Aa%2Fb%3Apull%2Cpush";
        assert_eq!(url.unwrap().as_str(), wanted);
        for bad in ["", "Basic realm=\"x\"", "Bearer service=\"a\"", "Bearer realm=\"file:///etc\"", "Bearer realm=\"a"]
        {
            assert_eq!(token_address(bad), None, "{bad}");
        }
        assert_eq!(parse_token(br#"{"token":"","access_token":"a"}"#), None);
        assert_eq!(parse_token(br#"{"access_token":"a"}"#).as_deref(), Some("a"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_parser(text in ".{0,100}", host in "[a-z]{1,8}", rest in "[a-z0-9:@/._-]{0,40}") {
            let _any = token_address(&text);
            let _any = token_address(&format!("Bearer {text}"));
            let _any = layer(text.as_bytes());
            for text in [text, format!("{SCHEME}{host}/{rest}")] {
                if let Ok(read) = text.parse::<Reference>() {
                    prop_assert_eq!(read.to_string().parse::<Reference>().unwrap(), read);
                }
            }
        }
    }
}
