//! The pod network of one node: network namespaces on a bridge (upstream: the CNI plug-ins `bridge` and `host-local`).
//!
//! A namespace is named by a path, such as `/proc/<pid>/ns/net` of the process that holds it: with its last process
//! it is gone, and its end of the veth pair with it, so nothing is left behind when krust is killed.

mod firewall;
mod range;

pub use firewall::{HostPort, name as protocol_name};
pub use range::{PodRange, RangeError};

use crate::netfilter::{self, NetfilterError, conntrack};
use crate::runtime::Protocol;

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use tokio::sync::OnceCell;

/// The pod's interface, as every pod sees it.
const POD_INTERFACE: &str = "eth0";

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{operation} {subject}: {source}")]
    Netlink {
        operation: &'static str,
        subject: String,
        source: rtnetlink::Error,
    },
    #[error("{operation} {subject}: {source}")]
    Io {
        operation: &'static str,
        subject: String,
        source: io::Error,
    },
    #[error("the interface {0} is not there")]
    NoInterface(String),
    #[error("set the rules for {subject}: {source}")]
    Rules {
        subject: String,
        #[source]
        source: NetfilterError,
    },
}
type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// The bridge that the pods of this node are on.
pub struct PodNetwork {
    bridge: String,
    range: PodRange,
    /// Index of the bridge, once it is there.
    ready: OnceCell<u32>,
    /// What the bridge's table holds, or will when there is a bridge. Held while it is written.
    host_ports: tokio::sync::Mutex<BTreeSet<HostPort>>,
}

impl PodNetwork {
    pub fn new(bridge: &str, range: PodRange) -> PodNetwork {
        PodNetwork {
            bridge: bridge.to_string(),
            range,
            ready: OnceCell::new(),
            host_ports: tokio::sync::Mutex::default(),
        }
    }

    pub fn range(&self) -> &PodRange {
        &self.range
    }

    /// Goes on with what an earlier run left: the bridge, if there is one, gets its rules anew.
    pub async fn recover(&self, ports: BTreeSet<HostPort>) -> Result<()> {
        let found = {
            let (handle, _connection) = connect()?;
            find(&handle, &self.bridge).await?
        };
        match found {
            Some(_) => self.make(ports).await,
            None => Ok(()),
        }
    }

    pub fn is_made(&self) -> bool {
        self.ready.initialized()
    }

    /// The bridge with its rules, unless that was done. The ports must be the newest: another krust may have made the bridge
    /// meanwhile, and have its own on it.
    pub async fn make(&self, ports: BTreeSet<HostPort>) -> Result<()> {
        let prepare = || async move {
            *self.host_ports.lock().await = ports;
            self.prepare().await
        };
        self.ready.get_or_try_init(prepare).await.map(drop)
    }

    fn made(&self) -> Result<u32> {
        let made = self.ready.get().copied();
        made.ok_or_else(|| NetworkError::NoInterface(self.bridge.clone()))
    }

    /// Leads the ports of the node to pods, and no others. It is set also where nothing is new here: another krust may have
    /// written in between.
    pub async fn set_host_ports(&self, ports: BTreeSet<HostPort>) -> Result<()> {
        self.make(ports.clone()).await?;
        let mut current = self.host_ports.lock().await;
        // Also where there is no `nft`: a pod that could not have its ports must go.
        if current.is_empty() && ports.is_empty() {
            return Ok(());
        }
        let set = firewall::set(&self.bridge, &self.range, &ports).await;
        set.map_err(|source| self.rules(source))?;
        let changed = current.symmetric_difference(&ports);
        let udp: HashSet<u16> = changed
            .filter(|port| port.protocol == Protocol::Udp)
            .map(|port| port.port)
            .collect();
        *current = ports;
        drop(current);
        netfilter::route_localnet(&self.bridge).map_err(|source| NetworkError::Io {
            operation: "route the loopback address through",
            subject: self.bridge.clone(),
            source,
        })?;
        if !udp.is_empty() {
            let forgotten = conntrack::forget(conntrack::to_ports(udp)).await;
            forgotten.map_err(|source| self.rules(source))?;
        }
        Ok(())
    }

    fn rules(&self, source: NetfilterError) -> NetworkError {
        NetworkError::Rules {
            subject: self.bridge.clone(),
            source,
        }
    }

    /// Connects a namespace to the bridge, which is made. `interface` is the name of the host's end of the pair.
    pub async fn attach(&self, namespace: &Path, interface: &str, address: Ipv4Addr) -> Result<()> {
        let bridge = self.made()?;
        let (handle, _connection) = connect()?;
        let pod = open(namespace)?;
        // Created in the host's namespace, under a name that no other pair has.
        let peer = format!("{interface}p");
        let pair = LinkVeth::new(interface, &peer).build();
        let made = handle.link().add(pair).execute().await;
        made.map_err(netlink("create the interface", interface))?;
        let connected = async {
            let moved = LinkUnspec::new_with_index(index(&handle, &peer).await?)
                .setns_by_fd(pod.as_raw_fd())
                .build();
            set(&handle, "move the interface", &peer, moved).await?;
            let port = LinkUnspec::new_with_index(index(&handle, interface).await?)
                .controller(bridge)
                .up()
                .build();
            set(&handle, "connect the interface", interface, port).await?;
            // A pod reaches itself through a service's address.
            write_setting(&format!("/sys/class/net/{interface}/brport/hairpin_mode"), "1")?;
            let (range, peer) = (self.range, peer.clone());
            within(pod, move || configure_pod(range, peer, address)).await
        };
        let connected = connected.await;
        if connected.is_err() {
            self.detach(interface).await?;
        }
        connected
    }

    /// Takes a pair away. One that is gone is fine.
    pub async fn detach(&self, interface: &str) -> Result<()> {
        let (handle, _connection) = connect()?;
        match find(&handle, interface).await? {
            Some(link) => match handle.link().del(link.header.index).execute().await {
                Err(error) if !is_gone(&error) => Err(netlink("delete the interface", interface)(error)),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The bridge with its address, forwarding, and the rules that pods need where `nft` is installed.
    async fn prepare(&self) -> Result<u32> {
        let (handle, _connection) = connect()?;
        if find(&handle, &self.bridge).await?.is_none() {
            // An address of its own: it would take those of its pods, and change with them.
            let [_, b, c, d] = self.range.gateway().octets();
            let bridge = LinkBridge::new(&self.bridge).address(vec![0x02, 0x6b, 0, b, c, d]);
            let made = handle.link().add(bridge.build()).execute().await;
            match made {
                // Another krust was quicker.
                Err(error) if !is_there(&error) => return Err(netlink("create the bridge", &self.bridge)(error)),
                _ => {}
            }
        }
        let bridge = index(&handle, &self.bridge).await?;
        let gateway = self.range.gateway();
        let added = handle
            .address()
            .add(bridge, gateway.into(), self.range.prefix())
            .execute()
            .await;
        match added {
            Err(error) if !is_there(&error) => return Err(netlink("give the address to", &self.bridge)(error)),
            _ => {}
        }
        let up = LinkUnspec::new_with_index(bridge).up().build();
        set(&handle, "enable the bridge", &self.bridge, up).await?;
        write_setting("/proc/sys/net/ipv4/ip_forward", "1")?;
        // Where the kernel has it, answers between pods pass the rules that their questions passed.
        let _ = write_setting(&format!("/sys/class/net/{}/bridge/nf_call_iptables", self.bridge), "1");
        if let Err(reason) = self.set_rules().await {
            tracing::warn!(
                bridge = self.bridge,
                range = %self.range,
                %reason,
                "pods do not reach addresses outside of this node, and perhaps not one another: the rules for them could \
                 not be set"
            );
            // It holds none.
            self.host_ports.lock().await.clear();
        }
        Ok(bridge)
    }
}

impl PodNetwork {
    /// Without `nft` pods still reach the node.
    async fn set_rules(&self) -> Result<(), NetfilterError> {
        let ports = self.host_ports.lock().await;
        firewall::set(&self.bridge, &self.range, &ports).await?;
        if !ports.is_empty()
            && let Err(error) = netfilter::route_localnet(&self.bridge)
        {
            tracing::warn!(%error, "host ports are not reached at the node's loopback address");
        }
        firewall::allow(&self.bridge).await
    }
}

/// Sets up the loopback interface of a namespace that is on no network.
pub async fn enable_loopback(namespace: &Path) -> Result<()> {
    within(open(namespace)?, || async {
        let (handle, _connection) = connect()?;
        loopback(&handle).await
    })
    .await
}

async fn configure_pod(range: PodRange, peer: String, address: Ipv4Addr) -> Result<()> {
    let (handle, _connection) = connect()?;
    loopback(&handle).await?;
    let link = index(&handle, &peer).await?;
    let renamed = LinkUnspec::new_with_index(link).name(POD_INTERFACE.to_string()).build();
    set(&handle, "rename the interface", &peer, renamed).await?;
    let added = handle
        .address()
        .add(link, address.into(), range.prefix())
        .execute()
        .await;
    added.map_err(netlink("give the address to", POD_INTERFACE))?;
    let up = LinkUnspec::new_with_index(link).up().build();
    set(&handle, "enable the interface", POD_INTERFACE, up).await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(range.gateway()).build();
    let added = handle.route().add(route).execute().await;
    added.map_err(netlink("set the default route through", POD_INTERFACE))
}

async fn loopback(handle: &Handle) -> Result<()> {
    let up = LinkUnspec::new_with_index(index(handle, "lo").await?).up().build();
    set(handle, "enable the interface", "lo", up).await
}

async fn set(handle: &Handle, operation: &'static str, subject: &str, message: LinkMessage) -> Result<()> {
    let done = handle.link().set(message).execute().await;
    done.map_err(netlink(operation, subject))
}

async fn index(handle: &Handle, name: &str) -> Result<u32> {
    match find(handle, name).await? {
        Some(link) => Ok(link.header.index),
        None => Err(NetworkError::NoInterface(name.to_string())),
    }
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    let found = handle.link().get().match_name(name).execute().try_next().await;
    let named = |link: &LinkMessage| link.attributes.contains(&LinkAttribute::IfName(name.to_string()));
    match found {
        Ok(link) => Ok(link.filter(named)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(netlink("look for the interface", name)(error)),
    }
}

/// Runs in another network namespace, on a thread of its own: a thread that has been elsewhere is not used again.
pub async fn within<T, E, F>(namespace: File, work: impl FnOnce() -> F + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<NetworkError> + Send + 'static,
    F: Future<Output = Result<T, E>>,
{
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let lost = |source| NetworkError::Io {
        operation: "enter",
        subject: "a pod's network namespace".to_string(),
        source,
    };
    let run = move || -> Result<T, E> {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| lost(error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(lost)?.block_on(work())
    };
    let thread = std::thread::Builder::new().name("krust-netns".to_string());
    let spawned = thread.spawn(move || {
        // Whoever asked may have gone.
        let _ = sender.send(run());
    });
    spawned.map_err(lost)?;
    receiver.await.map_err(|_| lost(io::Error::other("the thread ended")))?
}

/// Opens a namespace, so that it cannot become another one meanwhile.
pub fn open(namespace: &Path) -> Result<File> {
    File::open(namespace).map_err(|source| NetworkError::Io {
        operation: "open",
        subject: namespace.display().to_string(),
        source,
    })
}

/// A netlink socket of the calling thread's namespace, served until the second part is dropped.
fn connect() -> Result<(Handle, tokio_util::task::AbortOnDropHandle<()>)> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| NetworkError::Io {
        operation: "open",
        subject: "a netlink socket".to_string(),
        source,
    })?;
    Ok((
        handle,
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection)),
    ))
}

fn write_setting(path: &str, value: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value).map_err(|source| NetworkError::Io {
        operation: "write",
        subject: path.to_string(),
        source,
    })
}

fn netlink(operation: &'static str, subject: &str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let subject = subject.to_string();
    move |source| NetworkError::Netlink {
        operation,
        subject,
        source,
    }
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    is_errno(error, libc::ENODEV)
}

fn is_there(error: &rtnetlink::Error) -> bool {
    is_errno(error, libc::EEXIST)
}

fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}
