//! Capabilities of containers (upstream: containerd's `oci.WithDefaultSpec`, `pkg/cap`).

use super::super::SecurityContext;
use oci_spec::OciSpecError;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};
use std::str::FromStr;

/// What containers have unless they ask for less.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// In the order of the kernel's numbers (capability.h).
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The bit of CAP_SYS_RESOURCE in a mask like `/proc/<pid>/status` has.
pub const SYS_RESOURCE: u64 = 1 << 24;

/// A capability that does not exist, as it was written.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

/// What a container gets. `available` is what the engine can give at most.
pub fn of_container(security: &SecurityContext, available: u64) -> Result<Capabilities, UnknownCapability> {
    let everything = || {
        (0..)
            .zip(ALL)
            .filter(|(bit, _)| available & (1 << bit) != 0)
            .map(|(_, one)| one)
    };
    if security.privileged {
        return Ok(everything().collect());
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut granted: Capabilities = if security.add_capabilities.iter().any(is_all) {
        everything().collect()
    } else if security.drop_capabilities.iter().any(is_all) {
        Capabilities::new()
    } else {
        DEFAULT.into_iter().collect()
    };
    for name in security.drop_capabilities.iter().filter(|name| !is_all(name)) {
        granted.remove(&parse(name)?);
    }
    for name in security.add_capabilities.iter().filter(|name| !is_all(name)) {
        granted.insert(parse(name)?);
    }
    Ok(granted)
}

/// The sets of a process. What is not root has no effective ones until it executes a file that grants them.
pub fn sets(granted: Capabilities) -> Result<LinuxCapabilities, OciSpecError> {
    LinuxCapabilitiesBuilder::default()
        .bounding(granted.clone())
        .effective(granted.clone())
        .permitted(granted)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
}

/// With or without `CAP_`, as Kubernetes takes them.
fn parse(name: &str) -> Result<Capability, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    Capability::from_str(short).map_err(|_| UnknownCapability(name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(add: &[&str], drop: &[&str], privileged: bool) -> Result<Capabilities, UnknownCapability> {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
        let security = SecurityContext {
            add_capabilities: names(add),
            drop_capabilities: names(drop),
            privileged,
            ..Default::default()
        };
        of_container(&security, !SYS_RESOURCE)
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(granted(&[], &[], false).unwrap().len(), 14);
        assert_eq!(granted(&[], &["ALL"], false).unwrap().len(), 0);
        assert_eq!(
            granted(&["NET_ADMIN"], &["all"], false).unwrap(),
            [Capability::NetAdmin].into()
        );
        assert_eq!(granted(&["CAP_NET_ADMIN"], &["KILL"], false).unwrap().len(), 14);
        assert_eq!(granted(&["ALL"], &["KILL"], false).unwrap().len(), ALL.len() - 2);
        assert_eq!(granted(&["FLY"], &[], false), Err(UnknownCapability("FLY".into())));
    }

    #[test]
    fn privileged_is_all_there_is() {
        let all = granted(&[], &[], true).unwrap();
        assert_eq!(all.len(), ALL.len() - 1);
        assert!(!all.contains(&Capability::SysResource));
    }
}
