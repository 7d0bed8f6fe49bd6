//! Signatures of requests to S3: AWS Signature Version 4, of the whole body, in headers.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HOST, InvalidHeaderValue};
use http::{HeaderName, HeaderValue, Request};
use ring::hmac::{HMAC_SHA256, Key, sign};
use stdx::hex;
use url::Url;

use crate::access::S3Key;

/// The SHA-256 of nothing.
pub(crate) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const SUFFIX: &str = "aws4_request";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A part of a path or of a query, as S3 counts it: everything but letters, digits and `-._~` is written by its bytes.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _infallible = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}

/// The path of an object's key.
pub(crate) fn encode_path(key: &str) -> String {
    key.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// What a request is signed with.
pub(crate) struct Signer<'a> {
    pub(crate) key: &'a S3Key,
    pub(crate) now: SystemTime,
    /// SHA-256 of the body, in hexadecimal digits.
    pub(crate) digest: &'a str,
}

impl Signer<'_> {
    /// Adds the headers that say who asks. All headers that are there count, so that none is added after.
    pub(crate) fn sign<B>(&self, request: &mut Request<B>, url: &Url) -> Result<(), InvalidHeaderValue> {
        let time = time(self.now);
        request.headers_mut().insert(DATE, HeaderValue::from_str(&time)?);
        request.headers_mut().insert(CONTENT, HeaderValue::from_str(self.digest)?);
        let mut headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter(|(name, _)| *name == HOST || counts(name.as_str()))
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).trim().to_owned()))
            .collect();
        headers.sort();
        let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{}",
            request.method(),
            url.path(),
            canonical_query(url),
            self.digest
        );
        let (scope, signature) = self.signature(&time, &canonical);
        let credential = format!("{}/{scope}", self.key.access_key);
        let authorization = format!("{ALGORITHM} Credential={credential},SignedHeaders={names},Signature={signature}");
        let mut authorization = HeaderValue::from_str(&authorization)?;
        authorization.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, authorization);
        Ok(())
    }

    /// The scope that the signature is for, and the signature.
    fn signature(&self, time: &str, canonical: &str) -> (String, String) {
        let day = time.get(..8).unwrap_or(time);
        let scope = format!("{day}/{}/{SERVICE}/{SUFFIX}", self.key.region);
        let digest = ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes());
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(digest.as_ref()));
        let mut key = format!("AWS4{}", self.key.secret_key).into_bytes();
        for part in [day, &self.key.region, SERVICE, SUFFIX, &text] {
            key = sign(&Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        (scope, hex(&key))
    }
}

/// Whether a header is part of what is signed. Those that servers in between may change are not.
fn counts(name: &str) -> bool {
    name.starts_with("x-amz-") || matches!(name, "range" | "date" | "content-type")
}

/// The words of a query in the order in which they are signed.
fn canonical_query(url: &Url) -> String {
    let mut words: Vec<String> =
        url.query_pairs().map(|(name, value)| format!("{}={}", encode(&name), encode(&value))).collect();
    words.sort();
    words.join("&")
}

/// `20130524T000000Z`.
fn time(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = api::time::format_seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What AWS publishes as examples of signatures in headers, all of them of this moment and key.
    fn signed(method: &str, url: &str, headers: &[(&'static str, &str)], body: &[u8]) -> String {
        let key = S3Key {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let url: Url = url.parse().unwrap();
        let mut request = Request::new(());
        *request.method_mut() = method.parse().unwrap();
        request.headers_mut().insert(HOST, url.host_str().unwrap().parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let digest = hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
        let now = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        Signer { key: &key, now, digest: &digest }.sign(&mut request, &url).unwrap();
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    const PREFIX: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,";

    #[test]
    fn signatures_are_those_that_aws_publishes() {
        let host = "https://examplebucket.s3.amazonaws.com";
        let get = signed("GET", &format!("{host}/test.txt"), &[("range", "bytes=0-9")], b"");
        assert_eq!(
            get,
            format!(
                "{PREFIX}SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
                 Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            )
        );
        let headers = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let put = signed("PUT", &format!("{host}/test%24file.text"), &headers, b"Welcome to Amazon S3.");
        assert_eq!(
            put,
            format!(
                "{PREFIX}SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,\
                 Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
            )
        );
        for (query, signature) in [
            ("lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let get = signed("GET", &format!("{host}/?{query}"), &[], b"");
            let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date";
            assert_eq!(get, format!("{PREFIX}{names},Signature={signature}"));
        }
    }

    #[test]
    fn keys_are_encoded_as_s3_counts_them() {
        assert_eq!(encode_path("a b/ü$+.db"), "a%20b/%C3%BC%24%2B.db");
        assert_eq!(encode("a/b=c&~"), "a%2Fb%3Dc%26~");
    }
}
