//! Cluster DNS: names of Services and their endpoints, answered by krust itself; others are asked for the rest (upstream:
//! CoreDNS with its plug-ins `kubernetes` and `forward`).
//!
//! It has an address of its own, that of the Service `kube-dns`, on this host's loopback interface: pods reach it through
//! their gateway, without translation, and from outside of the host nobody is led to it.

mod address;
mod forward;
mod message;
mod records;

use crate::client::informer::{Index, Informer};
use crate::network::proxy::Sources;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use message::{Answer, Question};
use records::{Found, Lookup};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const PORT: u16 = 53;
/// Questions and connections that are worked on at the same time.
const AT_ONCE_MAX: usize = 1024;
/// A connection without a question is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("give this host the address {address}: {source}")]
    Address {
        address: Ipv4Addr,
        source: rtnetlink::Error,
    },
    #[error("{operation} {address}: {source}")]
    Io {
        operation: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
}

/// A server that listens and does not answer yet.
pub struct Server {
    address: Ipv4Addr,
    udp: UdpSocket,
    tcp: TcpListener,
    /// Says whom to ask about other names.
    resolv_conf: PathBuf,
}

impl Server {
    /// Takes the address on this host and listens there.
    pub async fn listen(address: Ipv4Addr) -> Result<Self, DnsError> {
        address::add(address)
            .await
            .map_err(|source| DnsError::Address { address, source })?;
        let at = SocketAddr::from((address, PORT));
        let listened = async { Ok((UdpSocket::bind(at).await?, TcpListener::bind(at).await?)) };
        match listened.await {
            Ok((udp, tcp)) => Ok(Self {
                address,
                udp,
                tcp,
                resolv_conf: "/etc/resolv.conf".into(),
            }),
            // Whoever listens there needs the address.
            Err(source) => Err(DnsError::Io {
                operation: "listen on",
                address: at,
                source,
            }),
        }
    }

    /// Gives the address back.
    pub async fn close(self) {
        give_back(self.address).await;
    }

    /// Answers until `stop`, and gives the address back.
    pub async fn run(self, sources: Sources, stop: CancellationToken) {
        let Self {
            address,
            udp,
            tcp,
            resolv_conf,
        } = self;
        let resolver = Arc::new(Resolver {
            names: Names::new(sources),
            upstream: forward::Upstream::new(resolv_conf, address),
        });
        let synced = async {
            resolver.names.sources.services.synced().await;
            resolver.names.sources.slices.synced().await;
        };
        if stop.run_until_cancelled(synced).await.is_some() {
            let served = async { tokio::join!(serve_udp(&udp, &resolver), serve_tcp(&tcp, &resolver)) };
            let _ = stop.run_until_cancelled(served).await;
        }
        give_back(address).await;
    }
}

async fn give_back(address: Ipv4Addr) {
    if let Err(error) = address::delete(address).await {
        tracing::debug!(%error, %address, "the address of the cluster's DNS stays");
    }
}

async fn serve_udp(socket: &UdpSocket, resolver: &Arc<Resolver>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let tasks = TaskTracker::new();
    let (answers, mut ready) = tokio::sync::mpsc::channel::<(Vec<u8>, SocketAddr)>(AT_ONCE_MAX);
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error is about an answer that somebody did not want any more.
                let Ok((length, peer)) = received else { continue };
                // Who asks again is answered then.
                let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
                let question = buffer.get(..length).unwrap_or_default().to_vec();
                let (resolver, answers) = (resolver.clone(), answers.clone());
                tasks.spawn(async move {
                    if let Some(answer) = resolver.answer(&question, true).await {
                        let _ = answers.send((answer, peer)).await;
                    }
                    drop(permit);
                });
            }
            Some((answer, peer)) = ready.recv() => {
                if let Err(error) = socket.send_to(&answer, peer).await {
                    tracing::debug!(%error, %peer, "an answer of DNS was not sent");
                }
            }
        }
    }
}

async fn serve_tcp(listener: &TcpListener, resolver: &Arc<Resolver>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolver = resolver.clone();
                tokio::spawn(async move {
                    // A client that goes away is no concern of ours.
                    let _ = converse(stream, &resolver).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to DNS was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Questions and answers on one connection, each after its length.
async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            Ok::<_, io::Error>(question)
        };
        let question = tokio::time::timeout(IDLE_MAX, read).await??;
        let Some(answer) = resolver.answer(&question, false).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

struct Resolver {
    names: Names,
    upstream: forward::Upstream,
}

impl Resolver {
    /// None for what is no question.
    async fn answer(&self, message: &[u8], udp: bool) -> Option<Vec<u8>> {
        let question = match Question::read(message)? {
            Ok(question) => question,
            Err(refusal) => return Some(refusal),
        };
        if !question.is_internet() {
            return Some(self.forwarded(&question, message, udp).await);
        }
        Some(match records::find(&self.names, &question.name, question.kind) {
            Found::Answer(answer) => question.answer(&answer, udp),
            Found::Elsewhere(answer, name) => question.answer(&self.complete(answer, &name, question.kind).await, udp),
            Found::NotOurs => self.forwarded(&question, message, udp).await,
        })
    }

    async fn forwarded(&self, question: &Question, message: &[u8], udp: bool) -> Vec<u8> {
        match self.upstream.ask(message, udp).await {
            Some(answer) => answer,
            None => question.failure(),
        }
    }

    /// What others know of the name that is meant. Without it the answer still says the name.
    async fn complete(&self, mut answer: Answer, name: &str, kind: u16) -> Answer {
        let id = rand::random();
        let found = self.upstream.ask(&Question::message(id, name, kind), false).await;
        answer
            .records
            .extend(found.and_then(|message| message::records(&message)).unwrap_or_default());
        answer
    }
}

/// Services and endpoints by what DNS asks for.
struct Names {
    sources: Sources,
    services_at: Index<Service>,
    slices_with: Index<EndpointSlice>,
    /// By namespace.
    services_in: Index<Service>,
}

impl Names {
    fn new(sources: Sources) -> Self {
        let services: &Informer<Service> = &sources.services;
        Self {
            services_at: services.index(|service| {
                let addresses = service.spec.iter().flat_map(records::cluster_ips);
                addresses.map(|ip| ip.to_string()).collect()
            }),
            services_in: services.index(|service| service.metadata.namespace.clone().into_iter().collect()),
            slices_with: sources.slices.index(|slice| {
                let endpoints = slice.endpoints.iter().flatten();
                endpoints.flat_map(|endpoint| endpoint.addresses.clone()).collect()
            }),
            sources,
        }
    }
}

impl Lookup for Names {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.sources.services.get(namespace, name)
    }

    fn has_services(&self, namespace: &str) -> bool {
        !self.services_in.get(namespace).is_empty()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.sources.slices_of.get(&format!("{namespace}/{service}"))
    }

    fn services_at(&self, cluster_ip: Ipv4Addr) -> Vec<Arc<Service>> {
        self.services_at.get(&cluster_ip.to_string())
    }

    fn slices_with(&self, address: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        self.slices_with.get(&address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::message::A;
    use super::records::ZONE;
    use super::*;
    use serde_json::json;

    async fn ask(server: SocketAddr, name: &str, tcp: bool) -> Vec<u8> {
        let question = Question::message(9, name, A);
        let mut answer = vec![0; 4096];
        if !tcp {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&question, server).await.unwrap();
            let length = socket.recv(&mut answer).await.unwrap();
            answer.truncate(length);
            return answer;
        }
        let mut stream = TcpStream::connect(server).await.unwrap();
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &question].concat()).await.unwrap();
        let length = usize::from(stream.read_u16().await.unwrap());
        answer.truncate(length);
        stream.read_exact(&mut answer).await.unwrap();
        answer
    }

    async fn bound() -> (UdpSocket, TcpListener) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (UdpSocket::bind(tcp.local_addr().unwrap()).await.unwrap(), tcp)
    }

    #[tokio::test]
    async fn own_names_and_others() {
        let slices = Informer::unfed();
        let sources = Sources {
            services: Informer::unfed(),
            slices_of: slices.index(|_: &EndpointSlice| Vec::new()),
            slices,
        };
        let service = json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"clusterIP": "10.43.0.9"}});
        sources.services.apply(serde_json::from_value(service).unwrap());
        // The others' server says the same to everybody.
        let (others, _tcp) = bound().await;
        let at = others.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = others.recv_from(&mut buffer).await {
                let question = Question::read(&buffer[..length]).unwrap().unwrap();
                let answer = Answer {
                    records: vec![message::Record {
                        name: question.name.clone(),
                        ttl: 60,
                        data: message::Data::A([192, 0, 2, 7].into()),
                    }],
                    ..Answer::default()
                };
                others.send_to(&question.answer(&answer, true), peer).await.unwrap();
            }
        });
        let resolver = Arc::new(Resolver {
            names: Names::new(sources),
            upstream: forward::Upstream::fixed(vec![at]),
        });
        let (udp, tcp) = bound().await;
        let server = udp.local_addr().unwrap();
        tokio::spawn(async move { tokio::join!(serve_udp(&udp, &resolver), serve_tcp(&tcp, &resolver)) });
        for tcp in [false, true] {
            let answer = ask(server, &format!("web.ns.svc.{ZONE}"), tcp).await;
            let records = message::records(&answer).unwrap();
            assert_eq!(records[0].data, message::Data::A([10, 43, 0, 9].into()));
        }
        let records = message::records(&ask(server, "example.org", false).await).unwrap();
        assert_eq!(records[0].data, message::Data::A([192, 0, 2, 7].into()));
    }
}
