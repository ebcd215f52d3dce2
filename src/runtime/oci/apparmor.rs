//! The AppArmor profile of containers that name none, or the runtime's (upstream: containerd's `contrib/apparmor`).

use std::path::Path;
use std::process::{Command, Stdio};

/// Profiles that engines load for their containers. The first is ours, too, where no engine has loaded one.
pub const DEFAULTS: [&str; 2] = ["cri-containerd.apparmor.d", "docker-default"];
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Everything but what changes the host: its kernel's settings and devices, and mounts. Containers signal one another, and
/// are signalled by whoever may.
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

/// The default profile that the kernel has.
pub fn default_profile() -> Option<&'static str> {
    if !is_enabled() {
        return None;
    }
    find(&std::fs::read_to_string(LOADED).unwrap_or_default())
}

fn is_enabled() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

fn find(loaded: &str) -> Option<&'static str> {
    let known = |name: &&str| loaded.lines().any(|line| line.starts_with(&format!("{name} (")));
    DEFAULTS.into_iter().find(|name| known(name))
}

/// Loads a default profile where AppArmor is on and no engine has loaded one. Blocks for as long as the parser takes.
pub fn load_default() {
    if !is_enabled() || !Path::new(LOADED).exists() || default_profile().is_some() {
        return;
    }
    if let Err(error) = load() {
        tracing::warn!(
            error,
            "no AppArmor profile for containers can be loaded: they run without one"
        );
    }
}

fn load() -> Result<(), String> {
    let mut parser = Command::new("apparmor_parser");
    let parser = parser.args(["--skip-cache", "--replace"]).stdin(Stdio::piped());
    let told = |error: std::io::Error| format!("apparmor_parser: {error}");
    let mut running = parser
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(told)?;
    if let Some(mut input) = running.stdin.take() {
        std::io::Write::write_all(&mut input, PROFILE.as_bytes()).map_err(told)?;
    }
    let output = running.wait_with_output().map_err(told)?;
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
}
