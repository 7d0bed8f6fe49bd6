//! What the whole machine uses, read from the kernel's text files.

use std::fs;

use crate::node::facts;

/// Ticks of `/proc/stat` in a second: fixed by the kernel's interface, whatever its own rhythm is.
const TICKS: u64 = 100;
const NANOS: u64 = 1_000_000_000;

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) cpu_nanos: u64,
    /// Seconds since 1970.
    pub(super) booted: i64,
    pub(super) memory: MachineMemory,
    pub(super) interfaces: Vec<Interface>,
    /// The interface of the default route.
    pub(super) default_interface: Option<String>,
    pub(super) max_pid: Option<u64>,
    pub(super) processes: Option<u64>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MachineMemory {
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) available: u64,
    pub(super) rss: u64,
    pub(super) swap_total: u64,
    pub(super) swap_free: u64,
    pub(super) page_faults: u64,
    pub(super) major_page_faults: u64,
}

/// Counters of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) rx_bytes: u64,
    pub(super) rx_packets: u64,
    pub(super) rx_errors: u64,
    pub(super) rx_dropped: u64,
    pub(super) tx_bytes: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_errors: u64,
    pub(super) tx_dropped: u64,
}

impl Machine {
    pub(super) fn observe() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/stat");
        Self {
            cpu_nanos: busy_nanos(&stat),
            booted: keyed(&stat, "btime").and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0),
            memory: memory(&read("/proc/meminfo"), &read("/proc/vmstat")),
            interfaces: interfaces(&read("/proc/net/dev")),
            default_interface: default_interface(&read("/proc/net/route")),
            max_pid: read("/proc/sys/kernel/pid_max").trim().parse().ok(),
            processes: read("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|count| count.parse().ok()),
        }
    }

    /// Processors; 0 is never said.
    pub(super) fn processors() -> u64 {
        facts::processors() as u64
    }
}

/// A line `key value` or `key: value kB`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        rest.starts_with(char::is_whitespace).then(|| rest.split_whitespace().next()?.parse().ok())?
    })
}

/// Time that processors were busy: everything but idle and waiting for disks. Guests are in the user's time already.
fn busy_nanos(stat: &str) -> u64 {
    let Some(line) = stat.lines().find(|line| line.starts_with("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    busy * (NANOS / TICKS)
}

fn memory(meminfo: &str, vmstat: &str) -> MachineMemory {
    let bytes = |key: &str| keyed(meminfo, key).unwrap_or(0) * 1024;
    MachineMemory {
        total: bytes("MemTotal"),
        free: bytes("MemFree"),
        available: bytes("MemAvailable"),
        rss: bytes("AnonPages"),
        swap_total: bytes("SwapTotal"),
        swap_free: bytes("SwapFree"),
        page_faults: keyed(vmstat, "pgfault").unwrap_or(0),
        major_page_faults: keyed(vmstat, "pgmajfault").unwrap_or(0),
    }
}

fn interfaces(text: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let counts: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            counts[..]
        else {
            return None;
        };
        let name = name.trim().to_owned();
        Some(Interface {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

fn default_interface(routes: &str) -> Option<String> {
    let mut defaults = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = defaults.find(|words| words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000"))?;
    line.first().map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_texts_are_read() {
        assert_eq!(busy_nanos("cpu  100 0 50 1000 70 0 0 0 9 9\ncpu0 1 1\n"), 1_500_000_000);
        let found = memory("MemTotal: 4 kB\nMemFree: 1 kB\nAnonPages:  2 kB\n", "pgfault 7\npgmajfault 3\n");
        assert_eq!((found.total, found.rss, found.page_faults, found.major_page_faults), (4096, 2048, 7, 3));
        let dev =
            "Inter-| x\n face |bytes\n lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0: 10 2 0 0 0 0 0 0 20 3 1 0 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rx_bytes, found[0].tx_bytes, found[0].tx_errors), (10, 20, 1));
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth1 0000A8C0 0 1 0 0 0 00FFFFFF\n\
                      eth0 00000000 01 3 0 0 0 00000000 0 0 0\n";
        assert_eq!(default_interface(routes).as_deref(), Some("eth0"));
    }
}
