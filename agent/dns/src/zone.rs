//! From a name and a type to records: the specification, over a [`Directory`]. No IO, no clock.

use std::net::IpAddr;

use api::core::v1::Service;
use api::discovery::v1::{Endpoint, EndpointSlice};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::directory::{Directory, SERVICE_LABEL};

/// The specification that the answers follow.
const VERSION: &str = "1.1.0";
/// What SRV records say where nobody decided otherwise.
const PRIORITY: u16 = 0;
const SOA_REFRESH: i32 = 7200;
const SOA_RETRY: i32 = 1800;
const SOA_EXPIRE: i32 = 86_400;

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Records, and others that will be asked for next.
    Found(Vec<Record>, Vec<Record>),
    /// The name exists, but has no such records.
    NoData,
    /// There is no such name.
    NoName,
    /// The name stands for another one.
    Alias(Box<(Record, Name)>),
    /// The name is not the cluster's.
    Elsewhere,
}

/// The cluster's domain.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    origin: Name,
    /// The domain's labels, lower case.
    labels: Vec<String>,
    ttl: u32,
}

/// A question, its owner's name as it was asked.
struct Question<'a> {
    name: &'a Name,
    kind: RecordType,
}

impl Zone {
    pub(crate) fn new(domain: &str, ttl: u32) -> Option<Self> {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let origin = Name::from_ascii(format!("{domain}.")).ok()?;
        let labels = domain.split('.').map(str::to_owned).collect();
        Some(Self { origin, labels, ttl })
    }

    /// Goes into negative answers.
    pub(crate) fn authority(&self) -> Option<Record> {
        let (server, contact) = (self.below("ns.dns")?, self.below("hostmaster")?);
        // The serial number would only matter to those who copy the zone.
        let soa = SOA::new(server, contact, 1, SOA_REFRESH, SOA_RETRY, SOA_EXPIRE, self.ttl);
        Some(Record::from_rdata(self.origin.clone(), self.ttl, RData::SOA(soa)))
    }

    pub(crate) fn resolve(&self, directory: &dyn Directory, name: &Name, kind: RecordType) -> Outcome {
        let question = Question { name, kind };
        let labels: Vec<String> =
            name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        if let Some(inside) = labels.len().checked_sub(self.labels.len())
            && labels[inside..].iter().zip(&self.labels).all(|(a, b)| a == b)
        {
            return self.inside(directory, &labels[..inside], &question);
        }
        if labels.last() == Some(&"arpa") {
            return self.reverse(directory, &question);
        }
        Outcome::Elsewhere
    }

    fn inside(&self, directory: &dyn Directory, labels: &[&str], question: &Question<'_>) -> Outcome {
        match labels {
            [] => self.apex(directory, question),
            ["dns-version"] => match question.kind {
                RecordType::TXT => self.found([RData::TXT(TXT::new(vec![VERSION.to_owned()]))], question),
                _ => Outcome::NoData,
            },
            ["svc" | "pod" | "dns"] => Outcome::NoData,
            ["ns", "dns"] => self.addresses(self.server_addresses(directory), question),
            [namespace, "svc" | "pod"] if directory.has_namespace(namespace) => Outcome::NoData,
            [address, _namespace, "pod"] => match undashed(address) {
                Some(address) => self.addresses([address], question),
                None => Outcome::NoName,
            },
            [parts @ .., name, namespace, "svc"] => match directory.service(namespace, name) {
                Some(service) => self.service(directory, &service, parts, question),
                None => Outcome::NoName,
            },
            _ => Outcome::NoName,
        }
    }

    fn apex(&self, directory: &dyn Directory, question: &Question<'_>) -> Outcome {
        match question.kind {
            RecordType::SOA => self.authority().map_or(Outcome::NoData, |soa| Outcome::Found(vec![soa], Vec::new())),
            RecordType::NS => {
                let Some(server) = self.below("ns.dns") else { return Outcome::NoData };
                let addresses = self.server_addresses(directory).into_iter();
                let glue =
                    addresses.map(|address| Record::from_rdata(server.clone(), self.ttl, data(address))).collect();
                Outcome::Found(vec![self.record(question.name.clone(), RData::NS(NS(server)))], glue)
            }
            _ => Outcome::NoData,
        }
    }

    fn server_addresses(&self, directory: &dyn Directory) -> Vec<IpAddr> {
        let service = directory.service("kube-system", "kube-dns");
        service.map(|service| cluster_addresses(&service)).unwrap_or_default()
    }

    fn service(
        &self,
        directory: &dyn Directory,
        service: &Service,
        parts: &[&str],
        question: &Question<'_>,
    ) -> Outcome {
        if service.spec.r#type == "ExternalName" {
            return if parts.is_empty() { self.external(service, question) } else { Outcome::NoName };
        }
        let is_headless = is_headless(service);
        let endpoints = || endpoints(directory, service);
        match parts {
            [] if question.kind == RecordType::SRV => self.ports(directory, service, None, question),
            [] if is_headless => self.addresses(endpoints().iter().map(|endpoint| endpoint.address), question),
            [] => self.addresses(cluster_addresses(service), question),
            [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => self.ports(directory, service, Some((port, protocol)), question),
                _ => Outcome::NoName,
            },
            [host] if is_headless => {
                let found: Vec<IpAddr> = endpoints()
                    .iter()
                    .filter(|endpoint| endpoint.host == *host)
                    .map(|endpoint| endpoint.address)
                    .collect();
                if found.is_empty() { Outcome::NoName } else { self.addresses(found, question) }
            }
            _ => Outcome::NoName,
        }
    }

    fn external(&self, service: &Service, question: &Question<'_>) -> Outcome {
        let target = service.spec.external_name.trim_end_matches('.');
        let Ok(target) = Name::from_ascii(format!("{target}.")) else { return Outcome::NoData };
        let record = self.record(question.name.clone(), RData::CNAME(CNAME(target.clone())));
        Outcome::Alias(Box::new((record, target)))
    }

    /// Addresses as records of the asked family; a name with only others exists without data.
    fn addresses(&self, addresses: impl IntoIterator<Item = IpAddr>, question: &Question<'_>) -> Outcome {
        let wanted = addresses.into_iter().filter(|address| match question.kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            RecordType::ANY => true,
            _ => false,
        });
        self.found(wanted.map(data), question)
    }

    /// SRV records of one named port, or of all.
    fn ports(
        &self,
        directory: &dyn Directory,
        service: &Service,
        named: Option<(&str, &str)>,
        question: &Question<'_>,
    ) -> Outcome {
        let matches = |name: &str, protocol: &str| match named {
            Some((port, transport)) => port == name.to_ascii_lowercase() && transport == protocol.to_ascii_lowercase(),
            None => !name.is_empty(),
        };
        let own = format!("{}.{}.svc", service.metadata.name, service.metadata.namespace);
        let mut targets: Vec<(u16, Name, Vec<IpAddr>)> = Vec::new();
        if is_headless(service) {
            for endpoint in endpoints(directory, service) {
                for (_, _, number) in endpoint.ports.iter().filter(|(name, protocol, _)| matches(name, protocol)) {
                    let target = self.below(&format!("{}.{own}", endpoint.host));
                    targets.extend(target.map(|target| (*number, target, vec![endpoint.address])));
                }
            }
        } else {
            for port in service.spec.ports.iter().filter(|port| matches(&port.name, transport(&port.protocol))) {
                let number = u16::try_from(port.port).unwrap_or_default();
                targets.extend(self.below(&own).map(|target| (number, target, cluster_addresses(service))));
            }
        }
        if targets.is_empty() {
            return if named.is_some() { Outcome::NoName } else { Outcome::NoData };
        }
        if !matches!(question.kind, RecordType::SRV | RecordType::ANY) {
            return Outcome::NoData;
        }
        let weight = u16::try_from(100 / targets.len()).unwrap_or_default().max(1);
        let mut found = Vec::with_capacity(targets.len());
        let mut glue: Vec<Record> = Vec::new();
        for (port, target, addresses) in targets {
            for address in addresses {
                let record = self.record(target.clone(), data(address));
                if !glue.contains(&record) {
                    glue.push(record);
                }
            }
            found.push(self.record(question.name.clone(), RData::SRV(SRV::new(PRIORITY, weight, port, target))));
        }
        Outcome::Found(found, glue)
    }

    /// Addresses that are nobody's here may be somebody's elsewhere.
    fn reverse(&self, directory: &dyn Directory, question: &Question<'_>) -> Outcome {
        let Some(net) = question.name.parse_arpa_name().ok().filter(|net| net.prefix_len() == net.max_prefix_len())
        else {
            return Outcome::Elsewhere;
        };
        let names = self.names_of(directory, net.addr());
        match question.kind {
            _ if names.is_empty() => Outcome::Elsewhere,
            RecordType::PTR | RecordType::ANY => {
                self.found(names.iter().filter_map(|name| self.below(name)).map(|name| RData::PTR(PTR(name))), question)
            }
            _ => Outcome::NoData,
        }
    }

    fn names_of(&self, directory: &dyn Directory, address: IpAddr) -> Vec<String> {
        if let Some(service) = directory.service_at(address) {
            return vec![format!("{}.{}.svc", service.metadata.name, service.metadata.namespace)];
        }
        let mut names = Vec::new();
        for slice in directory.slices_at(address) {
            let Some(name) = slice.metadata.labels.get(SERVICE_LABEL) else { continue };
            let Some(service) = directory.service(&slice.metadata.namespace, name) else { continue };
            let found = slice_endpoints(&slice, &service).filter(|endpoint| endpoint.address == address);
            names.extend(found.map(|endpoint| format!("{}.{name}.{}.svc", endpoint.host, slice.metadata.namespace)));
        }
        names.sort();
        names.dedup();
        names
    }

    fn found(&self, data: impl IntoIterator<Item = RData>, question: &Question<'_>) -> Outcome {
        let records: Vec<Record> = data.into_iter().map(|data| self.record(question.name.clone(), data)).collect();
        if records.is_empty() { Outcome::NoData } else { Outcome::Found(records, Vec::new()) }
    }

    fn record(&self, name: Name, data: RData) -> Record {
        Record::from_rdata(name, self.ttl, data)
    }

    fn below(&self, name: &str) -> Option<Name> {
        Name::from_ascii(name).ok()?.append_domain(&self.origin).ok()
    }
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn transport(protocol: &str) -> &str {
    if protocol.is_empty() { "TCP" } else { protocol }
}

fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip == "None" || service.spec.cluster_ips.first().is_some_and(|address| address == "None")
}

fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = service.spec.cluster_ips.iter().filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(service.spec.cluster_ip.parse::<IpAddr>().ok());
    }
    addresses
}

/// An endpoint with a name of its own.
struct Target {
    host: String,
    address: IpAddr,
    /// Name, protocol and number.
    ports: Vec<(String, String, u16)>,
}

fn endpoints(directory: &dyn Directory, service: &Service) -> Vec<Target> {
    let slices = directory.slices(&service.metadata.namespace, &service.metadata.name);
    let mut targets: Vec<Target> = slices.iter().flat_map(|slice| slice_endpoints(slice, service)).collect();
    // A pod can be in two slices for a moment.
    targets.sort_by(|a, b| (&a.address, &a.host, &a.ports).cmp(&(&b.address, &b.host, &b.ports)));
    targets.dedup_by(|a, b| (&a.address, &a.host, &a.ports) == (&b.address, &b.host, &b.ports));
    targets
}

fn slice_endpoints(slice: &EndpointSlice, service: &Service) -> impl Iterator<Item = Target> {
    let is_published =
        |endpoint: &&Endpoint| service.spec.publish_not_ready_addresses || endpoint.conditions.ready.unwrap_or(true);
    slice
        .endpoints
        .iter()
        .filter(is_published)
        .flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
            addresses.map(|address| Target {
                host: match endpoint.hostname.as_deref() {
                    Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
                    Some(_) | None => dashed(address),
                },
                address,
                ports: ports_of(slice),
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn ports_of(slice: &EndpointSlice) -> Vec<(String, String, u16)> {
    let ports = slice.ports.iter().filter_map(|port| {
        let protocol = transport(port.protocol.as_deref().unwrap_or_default());
        Some((port.name.clone().unwrap_or_default(), protocol.to_owned(), u16::try_from(port.port?).ok()?))
    });
    ports.collect()
}

fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn undashed(text: &str) -> Option<IpAddr> {
    let four = || text.replace('-', ".").parse().ok().map(IpAddr::V4);
    let six = || text.replace('-', ":").parse().ok().map(IpAddr::V6);
    four().or_else(six)
}
