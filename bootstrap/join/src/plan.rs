//! The next step: what is there, the time → one step. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use pki::{Certificate, San};

/// Certificates are renewed after this share of their life, and up to [`ROTATION_SPREAD`] later.
const ROTATION_SHARE: f64 = 0.7;
/// Machines that were started together shall not all renew together.
const ROTATION_SPREAD: f64 = 0.2;

/// How old a certificate of a CA that issues no more gets before it is renewed. Certificates begin five minutes before
/// they are issued.
const REISSUE_AFTER: Duration = Duration::from_secs(10 * 60);

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Whether a CA of the cluster is known.
    pub has_authority: bool,
    /// Whether there is to be another one that is not known yet.
    pub lacks_authority: bool,
    /// The client certificate, if it is this node's and of a CA that is trusted.
    pub client: Option<Held>,
    /// The serving certificate, likewise.
    pub serving: Option<Held>,
    /// The server did not accept the client certificate.
    pub client_rejected: bool,
}

/// A certificate that the node has.
#[derive(Debug, Clone)]
pub struct Held {
    /// It.
    pub certificate: Certificate,
    /// Whether the CA signed it that issues at present.
    pub is_of_issuing: bool,
}

impl Held {
    fn is_valid_at(&self, now: SystemTime) -> bool {
        self.certificate.is_valid_at(now)
    }

    /// When it is renewed. One of a CA that issues no more soon, but not again and again while the masters are behind.
    fn renewal(&self) -> SystemTime {
        let regular = rotation_time(&self.certificate);
        if self.is_of_issuing { regular } else { regular.min(self.certificate.not_before + REISSUE_AFTER) }
    }
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
    /// Look for a CA that is to be trusted and is not known yet. Until then nothing else is to be done, at the latest
    /// at this time.
    Complete(SystemTime),
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
    let renew_client = client.renewal();
    if renew_client <= now {
        return Step::RequestClient(Credential::Certificate);
    }
    let rest = |until| if observed.lacks_authority { Step::Complete(until) } else { Step::SleepUntil(until) };
    let Some(sans) = sans else { return rest(renew_client) };
    let is_right = |serving: &&Held| serving.is_valid_at(now) && serving.certificate.sans == *sans;
    match observed.serving.as_ref().filter(is_right).map(Held::renewal) {
        Some(renew_serving) if renew_serving > now => rest(renew_client.min(renew_serving)),
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
    use std::time::UNIX_EPOCH;

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
        let held = |certificate: &Certificate| Some(Held { certificate: certificate.clone(), is_of_issuing: true });
        let former = |certificate: &Certificate| Some(Held { certificate: certificate.clone(), is_of_issuing: false });
        let (client, serving) = (certificate(BTreeSet::new()), certificate(sans()));
        let nothing = Observed::default();
        let ca = Observed { has_authority: true, ..Observed::default() };
        let with_client = Observed { client: held(&client), ..ca.clone() };
        let complete = Observed { serving: held(&serving), ..with_client.clone() };
        let moved = Observed { serving: held(&certificate(BTreeSet::new())), ..with_client.clone() };
        let regular = rotation_time(&client).min(rotation_time(&serving));
        // Another CA is to be trusted, and then issues.
        let lacking = Observed { lacks_authority: true, ..complete.clone() };
        let without_serving = Observed { serving: None, ..lacking.clone() };
        let both_former = Observed { client: former(&client), serving: former(&serving), ..complete.clone() };
        let serving_former = Observed { serving: former(&serving), ..complete.clone() };
        let reissue = client.not_before + REISSUE_AFTER;
        let rejected = Observed { client_rejected: true, ..complete.clone() };
        let table = [
            (&nothing, start(), Step::Discover),
            (&ca, start(), Step::RequestClient(Credential::Token)),
            (&with_client, start(), Step::RequestServing),
            (&moved, start(), Step::RequestServing),
            (&complete, start(), Step::SleepUntil(regular)),
            (&lacking, start(), Step::Complete(regular)),
            (&without_serving, start(), Step::RequestServing),
            (&lacking, start() + 95 * HOUR, Step::RequestClient(Credential::Certificate)),
            (&both_former, start(), Step::SleepUntil(reissue)),
            (&both_former, reissue, Step::RequestClient(Credential::Certificate)),
            (&serving_former, reissue, Step::RequestServing),
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
