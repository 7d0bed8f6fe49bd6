//! Against real Tang servers.

#[path = "../../../../bootstrap/tang/tests/real/mod.rs"]
mod real;

use std::os::fd::AsFd;

use sys::wait_readable;
use tang::Server;

use super::*;
use real::Tang;

fn named(server: &Tang) -> Server {
    Server { url: server.url.clone(), thumbprints: server.thumbprints("verify") }
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn asked(is_locked: bool, asks: Vec<Ask>) -> Asked {
    Asked { is_locked, asks: asks.into_iter().map(|ask| ("KEELSON-STATE".to_owned(), ask)).collect() }
}

#[tokio::test]
async fn a_new_key_comes_back_from_its_server_and_another_server_is_told_apart() {
    let (server, other) = (Tang::start(), Tang::start());
    let made = round(&asked(true, vec![Ask::Bind(named(&server))])).await;
    let [Fetched { binding, secret, .. }] = &made.fetched[..] else { panic!("{made:?}") };
    assert_eq!(server::recover(binding).await.unwrap(), *secret);
    let back = round(&asked(true, vec![Ask::Recover(Box::new(binding.clone()))])).await;
    assert_eq!(back.fetched, made.fetched);

    let mistaken = Server { url: other.url.clone(), ..named(&server) };
    let missed = round(&asked(false, vec![Ask::Bind(mistaken)])).await;
    let lack = lack(&missed, false).unwrap();
    assert!(lack.why.contains(&other.thumbprints("verify")[0]), "{lack:?}");
    assert!(lack.fix.contains("tang-show-keys") && missed.fetched.is_empty(), "{lack:?}");
}

/// A key that was agreed on with this server, which is asked for elsewhere.
fn moved(server: &Tang, url: &str) -> Ask {
    let (_, said) = server.call("GET /adv", b"");
    let said = tang::Advertisement::read(&said, &server.thumbprints("verify")).unwrap();
    Ask::Recover(Box::new(tang::Binding::seal(url, &said).unwrap().0))
}

#[tokio::test]
async fn any_server_of_a_partition_opens_it_and_those_that_do_not_are_named() {
    let (server, nobody) = (Tang::start(), nobody());
    let (binding, secret) = server.bind();
    let both = round(&asked(true, vec![moved(&server, &nobody), Ask::Recover(Box::new(binding))])).await;
    assert_eq!((both.fetched[0].secret.clone(), both.missed), (secret, Vec::new()));

    let alone = round(&asked(true, vec![moved(&server, &nobody)])).await;
    let told = lack(&alone, true).unwrap();
    let expected = format!("no key came for KEELSON-STATE from {nobody}: it cannot be reached: ");
    assert!(told.why.starts_with(&expected) && told.fix.contains("keelson unlock"), "{told:?}");
    assert_eq!(told.name, "NetworkKeyMissing");
    let forgotten = round(&asked(true, vec![moved(&Tang::start(), &server.url)])).await;
    assert!(forgotten.missed[0].why.contains("does not know the key"), "{forgotten:?}");
}

#[tokio::test]
async fn what_is_asked_for_in_a_file_comes_by_the_inbox() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Tang::start());
    for name in [FOLDER, "inbox", "conditions"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let (_status, network) = watch::channel(NetworkStatus::default());
    let shutdown = Shutdown::new();
    let task = tokio::spawn(run(folder.path().to_owned(), network, shutdown.clone()));
    let ask = async |asked: &Asked, awaited: &str| {
        let path = folder.path().join(awaited);
        let inbox = FileWatch::new().unwrap();
        inbox.add_folder(path.parent().unwrap()).unwrap();
        let file = folder.path().join(FOLDER).join(ASKED);
        Linux.replace(&file, &serde_json::to_vec(asked).unwrap(), 0o600).unwrap();
        let came = tokio::task::spawn_blocking(move || wait_readable(&[inbox.as_fd()], Duration::from_secs(60)));
        assert!(came.await.unwrap().contains(&true), "nothing came");
        std::fs::read_to_string(path).unwrap()
    };
    let told = ask(&asked(true, vec![moved(&server, &nobody())]), LOCKED).await;
    assert!(told.starts_with("NetworkKeyMissing: "), "{told}");
    let came = ask(&asked(true, vec![Ask::Bind(named(&server))]), INBOX).await;
    let came: Vec<Fetched> = serde_json::from_str(&came).unwrap();
    assert_eq!(server::recover(&came[0].binding).await.unwrap(), came[0].secret);
    shutdown.trigger();
    task.await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join(LOCKED)).unwrap(), "");
}
