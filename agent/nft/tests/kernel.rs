//! Against the real program and kernel, in a network namespace of the test's own. Needs root; says so and passes
//! without.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd;

use netlink::netns;
use nft::{Base, Chain, ChainKind, Changes, Error, Family, Hook, Map, Nft, Set, Table};

fn table() -> Table {
    let mut table = Table::new(Family::Ip, "nft-test");
    let base = Base { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 };
    table.chains.insert("entry".into(), Chain::base(base, ["tcp dport vmap @ports", "ip saddr @seen accept"]));
    table.maps.insert("ports".into(), Map::new("inet_service", "verdict"));
    table.sets.insert("seen".into(), Set::new("ipv4_addr"));
    table
}

#[test]
fn a_table_is_replaced_then_changed_and_a_refused_change_leaves_it_alone() {
    let namespace = match netns::create() {
        Ok(namespace) => namespace,
        Err(error) => return eprintln!("SKIPPED: needs root to make network namespaces: {error}"),
    };
    netns::within(namespace.as_fd(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(scenario());
    })
    .unwrap();
}

async fn scenario() {
    let nft = Nft::default();
    let mut table = table();
    nft.run(&table.replace_script()).await.unwrap();
    nft.run(&table.replace_script()).await.unwrap();

    let mut changes = Changes::new();
    changes.chain("drop-it", Chain::new(["drop"]));
    changes.map("ports", "80", "goto drop-it");
    changes.insert("seen", "10.0.0.1");
    nft.run(&table.change(changes)).await.unwrap();

    let mut changes = Changes::new();
    changes.map("ports", "80", "accept");
    changes.remove("seen", "10.0.0.1");
    changes.remove_chain("drop-it");
    nft.run(&table.change(changes)).await.unwrap();

    let mut broken = table.clone();
    let mut changes = Changes::new();
    changes.map("ports", "81", "accept");
    changes.map("ports", "82", "goto nowhere");
    let error = nft.run(&broken.change(changes)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { line: Some(line), .. } if line.contains("nowhere")), "{error}");
    // Had any of it been applied, taking the same key out would succeed.
    let mut changes = Changes::new();
    changes.remove("ports", "81");
    assert!(nft.run(&broken.change(changes)).await.is_err());
    nft.run(&table.delete_script()).await.unwrap();
    nft.run(&table.delete_script()).await.unwrap();
}
