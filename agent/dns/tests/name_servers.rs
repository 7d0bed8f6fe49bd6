//! Name servers that are asked by TLS, over real sockets: who is believed, what becomes of connections, and that nobody is
//! ever asked in the clear.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use support::tls::{Authority, Conduct, NAME, TlsServer, all_by_tls};
use support::{Cache, Resolver, about, all};

async fn cache_of(server: &TlsServer, name: &str) -> Cache {
    Cache::start(vec![all_by_tls(&[server.named(name)])]).await
}

#[tokio::test]
async fn a_server_with_the_right_name_answers_many_questions_on_one_connection() {
    let server = TlsServer::start(Conduct::Answers, [192, 0, 2, 1]).await;
    let cache = cache_of(&server, NAME).await;
    assert_eq!(cache.ask("a.example.com.").await, "192.0.2.1");
    assert_eq!(cache.ask("a.example.com.").await, "192.0.2.1");
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.example.com.")).collect();
    let answers = futures::future::join_all(names.iter().map(|name| cache.ask(name))).await;
    assert!(answers.iter().all(|answer| answer == "192.0.2.1"), "{answers:?}");
    assert_eq!((server.asked(), server.connections(), server.in_the_clear()), (101, 1, 0));
    assert!(cache.view.troubles().is_empty());
    let text = cache.view.metrics();
    let line = format!("to=\"{}\",proto=\"tcp-tls\"}} 1", server.address);
    assert!(text.lines().any(|found| found.ends_with(&line)), "{text}");
}

#[tokio::test]
async fn a_server_that_is_not_proved_is_told_and_asked_nothing_in_any_way() {
    let (own, other) = (Authority::new(), Authority::new());
    let good = TlsServer::with(Conduct::Answers, [192, 0, 2, 1], &own, |_| {}).await;
    let stranger = TlsServer::with(Conduct::Answers, [192, 0, 2, 1], &other, |_| {}).await;
    let past = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    };
    let old = TlsServer::with(Conduct::Answers, [192, 0, 2, 1], &own, past).await;
    let mut not_trusted = stranger.named(NAME);
    not_trusted.tls.as_mut().unwrap().ca = Some(own.pem.clone());
    for (server, named, why) in [
        (&good, good.named("other.example.com"), "its certificate is not for other.example.com"),
        (&good, good.named("192.0.2.77"), "its certificate is not for 192.0.2.77"),
        (&stranger, not_trusted, "nobody who is trusted signed its certificate"),
        (&old, old.named(NAME), "its certificate has expired, by this machine's clock"),
    ] {
        let told = format!("{} ({}): {why}", server.address, named.tls.as_ref().unwrap().name);
        let cache = Cache::start(vec![all_by_tls(&[named])]).await;
        assert_eq!(cache.ask("a.example.com.").await, "ServFail", "{why}");
        assert_eq!(cache.view.troubles(), [told]);
        assert_eq!((server.asked(), server.in_the_clear()), (0, 0), "{why}");
    }
}

#[tokio::test]
async fn one_that_is_not_proved_gives_way_to_the_next_and_is_not_tried_each_time() {
    let bad = TlsServer::start(Conduct::Answers, [192, 0, 2, 1]).await;
    let good = TlsServer::start(Conduct::Answers, [192, 0, 2, 2]).await;
    let cache = Cache::start(vec![all_by_tls(&[bad.named("other.example.com"), good.named(NAME)])]).await;
    for number in 0..20 {
        assert_eq!(cache.ask(&format!("n{number}.example.com.")).await, "192.0.2.2");
    }
    assert_eq!((bad.connections(), bad.asked(), good.asked()), (1, 0, 20));
    // Alone, it is left in peace for a while, too.
    let cache = cache_of(&bad, "other.example.com").await;
    for number in 0..20 {
        assert_eq!(cache.ask(&format!("n{number}.example.com.")).await, "ServFail");
    }
    assert!(bad.connections() <= 4, "{}", bad.connections());
}

#[tokio::test]
async fn a_server_that_speaks_plain_dns_is_not_asked_that_way() {
    let plain = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let mut named = TlsServer::start(Conduct::Answers, [0; 4]).await.named(NAME);
    named.address = plain.address;
    let cache = Cache::start(vec![all_by_tls(&[named])]).await;
    assert_eq!(cache.ask("a.example.com.").await, "ServFail");
    assert_eq!(plain.asked(), 0);
    assert!(cache.view.troubles()[0].contains("it cannot be reached"), "{:?}", cache.view.troubles());
}

#[tokio::test]
async fn one_that_hangs_gives_way_and_its_connection_is_given_up() {
    for conduct in [Conduct::SaysNothing, Conduct::AnswersNothing] {
        let hanging = TlsServer::start(conduct, [0; 4]).await;
        let good = TlsServer::start(Conduct::Answers, [192, 0, 2, 2]).await;
        let cache = Cache::start(vec![all_by_tls(&[hanging.named(NAME), good.named(NAME)])]).await;
        assert_eq!(cache.ask("a.example.com.").await, "192.0.2.2");
        // Nobody waits for it again so soon.
        let since = Instant::now();
        assert_eq!(cache.ask("b.example.com.").await, "192.0.2.2");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        assert_eq!((hanging.connections(), hanging.in_the_clear()), (1, 0));
        let is_given_up = async {
            while cache.view.troubles().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_given_up).await.unwrap();
        assert!(cache.view.troubles()[0].contains(" within "), "{:?}", cache.view.troubles());
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_is_opened_again_and_nobody_notices() {
    let server = TlsServer::start(Conduct::ClosesAfterAnswer, [192, 0, 2, 1]).await;
    let cache = cache_of(&server, NAME).await;
    for number in 0..5 {
        assert_eq!(cache.ask(&format!("n{number}.example.com.")).await, "192.0.2.1");
    }
    assert!((2..=5).contains(&server.connections()), "{}", server.connections());
    // One that is closed when the question is on its way already: it is asked again on another.
    let server = TlsServer::start(Conduct::ClosesAtSecondQuestion, [192, 0, 2, 1]).await;
    let cache = cache_of(&server, NAME).await;
    for name in ["a.example.com.", "b.example.com.", "c.example.com."] {
        assert_eq!(cache.ask(name).await, "192.0.2.1");
    }
    assert_eq!((server.connections(), server.asked(), server.in_the_clear()), (2, 4, 0));
    let text = cache.view.metrics();
    assert!(!text.contains("keelson_dns_upstream_failures_total{"), "that is no failure: {text}");
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let server = TlsServer::start(Conduct::AnswersInPairs, [192, 0, 2, 1]).await;
    let cache = cache_of(&server, NAME).await;
    let (one, other) = tokio::join!(cache.ask("a.example.com."), cache.ask("b.example.com."));
    assert_eq!((one.as_str(), other.as_str()), ("192.0.2.1", "192.0.2.1"));
    assert_eq!((server.asked(), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_certificate_is_too_young_only_by_a_clock_that_was_told() {
    let future = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2100, 1, 1);
        params.not_after = rcgen::date_time_ymd(2101, 1, 1);
    };
    let server = TlsServer::with(Conduct::Answers, [192, 0, 2, 1], &Authority::new(), future).await;
    let cache = cache_of(&server, NAME).await;
    assert_eq!(cache.ask("time.example.com.").await, "192.0.2.1");
    let cache = cache_of(&server, "other.example.com").await;
    assert_eq!(cache.ask("time.example.com.").await, "ServFail", "the name counts whatever the time is");
    // Once it was told, whoever was taken before is judged again, on a connection of before, too.
    for is_asked_before in [false, true] {
        let cache = cache_of(&server, NAME).await;
        if is_asked_before {
            assert_eq!(cache.ask("time.example.com.").await, "192.0.2.1");
        }
        cache.view.tell_clock();
        assert_eq!(cache.ask("other.example.com.").await, "ServFail");
        let told = &cache.view.troubles()[0];
        assert!(told.ends_with("its certificate is not valid yet, by this machine's clock"), "{told}");
    }
    assert_eq!((server.asked(), server.in_the_clear()), (2, 0));
}

#[tokio::test]
async fn domains_are_asked_by_tls_and_others_without_or_the_other_way_round() {
    let secure = TlsServer::start(Conduct::Answers, [10, 0, 0, 1]).await;
    let plain = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let mut corp = all_by_tls(&[secure.named(NAME)]);
    corp.domains = vec!["corp.example".to_owned()];
    let cache = Cache::start(vec![all(&[plain.address]), corp]).await;
    assert_eq!(cache.ask("www.example.com.").await, "192.0.2.1");
    assert_eq!(cache.ask("www.corp.example.").await, "10.0.0.1");
    // The same server, for all others: on the same connection, but what it said before is asked again.
    cache.tell(vec![all_by_tls(&[secure.named(NAME)]), about("corp.example", &[plain.address])]);
    assert_eq!(cache.ask("www.example.com.").await, "10.0.0.1");
    assert_eq!(cache.ask("www.corp.example.").await, "192.0.2.1");
    assert_eq!((secure.asked(), secure.connections(), plain.asked()), (2, 1, 2));
}
