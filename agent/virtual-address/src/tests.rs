//! Masters in network namespaces on one bridge, with the kernel's sockets and addresses. Needs root.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lifecycle::Shutdown;
use machine_api::VirtualAddressStatus;
use netlink::{Netlink, Veth, netns};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{Config, Readiness, run};

const PORT: u16 = 6443;
/// For everything that happens at some time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between one look and the next.
const LOOK: Duration = Duration::from_millis(20);
/// Who says goodbye is followed sooner than who falls silent, who is missed for 3.6 seconds.
const AT_ONCE: Duration = Duration::from_millis(3500);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::park_timeout(LOOK);
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    netns::within(namespace.as_fd(), work).unwrap()
}

/// A bridge in a namespace of its own, with an address for each family.
struct Lan(OwnedFd);

impl Lan {
    fn new() -> Option<Self> {
        let namespace = netns::create().ok()?;
        inside(&namespace, || {
            block_on(async {
                let kernel = Netlink::connect().unwrap();
                let bridge = kernel.create_bridge("lan").await.unwrap().index;
                kernel.set_up(bridge).await.unwrap();
                for net in ["10.85.0.254/24", "fd00:85::fe/64"] {
                    kernel.add_address(bridge, net.parse().unwrap()).await.unwrap();
                }
            });
        });
        Some(Self(namespace))
    }

    /// A machine at the bridge, which answers with its number.
    fn join(&self, number: u8) -> Arc<OwnedFd> {
        let machine = Arc::new(netns::create().unwrap());
        let port = format!("port{number}");
        inside(&self.0, || {
            block_on(async {
                let kernel = Netlink::connect().unwrap();
                let veth = Veth {
                    name: &port,
                    peer: "eth0",
                    peer_namespace: Some(machine.as_fd()),
                    mtu: None,
                    peer_mac: None,
                };
                let near = kernel.create_veth(&veth).await.unwrap().index;
                let bridge = kernel.require_link("lan").await.unwrap().index;
                kernel.set_controller(near, Some(bridge)).await.unwrap();
                kernel.set_up(near).await.unwrap();
            });
        });
        let listener = inside(&machine, || {
            block_on(async {
                let kernel = Netlink::connect().unwrap();
                let link = kernel.require_link("eth0").await.unwrap().index;
                kernel.set_up(link).await.unwrap();
                for net in [format!("10.85.0.{number}/24"), format!("fd00:85::{number}/64")] {
                    kernel.add_address(link, net.parse().unwrap()).await.unwrap();
                }
            });
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap()
        });
        std::thread::spawn(move || listener.incoming().flatten().for_each(|mut it| drop(it.write_all(&[number]))));
        machine
    }

    /// The number of the machine that answers at an address.
    fn answers(&self, address: IpAddr) -> Option<u8> {
        inside(&self.0, || {
            let mut call =
                TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), Duration::from_millis(500)).ok()?;
            call.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut number = [0];
            call.read_exact(&mut number).ok().map(|()| number[0])
        })
    }

    fn cut(&self, number: u8) {
        inside(&self.0, || {
            block_on(async {
                let kernel = Netlink::connect().unwrap();
                let port = kernel.require_link(&format!("port{number}")).await.unwrap().index;
                kernel.set_down(port).await.unwrap();
            });
        });
    }
}

/// The process of one machine.
struct Process {
    machine: Arc<OwnedFd>,
    run: TempDir,
    ready: watch::Sender<Readiness>,
    shutdown: Shutdown,
    fall: Shutdown,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    fn start(machine: &Arc<OwnedFd>, address: IpAddr, ready: Readiness) -> Self {
        let run_folder = tempfile::tempdir().unwrap();
        for name in ["inbox", "conditions"] {
            std::fs::create_dir(run_folder.path().join(name)).unwrap();
        }
        let config = Config {
            address,
            interface: None,
            router_id: 51,
            priority: 100,
            preempt: true,
            run: run_folder.path().to_owned(),
            notify_socket: None,
        };
        let (ready, known) = watch::channel(ready);
        let (shutdown, fall) = (Shutdown::new(), Shutdown::new());
        let (inner, stop, fallen) = (machine.clone(), shutdown.clone(), fall.clone());
        let thread = std::thread::spawn(move || {
            inside(&inner, || {
                block_on(async {
                    tokio::select! {
                        ended = run(config, known, stop) => ended.unwrap(),
                        () = fallen.wait() => {}
                    }
                });
            });
        });
        Self { machine: machine.clone(), run: run_folder, ready, shutdown, fall, thread: Some(thread) }
    }

    fn status(&self) -> Option<VirtualAddressStatus> {
        serde_json::from_slice(&std::fs::read(self.run.path().join("virtual-address.json")).ok()?).ok()
    }

    fn is_here(&self) -> bool {
        self.status().is_some_and(|status| status.is_here)
    }

    /// How often it said that the address came or went.
    fn events(&self) -> usize {
        std::fs::read_dir(self.run.path().join("inbox")).unwrap().count()
    }

    fn has(&self, address: IpAddr) -> bool {
        let all = inside(&self.machine, || block_on(async { Netlink::connect().unwrap().addresses().await.unwrap() }));
        all.iter().any(|it| it.net.addr() == address)
    }

    /// Ends it, in order or as if it was killed.
    fn end(&mut self, signal: &Shutdown) {
        signal.trigger();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn one_of_two_has_it(address: &str) {
    let Some(lan) = Lan::new() else {
        eprintln!("SKIPPED: needs root to make network namespaces");
        return;
    };
    let address: IpAddr = address.parse().unwrap();
    let not_ready = || Readiness::NotReady("etcd".to_owned());
    let (first, second) = (lan.join(1), lan.join(2));
    let mut a = Process::start(&first, address, Readiness::Ready);
    let mut b = Process::start(&second, address, not_ready());
    until("the first", || (lan.answers(address) == Some(1)).then_some(()));
    until("word of it", || b.status().filter(|status| status.holder.is_some() && !status.is_here));
    assert!(b.status().unwrap().why_not.contains("the API server is not ready: etcd"));

    // Given up, it is taken at once. Of equals one has it: who had it, unless a busy machine silenced him for a second.
    b.ready.send(Readiness::Ready).unwrap();
    until("the second's wish", || b.status().filter(|status| status.why_not.is_empty()));
    let asked = Instant::now();
    a.ready.send(not_ready()).unwrap();
    until("the second", || (lan.answers(address) == Some(2)).then_some(()));
    assert!(asked.elapsed() < AT_ONCE, "after {:?}", asked.elapsed());
    assert!(!a.has(address));
    a.ready.send(Readiness::Ready).unwrap();
    until("the first's wish", || a.status().filter(|status| status.why_not.is_empty() && status.holder.is_some()));
    until("one of equals", || (a.is_here() != b.is_here()).then_some(()));

    // Who has lost etcd is better than nobody, and not better than who has it. What a process wrote down last may be of
    // before it was told: that it gave the address up and took it again is an event for each.
    a.ready.send(not_ready()).unwrap();
    until("the second alone", || {
        let gave_up = a.status()?.why_not.contains("not ready");
        (gave_up && b.is_here()).then_some(())
    });
    let before = b.events();
    b.ready.send(Readiness::Poor("etcd".to_owned())).unwrap();
    until("the poor one", || (b.events() >= before + 2 && b.is_here()).then_some(()));
    a.ready.send(Readiness::Ready).unwrap();
    until("the better one", || (a.is_here() && !b.is_here()).then_some(()));

    // Killed, it leaves the address behind: neighbours are told of the other one, and what is left is taken off. The
    // other one is not its equal until then, and could not have taken the address from it.
    let killed = a.fall.clone();
    a.end(&killed);
    assert!(a.has(address));
    b.ready.send(Readiness::Ready).unwrap();
    until("the second again", || b.is_here().then_some(()));
    until("its neighbours", || (lan.answers(address) == Some(2)).then_some(()));
    let mut a = Process::start(&first, address, Readiness::Ready);
    until("the first without it", || (!a.has(address)).then_some(()));
    until("the first's wish", || a.status().filter(|status| status.holder.is_some() && status.why_not.is_empty()));
    until("one of equals", || (a.is_here() != b.is_here()).then_some(()));

    // A wire that is cut, and an end in order.
    lan.cut(2);
    until("the first after the cut", || (lan.answers(address) == Some(1)).then_some(()));
    until("the second without a signal", || b.status().filter(|status| status.why_not.contains("no signal")));
    assert!(!b.has(address));
    for process in [&mut a, &mut b] {
        let shutdown = process.shutdown.clone();
        process.end(&shutdown);
        assert!(!process.has(address));
    }
}

#[test]
fn one_of_two_has_it_by_ipv4() {
    one_of_two_has_it("10.85.0.5");
}

#[test]
fn one_of_two_has_it_by_ipv6() {
    one_of_two_has_it("fd00:85::5");
}
