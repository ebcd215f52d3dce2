//! Port-forward: TCP connections of the client, each to a port inside the pod (upstream:
//! `cri-streaming/pkg/streaming/portforward`).

mod spdy;
mod websocket;

use super::Server;
use super::error::ServerError;
use super::mux::{Incoming, Outgoing, make_room};
use super::query::Query;
use super::upgrade::Handshake;
use crate::kubelet::server::websocket::tunnel;
use crate::runtime::{Duplex, Runtime};
use bytes::{Bytes, BytesMut};
use poem::{Request, Response};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// SPDY's own subprotocol, and the one of SPDY inside WebSocket messages.
const SPDY_PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const WEBSOCKET_PROTOCOLS: &[&str] = &[TUNNEL_PROTOCOL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""];

/// The pod that ports are forwarded to.
pub struct Pod {
    pub runtime: Arc<dyn Runtime>,
    pub namespace: String,
    pub name: String,
    pub sandbox_id: String,
}

/// Answers the handshake and forwards on a task of the server.
pub fn handle(server: &Arc<Server>, pod: Pod, query: &Query, request: &Request) -> Result<Response, ServerError> {
    let handshake = Handshake::of(request, WEBSOCKET_PROTOCOLS, &[SPDY_PROTOCOL])?;
    let protocol = handshake.protocol;
    let ports = match protocol {
        SPDY_PROTOCOL | TUNNEL_PROTOCOL => Vec::new(),
        _ => websocket::parse_ports(query)?,
    };
    let server_of_task = server.clone();
    Ok(handshake.serve(&server.tasks, move |io| async move {
        let server = server_of_task;
        match protocol {
            SPDY_PROTOCOL => spdy::serve(&server, io, pod).await,
            TUNNEL_PROTOCOL => {
                let inner = tunnel(io, server.options.idle_max, &server.shutdown, &server.tasks);
                spdy::serve(&server, inner, pod).await;
            }
            _ => websocket::serve(&server, io, protocol, pod, ports).await,
        }
    }))
}

impl Pod {
    /// Connects to the port and copies both ways until the pod's side ends. A failure is told on the error
    /// stream, which is finished in any case.
    async fn forward(&self, port: u16, incoming: Incoming, data: &mut dyn Outgoing, error: &mut dyn Outgoing) {
        let failure = match self.runtime.port_forward(&self.sandbox_id, port).await {
            Ok(connection) => copy(connection, incoming, data)
                .await
                .err()
                .map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let told = async {
            if let Some(failure) = failure {
                let (namespace, name) = (&self.namespace, &self.name);
                let text = format!("error forwarding port {port} to pod {namespace}/{name}: {failure}");
                error.send(Bytes::from(text)).await?;
            }
            error.finish().await?;
            data.finish().await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "a forwarded connection was gone at its end");
        }
    }
}

/// Ends when the pod's side has sent everything. The client's end is only passed on: an answer may follow.
async fn copy(connection: Box<dyn Duplex>, mut incoming: Incoming, data: &mut dyn Outgoing) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = tokio::io::split(connection);
    let towards_pod = async {
        while let Some(piece) = incoming.recv().await {
            to_pod.write_all(&piece).await?;
            if incoming.is_empty() {
                to_pod.flush().await?;
            }
        }
        to_pod.shutdown().await?;
        std::future::pending::<io::Result<()>>().await
    };
    let towards_client = async {
        let mut buffer = BytesMut::new();
        loop {
            make_room(&mut buffer);
            if from_pod.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            data.send(buffer.split().freeze()).await?;
        }
    };
    tokio::select! {
        result = towards_client => result,
        result = towards_pod => result,
    }
}
