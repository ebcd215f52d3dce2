//! Values with a form of their own. Their errors say what is allowed.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    /// Every address of the machine, IPv4 and IPv6.
    pub const fn any(port: u16) -> ListenAddress {
        ListenAddress(SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        if let Some(port) = text.strip_prefix(':')
            && let Ok(port) = port.parse()
        {
            return Ok(ListenAddress::any(port));
        }
        let parsed = text.parse().map(ListenAddress);
        parsed.map_err(|_| {
            format!("{text:?} is not allowed: it must be IP:PORT, like 127.0.0.1:6443, [::1]:6443, or :6443 for every address")
        })
    }
}

/// Which container engine runs the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuntimeKind {
    Docker,
    Containerd,
    /// Docker's socket, then containerd's.
    #[default]
    Auto,
    /// The API without a node.
    None,
}

impl RuntimeKind {
    const ALL: [(&'static str, RuntimeKind); 4] = [
        ("docker", RuntimeKind::Docker),
        ("containerd", RuntimeKind::Containerd),
        ("auto", RuntimeKind::Auto),
        ("none", RuntimeKind::None),
    ];
}

impl FromStr for RuntimeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<RuntimeKind, String> {
        one_of(&RuntimeKind::ALL, text)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    const ALL: [(&'static str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        one_of(&LogFormat::ALL, text)
    }
}

fn one_of<T: Copy>(all: &[(&str, T)], text: &str) -> Result<T, String> {
    all.iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            format!("{text:?} is not allowed: it must be one of {}", names.join(", "))
        })
}

fn name_of<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter()
        .find(|(_, other)| *other == value)
        .map_or("", |(name, _)| name)
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&RuntimeKind::ALL, *self))
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&LogFormat::ALL, *self))
    }
}

/// serde goes by the text forms.
macro_rules! by_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}

by_text!(ListenAddress, RuntimeKind, LogFormat);
