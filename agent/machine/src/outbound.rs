//! The manifest's words on servers elsewhere, as what fetches from them takes them.

use cri::Logins;
use manifest::{Login as Word, Manifest, Mirror, MirrorScheme, OutboundProxy, ProxyException, RegistryHost};
use remote::{Error, Exception, Known, Login, Outbound, Place, Proxy, Reference, Trust};
use url::Url;

/// How the machine reaches servers elsewhere.
///
/// # Errors
/// When an address is none, which the check of manifests does not let pass.
pub fn outbound(manifest: &Manifest) -> Result<Outbound, Error> {
    let servers = manifest.outbound.servers.iter().map(|(host, server)| {
        let trust = server.ca.as_ref().map(|ca| Trust::These(ca.as_str().as_bytes().to_vec()));
        let login = server.login.as_ref().and_then(|login| match login {
            // Without what was not found it is nobody there, and the server says no.
            Word::User(name, password) => Login::user(name.as_str(), password.known()?.as_str()),
            Word::Token(token) => Login::token(token.known()?.as_str()),
        });
        (host.to_string(), Known { trust, login })
    });
    Outbound::new(servers, manifest.outbound.proxy.as_ref().map(proxy).transpose()?)
}

fn proxy(words: &OutboundProxy) -> Result<Proxy, Error> {
    let user = words.user.as_ref();
    let except = words.except.iter().map(|except| match except {
        ProxyException::Range(range) => Exception::Range(range.net()),
        ProxyException::Domain(name) => Exception::Domain(name.to_string()),
        ProxyException::Below(name) => Exception::Below(name.to_string()),
    });
    Ok(Proxy {
        url: parse(words.url.as_str())?,
        authorization: user
            .and_then(|(name, password)| Proxy::authorization(name.as_str(), password.known()?.as_str())),
        except: except.collect(),
    })
}

fn parse(text: &str) -> Result<Url, Error> {
    text.parse().map_err(|error: url::ParseError| Error::Address { text: text.to_owned(), reason: error.to_string() })
}

/// Where a registry's content comes from, as the manifest has it for images.
pub(crate) fn places(
    manifest: Option<&Manifest>,
    outbound: &Outbound,
    reference: &Reference,
) -> Result<Vec<Place>, Error> {
    let mirror = manifest.and_then(|manifest| manifest.registries.mirror_of(&reference.registry));
    let mut places = Vec::new();
    for endpoint in mirror.into_iter().flat_map(|mirror| &mirror.endpoints) {
        let url = parse(&endpoint.to_string())?;
        places.push(Place { peer: outbound.registry(&url, mirror.and_then(trust)), url, is_mirror: true });
    }
    if mirror.is_none_or(|mirror| mirror.fallback) {
        places.push(Place::of(reference, outbound)?);
    }
    Ok(places)
}

/// As whom this machine's runtime asks for images. A password goes to whom the runtime knows by a certificate.
#[must_use]
pub fn logins(manifest: &Manifest) -> Logins {
    let servers = &manifest.outbound.servers;
    let of_server = |server: &str| {
        let known =
            servers.iter().find(|(host, _)| host.as_str() == server).and_then(|(_, known)| known.login.as_ref());
        match known {
            Some(Word::User(username, password)) => password.known().map(|password| cri::Login {
                server: server.to_owned(),
                username: username.to_string(),
                password: password.as_str().to_owned(),
            }),
            Some(Word::Token(_)) | None => None,
        }
    };
    let of_registry = |registry: &str| -> Vec<cri::Login> {
        let mirror = manifest.registries.mirror_of(registry);
        let verified = mirror.into_iter().filter(|mirror| !mirror.skip_verify).flat_map(|mirror| &mirror.endpoints);
        let https = verified.filter(|endpoint| endpoint.scheme == MirrorScheme::Https);
        let own = Some(registry).filter(|_| mirror.is_none_or(|mirror| mirror.fallback));
        https.map(|endpoint| endpoint.authority.as_str()).chain(own).filter_map(of_server).collect()
    };
    let named = manifest.registries.mirrors.keys().map(ToString::to_string);
    let named = named.chain(servers.keys().map(ToString::to_string)).filter(|name| name != RegistryHost::ANY);
    let registries = named.map(|registry| (registry.clone(), of_registry(&registry))).collect();
    Logins { registries, others: of_registry(RegistryHost::ANY) }
}

fn trust(mirror: &Mirror) -> Option<Trust> {
    match (mirror.skip_verify, &mirror.ca) {
        (true, _) => Some(Trust::Anybody),
        (false, ca) => ca.as_ref().map(|ca| Trust::These(ca.as_str().as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use remote::Access;

    use super::*;

    fn parse(text: &str) -> Manifest {
        let text = format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n{text}");
        manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    const WORDS: &str = r#"
        [registries.mirrors."r.example.com"]
        endpoints = ["https://mirror.example.com/v2/r", "http://plain.example.com"]
        [registries.mirrors."own.example.com"]
        endpoints = ["https://unproved.example.com"]
        skip-verify = true
        [registries.mirrors."closed.example.com"]
        endpoints = ["https://mirror.example.com"]
        fallback = false
        [registries.mirrors._default]
        endpoints = ["https://mirror.example.com"]
        [outbound.proxy]
        url = "http://proxy.example.com:3128"
        except = ["10.0.0.0/8", "example.com", ".example.org"]
    "#;

    #[test]
    fn images_are_asked_for_with_the_passwords_of_whoever_serves_them() {
        let mut text = WORDS.to_owned();
        for host in ["mirror", "plain", "unproved", "r", "own", "closed", "other"] {
            text += &format!("[outbound.servers.\"{host}.example.com\"]\nusername = \"{host}\"\npassword = \"p\"\n");
        }
        text += "[outbound.servers.\"token.example.com\"]\nbearer-token = \"t\"\n";
        let logins = logins(&parse(&text));
        let users = |image: &str| logins.of(image).into_iter().map(|auth| auth.username).collect::<Vec<_>>();
        assert_eq!(users("r.example.com/a:1"), ["mirror", "r"]);
        assert_eq!(users("own.example.com/a:1"), ["own"], "whoever is not verified gets no password");
        assert_eq!(users("closed.example.com/a:1"), ["mirror"], "the registry itself is not asked");
        assert_eq!(users("other.example.com/a:1"), ["mirror", "other"]);
        assert_eq!(users("token.example.com/a:1"), ["mirror"]);
        assert_eq!(users("busybox"), ["mirror"]);
    }

    #[test]
    fn updates_come_from_where_images_come_from() {
        let words =
            parse(&format!("{WORDS}[outbound.servers.\"mirror.example.com\"]\nusername = \"u\"\npassword = \"p\"\n"));
        let outbound = outbound(&words).unwrap();
        let found = places(Some(&words), &outbound, &"oci://r.example.com/keelson:1".parse().unwrap()).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|place| (place.url.as_str(), matches!(place.peer.access, Access::Registry(Some(_)))))
            .collect();
        let expected = [
            ("https://mirror.example.com/v2/r", true),
            ("http://plain.example.com/", false),
            ("https://r.example.com/", false),
        ];
        assert_eq!(told, expected);
    }
}
