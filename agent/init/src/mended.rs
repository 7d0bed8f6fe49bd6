//! The manifest whose network counts once an address was set at the console: the one that counted before, with one
//! interface of it replaced. Everything else of it stays, so that a firewall does.

use toml::{Table, Value};

/// Where no manifest says anything. Only its network is of account.
pub(crate) const NAMELESS: &str = "version = 1\n[machine]\nhostname = \"keelson\"\nrole = \"single\"\n";

/// An interface of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) name: String,
    /// Its Ethernet address, as the kernel writes it.
    pub(crate) mac: String,
}

/// What an interface is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) card: Card,
    /// None is for DHCP to say.
    pub(crate) address: Option<String>,
    /// None, or empty.
    pub(crate) gateway: String,
    /// Those that there were, if it is empty.
    pub(crate) servers: Vec<String>,
}

/// Makes it. What the wish holds is checked by whoever checks manifests.
pub(crate) fn mend(manifest: &str, wish: &Wish) -> String {
    let mut table: Table = manifest.parse().unwrap_or_default();
    if let Some(network) = section(&mut table, "network", || Value::Table(Table::new())).as_table_mut() {
        if !wish.servers.is_empty() {
            let servers = wish.servers.iter().cloned().map(Value::String).collect();
            network.insert("dns-servers".to_owned(), Value::Array(servers));
            if !wish.servers.iter().any(|server| server.contains('#')) {
                // These are asked without TLS, and whoever stands at the console chose so.
                network.remove("dns-ca");
            }
        }
        if let Some(all) = section(network, "interfaces", || Value::Array(Vec::new())).as_array_mut() {
            interface(all, wish);
        }
    }
    // A table that was parsed can be written.
    toml::to_string(&table).unwrap_or_default()
}

fn section<'a>(table: &'a mut Table, name: &str, empty: fn() -> Value) -> &'a mut Value {
    table.entry(name).or_insert_with(empty)
}

/// Gives the interface what is wished for. What it is made of, and all that has nothing to do with addresses, stays.
fn interface(all: &mut Vec<Value>, wish: &Wish) {
    let place = all.iter().position(|one| is_that(one, &wish.card)).unwrap_or_else(|| {
        let name = Value::String(wish.card.name.clone());
        all.push(Value::Table(Table::from_iter([("name".to_owned(), name)])));
        all.len() - 1
    });
    let Some(table) = all[place].as_table_mut() else { return };
    for key in ["addresses", "dhcp", "routes"] {
        table.remove(key);
    }
    let text = |text: &str| Value::String(text.to_owned());
    match &wish.address {
        None => drop(table.insert("dhcp".to_owned(), text("ipv4"))),
        Some(address) => drop(table.insert("addresses".to_owned(), Value::Array(vec![text(address)]))),
    }
    if !wish.gateway.is_empty() {
        let route = [("to".to_owned(), text("default")), ("via".to_owned(), text(&wish.gateway))];
        table.insert("routes".to_owned(), Value::Array(vec![Value::Table(Table::from_iter(route))]));
    }
}

fn is_that(interface: &Value, card: &Card) -> bool {
    let has = |key: &str, wanted: &str| {
        interface.get(key).and_then(Value::as_str).is_some_and(|given| given.eq_ignore_ascii_case(wanted))
    };
    has("name", &card.name) || (!card.mac.is_empty() && has("mac", &card.mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n\
        [network]\ndns-servers = [\"10.0.0.9\"]\n[network.firewall]\ningress = \"block\"\n\
        [[network.interfaces]]\nmac = \"02:00:00:00:00:0A\"\naddresses = [\"10.0.0.2/24\"]\nmtu = 1400\n\
        [[network.interfaces.routes]]\nto = \"default\"\nvia = \"10.0.0.1\"\n\
        [[network.interfaces]]\nname = \"eth1\"\ndhcp = \"ipv4\"\n";

    fn wish(name: &str, address: Option<&str>, gateway: &str, servers: &[&str]) -> Wish {
        Wish {
            card: Card { name: name.to_owned(), mac: "02:00:00:00:00:0a".to_owned() },
            address: address.map(str::to_owned),
            gateway: gateway.to_owned(),
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        }
    }

    /// The keys of the first that are other ones in the second.
    fn changed(before: &str, after: &str) -> Vec<String> {
        assert!(manifest::check("test", after).0.is_some(), "{after}");
        manifest::diff(before, after).into_iter().map(|change| change.key).collect()
    }

    #[test]
    fn one_interface_is_replaced_and_all_else_stays() {
        // Named as it is there, or found by its Ethernet address.
        let after = mend(MANIFEST, &wish("eth0", Some("10.0.1.2/24"), "10.0.1.1", &[]));
        let at = "network.interfaces[0]";
        assert_eq!(changed(MANIFEST, &after), [format!("{at}.addresses"), format!("{at}.routes[0].via")]);
        let after = mend(MANIFEST, &wish("eth0", None, "", &["9.9.9.9"]));
        let [addresses, dhcp] = ["addresses", "dhcp"].map(|key| format!("{at}.{key}"));
        let [to, via] = ["to", "via"].map(|key| format!("{at}.routes[0].{key}"));
        assert_eq!(changed(MANIFEST, &after), ["network.dns-servers".to_owned(), addresses, dhcp, to, via]);
        // CAs are nothing to servers that are asked without TLS.
        let ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let by_tls = format!("[network]\ndns-servers = [\"10.0.0.9#ns\"]\ndns-ca = \"\"\"\n{ca}\"\"\"\n");
        let by_tls = MANIFEST.replace("[network]\ndns-servers = [\"10.0.0.9\"]\n", &by_tls);
        let eth1 = || Card { name: "eth1".to_owned(), mac: String::new() };
        for (server, expected) in [
            ("9.9.9.9", &["network.dns-ca", "network.dns-servers"][..]),
            ("9.9.9.9#dns.quad9.net", &["network.dns-servers"][..]),
        ] {
            let after = mend(&by_tls, &Wish { card: eth1(), ..wish("", None, "", &[server]) });
            assert_eq!(changed(&by_tls, &after), expected, "{server}");
        }
        let other = Wish { card: Card { name: "eth1".to_owned(), mac: String::new() }, ..wish("", None, "", &[]) };
        assert_eq!(changed(MANIFEST, &mend(MANIFEST, &other)), Vec::<String>::new());
    }

    #[test]
    fn an_interface_that_no_manifest_names_comes_to_it() {
        let after = mend(NAMELESS, &wish("eth3", Some("fd00::2/64"), "", &[]));
        let network = manifest::parse("test", &after).unwrap().network;
        assert_eq!((network.interfaces.len(), network.interfaces[0].id.to_string()), (1, "eth3".to_owned()));
        let both = mend(
            &after,
            &Wish { card: Card { name: "eth4".to_owned(), ..Card::default() }, ..wish("", None, "", &[]) },
        );
        assert_eq!(manifest::parse("test", &both).unwrap().network.interfaces.len(), 2);
    }
}
