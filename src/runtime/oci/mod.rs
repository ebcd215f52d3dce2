//! OCI runtime specifications of sandboxes and containers (upstream: containerd's `oci` and `pkg/cri/server` packages).
//!
//! Nothing here knows of an engine: every backend that starts containers through an OCI runtime can use it.

pub mod apparmor;
pub mod capabilities;
mod mounts;
pub mod seccomp;
pub mod user;

use super::cgroups::{self, Abilities};
use super::{ContainerConfig, Resources, SandboxConfig};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceCgroupBuilder, LinuxHugepageLimit,
    LinuxHugepageLimitBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder, get_default_maskedpaths, get_default_readonly_paths,
};
use std::path::{Path, PathBuf};
use user::ResolvedUser;

/// PATH of processes whose image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Upstream's score for sandboxes.
pub const SANDBOX_OOM_SCORE_ADJ: i64 = -998;
/// Upstream's `defaultSandboxCPUshares`.
const SANDBOX_CPU_SHARES: u64 = 2;
/// How many users a user namespace has: upstream's `userNsUnitLength`.
pub const USER_IDS: u32 = 1 << 16;

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error(transparent)]
    Capability(#[from] capabilities::UnknownCapability),
    #[error("cannot load seccomp profile {0:?}: {1}")]
    Seccomp(String, String),
    #[error("no command specified: neither the pod nor the image has one")]
    NoCommand,
    #[error("the mount source {0:?} does not exist")]
    NoMountSource(PathBuf),
    #[error("the kernel has no AppArmor profile {0} or {1}", apparmor::DEFAULTS[0], apparmor::DEFAULTS[1])]
    NoDefaultAppArmor,
    #[error("path {path:?} is mounted on {point:?} but it is not a {wanted} mount")]
    NoPropagation {
        path: PathBuf,
        point: PathBuf,
        wanted: &'static str,
    },
    #[error("cannot write the specification: {0}")]
    Spec(#[from] OciSpecError),
}

/// What the image says about its processes.
#[derive(Clone, Debug, Default)]
pub struct ImageDefaults {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
}

/// What the engine can give.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Mask of the capabilities that it can give.
    pub capabilities: u64,
    /// The lowest oom score that it may set; None: any.
    pub oom_score_adj_min: Option<i64>,
    /// What the kernel can limit.
    pub cgroups: Abilities,
}

/// Files and directories of the sandbox that every container of it sees.
#[derive(Clone, Debug)]
pub struct SharedFiles {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
    pub hostname: PathBuf,
    pub shm: PathBuf,
}

/// The first process of a sandbox.
pub struct SandboxSpec<'a> {
    pub config: &'a SandboxConfig,
    pub rootfs: &'a Path,
    pub program: &'a str,
    pub cgroup: String,
    pub limits: Limits,
    /// The first of the pod's ids on the host, if it has a user namespace.
    pub user_ids: Option<u32>,
}

impl SandboxSpec<'_> {
    pub fn build(&self) -> Result<Spec, OciError> {
        let config = self.config;
        let own = |wanted: bool, kind| wanted.then(|| namespace(kind, None));
        let namespaces = [
            Some(namespace(LinuxNamespaceType::Mount, None)?),
            own(!config.host_network, LinuxNamespaceType::Network).transpose()?,
            own(!config.host_network, LinuxNamespaceType::Uts).transpose()?,
            own(!config.host_ipc, LinuxNamespaceType::Ipc).transpose()?,
            own(!config.host_pid, LinuxNamespaceType::Pid).transpose()?,
            own(self.user_ids.is_some(), LinuxNamespaceType::User).transpose()?,
        ];
        let process = ProcessBuilder::default()
            .args(vec![self.program.to_string()])
            .cwd("/")
            .env(vec![DEFAULT_PATH.to_string()])
            .capabilities(capabilities::sets(Default::default())?)
            .no_new_privileges(true);
        let process = bounded_score(process, SANDBOX_OOM_SCORE_ADJ, self.limits).build()?;
        let wanted = Resources {
            cpu_shares: SANDBOX_CPU_SHARES,
            ..Default::default()
        };
        let resources = resources(&wanted, self.limits.cgroups);
        let linux = with_user_ids(LinuxBuilder::default(), self.user_ids)?
            .namespaces(namespaces.into_iter().flatten().collect::<Vec<_>>())
            .resources(resources.devices(vec![all_devices(false)?]).build()?)
            .sysctl(
                config
                    .sysctls
                    .clone()
                    .into_iter()
                    .collect::<std::collections::HashMap<_, _>>(),
            )
            .cgroups_path(self.cgroup.as_str())
            .masked_paths(masked_paths())
            .readonly_paths(get_default_readonly_paths())
            .build()?;
        let mut spec = SpecBuilder::default()
            .version("1.0.2")
            .root(RootBuilder::default().path(self.rootfs).readonly(true).build()?)
            .process(process)
            .mounts(mounts::of_sandbox()?)
            .linux(linux)
            .build()?;
        // With the host's network the pod has the host's name, and may not change it.
        let hostname = Some(config.hostname.clone()).filter(|name| !name.is_empty() && !config.host_network);
        spec.set_hostname(hostname);
        Ok(spec)
    }
}

/// A container, which joins the namespaces of its sandbox.
pub struct ContainerSpec<'a> {
    pub config: &'a ContainerConfig,
    pub sandbox: &'a SandboxConfig,
    /// Process that holds the sandbox's namespaces.
    pub sandbox_pid: u32,
    /// Process whose process namespace is joined, instead of an own one.
    pub target_pid: Option<u32>,
    pub image: &'a ImageDefaults,
    pub user: &'a ResolvedUser,
    pub files: &'a SharedFiles,
    /// Host path of the termination message file.
    pub message_file: Option<&'a Path>,
    pub cgroup: String,
    pub limits: Limits,
    /// As the sandbox's.
    pub user_ids: Option<u32>,
}

impl ContainerSpec<'_> {
    pub fn build(&self) -> Result<Spec, OciError> {
        let security = &self.config.security;
        let mut resources = resources(&self.config.resources, self.limits.cgroups);
        if self.limits.cgroups.huge_pages {
            resources = resources.hugepage_limits(huge_page_limits(&self.config.resources)?);
        }
        if self.limits.cgroups.unified {
            let together = (cgroups::KILL_TOGETHER.to_string(), "1".to_string());
            resources = resources.unified([together].into_iter().collect::<std::collections::HashMap<_, _>>());
        }
        let mut linux = with_user_ids(LinuxBuilder::default(), self.user_ids)?
            .namespaces(self.namespaces()?)
            .cgroups_path(self.cgroup.as_str())
            .resources(resources.devices(vec![all_devices(security.privileged)?]).build()?);
        if security.privileged {
            linux = linux.devices(host_devices());
        } else {
            let granted = capabilities::of_container(security, self.limits.capabilities)?;
            if let Some(filter) = seccomp::of_container(&security.seccomp, &granted)? {
                linux = linux.seccomp(filter);
            }
        }
        if security.privileged || security.unmasked_proc {
            linux = linux.masked_paths(Vec::new()).readonly_paths(Vec::new());
        } else {
            linux = linux
                .masked_paths(masked_paths())
                .readonly_paths(get_default_readonly_paths());
        }
        if let Some(propagation) = root_propagation(&self.config.mounts) {
            linux = linux.rootfs_propagation(propagation);
        }
        let root = RootBuilder::default().path("rootfs").readonly(security.readonly_rootfs);
        let mut spec = SpecBuilder::default()
            .version("1.0.2")
            .root(root.build()?)
            .process(self.process()?)
            .mounts(mounts::of_container(self)?)
            .linux(linux.build()?)
            .build()?;
        // The name is the sandbox's, whose namespace is joined.
        spec.set_hostname(None);
        Ok(spec)
    }

    fn process(&self) -> Result<Process, OciError> {
        let (config, image) = (self.config, self.image);
        let working_dir = [&config.working_dir, &image.working_dir]
            .into_iter()
            .find(|path| !path.is_empty())
            .map_or("/", String::as_str);
        let user = UserBuilder::default()
            .uid(self.user.uid)
            .gid(self.user.gid)
            .additional_gids(self.user.additional_gids.clone())
            .build()?;
        let granted = capabilities::of_container(&config.security, self.limits.capabilities)?;
        let mut process = ProcessBuilder::default();
        if let Some(profile) = apparmor::profile(&config.security, apparmor::default_profile)? {
            process = process.apparmor_profile(profile);
        }
        let process = process
            .terminal(config.tty)
            .user(user)
            .args(command(config, image)?)
            .env(self.env())
            .cwd(working_dir)
            .capabilities(capabilities::sets(granted)?)
            .no_new_privileges(config.security.no_new_privs && !config.security.privileged);
        Ok(bounded_score(process, config.resources.oom_score_adj, self.limits).build()?)
    }

    /// The image's variables, then the pod's, which win.
    fn env(&self) -> Vec<String> {
        let hostname = &self.sandbox.hostname;
        let mut env = vec![DEFAULT_PATH.to_string()];
        if !hostname.is_empty() {
            env.push(format!("HOSTNAME={hostname}"));
        }
        if self.config.tty {
            env.push("TERM=xterm".to_string());
        }
        let own = self.config.env.iter().map(|(name, value)| format!("{name}={value}"));
        for variable in self.image.env.iter().cloned().chain(own) {
            let name = variable.split('=').next().unwrap_or_default();
            env.retain(|known| known.split('=').next() != Some(name));
            env.push(variable);
        }
        env
    }

    fn namespaces(&self) -> Result<Vec<LinuxNamespace>, OciError> {
        let sandbox = self.sandbox;
        let joined = |kind, file: &str| namespace(kind, Some(format!("/proc/{}/ns/{file}", self.sandbox_pid).into()));
        let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)?];
        if !sandbox.host_network {
            namespaces.push(joined(LinuxNamespaceType::Network, "net")?);
            namespaces.push(joined(LinuxNamespaceType::Uts, "uts")?);
        }
        if !sandbox.host_ipc {
            namespaces.push(joined(LinuxNamespaceType::Ipc, "ipc")?);
        }
        if self.user_ids.is_some() {
            namespaces.push(joined(LinuxNamespaceType::User, "user")?);
        }
        // Version 2 has one hierarchy, and the container is not to see the host's.
        if self.limits.cgroups.unified && !self.config.security.privileged {
            namespaces.push(namespace(LinuxNamespaceType::Cgroup, None)?);
        }
        match (sandbox.host_pid, sandbox.share_process_namespace) {
            (true, _) => {}
            (false, false) if self.target_pid.is_some() => {
                let path = self.target_pid.map(|pid| format!("/proc/{pid}/ns/pid").into());
                namespaces.push(namespace(LinuxNamespaceType::Pid, path)?);
            }
            (false, true) => namespaces.push(joined(LinuxNamespaceType::Pid, "pid")?),
            (false, false) => namespaces.push(namespace(LinuxNamespaceType::Pid, None)?),
        }
        Ok(namespaces)
    }
}

/// The process of an exec: like the container's own, with another command.
pub fn exec_process(container: &Spec, command: &[String], tty: bool) -> Option<Process> {
    let mut process = container.process().clone()?;
    process.set_args(Some(command.to_vec())).set_terminal(Some(tty));
    if tty {
        let mut env = process.env().clone().unwrap_or_default();
        if env.iter().all(|variable| !variable.starts_with("TERM=")) {
            env.push("TERM=xterm".to_string());
            process.set_env(Some(env));
        }
    }
    Some(process)
}

/// Kubernetes' rule: a command replaces the image's entrypoint and its cmd, args replace the cmd.
fn command(config: &ContainerConfig, image: &ImageDefaults) -> Result<Vec<String>, OciError> {
    let (program, arguments) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    let command: Vec<String> = program.iter().chain(arguments).cloned().collect();
    if command.is_empty() {
        return Err(OciError::NoCommand);
    }
    Ok(command)
}

/// The kernel refuses scores below what the engine may set, and the runtime's error would not say so.
fn bounded_score(process: ProcessBuilder, wanted: i64, limits: Limits) -> ProcessBuilder {
    let score = limits.oom_score_adj_min.map_or(wanted, |lowest| wanted.max(lowest));
    process.oom_score_adj(i32::try_from(score.clamp(-1000, 1000)).unwrap_or(0))
}

/// All users and groups of a user namespace, in a row from the first id on the host.
fn mappings(first: u32) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(first)
        .size(USER_IDS);
    Ok(vec![mapping.build()?])
}

fn with_user_ids(linux: LinuxBuilder, first: Option<u32>) -> Result<LinuxBuilder, OciSpecError> {
    Ok(match first {
        Some(first) => linux.uid_mappings(mappings(first)?).gid_mappings(mappings(first)?),
        None => linux,
    })
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> Result<LinuxNamespace, OciSpecError> {
    let builder = LinuxNamespaceBuilder::default().typ(kind);
    match path {
        Some(path) => builder.path(path).build(),
        None => builder.build(),
    }
}

/// What a running container's shares and limits are changed to. Zero stays as it is.
pub fn resources_of(wanted: &Resources, limits: Limits) -> Result<oci_spec::runtime::LinuxResources, OciError> {
    Ok(resources(wanted, limits.cgroups).build()?)
}

fn huge_page_limits(wanted: &Resources) -> Result<Vec<LinuxHugepageLimit>, OciSpecError> {
    let limits = cgroups::page_limits(&wanted.huge_pages, &cgroups::page_sizes());
    let limits = limits.into_iter().map(|(size, bytes)| {
        let limit = LinuxHugepageLimitBuilder::default().page_size(size);
        limit.limit(i64::try_from(bytes).unwrap_or(i64::MAX)).build()
    });
    limits.collect()
}

/// Zero is unset.
fn resources(wanted: &Resources, abilities: Abilities) -> LinuxResourcesBuilder {
    let mut cpu = LinuxCpuBuilder::default();
    if wanted.cpu_shares != 0 {
        cpu = cpu.shares(wanted.cpu_shares);
    }
    if wanted.cpu_quota != 0 {
        cpu = cpu.quota(wanted.cpu_quota);
    }
    if wanted.cpu_period != 0 {
        cpu = cpu.period(wanted.cpu_period);
    }
    let mut builder = LinuxResourcesBuilder::default();
    if let Ok(cpu) = cpu.build() {
        builder = builder.cpu(cpu);
    }
    if let Ok(bytes) = i64::try_from(wanted.memory_limit_bytes)
        && bytes != 0
    {
        let mut memory = LinuxMemoryBuilder::default().limit(bytes);
        if abilities.swap {
            // No swap on top of the memory.
            memory = memory.swap(bytes);
        }
        if let Ok(memory) = memory.build() {
            builder = builder.memory(memory);
        }
    }
    builder
}

/// Upstream's list, which is longer than the specification's.
fn masked_paths() -> Vec<String> {
    let more = ["/proc/interrupts", "/sys/devices/virtual/powercap"];
    let mut paths = get_default_maskedpaths();
    paths.extend(more.map(str::to_string));
    paths
}

/// With mounts that propagate, the container's whole tree must: the runtime's default would cut them off.
fn root_propagation(mounts: &[super::Mount]) -> Option<&'static str> {
    let has = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    match (
        has(super::Propagation::Bidirectional),
        has(super::Propagation::HostToContainer),
    ) {
        (true, _) => Some("rshared"),
        (false, true) => Some("rslave"),
        (false, false) => None,
    }
}

/// All or none; the runtime adds the harmless ones itself.
fn all_devices(allow: bool) -> Result<oci_spec::runtime::LinuxDeviceCgroup, OciSpecError> {
    LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm").build()
}

/// The devices directly in /dev, for privileged containers.
fn host_devices() -> Vec<LinuxDevice> {
    use oci_spec::runtime::{LinuxDeviceBuilder, LinuxDeviceType};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(entries) = std::fs::read_dir("/dev") else {
        return Vec::new();
    };
    let devices = entries.flatten().filter_map(|entry| {
        let metadata = std::fs::symlink_metadata(entry.path()).ok()?;
        let kind = match metadata.file_type() {
            // The runtime makes a console of its own.
            _ if entry.file_name() == "console" => return None,
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => return None,
        };
        LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(kind)
            .major(i64::try_from(nix::sys::stat::major(metadata.rdev())).ok()?)
            .minor(i64::try_from(nix::sys::stat::minor(metadata.rdev())).ok()?)
            .file_mode(metadata.mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid())
            .build()
            .ok()
    });
    devices.collect()
}

#[cfg(test)]
mod tests;
