//! The form at the console of a machine that has no usable manifest: whoever stands there can mend the network for this
//! start, or paste a manifest.
//!
//! ```text
//! Closed ─ any line ─▶ Menu ─ 1 ─▶ the interfaces
//!    ▲                  │ ├── 2 ─▶ Interface ─▶ Address ─▶ Gateway ─▶ Servers ─▶ checked, in force
//!    ├───────── 4 ──────┤ └── 3 ─▶ Pasting ─ a line with a dot ─▶ checked, taken in
//!    └─ tried ◀─ Passphrase ◀─ 5 ┘
//! ```
//!
//! It decides from lines alone. What it makes is a manifest in any case, so that there is one place where addresses are
//! checked, and one kind of diagnostics. A machine that has a manifest has no form: whoever stands at it could take it
//! over.

use std::mem::take;

use manifest::MANIFEST_BYTES;

const MENU: &str = "1 shows the interfaces, 2 sets an address until the next start, 3 takes a manifest, \
                    4 ends this, 5 takes what opens a locked disk";
const ADDRESS: &str = "its address with the length of its network's prefix, such as 192.168.1.10/24; or dhcp:";
const GATEWAY: &str = "the gateway, or nothing:";
const SERVERS: &str = "DNS servers with spaces in between, or nothing:";
const PASTE: &str = "paste the manifest, and end it by a line with a dot:";
const PASSPHRASE: &str = "the passphrase or the recovery key, which is not shown:";
/// Nobody types more.
const LINE_BYTES: usize = 1024;

/// What is to be done after a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Show this.
    Show(String),
    /// Use the network of this manifest until there is a manifest, and show what comes with it.
    Network(String),
    /// Take this manifest in, whose warnings are shown.
    Take(String, String),
    /// Open the disk with this.
    Unlock(String),
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
    Address(String),
    /// Asked for the gateway, with the interface and its address.
    Gateway(String, String),
    /// Asked for DNS servers, with all of that.
    Servers(String, String, String),
    /// In the middle of a manifest.
    Pasting(String),
    /// Asked for what opens the disk.
    Passphrase,
}

impl Form {
    /// Takes a line. `interfaces` are the machine's, `shown` is what there is to know about them.
    pub(crate) fn take(&mut self, line: &str, interfaces: &[String], shown: &str) -> Answer {
        if let Self::Pasting(text) = self
            && line != "."
        {
            return paste(text, line).unwrap_or_else(|| {
                *self = Self::Menu;
                Answer::Show(format!("a manifest has at most {MANIFEST_BYTES} bytes\n{MENU}"))
            });
        }
        let word = line.trim();
        if !matches!(self, Self::Pasting(_) | Self::Passphrase) && !is_plain(word) {
            *self = Self::Menu;
            return Answer::Show(format!("letters, digits and . : / - are understood, no others\n{MENU}"));
        }
        let (next, answer) = match take(self) {
            Self::Closed => (Self::Menu, Answer::Show(MENU.to_owned())),
            Self::Menu => menu(word, interfaces, shown),
            Self::Interface if interfaces.iter().any(|name| name == word) => {
                (Self::Address(word.to_owned()), Answer::Show(ADDRESS.to_owned()))
            }
            Self::Interface => (Self::Menu, Answer::Show(format!("there is no interface {word:?}\n{MENU}"))),
            Self::Address(name) if word == "dhcp" => finish(&name, "dhcp = \"ipv4\"", ""),
            Self::Address(name) => (Self::Gateway(name, word.to_owned()), Answer::Show(GATEWAY.to_owned())),
            Self::Gateway(name, address) => {
                (Self::Servers(name, address, word.to_owned()), Answer::Show(SERVERS.to_owned()))
            }
            Self::Servers(name, address, gateway) => {
                let mut keys = format!("addresses = [\"{address}\"]");
                if !gateway.is_empty() {
                    keys += &format!("\n[[network.interfaces.routes]]\nto = \"default\"\nvia = \"{gateway}\"");
                }
                finish(&name, &keys, word)
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

fn menu(word: &str, interfaces: &[String], shown: &str) -> (Form, Answer) {
    match word {
        "1" => (Form::Menu, Answer::Show(format!("{shown}\n{MENU}"))),
        "2" => (Form::Interface, Answer::Show(format!("which interface: {}", interfaces.join(", ")))),
        "3" => (Form::Pasting(String::new()), Answer::Show(PASTE.to_owned())),
        "5" => (Form::Passphrase, Answer::Show(PASSPHRASE.to_owned())),
        "4" => (Form::Closed, Answer::Show("an empty line brings the form back".to_owned())),
        _ => (Form::Menu, Answer::Show(MENU.to_owned())),
    }
}

/// Adds a line; nothing if that is too much.
fn paste(text: &mut String, line: &str) -> Option<Answer> {
    if text.len() + line.len() >= MANIFEST_BYTES {
        return None;
    }
    text.push_str(line);
    text.push('\n');
    Some(Answer::Show(String::new()))
}

fn pasted(text: String) -> (Form, Answer) {
    let (good, findings) = manifest::check("pasted", &text);
    match good {
        Some(_) => {
            let warnings = if findings.is_empty() { String::new() } else { findings.to_string() };
            (Form::Closed, Answer::Take(text, warnings))
        }
        None => (Form::Menu, Answer::Show(format!("{findings}\nit is not taken in\n{MENU}"))),
    }
}

/// Makes the manifest of a network and checks it. Everything else in it is of no account.
fn finish(interface: &str, keys: &str, servers: &str) -> (Form, Answer) {
    let servers: Vec<String> = servers.split_whitespace().map(|server| format!("\"{server}\"")).collect();
    let text = format!(
        "version = 1\n[machine]\nhostname = \"keelson\"\nrole = \"single\"\n[network]\ndns-servers = [{}]\n\
         [[network.interfaces]]\nname = \"{interface}\"\n{keys}\n",
        servers.join(", ")
    );
    let (good, findings) = manifest::check("this network", &text);
    match good {
        Some(_) => (Form::Menu, Answer::Network(text)),
        None => (Form::Menu, Answer::Show(format!("{findings}\nnothing was changed\n{MENU}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";

    /// The last answer to these lines, and where they lead.
    fn play(lines: &str) -> (Form, Answer) {
        let mut form = Form::default();
        let interfaces = ["eth0".to_owned(), "eth1".to_owned()];
        let answers: Vec<Answer> = lines.lines().map(|line| form.take(line, &interfaces, "eth0 is up")).collect();
        (form, answers.into_iter().last().unwrap())
    }

    fn shown(lines: &str) -> String {
        match play(lines) {
            (_, Answer::Show(text)) => text,
            other => panic!("{other:?}"),
        }
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
        assert!(matches!(play("\n2\neth0\ndhcp\n"), (_, Answer::Network(text)) if text.contains("dhcp = \"ipv4\"")));
        assert!(matches!(play("\n2\neth0\nfd00::1/64\n\n\n"), (_, Answer::Network(_))));
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_is_done() {
        let told = shown("\n2\neth0\n192.168.1.300/24\n\n\n");
        assert!(told.contains("192.168.1.300/24") && told.contains("nothing was changed"), "{told}");
        assert!(shown("\n2\neth7\n").contains("no interface \"eth7\""));
        assert!(shown("\n2\neth0\n1.2.3.4/24\"]\n").contains("no others"));
        assert!(shown("\n1\n").contains("eth0 is up"));
        assert!(shown("\n4\n").contains("brings the form back"));
        assert_eq!(play("\n5\nwhat \"I\" know").1, Answer::Unlock("what \"I\" know".to_owned()));
    }

    #[test]
    fn a_manifest_is_taken_only_if_it_is_good() {
        let (form, answer) = play(&format!("\n3\n{GOOD}.\n"));
        assert_eq!((form, answer), (Form::Closed, Answer::Take(GOOD.to_owned(), String::new())));
        let told = shown("\n3\nversion = 1\n[machine]\nhostnam = \"m1\"\n.\n");
        assert!(told.contains("hostnam") && told.contains("pasted:4") || told.contains("pasted:3"), "{told}");
        assert!(told.contains("not taken in"));
        let long = format!("\n3\n{}", format!("# {}\n", "x".repeat(1000)).repeat(MANIFEST_BYTES / 1000));
        assert!(shown(&long).contains("at most"));
    }
}
