//! IP addresses and ranges: parsing, arithmetic, and what upstream says of bad ones
//! (upstream: `apimachinery/pkg/util/validation/ip.go`, `k8s.io/utils/net`, `pkg/api/servicecidr`).

use super::field::FieldError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// The two kinds of addresses, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
    /// As `ipFamilies` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.name() == name)
    }
    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// As Go's older parser reads it: decimal parts may have leading zeros.
fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let mut parts = [0_u8; 4];
    let mut count = 0;
    for part in text.split('.') {
        let digits = !part.is_empty() && part.len() <= 8 && part.bytes().all(|byte| byte.is_ascii_digit());
        let slot = parts.get_mut(count).filter(|_| digits)?;
        *slot = part.parse::<u32>().ok()?.try_into().ok()?;
        count += 1;
    }
    (count == 4).then(|| IpAddr::V4(Ipv4Addr::from(parts)))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// Go's text of an address: mapped ones show the version 4 address in them.
pub fn canonical(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string()),
        IpAddr::V4(v4) => v4.to_string(),
    }
}

/// What is wrong with an address in a field that has always taken addresses.
pub fn ip_problems(text: &str) -> Vec<String> {
    let Some(address) = parse_sloppy(text) else {
        return vec![NOT_AN_IP.to_owned()];
    };
    if text.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s".to_owned()];
    }
    if is_mapped(address) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    Vec::new()
}

/// The same with a path; values that the stored object had are let through.
pub fn legacy_ip(path: &str, text: &str, known: &[&str]) -> Vec<FieldError> {
    if known.contains(&text) {
        return Vec::new();
    }
    let problems = ip_problems(text);
    problems
        .iter()
        .map(|problem| FieldError::invalid(path, text, problem))
        .collect()
}

/// An address of a newer field: only the canonical text will do.
pub fn canonical_ip(path: &str, text: &str) -> Vec<FieldError> {
    let problems = canonical_ip_problems(text);
    problems
        .iter()
        .map(|problem| FieldError::invalid(path, text, problem))
        .collect()
}

/// The same without a path.
pub fn canonical_ip_problems(text: &str) -> Vec<String> {
    let problems = ip_problems(text);
    match text.parse::<IpAddr>() {
        Ok(address) if problems.is_empty() && canonical(address) != text => {
            vec![format!("must be in canonical form ({:?})", canonical(address))]
        }
        _ => problems,
    }
}

/// What a writer is told of an address that is taken, but should be written otherwise.
pub fn ip_warning(path: &str, text: &str) -> Option<String> {
    let address = parse_sloppy(text)?;
    let shown = canonical(address);
    if text.parse::<IpAddr>().is_err() || is_mapped(address) {
        return Some(format!(
            "{path}: non-standard IP address {text:?} is invalid: use {shown:?}"
        ));
    }
    (address.is_ipv6() && shown != text)
        .then(|| format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({shown:?})"))
}

/// Addresses that endpoints cannot have.
pub fn endpoint_ip(path: &str, text: &str) -> Vec<FieldError> {
    let Some(address) = parse_sloppy(text) else {
        return vec![FieldError::invalid(path, text, "must be a valid IP address")];
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    let mut errors = Vec::new();
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            errors.push(FieldError::invalid(path, text, detail));
        }
    };
    refuse(address.is_unspecified(), &format!("may not be unspecified ({text})"));
    refuse(
        address.is_loopback(),
        "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    );
    refuse(
        link_local,
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    );
    refuse(
        link_local_multicast,
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    );
    errors
}

/// Whether there are addresses of both families.
pub fn is_dual_stack<'a>(addresses: impl IntoIterator<Item = &'a str>) -> bool {
    let families: Vec<Family> = addresses.into_iter().filter_map(parse_sloppy).map(Family::of).collect();
    families.contains(&Family::V4) && families.contains(&Family::V6)
}

/// A range of addresses: what CIDR notation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Takes bits beyond the prefix as they are; `is_masked` tells.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let plain = !bits.starts_with('+') && (bits == "0" || !bits.starts_with('0'));
        let bits: u8 = bits.parse().ok().filter(|_| plain)?;
        (bits <= Family::of(address).bits()).then_some(Self { address, bits })
    }
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
    /// The length of the prefix.
    pub fn bits(&self) -> u8 {
        self.bits
    }
    fn host_mask(&self) -> u128 {
        let host_bits = self.family().bits() - self.bits;
        if host_bits == 128 {
            u128::MAX
        } else {
            (1_u128 << host_bits) - 1
        }
    }
    /// The network's own address as a number.
    pub fn base(&self) -> u128 {
        number(self.address) & !self.host_mask()
    }
    /// The last address as a number; in IPv4 the one for broadcasts.
    pub fn top(&self) -> u128 {
        number(self.address) | self.host_mask()
    }
    pub fn is_masked(&self) -> bool {
        number(self.address) == self.base()
    }
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && (self.base()..=self.top()).contains(&number(address))
    }
    /// Whether every address of `other` is in this range.
    pub fn covers(&self, other: &Self) -> bool {
        other.family() == self.family() && self.base() <= other.base() && other.top() <= self.top()
    }
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
    /// First and last address that a Service can get: not the network's, and in IPv4 not the broadcast one.
    pub fn usable(&self) -> (u128, u128) {
        let last = match self.family() {
            Family::V4 => self.top().saturating_sub(1),
            Family::V6 => self.top(),
        };
        (self.base().saturating_add(1), last)
    }
    /// The network in canonical text.
    pub fn masked(&self) -> String {
        format!("{}/{}", canonical(address(self.family(), self.base())), self.bits)
    }
}

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of a number; in IPv4 of its lower 32 bits.
pub fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// What is wrong with a range in a field that has always taken ranges; stored values are let through.
pub fn legacy_cidr(path: &str, text: &str, known: &[&str]) -> Vec<FieldError> {
    if known.contains(&text) {
        return Vec::new();
    }
    let sloppy = text.split_once('/').and_then(|(address, bits)| {
        let address = parse_sloppy(address)?;
        let digits = !bits.is_empty() && bits.len() < 8 && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u32 = bits.parse().ok().filter(|_| digits)?;
        (bits <= u32::from(Family::of(address).bits())).then_some(address)
    });
    let detail = match (sloppy, Cidr::parse(text)) {
        (None, _) => NOT_A_CIDR,
        (Some(_), None) => "must not have leading 0s in IP or prefix length",
        (Some(address), _) if is_mapped(address) => "must not have an IPv4-mapped IPv6 address",
        (_, Some(cidr)) if !cidr.is_masked() => "must not have bits set beyond the prefix length",
        _ => return Vec::new(),
    };
    vec![FieldError::invalid(path, text, detail)]
}

/// A range of a newer field: only the canonical text will do.
pub fn canonical_cidr(path: &str, text: &str) -> Vec<FieldError> {
    let errors = legacy_cidr(path, text, &[]);
    match Cidr::parse(text) {
        Some(cidr) if errors.is_empty() && cidr.masked() != text => {
            let detail = format!("must be in canonical form ({:?})", cidr.masked());
            vec![FieldError::invalid(path, text, &detail)]
        }
        _ => errors,
    }
}

/// The address of an interface with the length of its prefix, which keeps the bits behind it: `10.9.8.7/24`.
pub fn canonical_interface(path: &str, text: &str) -> Vec<FieldError> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let address = parse_sloppy(address)?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= Family::of(address).bits()).then_some((address, bits))
    });
    let Some((address, bits)) = parsed else {
        let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return vec![FieldError::invalid(path, text, detail)];
    };
    let bits = if is_mapped(address) {
        bits.saturating_sub(96)
    } else {
        bits
    };
    let form = format!("{}/{bits}", canonical(address));
    if form == text {
        return Vec::new();
    }
    let detail = format!("must be in canonical form ({form:?})");
    vec![FieldError::invalid(path, text, &detail)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_as_upstream_checks_them() {
        let cases = [
            ("10.0.0.1", ""),
            ("::1", ""),
            ("10.0.0.01", "must not have leading 0s"),
            ("10.0.0.256", NOT_AN_IP),
            ("10.0.0", NOT_AN_IP),
            ("", NOT_AN_IP),
            ("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address"),
        ];
        for (text, expected) in cases {
            assert_eq!(ip_problems(text).join(";"), expected, "{text}");
        }
        let loose = canonical_ip("a", "2001:DB8::1")[0].to_string();
        assert_eq!(
            loose,
            "a: Invalid value: \"2001:DB8::1\": must be in canonical form (\"2001:db8::1\")"
        );
        let refused = |text: &str| endpoint_ip("a", text).len();
        assert_eq!(
            ["127.0.0.1", "169.254.1.1", "0.0.0.0", "fe80::1", "ff02::1"].map(refused),
            [1; 5]
        );
        assert_eq!(["10.0.0.1", "2001:db8::1", "224.0.1.1"].map(refused), [0; 3]);
        assert!(is_dual_stack(["10.0.0.1", "::1"]) && !is_dual_stack(["10.0.0.1", "10.0.0.2"]));
    }

    #[test]
    fn ranges_are_checked_as_upstream_checks_them() {
        let check = |text: &str| legacy_cidr("a", text, &[]).first().map(|error| error.body.clone());
        let body = |text: &str, detail: &str| Some(format!("Invalid value: {text:?}: {detail}"));
        assert_eq!(check("10.0.0.0/8"), None);
        assert_eq!(check("10.0.0.0"), body("10.0.0.0", NOT_A_CIDR));
        assert_eq!(check("10.0.0.0/33"), body("10.0.0.0/33", NOT_A_CIDR));
        assert_eq!(
            check("10.0.0.0/08"),
            body("10.0.0.0/08", "must not have leading 0s in IP or prefix length")
        );
        assert_eq!(
            check("10.0.0.1/8"),
            body("10.0.0.1/8", "must not have bits set beyond the prefix length")
        );
        assert_eq!(legacy_cidr("a", "10.0.0.1/8", &["10.0.0.1/8"]), Vec::new());
    }

    #[test]
    fn ranges_have_ends() {
        let cidr = Cidr::parse("10.43.0.0/16").unwrap();
        let (first, last) = cidr.usable();
        assert_eq!(address(Family::V4, first).to_string(), "10.43.0.1");
        assert_eq!(address(Family::V4, last).to_string(), "10.43.255.254");
        assert!(cidr.contains("10.43.7.8".parse().unwrap()) && !cidr.contains("10.44.0.0".parse().unwrap()));
        let small = Cidr::parse("10.43.7.0/24").unwrap();
        assert!(cidr.covers(&small) && cidr.overlaps(&small) && !small.covers(&cidr));
        assert_eq!(Cidr::parse("fd00::/64").unwrap().masked(), "fd00::/64");
        assert_eq!(Cidr::parse("::/0").unwrap().usable().1, u128::MAX);
    }
}
