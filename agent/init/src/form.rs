//! The form at the console: whoever stands there sees how the machine is, tests the network, sets an address until the
//! next start and, while there is no manifest, pastes one.
//!
//! ```text
//! Closed ─ any line ─▶ the status, Menu ─ 1 ─▶ the status
//!    ▲                  │ ├── 2 ─▶ Interface ─▶ Address ─▶ Gateway ─▶ Servers ─▶ checked, in force
//!    │                  │ ├── 3 ─▶ Pasting ─ a line with a dot ─▶ checked, taken in
//!    ├───────── 4 ──────┤ ├── 6 ─▶ an archive on a stick
//!    │                  │ └── dns, route, port ─▶ what was found
//!    └─ tried ◀─ Passphrase ◀─ 5 ┘
//! ```
//!
//! It decides from lines alone. What it makes is a manifest in any case, so that there is one place where addresses are
//! checked, and one kind of diagnostics. A machine that has a manifest takes no other one and no passphrase here: whoever
//! stands at it could take it over. An address they may set: they could also put in another cable.

use std::mem::take;

use manifest::MANIFEST_BYTES;

use crate::mended::{Card, Wish, mend};

/// What there is to choose, and whether also while there is a manifest.
const MENU: [(&str, bool); 7] = [
    ("1 shows the status", true),
    ("2 sets an address until the next start", true),
    ("3 takes a manifest", false),
    ("4 ends this", true),
    ("5 takes what opens a locked disk", false),
    ("6 writes what helps to find out what is wrong to a USB stick, without secrets", true),
    ("dns NAME, route ADDRESS or port HOST PORT tests the network", true),
];
const ADDRESS: &str = "its address with the length of its network's prefix, such as 192.168.1.10/24; or dhcp:";
const GATEWAY: &str = "the gateway, or nothing:";
const SERVERS: &str = "DNS servers with spaces in between, or nothing:";
const PASTE: &str = "paste the manifest, and end it by a line with a dot:";
const PASSPHRASE: &str = "the passphrase or the recovery key, which is not shown:";
const HAS_MANIFEST: &str = "this machine has a manifest. Another one, and a passphrase, it takes over the network only, from \
                            those whom it knows: `keelson apply FILE` or `keelson unlock`, with --endpoint THIS-MACHINE";
/// Nobody types more.
const LINE_BYTES: usize = 1024;

/// What is to be done after a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Show this, if it is anything.
    Show(String),
    /// It means nothing here, for this reason, if there is one to tell.
    Unclear(String),
    /// Nothing: more lines come.
    More,
    /// Show how the machine is.
    Status,
    /// Use the network of this manifest.
    Network(String),
    /// Test the network: what, and of whom.
    Test(Vec<String>),
    /// Write everything that helps to find out what is wrong to a stick.
    Support,
    /// Take this manifest in, whose warnings are shown.
    Take(String, String),
    /// Open the disk with this.
    Unlock(String),
}

/// What it has to know of the machine.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    /// Interfaces that may get an address.
    pub(crate) cards: Vec<Card>,
    /// The manifest whose network counts.
    pub(crate) network: String,
    /// Whether a manifest is in force.
    pub(crate) has_manifest: bool,
}

/// Where whoever stands there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nowhere yet.
    #[default]
    Closed,
    Menu,
    /// Asked for an interface.
    Interface,
    /// Asked for its address.
    Address(Card),
    /// Asked for the gateway, with the interface and its address.
    Gateway(Card, String),
    /// Asked for DNS servers, with all of that.
    Servers(Wish),
    /// In the middle of a manifest.
    Pasting(String),
    /// Asked for what opens the disk.
    Passphrase,
}

impl Form {
    /// What is asked now; nothing of a form that is closed.
    pub(crate) fn question(&self, scene: &Scene) -> Option<String> {
        let fixed = match self {
            Self::Closed => return None,
            Self::Menu => {
                let rows = MENU.iter().filter(|(_, is_always)| *is_always || !scene.has_manifest);
                return Some(rows.map(|(row, _)| *row).collect::<Vec<_>>().join("\n"));
            }
            Self::Interface => {
                let names: Vec<&str> = scene.cards.iter().map(|card| card.name.as_str()).collect();
                return Some(format!("which interface: {}", names.join(", ")));
            }
            Self::Address(_) => ADDRESS,
            Self::Gateway(..) => GATEWAY,
            Self::Servers(_) => SERVERS,
            Self::Pasting(_) => PASTE,
            Self::Passphrase => PASSPHRASE,
        };
        Some(fixed.to_owned())
    }

    /// Takes a line.
    pub(crate) fn take(&mut self, line: &str, scene: &Scene) -> Answer {
        if let Self::Pasting(text) = self
            && line != "."
        {
            return paste(text, line).unwrap_or_else(|| {
                *self = Self::Menu;
                Answer::Show(format!("a manifest has at most {MANIFEST_BYTES} bytes"))
            });
        }
        let word = line.trim();
        if !matches!(self, Self::Pasting(_) | Self::Passphrase) && !is_plain(word) {
            *self = Self::Menu;
            return Answer::Unclear("letters, digits and . : / - _ @ are understood, no others".to_owned());
        }
        let asked = || Answer::Show(String::new());
        let (next, answer) = match take(self) {
            Self::Closed => (Self::Menu, Answer::Status),
            Self::Menu => menu(word, scene),
            Self::Interface => match scene.cards.iter().find(|card| card.name == word) {
                Some(card) => (Self::Address(card.clone()), asked()),
                None => (Self::Menu, Answer::Unclear(format!("there is no interface {word:?}"))),
            },
            Self::Address(card) if word == "dhcp" => {
                (Self::Servers(Wish { card, address: None, ..Wish::default() }), asked())
            }
            Self::Address(card) => (Self::Gateway(card, word.to_owned()), asked()),
            Self::Gateway(card, address) => {
                let gateway = word.to_owned();
                (Self::Servers(Wish { card, address: Some(address), gateway, servers: Vec::new() }), asked())
            }
            Self::Servers(wish) => {
                let servers = word.split_whitespace().map(str::to_owned).collect();
                (Self::Menu, finish(scene, &Wish { servers, ..wish }))
            }
            // One may have come over the network meanwhile.
            Self::Pasting(_) | Self::Passphrase if scene.has_manifest => {
                (Self::Menu, Answer::Show(HAS_MANIFEST.to_owned()))
            }
            Self::Pasting(text) => pasted(text),
            Self::Passphrase => (Self::Closed, Answer::Unlock(line.to_owned())),
        };
        *self = next;
        answer
    }
}

/// What no text of a manifest can be broken out of with.
fn is_plain(word: &str) -> bool {
    word.len() <= LINE_BYTES && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .:/-_@".contains(&byte))
}

fn menu(word: &str, scene: &Scene) -> (Form, Answer) {
    let words: Vec<&str> = word.split_whitespace().collect();
    let asked = |form| (form, Answer::Show(String::new()));
    match words[..] {
        [] | ["1"] => (Form::Menu, Answer::Status),
        ["2"] => asked(Form::Interface),
        ["3" | "5"] if scene.has_manifest => (Form::Menu, Answer::Show(HAS_MANIFEST.to_owned())),
        ["3"] => asked(Form::Pasting(String::new())),
        ["5"] => asked(Form::Passphrase),
        ["6"] => (Form::Menu, Answer::Support),
        ["4"] => (Form::Closed, Answer::Show("Enter brings the status and the form back".to_owned())),
        ["dns" | "route", _] | ["port", _, _] => {
            (Form::Menu, Answer::Test(words.into_iter().map(str::to_owned).collect()))
        }
        _ => (Form::Menu, Answer::Unclear(String::new())),
    }
}

/// Adds a line; nothing if that is too much.
fn paste(text: &mut String, line: &str) -> Option<Answer> {
    if text.len() + line.len() >= MANIFEST_BYTES {
        return None;
    }
    text.push_str(line);
    text.push('\n');
    Some(Answer::More)
}

fn pasted(text: String) -> (Form, Answer) {
    let (good, findings) = manifest::check("pasted", &text);
    match good {
        Some(_) => {
            let warnings = if findings.is_empty() { String::new() } else { findings.to_string() };
            (Form::Closed, Answer::Take(text, warnings))
        }
        None => (Form::Menu, Answer::Show(format!("{findings}\nit is not taken in"))),
    }
}

/// Makes the manifest of a network and checks it.
fn finish(scene: &Scene, wish: &Wish) -> Answer {
    let text = mend(&scene.network, wish);
    match manifest::check("this network", &text) {
        (Some(_), _) => Answer::Network(text),
        (None, findings) => Answer::Show(format!("{findings}\nnothing was changed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mended::NAMELESS;

    const GOOD: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";

    fn scene(has_manifest: bool) -> Scene {
        let card = |name: &str| Card { name: name.to_owned(), mac: String::new() };
        Scene { cards: vec![card("eth0"), card("eth1")], network: NAMELESS.to_owned(), has_manifest }
    }

    /// The last answer to these lines, and where they lead.
    fn play_at(scene: &Scene, lines: &str) -> (Form, Answer) {
        let mut form = Form::default();
        let answers: Vec<Answer> = lines.lines().map(|line| form.take(line, scene)).collect();
        (form, answers.into_iter().last().unwrap())
    }

    fn play(lines: &str) -> (Form, Answer) {
        play_at(&scene(false), lines)
    }

    fn shown(lines: &str) -> String {
        match play(lines) {
            (_, Answer::Show(text) | Answer::Unclear(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn enter_shows_the_status_with_and_without_a_manifest() {
        for has_manifest in [false, true] {
            let scene = scene(has_manifest);
            for lines in ["\n", "\n1\n", "\n\n", "x\n"] {
                let (form, answer) = play_at(&scene, lines);
                assert_eq!((&form, &answer), (&Form::Menu, &Answer::Status), "{lines:?}");
                assert_eq!(form.question(&scene).unwrap().contains("3 takes"), !has_manifest);
            }
        }
        assert_eq!(Form::Closed.question(&scene(true)), None);
    }

    #[test]
    fn an_address_becomes_a_network_that_was_checked() {
        let (form, answer) = play("\n2\neth1\n192.168.1.10/24\n192.168.1.1\n192.168.1.1 9.9.9.9\n");
        let Answer::Network(text) = answer else { panic!("{answer:?}") };
        assert_eq!(form, Form::Menu);
        let network = manifest::parse("test", &text).unwrap().network;
        let interface = &network.interfaces[0];
        assert_eq!(
            (interface.id.to_string(), interface.addresses.len(), interface.routes.len()),
            ("eth1".into(), 1, 1)
        );
        assert_eq!(network.dns_servers.len(), 2);
        assert!(matches!(play("\n2\neth0\ndhcp\n\n"), (_, Answer::Network(text)) if text.contains("dhcp = \"ipv4\"")));
        let with_manifest = play_at(&scene(true), "\n2\neth0\nfd00::1/64\n\n\n");
        assert!(matches!(with_manifest, (Form::Menu, Answer::Network(_))), "{with_manifest:?}");
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_is_done() {
        let told = shown("\n2\neth0\n192.168.1.300/24\n\n\n");
        assert!(told.contains("192.168.1.300/24") && told.contains("nothing was changed"), "{told}");
        assert!(shown("\n2\neth0\n192.168.1.3/24\n10.0.0.1\n\n").contains("in no network of"));
        assert!(shown("\n2\neth7\n").contains("no interface \"eth7\""));
        assert!(shown("\n2\neth0\n1.2.3.4/24\"]\n").contains("no others"));
        assert!(shown("\n4\n").contains("back"));
        assert_eq!(play("\n5\nwhat \"I\" know").1, Answer::Unlock("what \"I\" know".to_owned()));
    }

    #[test]
    fn the_network_is_tested_and_nothing_else_is_run() {
        let test = |words: &[&str]| Answer::Test(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(play("\ndns example.com\n").1, test(&["dns", "example.com"]));
        assert_eq!(play_at(&scene(true), "\nport 10.0.0.1  6443\n").1, test(&["port", "10.0.0.1", "6443"]));
        assert_eq!(play("\nroute fd00::1\n").1, test(&["route", "fd00::1"]));
        for lines in ["\ndns\n", "\ndns a b\n", "\nport a\n", "\nreboot now\n"] {
            assert_eq!(play(lines), (Form::Menu, Answer::Unclear(String::new())), "{lines:?}");
        }
    }

    #[test]
    fn the_archive_is_for_everybody_who_stands_there() {
        for has_manifest in [false, true] {
            let scene = scene(has_manifest);
            assert_eq!(play_at(&scene, "\n6\n"), (Form::Menu, Answer::Support));
            assert!(Form::Menu.question(&scene).unwrap().contains("6 writes"));
        }
        assert_eq!(play("\n6 /dev/sda\n"), (Form::Menu, Answer::Unclear(String::new())));
    }

    #[test]
    fn a_manifest_is_taken_only_if_it_is_good() {
        let (form, answer) = play(&format!("\n3\n{GOOD}.\n"));
        assert_eq!((form, answer), (Form::Closed, Answer::Take(GOOD.to_owned(), String::new())));
        let told = shown("\n3\nversion = 1\n[machine]\nhostnam = \"m1\"\n.\n");
        assert!(told.contains("hostnam") && (told.contains("pasted:4") || told.contains("pasted:3")), "{told}");
        assert!(told.contains("not taken in"));
        let long = format!("\n3\n{}", format!("# {}\n", "x".repeat(1000)).repeat(MANIFEST_BYTES / 1000));
        assert!(shown(&long).contains("at most"));
    }

    #[test]
    fn a_machine_that_has_a_manifest_takes_no_other_one_and_no_passphrase() {
        let refused = (Form::Menu, Answer::Show(HAS_MANIFEST.to_owned()));
        assert_eq!(play_at(&scene(true), "\n3\n"), refused);
        assert_eq!(play_at(&scene(true), "\n5\n"), refused);
        // It came while somebody was still pasting.
        for mut form in [Form::Pasting(GOOD.to_owned()), Form::Passphrase] {
            let answer = form.take(".", &scene(true));
            assert_eq!((form, answer), refused);
        }
    }
}
