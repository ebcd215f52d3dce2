//! Seccomp profiles: the default one, and files in Docker's form (upstream: containerd's `contrib/seccomp`,
//! `docker/docker/profiles/seccomp`).

mod default;

use super::super::SecurityProfile;
use super::OciError;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSeccompFilterFlag,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;
use std::collections::HashSet;
use std::str::FromStr;

type Rule = LinuxSyscall;

fn allow(names: &str) -> Result<Rule, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(names.split_whitespace().map(str::to_string).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
}

/// The filter of a container with these capabilities; none for what is unconfined.
pub fn of_container(
    profile: &SecurityProfile,
    granted: &HashSet<Capability>,
) -> Result<Option<LinuxSeccomp>, OciError> {
    match profile {
        SecurityProfile::Unconfined => Ok(None),
        SecurityProfile::RuntimeDefault => Ok(Some(default::profile(granted)?)),
        SecurityProfile::Localhost(path) => {
            let text = read(path).map_err(|error| OciError::Seccomp(path.clone(), error))?;
            let compiled = compile(&text, granted).map_err(|error| OciError::Seccomp(path.clone(), error))?;
            Ok(Some(compiled))
        }
    }
}

/// The text of a profile's file, with an error as the engines show it.
pub fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
        _ => format!("open {path}: {error}"),
    })
}

/// A profile as files have it. What only newer files have is not needed to understand them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    /// Architectures by the main one.
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Option<Vec<FileRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

/// When a rule counts.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Go's name of this architecture.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
const NATIVE: Arch = if cfg!(target_arch = "x86_64") {
    Arch::ScmpArchX86_64
} else {
    Arch::ScmpArchAarch64
};

impl FileRule {
    fn counts(&self, granted: &HashSet<Capability>, kernel: (u32, u32)) -> bool {
        let has = |name: &String| {
            let name = name.strip_prefix("CAP_").unwrap_or(name);
            Capability::from_str(name).is_ok_and(|capability| granted.contains(&capability))
        };
        let newer = |text: &String| version(text).is_some_and(|minimum| kernel >= minimum);
        let Condition {
            arches,
            caps,
            min_kernel,
        } = &self.includes;
        let here = |list: &Vec<String>| list.iter().any(|arch| arch == ARCHITECTURE);
        arches.as_ref().filter(|list| !list.is_empty()).is_none_or(here)
            && caps.iter().flatten().all(has)
            && min_kernel.as_ref().is_none_or(newer)
            && !self.excludes.arches.as_ref().is_some_and(here)
            && !self.excludes.caps.iter().flatten().any(has)
            && !self.excludes.min_kernel.as_ref().is_some_and(newer)
    }
}

/// `4.8` of `4.8.0-rc1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|byte: char| !byte.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().ok();
    let release = release.and_then(|name| name.release().to_str().and_then(version));
    release.unwrap_or((0, 0))
}

fn compile(text: &str, granted: &HashSet<Capability>) -> Result<LinuxSeccomp, String> {
    let file: File = serde_json::from_str(text).map_err(|error| format!("decoding seccomp profile failed: {error}"))?;
    let kernel = kernel();
    let rules = file.syscalls.into_iter().flatten();
    let rules = rules.filter(|rule| rule.counts(granted, kernel)).map(|rule| {
        let names: Vec<String> = rule.name.into_iter().chain(rule.names.into_iter().flatten()).collect();
        let mut built = LinuxSyscallBuilder::default().names(names).action(rule.action);
        if let Some(args) = rule.args.filter(|args| !args.is_empty()) {
            built = built.args(args);
        }
        if let Some(errno) = rule.errno_ret {
            built = built.errno_ret(errno);
        }
        built.build()
    });
    let rules = rules
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let mapped = file
        .arch_map
        .into_iter()
        .flatten()
        .find(|map| map.architecture == NATIVE);
    let mapped = mapped.map(|map| {
        let others = map.sub_architectures.into_iter().flatten();
        std::iter::once(NATIVE).chain(others).collect::<Vec<_>>()
    });
    let mut profile = LinuxSeccompBuilder::default().default_action(file.default_action);
    if let Some(architectures) = mapped.or(file.architectures).filter(|list| !list.is_empty()) {
        profile = profile.architectures(architectures);
    }
    if !rules.is_empty() {
        profile = profile.syscalls(rules);
    }
    if let Some(errno) = file.default_errno_ret {
        profile = profile.default_errno_ret(errno);
    }
    if let Some(flags) = file.flags.filter(|flags| !flags.is_empty()) {
        profile = profile.flags(flags);
    }
    profile.build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(profile: &LinuxSeccomp) -> Vec<String> {
        let rules = profile.syscalls().iter().flatten();
        rules.flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn the_default_grows_with_capabilities() {
        let none = default::profile(&HashSet::new()).unwrap();
        assert_eq!(none.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert!(names(&none).iter().any(|name| name == "openat"));
        assert!(!names(&none).iter().any(|name| name == "mount"));
        let admin = default::profile(&HashSet::from([Capability::SysAdmin])).unwrap();
        assert!(names(&admin).iter().any(|name| name == "mount"));
        let clone3 = |profile: &LinuxSeccomp| {
            let rules = profile.syscalls().clone().unwrap();
            let rule = rules
                .into_iter()
                .find(|rule| rule.names().iter().any(|name| name == "clone3"));
            rule.map(|rule| rule.action())
        };
        assert_eq!(clone3(&none), Some(LinuxSeccompAction::ScmpActErrno));
        assert_eq!(clone3(&admin), Some(LinuxSeccompAction::ScmpActAllow));
    }

    #[test]
    fn rules_of_files_have_conditions() {
        let text = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1,
            "archMap": [
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            ],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": [], "comment": ""},
                {"name": "old", "action": "SCMP_ACT_ERRNO", "args": null},
                {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["user"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["elsewhere"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
                {"names": ["recent"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "3.1"}},
                {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
            ],
        })
        .to_string();
        let plain = compile(&text, &HashSet::new()).unwrap();
        assert_eq!(names(&plain), ["mkdir", "mkdirat", "old", "user", "recent"]);
        assert_eq!(plain.architectures().as_ref().unwrap().len(), 2);
        assert_eq!(plain.syscalls().as_ref().unwrap()[0].errno_ret(), Some(13));
        let admin = compile(&text, &HashSet::from([Capability::SysAdmin])).unwrap();
        assert_eq!(names(&admin), ["mkdir", "mkdirat", "old", "admin", "recent"]);
        assert!(
            compile("{", &HashSet::new())
                .unwrap_err()
                .starts_with("decoding seccomp profile failed")
        );
    }
}
