//! Whatever servers say, or whoever speaks in their place: reading it ends, and what is made of it holds together.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::client::{Action, Client};
use super::frame::{unwrap, wrap_for_client};
use super::lease::Lease;
use super::message::tests::{MAC, reply};
use super::message::{Kind, Reply};

const KINDS: [Kind; 5] = [Kind::Discover, Kind::Offer, Kind::Request, Kind::Ack, Kind::Nak];
/// Options that are read, the end and the padding among them.
const CODES: [u8; 15] = [0, 1, 3, 6, 15, 26, 42, 51, 53, 54, 56, 58, 59, 121, 255];

/// States of a client that time leads through.
const STATES: usize = 3;

/// Options of a message, most of them such as are read and as long as they should be.
fn options() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let code = prop_oneof![6 => select(&CODES[..]), 1 => any::<u8>()];
    let value = prop_oneof![4 => vec(any::<u8>(), 4), 1 => vec(any::<u8>(), 2), 2 => vec(any::<u8>(), 0..40)];
    vec((code, value), 0..10)
}

fn message(kind: Kind, transaction: u32, yours: [u8; 4], options: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let options: Vec<(u8, &[u8])> = options.iter().map(|(code, value)| (*code, value.as_slice())).collect();
    reply(kind, transaction, yours, &options)
}

/// What holds of every lease: its times are in order, and its address is one.
fn is_sound(lease: &Lease) -> bool {
    let address = lease.address.addr();
    let is_in_order = 0 < lease.renew_seconds
        && lease.renew_seconds <= lease.rebind_seconds
        && lease.rebind_seconds <= lease.seconds
        && lease.seconds >= 30;
    is_in_order && !address.is_unspecified() && !address.is_broadcast() && lease.mtu.is_none_or(|mtu| mtu >= 576)
}

/// What happens to a client.
#[derive(Clone, Debug)]
enum Event {
    Time(u32),
    Answer(Kind, [u8; 4], Vec<(u8, Vec<u8>)>),
}

fn event() -> impl Strategy<Value = Event> {
    // One that says all that an answer needs, among others.
    let whole = options().prop_map(|mut options| {
        options.push((54, vec![10, 0, 0, 1]));
        options
    });
    let answer = (select(&KINDS[..]), any::<[u8; 4]>(), prop_oneof![3 => whole, 1 => options()]);
    prop_oneof![
        2 => prop_oneof![0..5_u32, 0..100_000_u32, any::<u32>()].prop_map(Event::Time),
        3 => answer.prop_map(|(kind, yours, options)| Event::Answer(kind, yours, options)),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_nothing(bytes in vec(any::<u8>(), 0..400), is_headed in any::<bool>()) {
        // Behind a sound beginning more of the rest is read.
        let mut whole = reply(Kind::Ack, 1, [10, 0, 0, 5], &[]);
        whole.pop();
        whole.extend(&bytes);
        if let Some(lease) = Reply::decode(if is_headed { &whole } else { &bytes }).as_ref().and_then(Lease::from_reply) {
            prop_assert!(is_sound(&lease), "{lease:?}");
            let _for_the_network = lease.lent();
        }
    }

    #[test]
    fn any_options_make_a_sound_lease_or_none(yours in any::<[u8; 4]>(), options in options(), cut in any::<u8>()) {
        let mut bytes = message(Kind::Offer, 1, yours, &options);
        bytes.truncate(bytes.len() - usize::from(cut) % 4);
        if let Some(lease) = Reply::decode(&bytes).as_ref().and_then(Lease::from_reply) {
            prop_assert!(is_sound(&lease), "{lease:?}");
        }
    }

    #[test]
    fn routes_are_read_as_they_were_written(routes in vec((any::<[u8; 4]>(), 0..=32_u8, any::<[u8; 4]>()), 1..20)) {
        let routes: Vec<(Ipv4Net, Ipv4Addr)> = routes
            .into_iter()
            .map(|(to, length, via)| (Ipv4Net::new(to.into(), length).unwrap().trunc(), via.into()))
            .collect();
        let bytes = |(to, via): &(Ipv4Net, Ipv4Addr)| {
            let length = to.prefix_len();
            [&[length], &to.addr().octets()[..usize::from(length).div_ceil(8)], &via.octets()].concat()
        };
        let option: Vec<u8> = routes.iter().flat_map(bytes).collect();
        let found = Reply::decode(&reply(Kind::Ack, 1, [10, 0, 0, 5], &[(121, &option)])).unwrap();
        prop_assert_eq!(found.options.routes, routes);
    }

    #[test]
    fn any_bytes_are_a_datagram_or_nothing(bytes in vec(any::<u8>(), 0..80), message in vec(any::<u8>(), 0..80)) {
        let _read = unwrap(&bytes);
        let whole = wrap_for_client(Ipv4Addr::new(10, 0, 0, 1), &message);
        prop_assert_eq!(unwrap(&whole), Some(message.as_slice()));
        // The beginning of a sound one, and then anything.
        let headed = [&whole[..bytes.len().min(28)], bytes.as_slice()].concat();
        let _read = unwrap(&headed);
    }

    #[test]
    fn any_exchange_goes_on(events in vec(event(), 0..40), random in any::<u32>()) {
        let mut now = Duration::ZERO;
        let mut client = Client::new(MAC, "m".to_owned(), None, now);
        let (mut transaction, mut used) = (0, None);
        for event in events {
            let actions = match event {
                Event::Time(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    let mut actions = client.tick(now, random);
                    // After a long sleep several states are over at the same moment.
                    for _ in 0..STATES {
                        actions.extend(client.tick(now, random));
                    }
                    prop_assert!(client.deadline() > now, "it would be asked again at once, for ever");
                    actions
                }
                Event::Answer(kind, yours, options) => {
                    let bytes = message(kind, transaction, yours, &options);
                    Reply::decode(&bytes).map_or_else(Vec::new, |reply| client.receive(&reply, now, random))
                }
            };
            for action in actions {
                match action {
                    Action::Send(query, _) => transaction = query.transaction,
                    Action::Use(lease) => {
                        prop_assert!(is_sound(&lease), "{lease:?}");
                        used = Some(lease.address);
                    }
                    Action::Drop(lease) => prop_assert_eq!(used.take(), Some(lease.address)),
                }
            }
        }
    }
}
