//! The AppArmor profiles of containers (upstream: containerd's `pkg/cri/server`, `generateApparmorSpecOpts`, and
//! `contrib/apparmor`).

use super::OciError;
use crate::runtime::{SecurityContext, SecurityProfile};
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Profiles that engines load for their containers. The first is ours, too, where no engine has loaded one.
pub const DEFAULTS: [&str; 2] = ["cri-containerd.apparmor.d", "docker-default"];
/// Not there where AppArmor is off.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Everything but what changes the host: its kernel's settings and devices, and mounts. Containers signal one another,
/// and are signalled by whoever may.
const PROFILE: &str = "profile cri-containerd.apparmor.d flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  unix,
  umount,
  signal (receive),
  signal (send) peer=cri-containerd.apparmor.d,
  ptrace (trace, read, tracedby, readby) peer=cri-containerd.apparmor.d,
  deny mount,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,
  deny /proc/sys/{abi,debug,dev,fs,user,vm}/** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/[^c]** wklx,
}
";

/// The profile that a container starts with; None: that of the process that starts it. Who names none has the default
/// where there is one, and privileged ones only what they name themselves.
pub fn profile(
    security: &SecurityContext,
    default: impl FnOnce() -> Option<&'static str>,
) -> Result<Option<String>, OciError> {
    match &security.apparmor {
        Some(SecurityProfile::Localhost(name)) => Ok(Some(name.clone())),
        Some(SecurityProfile::Unconfined) => Ok(None),
        _ if security.privileged => Ok(None),
        Some(SecurityProfile::RuntimeDefault) => match default() {
            Some(name) => Ok(Some(name.to_owned())),
            None => Err(OciError::NoDefaultAppArmor),
        },
        None => Ok(default().map(str::to_owned)),
    }
}

/// The default profile that the kernel has.
pub fn default_profile() -> Option<&'static str> {
    find(&std::fs::read_to_string(LOADED).unwrap_or_default())
}

fn find(loaded: &str) -> Option<&'static str> {
    let known = |name: &&str| loaded.lines().any(|line| line.starts_with(&format!("{name} (")));
    DEFAULTS.into_iter().find(|name| known(name))
}

/// Loads a default profile where AppArmor is on and no engine has loaded one.
pub async fn load_default() {
    if !Path::new(LOADED).exists() || default_profile().is_some() {
        return;
    }
    if let Err(error) = load().await {
        tracing::warn!(error, "no default AppArmor profile for containers can be loaded");
    }
}

async fn load() -> Result<(), String> {
    let told = |error: std::io::Error| format!("apparmor_parser: {error}");
    let mut parser = Command::new("apparmor_parser");
    let parser = parser.args(["--skip-cache", "--replace"]).kill_on_drop(true);
    let parser = parser
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = parser.spawn().map_err(told)?;
    if let Some(mut input) = running.stdin.take() {
        input.write_all(PROFILE.as_bytes()).await.map_err(told)?;
    }
    let output = running.wait_with_output().await.map_err(told)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_loaded() {
        for (loaded, expected) in [
            ("", None),
            ("docker-default (enforce)\n", Some("docker-default")),
            (
                "docker-default (enforce)\ncri-containerd.apparmor.d (enforce)\n",
                Some("cri-containerd.apparmor.d"),
            ),
            ("docker-default-of-mine (enforce)\n", None),
        ] {
            assert_eq!(find(loaded), expected, "{loaded}");
        }
        assert!(PROFILE.starts_with(&format!("profile {} ", DEFAULTS[0])));
    }

    #[test]
    fn who_has_which() {
        let default = DEFAULTS[0];
        let own = || Some(SecurityProfile::Localhost("own".into()));
        for (apparmor, privileged, loaded, expected) in [
            (None, false, Some(default), Ok(Some(default))),
            (None, false, None, Ok(None)),
            (None, true, Some(default), Ok(None)),
            (
                Some(SecurityProfile::RuntimeDefault),
                false,
                Some(default),
                Ok(Some(default)),
            ),
            (
                Some(SecurityProfile::RuntimeDefault),
                false,
                None,
                Err("the kernel has no AppArmor profile cri-containerd.apparmor.d or docker-default"),
            ),
            (Some(SecurityProfile::RuntimeDefault), true, None, Ok(None)),
            (Some(SecurityProfile::Unconfined), false, Some(default), Ok(None)),
            (own(), false, Some(default), Ok(Some("own"))),
            (own(), true, None, Ok(Some("own"))),
        ] {
            let situation = format!("{apparmor:?}, {privileged}, {loaded:?}");
            let security = SecurityContext {
                apparmor,
                privileged,
                ..Default::default()
            };
            let found = profile(&security, || loaded).map_err(|error| error.to_string());
            let expected = expected.map(|name| name.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(found, expected, "{situation}");
        }
    }
}
