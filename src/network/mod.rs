//! The network of a cluster on a node: Services that lead to their endpoints, and their names (upstream: kube-proxy and
//! CoreDNS). The pods' own network is the runtimes'.

pub mod dns;
pub mod proxy;
