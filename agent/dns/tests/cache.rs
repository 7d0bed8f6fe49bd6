//! The cache of a machine's own look-ups, over real sockets: who is asked, how often, and whom it asks instead.
#![allow(clippy::unwrap_used)]

mod support;

use hickory_proto::op::ResponseCode;
use support::{Cache, Resolver, about, all};
use tokio::net::UdpSocket;

#[tokio::test]
async fn what_was_answered_is_not_asked_again_also_that_there_is_nothing() {
    let found = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let cache = Cache::start(vec![all(&[found.address])]).await;
    for name in ["registry.example.com.", "REGISTRY.example.com."] {
        assert_eq!(cache.ask(name).await, "192.0.2.1");
    }
    // A cluster's names are nobody's here.
    assert_eq!(cache.ask("web.ns.svc.cluster.local.").await, "192.0.2.1");
    assert_eq!(found.asked(), 2);
    let missing = Resolver::start(ResponseCode::NXDomain, [0; 4]).await;
    let cache = Cache::start(vec![all(&[missing.address])]).await;
    for _ in 0..2 {
        assert_eq!(cache.ask("typo.example.com.").await, "NXDomain");
    }
    assert_eq!(missing.asked(), 1);
}

#[tokio::test]
async fn one_that_refuses_or_is_silent_gives_way_to_the_next() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let bad = Resolver::start(code, [0; 4]).await;
        let good = Resolver::start(ResponseCode::NoError, [192, 0, 2, 2]).await;
        let cache = Cache::start(vec![all(&[bad.address, good.address])]).await;
        assert_eq!(cache.ask("registry.example.com.").await, "192.0.2.2");
        assert_eq!(cache.ask("registry.example.com.").await, "192.0.2.2");
        assert_eq!((bad.asked(), good.asked()), (1, 1));
        // Where nobody knows better, it is told, and kept by nobody.
        let cache = Cache::start(vec![all(&[bad.address])]).await;
        for _ in 0..2 {
            assert_eq!(cache.ask("registry.example.com.").await, format!("{code:?}"));
        }
        assert_eq!(bad.asked(), 3);
    }
    let good = Resolver::start(ResponseCode::NoError, [192, 0, 2, 3]).await;
    let cache = Cache::start(vec![all(&[silent.local_addr().unwrap(), good.address])]).await;
    assert_eq!(cache.ask("registry.example.com.").await, "192.0.2.3");
    // Whoever did not answer comes last for a while.
    let since = std::time::Instant::now();
    assert_eq!(cache.ask("other.example.com.").await, "192.0.2.3");
    assert!(since.elapsed() < std::time::Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn other_resolvers_are_asked_as_soon_as_they_are_known() {
    let cache = Cache::start(vec![all(&[])]).await;
    assert_eq!(cache.ask("registry.example.com.").await, "ServFail");
    let one = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    cache.tell(vec![all(&[one.address])]);
    assert_eq!(cache.ask("registry.example.com.").await, "192.0.2.1");
    // In another network the same name may be another machine's.
    let other = Resolver::start(ResponseCode::NoError, [10, 0, 0, 1]).await;
    cache.tell(vec![all(&[other.address])]);
    assert_eq!(cache.ask("registry.example.com.").await, "10.0.0.1");
    assert_eq!((one.asked(), other.asked()), (1, 1));
}

#[tokio::test]
async fn names_of_a_domain_go_to_its_servers_and_to_nobody_else() {
    let general = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let corp = Resolver::start(ResponseCode::NoError, [192, 0, 2, 2]).await;
    let lab = Resolver::start(ResponseCode::ServFail, [0; 4]).await;
    let groups = vec![
        all(&[general.address]),
        about("corp.example", &[corp.address]),
        about("lab.corp.example", &[lab.address]),
        about("nobody.example", &[]),
    ];
    let cache = Cache::start(groups).await;
    for (name, answer) in [
        ("www.example.com.", "192.0.2.1"),
        ("notcorp.example.", "192.0.2.1"),
        ("corp.example.", "192.0.2.2"),
        ("Files.CORP.example.", "192.0.2.2"),
        // Who should know does not, and nobody else is asked.
        ("a.lab.corp.example.", "ServFail"),
        ("a.nobody.example.", "ServFail"),
    ] {
        assert_eq!(cache.ask(name).await, answer, "{name}");
    }
    assert_eq!((general.asked(), corp.asked(), lab.asked()), (2, 2, 1));
}

#[tokio::test]
async fn what_one_set_of_servers_said_is_forgotten_with_it_alone() {
    let general = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let before = Resolver::start(ResponseCode::NoError, [10, 0, 0, 1]).await;
    let after = Resolver::start(ResponseCode::NoError, [10, 0, 0, 2]).await;
    let cache = Cache::start(vec![all(&[general.address]), about("corp.example", &[before.address])]).await;
    assert_eq!(cache.ask("www.example.com.").await, "192.0.2.1");
    assert_eq!(cache.ask("www.corp.example.").await, "10.0.0.1");
    cache.tell(vec![all(&[general.address]), about("corp.example", &[after.address])]);
    assert_eq!(cache.ask("www.example.com.").await, "192.0.2.1");
    assert_eq!(cache.ask("www.corp.example.").await, "10.0.0.2");
    // Without servers of its own it is as any other name.
    cache.tell(vec![all(&[general.address])]);
    assert_eq!(cache.ask("www.corp.example.").await, "192.0.2.1");
    assert_eq!((general.asked(), before.asked(), after.asked()), (2, 1, 1));
}

#[tokio::test]
async fn what_was_asked_and_answered_is_counted() {
    let found = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let missing = Resolver::start(ResponseCode::NXDomain, [0; 4]).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gone = silent.local_addr().unwrap();
    drop(silent);
    let groups = [all(&[gone, found.address]), about("missing.example", &[missing.address])];
    let cache = Cache::start(groups.into()).await;
    for name in ["a.example.com.", "a.example.com.", "b.missing.example.", "b.missing.example."] {
        cache.ask(name).await;
    }
    let text = cache.view.metrics();
    let server = format!("server=\"dns://{}\"", cache.address);
    let found = format!("{server},proxy_name=\"forward\",to=\"{}\",rcode=\"NOERROR\"", found.address);
    let expected = [
        format!("coredns_dns_requests_total{{{server},zone=\".\",proto=\"udp\",family=\"1\",type=\"A\"}} 4"),
        format!("coredns_dns_responses_total{{{server},zone=\".\",rcode=\"NOERROR\"}} 2"),
        format!("coredns_dns_responses_total{{{server},zone=\".\",rcode=\"NXDOMAIN\"}} 2"),
        format!("coredns_dns_request_duration_seconds_count{{{server},zone=\".\"}} 4"),
        format!("coredns_cache_requests_total{{{server},zones=\".\"}} 4"),
        format!("coredns_cache_hits_total{{{server},type=\"success\",zones=\".\"}} 1"),
        format!("coredns_cache_hits_total{{{server},type=\"denial\",zones=\".\"}} 1"),
        format!("coredns_cache_entries{{{server},type=\"success\",zones=\".\"}} 1"),
        format!("coredns_proxy_request_duration_seconds_count{{{found}}} 1"),
        format!("keelson_dns_upstream_failures_total{{{server},to=\"{gone}\",reason=\"unreachable\"}} 1"),
    ];
    for line in expected {
        assert_eq!(text.lines().filter(|found| **found == line).count(), 1, "{line}\n{text}");
    }
    let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names: std::collections::BTreeSet<&str> =
        series.iter().filter_map(|line| line.rsplit_once(' ')).map(|it| it.0).collect();
    assert_eq!(names.len(), series.len(), "no series occurs twice");
}
