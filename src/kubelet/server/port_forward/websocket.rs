//! Port-forward over WebSocket channels, the old form: the ports are in the query, each has a data and an error
//! channel and carries one connection (upstream: `portforward/websocket.go`).

use super::Pod;
use crate::kubelet::server::Server;
use crate::kubelet::server::error::ServerError;
use crate::kubelet::server::mux::{Outgoing, QUEUE_PIECES_MAX};
use crate::kubelet::server::query::Query;
use crate::kubelet::server::websocket::{ChannelProtocol, Channels, CloseCode};
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Two channels each, and a channel is one byte.
const PORTS_MAX: usize = 128;

/// The ports of the query: `port`, repeated or separated by commas.
pub fn parse_ports(query: &Query) -> Result<Vec<u16>, ServerError> {
    let mut ports = Vec::new();
    for text in query.all("port").flat_map(|value| value.split(',')) {
        let port = text.parse().ok().filter(|port: &u16| *port > 0);
        ports.push(port.ok_or_else(|| ServerError::bad_request(format!("invalid port {text:?}")))?);
    }
    match ports.len() {
        0 => Err(ServerError::bad_request("query parameter \"port\" is required")),
        1..=PORTS_MAX => Ok(ports),
        _ => Err(ServerError::bad_request(format!(
            "at most {PORTS_MAX} ports can be forwarded"
        ))),
    }
}

pub async fn serve<Io>(server: &Server, io: Io, protocol: &str, pod: Pod, ports: Vec<u16>)
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut queues = BTreeMap::new();
    let mut forwards = Vec::new();
    for (data_channel, port) in (0..=u8::MAX).step_by(2).zip(ports) {
        let (sender, incoming) = mpsc::channel(QUEUE_PIECES_MAX);
        queues.insert(data_channel, sender);
        forwards.push((data_channel, port, incoming));
    }
    let protocol = ChannelProtocol {
        base64: protocol.contains("base64"),
        half_close: false,
    };
    let idle_max = server.options.idle_max;
    let channels = Channels::start(io, protocol, queues, idle_max, &server.shutdown, &server.tasks);
    let pod = std::sync::Arc::new(pod);
    let mut connections = JoinSet::new();
    for (data_channel, port, incoming) in forwards {
        let (mut data, mut error) = (channels.writer(data_channel), channels.writer(data_channel + 1));
        let pod = pod.clone();
        connections.spawn(async move {
            // The first message of each channel names its port.
            let name = Bytes::copy_from_slice(&port.to_le_bytes());
            if data.send(name.clone()).await.is_ok() && error.send(name).await.is_ok() {
                pod.forward(port, incoming, &mut data, &mut error).await;
            }
        });
    }
    let gone = channels.gone();
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => channels.close(CloseCode::Normal).await,
        () = gone.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_repeated_or_listed() {
        let parse = |query: &str| parse_ports(&Query::parse(query)).map_err(|error| error.to_string());
        assert_eq!(parse("port=80&port=443,8080"), Ok(vec![80, 443, 8080]));
        assert_eq!(parse(""), Err("query parameter \"port\" is required".to_owned()));
        for bad in ["port=0", "port=70000", "port=http", "port=80,"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"port=80&".repeat(129)).is_err());
    }
}
