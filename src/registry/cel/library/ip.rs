//! IP addresses and networks (upstream: `apiserver/pkg/cel/library/ip.go`, `cidr.go`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;
use std::fmt;
use std::net::IpAddr;

/// An address and how many of its bits say which network it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The address as a number with the family's bits at the top.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Cidr {
    fn parse(text: &str) -> Result<Self, Error> {
        let failed = |why: &str| {
            Error::of(format!(
                "network address parse error during conversion from string: network address parse error during \
                 conversion from string: netip.ParsePrefix({text:?}): {why}"
            ))
        };
        let (address, bits) = text.rsplit_once('/').ok_or_else(|| failed("no '/'"))?;
        if address.contains('%') {
            return Err(failed("IPv6 zones cannot be present in a prefix"));
        }
        let address: IpAddr = address
            .parse()
            .map_err(|_| failed(&format!("ParseAddr({address:?}): unable to parse IP")))?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = bits.len() > 1 && bits.starts_with('0');
        let bits: u8 = match bits.parse() {
            Ok(number) if digits && !leading_zero => number,
            _ => return Err(failed(&format!("bad bits after slash: {bits:?}"))),
        };
        if bits > max {
            return Err(failed("prefix length out of range"));
        }
        if is_mapped(address) {
            return Err(Error::of(format!(
                "network address parse error during conversion from string: IPv4-mapped IPv6 address {text:?} is not \
                 allowed"
            )));
        }
        Ok(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && (number(self.address) ^ number(address)) & mask(self.bits) == 0
    }

    fn masked(self) -> Self {
        let kept = number(self.address) & mask(self.bits);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept >> 96).unwrap_or_default().into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        Self { address, ..self }
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

fn parse(text: &str) -> Result<IpAddr, Error> {
    if text.contains('%') {
        return Err(Error::of(format!("IP address {text:?} with zone value is not allowed")));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        Error::of(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ))
    })?;
    if is_mapped(address) {
        return Err(Error::of(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(address)
}

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "ip" => |arguments| match arguments {
            [Value::String(text)] => parse(text).map(Value::Ip),
            [Value::Cidr(cidr)] => Ok(Value::Ip(cidr.address)),
            _ => Err(Error::NoSuchOverload),
        },
        "isIP" => |arguments| text(arguments, |text| parse(text).is_ok()),
        "ip.isCanonical" => |arguments| match arguments {
            [Value::String(text)] => Ok((parse(text)?.to_string() == **text).into()),
            _ => Err(Error::NoSuchOverload),
        },
        "family" => |arguments| of(arguments, |address| Value::Int(if address.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |arguments| of(arguments, |address| address.is_unspecified().into()),
        "isLoopback" => |arguments| of(arguments, |address| address.is_loopback().into()),
        "isLinkLocalMulticast" => |arguments| {
            of(arguments, |address| {
                match address {
                    IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
                    IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
                }
                .into()
            })
        },
        "isLinkLocalUnicast" => |arguments| of(arguments, |address| is_link_local(address).into()),
        "isGlobalUnicast" => |arguments| {
            of(arguments, |address| {
                let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
                let none = address.is_unspecified()
                    || address.is_loopback()
                    || address.is_multicast()
                    || is_link_local(address)
                    || broadcast;
                (!none).into()
            })
        },
        "cidr" => |arguments| match arguments {
            [Value::String(text)] => Cidr::parse(text).map(Value::Cidr),
            _ => Err(Error::NoSuchOverload),
        },
        "isCIDR" => |arguments| text(arguments, |text| Cidr::parse(text).is_ok()),
        "containsIP" => |arguments| match arguments {
            [Value::Cidr(cidr), Value::Ip(address)] => Ok(cidr.contains(*address).into()),
            [Value::Cidr(cidr), Value::String(text)] => Ok(cidr.contains(parse(text)?).into()),
            _ => Err(Error::NoSuchOverload),
        },
        "containsCIDR" => |arguments| {
            let (outer, inner) = match arguments {
                [Value::Cidr(outer), Value::Cidr(inner)] => (outer, *inner),
                [Value::Cidr(outer), Value::String(text)] => (outer, Cidr::parse(text)?),
                _ => return Err(Error::NoSuchOverload),
            };
            Ok((outer.bits <= inner.bits && outer.contains(inner.address)).into())
        },
        "prefixLength" => |arguments| match arguments {
            [Value::Cidr(cidr)] => Ok(Value::Int(cidr.bits.into())),
            _ => Err(Error::NoSuchOverload),
        },
        "masked" => |arguments| match arguments {
            [Value::Cidr(cidr)] => Ok(Value::Cidr(cidr.masked())),
            _ => Err(Error::NoSuchOverload),
        },
        _ => return None,
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn of<'a>(arguments: &[Value<'a>], act: fn(IpAddr) -> Value<'a>) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Ip(address)] => Ok(act(*address)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn text<'a>(arguments: &[Value<'a>], holds: fn(&str) -> bool) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text)] => Ok(holds(text).into()),
        _ => Err(Error::NoSuchOverload),
    }
}
