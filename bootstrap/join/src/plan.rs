//! The next step: what is there, the time → one step. Pure.

use std::collections::BTreeSet;
use std::time::SystemTime;

use pki::{Certificate, San};

/// Certificates are renewed after this share of their life, and up to [`ROTATION_SPREAD`] later.
const ROTATION_SHARE: f64 = 0.7;
/// Machines that were started together shall not all renew together.
const ROTATION_SPREAD: f64 = 0.2;

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Whether the cluster's CA is known.
    pub has_authority: bool,
    /// The client certificate, if it is this node's and of the cluster's CA.
    pub client: Option<Certificate>,
    /// The serving certificate, likewise.
    pub serving: Option<Certificate>,
    /// The server did not accept the client certificate.
    pub client_rejected: bool,
}

/// What a request is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// The manifest's token.
    Token,
    /// The present client certificate.
    Certificate,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Get the CA and compare it with the pin.
    Discover,
    /// Ask for a client certificate.
    RequestClient(Credential),
    /// Ask for a serving certificate.
    RequestServing,
    /// Nothing until then.
    SleepUntil(SystemTime),
}

/// Says the next step. `sans` is what the serving certificate has to name; none where none is wished.
#[must_use]
pub fn plan(observed: &Observed, sans: Option<&BTreeSet<San>>, now: SystemTime) -> Step {
    if !observed.has_authority {
        return Step::Discover;
    }
    let client = observed.client.as_ref().filter(|client| client.is_valid_at(now) && !observed.client_rejected);
    let Some(client) = client else {
        return Step::RequestClient(Credential::Token);
    };
    let renew_client = rotation_time(client);
    if renew_client <= now {
        return Step::RequestClient(Credential::Certificate);
    }
    let Some(sans) = sans else {
        return Step::SleepUntil(renew_client);
    };
    let serving = observed.serving.as_ref().filter(|serving| serving.is_valid_at(now) && serving.sans == *sans);
    match serving.map(rotation_time) {
        Some(renew_serving) if renew_serving > now => Step::SleepUntil(renew_client.min(renew_serving)),
        Some(_) | None => Step::RequestServing,
    }
}

/// When a certificate is renewed: after 70 to 90 % of its life. The spread comes from its key, so that it is the same
/// after a restart and another one for every machine.
#[must_use]
pub fn rotation_time(certificate: &Certificate) -> SystemTime {
    let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    let [high, low, ..] = certificate.public_key_hash();
    let spread = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
    certificate.not_before + life.mul_f64(ROTATION_SHARE + ROTATION_SPREAD * spread)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use pki::{Authority, Key, Leaf, Usage, os_random};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn sans() -> BTreeSet<San> {
        [San::Dns("w1".to_owned())].into()
    }

    fn certificate(sans: BTreeSet<San>) -> Certificate {
        let authority = Authority::derive("kubernetes", &[7; 32]).unwrap();
        let leaf = Leaf {
            common_name: "system:node:w1".to_owned(),
            organization: Some("system:nodes".to_owned()),
            sans,
            usages: [Usage::ClientAuth].into(),
            life: 100 * HOUR,
        };
        let key = Key::generate(&mut os_random).unwrap();
        let pem = authority.issue(&leaf, &key, start(), &mut os_random).unwrap();
        Certificate::from_pem("test", &pem).unwrap()
    }

    #[test]
    fn the_next_step_follows_from_what_is_there() {
        let (client, serving) = (certificate(BTreeSet::new()), certificate(sans()));
        let nothing = Observed::default();
        let ca = Observed { has_authority: true, ..Observed::default() };
        let with_client = Observed { client: Some(client.clone()), ..ca.clone() };
        let complete = Observed { serving: Some(serving.clone()), ..with_client.clone() };
        let moved = Observed { serving: Some(certificate(BTreeSet::new())), ..with_client.clone() };
        let rejected = Observed { client_rejected: true, ..complete.clone() };
        let table = [
            (&nothing, start(), Step::Discover),
            (&ca, start(), Step::RequestClient(Credential::Token)),
            (&with_client, start(), Step::RequestServing),
            (&moved, start(), Step::RequestServing),
            (&complete, start(), Step::SleepUntil(rotation_time(&client).min(rotation_time(&serving)))),
            (&complete, start() + 95 * HOUR, Step::RequestClient(Credential::Certificate)),
            (&complete, start() + 101 * HOUR, Step::RequestClient(Credential::Token)),
            (&rejected, start(), Step::RequestClient(Credential::Token)),
        ];
        for (observed, now, step) in table {
            assert_eq!(plan(observed, Some(&sans()), now), step, "{observed:?}");
        }
        assert_eq!(plan(&with_client, None, start()), Step::SleepUntil(rotation_time(&client)));
    }

    #[test]
    fn rotation_lies_between_70_and_90_percent_and_does_not_move() {
        for _ in 0..20 {
            let certificate = certificate(sans());
            let after = rotation_time(&certificate).duration_since(start()).unwrap();
            assert!(after > 69 * HOUR && after < 91 * HOUR, "{after:?}");
            assert_eq!(rotation_time(&certificate), rotation_time(&certificate));
        }
    }
}
