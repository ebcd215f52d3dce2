//! App containers, which join the namespaces of their sandbox (upstream: the CRI plugin's `container_*.go`).

use super::super::oci::{self, ContainerSpec, OciError, user};
use super::record::{self, Change, ContainerRecord, End, TYPE_CONTAINER, TYPE_SANDBOX};
use super::snapshots::{self, SNAPSHOTTER};
use super::tasks::{is_alive, pid};
use super::{
    ContainerConfig, Engine, Parts, Resources, Result, RuntimeError, SandboxConfig, exec, failed, files, images,
};
use containerd_client::services::v1::container::Runtime as RuntimeName;
use containerd_client::services::v1::{Container, CreateContainerRequest, CreateTaskRequest, UpdateTaskRequest};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use prost::Message;
use prost_types::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;

/// What runs containers: containerd's own shim, with runc.
pub(super) const RUNTIME: &str = "io.containerd.runc.v2";
pub(super) const RUNC: &str = "runc";
/// Programs that its shim can start in place of runc.
const LIKE_RUNC: [&str; 2] = ["crun", "youki"];
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// What the daemon's runtime takes a specification for.
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Upstream's code for containers that could not be started.
const START_ERROR_CODE: i32 = 128;

impl Parts {
    pub(super) async fn create(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String> {
        let sandbox_pid = self.sandbox_pid(sandbox_id).await?;
        let image = self.image(&config.image).await?;
        let image = image.ok_or_else(|| RuntimeError::NotFound {
            what: "image",
            id: config.image.clone(),
        })?;
        let target_pid = match &config.target {
            None => None,
            Some(target) => match self.engine.task(target).await? {
                Some(task) if is_alive(&task) && pid(&task).is_some() => pid(&task),
                _ => return Err(failed("use the processes of", target, "the container does not run")),
            },
        };
        // Its runtime is that of all its containers.
        let sandbox_found = self.engine.container(sandbox_id, TYPE_SANDBOX).await?;
        let id = new_id();
        let lease = snapshots::create_lease(&self.engine).await?;
        let request = Creation {
            id: &id,
            lease: &lease,
            sandbox_id,
            sandbox_pid,
            target_pid,
            runtime: &sandbox_found.runtime,
            user_ids: record::label(&sandbox_found, record::USER_IDS).parse().ok(),
            config,
            sandbox,
            image: &image,
        };
        let created = self.create_leased(&request).await;
        if created.is_err() {
            if let Err(error) = snapshots::remove(&self.engine, &id).await {
                tracing::warn!(%error, id, "the file system of a container that was not created stays until its lease expires");
            }
            files::remove(&self.engine, &id)?;
        }
        snapshots::delete_lease(&self.engine, &lease).await;
        created.map(|()| id)
    }

    async fn create_leased(&self, creation: &Creation<'_>) -> Result<()> {
        let Creation {
            id, config, sandbox, ..
        } = *creation;
        let (engine, content) = (&self.engine, &creation.image.content);
        let refused = |message: String| failed("create", &config.name, message);
        let user_ids = creation.user_ids;
        let mounts = snapshots::prepare(engine, creation.lease, id, content, user_ids).await?;
        let accounts = snapshots::accounts(&mounts);
        let user = user::resolve(&config.security, &content.defaults.user, &accounts)
            .map_err(|error| refused(error.to_string()))?;
        let has_message = !config.termination_message_path.is_empty();
        let message_file = files::create_for_container(engine, id, has_message, user_ids)?;
        super::cri_log::write_limits(&engine.log_directory(id), config.logs)
            .map_err(|error| refused(error.to_string()))?;
        oci::apparmor::load_default().await;
        let spec = ContainerSpec {
            config,
            sandbox,
            sandbox_pid: creation.sandbox_pid,
            target_pid: creation.target_pid,
            image: &content.defaults,
            user: &user,
            files: &files::shared(engine, creation.sandbox_id, sandbox.host_ipc),
            message_file: message_file.as_deref(),
            cgroup: format!("{}/{id}", engine.pod_cgroup(&sandbox.pod.uid)),
            limits: engine.limits,
            user_ids,
        };
        let spec = spec.build().map_err(|error: OciError| refused(error.to_string()))?;
        if !engine.limits.cgroups.huge_pages && config.resources.huge_pages.values().any(|bytes| *bytes > 0) {
            tracing::warn!(
                pod = sandbox.pod.name,
                container = config.name,
                "the kernel's controller hugetlb is not there: the huge pages of a container are not limited"
            );
        }
        let mut record = ContainerRecord::of(config, creation.sandbox_id, &sandbox.pod);
        record.image_ref.clone_from(&creation.image.image_ref);
        record.user = Some(user);
        if record.stop_signal.is_empty() {
            record.stop_signal.clone_from(&content.stop_signal);
        }
        signal(&record.stop_signal).map_err(refused)?;
        let message = CreateContainerRequest {
            container: Some(Container {
                id: id.to_string(),
                labels: record::container_labels(&engine.options.cluster_id, &sandbox.pod, &record),
                image: config.image.clone(),
                runtime: creation.runtime.clone(),
                spec: Some(spec_any(&spec)?),
                snapshotter: SNAPSHOTTER.to_string(),
                snapshot_key: id.to_string(),
                extensions: record::extensions(&record),
                ..Default::default()
            }),
        };
        let created = engine.containers().create(engine.leased(creation.lease, message)).await;
        created.map_err(|status| engine.error("create", "container", &config.name, status))?;
        self.events.learn(id, TYPE_CONTAINER, &sandbox.pod.uid);
        Ok(())
    }

    pub(super) async fn start(&self, id: &str) -> Result<()> {
        let found = self.engine.container(id, TYPE_CONTAINER).await?;
        if record::started_at(&found).is_some() || record::end(&found).is_some() {
            return Err(failed("start", id, "the container was started before"));
        }
        let started = self.start_created(id, &record::record(&found)).await;
        let Err(error) = started else {
            return Ok(());
        };
        if let RuntimeError::Failed { message, .. } = &error {
            let end = End {
                exit_code: START_ERROR_CODE,
                finished_at: SystemTime::now(),
                reason: "StartError".to_string(),
                message: message.clone(),
            };
            self.engine.change(id, Change::End(end)).await?;
        }
        // The process that waits to be started, if it came to that.
        self.engine.signal(id, libc::SIGKILL).await?;
        self.engine.delete_task(id).await?;
        Err(error)
    }

    async fn start_created(&self, id: &str, record: &ContainerRecord) -> Result<()> {
        let engine = &self.engine;
        let log = self.log_uri(id, record.tty);
        let mut task = CreateTaskRequest {
            container_id: id.to_string(),
            rootfs: snapshots::mounts(engine, id).await?,
            stdout: log.clone(),
            // A terminal has one stream.
            stderr: if record.tty { String::new() } else { log },
            terminal: record.tty,
            ..Default::default()
        };
        if record.stdin {
            self.add_stdin(id, &mut task)
                .await
                .map_err(|error| failed("make the pipes of", id, error))?;
        }
        engine.create_task(task).await?;
        self.strays.told(id);
        // Before the start: who finds a time but neither a task nor an end knows that the end was lost.
        engine.change(id, Change::Started(SystemTime::now())).await?;
        engine.start_task(id).await
    }

    /// Has the shim start krust's logger. The program gets the query's only key and value as arguments.
    fn log_uri(&self, id: &str, tty: bool) -> String {
        let (program, directory) = (self.engine.logger.display(), self.engine.log_directory(id));
        let command = if tty { "cri-log-tty" } else { "cri-log" };
        let directory: String = form_urlencoded::byte_serialize(directory.as_os_str().as_encoded_bytes()).collect();
        format!("binary://{program}?{command}={directory}")
    }

    /// A shim that starts a logger gives stdin only to terminals; other containers' logger is started here.
    async fn add_stdin(&self, id: &str, task: &mut CreateTaskRequest) -> io::Result<()> {
        let pipes = exec::container_pipes(&self.engine, id);
        std::fs::create_dir_all(&pipes)?;
        let make = |name: &str| -> io::Result<String> {
            let path = pipes.join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            Ok(path.display().to_string())
        };
        task.stdin = make("stdin")?;
        if task.terminal {
            return Ok(());
        }
        (task.stdout, task.stderr) = (make("stdout")?, make("stderr")?);
        let mut logger = tokio::process::Command::new(&self.engine.logger)
            .arg("cri-log")
            .arg(self.engine.log_directory(id))
            .arg("--pipes")
            .arg(&pipes)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It outlives this process, and its terminal.
            .process_group(0)
            .spawn()?;
        let mut ready = logger.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        ready.read_to_end(&mut Vec::new()).await?;
        match logger.try_wait()? {
            Some(status) => Err(io::Error::other(format!("the logger ended with {status}"))),
            None => Ok(()),
        }
    }

    /// Stop signal, then SIGKILL.
    pub(super) async fn stop(&self, id: &str, grace_seconds: u32) -> Result<()> {
        let found = self.engine.container(id, TYPE_CONTAINER).await?;
        let record: ContainerRecord = record::record(&found);
        if let Some(task) = self.engine.task(id).await?
            && is_alive(&task)
        {
            // It was checked when the container was created.
            let signal = signal(&record.stop_signal).unwrap_or(libc::SIGTERM);
            self.engine.signal(id, signal).await?;
            let grace = Duration::from_secs(grace_seconds.into());
            if !self.engine.wait_for_end(id, grace).await? {
                self.engine.kill(id).await?;
            }
        }
        self.settle(id).await
    }

    /// SIGKILL at once. What is gone is fine.
    pub(super) async fn stop_now(&self, id: &str) -> Result<()> {
        if let Some(task) = self.engine.task(id).await? {
            if is_alive(&task) {
                self.engine.kill(id).await?;
            }
            self.settle(id).await?;
        }
        Ok(())
    }

    /// Other shares and limits for a running container.
    pub(super) async fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        self.engine.container(id, TYPE_CONTAINER).await?;
        let wrong = |error: String| failed("update", id, error);
        let wanted = oci::resources_of(resources, self.engine.limits).map_err(|error| wrong(error.to_string()))?;
        let request = self.engine.request(UpdateTaskRequest {
            container_id: id.to_string(),
            resources: Some(Any {
                type_url: RESOURCES_TYPE.to_string(),
                value: serde_json::to_vec(&wanted).map_err(|error| wrong(error.to_string()))?,
            }),
            annotations: Default::default(),
        });
        let updated = self.engine.tasks().update(request).await;
        updated
            .map(drop)
            .map_err(|status| self.engine.error("update", "container", id, status))
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let found = self.engine.container(id, TYPE_CONTAINER).await?;
        self.stop_now(id).await?;
        let work = async {
            files::remove(&self.engine, id)?;
            self.strays.expect(id);
            files::remove_cgroups(&self.engine, record::label(&found, record::POD_UID), id);
            self.engine.delete_container(id).await
        };
        self.engine.in_turn(id, work).await
    }
}

/// What a new container is made from.
struct Creation<'a> {
    id: &'a str,
    lease: &'a str,
    sandbox_id: &'a str,
    sandbox_pid: u32,
    target_pid: Option<u32>,
    runtime: &'a Option<RuntimeName>,
    user_ids: Option<u32>,
    config: &'a ContainerConfig,
    sandbox: &'a SandboxConfig,
    image: &'a images::Found,
}

/// 64 digits, as engines have them.
pub(super) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The shim of a RuntimeClass's handler; the empty one, and `runc`, is containerd's own.
pub(super) fn runtime(engine: &Engine, handler: &str) -> Result<RuntimeName> {
    let own = |options| RuntimeName {
        name: RUNTIME.to_string(),
        options,
    };
    if matches!(handler, "" | RUNC) {
        return Ok(own(None));
    }
    let found = programs(engine);
    if let Some(name) = shims(found.iter()).remove(handler) {
        return Ok(RuntimeName { name, options: None });
    }
    if LIKE_RUNC.contains(&handler) && found.iter().any(|program| program == handler) {
        let options = RuncOptions {
            binary_name: handler.to_string(),
        };
        return Ok(own(Some(Any {
            type_url: RUNC_OPTIONS.to_string(),
            value: options.encode_to_vec(),
        })));
    }
    let message = format!("no runtime for {handler:?} is configured");
    Err(failed("failed to get", "sandbox runtime", message))
}

/// Handlers for which there is a runtime.
pub(super) fn handlers(engine: &Engine) -> Vec<String> {
    let found = programs(engine);
    let mut handlers: BTreeSet<String> = shims(found.iter()).into_keys().collect();
    handlers.insert(RUNC.to_string());
    let like_runc = LIKE_RUNC
        .iter()
        .filter(|name| found.iter().any(|program| program == *name));
    handlers.extend(like_runc.map(|name| (*name).to_string()));
    handlers.into_iter().collect()
}

/// What containerd's shim is told, as far as it is needed here.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

/// Names of the programs that the daemon and its shims find.
fn programs(engine: &Engine) -> Vec<String> {
    let files = std::env::split_paths(&engine.programs).filter_map(|place| std::fs::read_dir(place).ok());
    let names = files
        .flatten()
        .flatten()
        .filter_map(|file| file.file_name().into_string().ok());
    names.collect()
}

/// Runtimes by handler, found as the programs that containerd starts for them: `containerd-shim-<handler>-<version>`.
fn shims<'a>(programs: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    let mut shims = BTreeMap::new();
    for name in programs {
        let found = name
            .strip_prefix("containerd-shim-")
            .and_then(|rest| rest.rsplit_once('-'));
        if let Some((handler, version)) = found
            && version.starts_with('v')
        {
            let runtime = format!("io.containerd.{handler}.{version}");
            let newest = shims.entry(handler.to_string()).or_insert_with(|| runtime.clone());
            if *newest < runtime {
                *newest = runtime;
            }
        }
    }
    shims
}

pub(super) fn spec_any(spec: &Spec) -> Result<Any> {
    Ok(Any {
        type_url: SPEC_TYPE.to_string(),
        value: serde_json::to_vec(spec).map_err(|error| failed("write", "a specification", error))?,
    })
}

/// `SIGUSR1`, `USR1` or a number; empty is SIGTERM.
fn signal(name: &str) -> Result<i32, String> {
    if name.is_empty() {
        return Ok(libc::SIGTERM);
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    let real_time = full.strip_prefix("SIGRTMIN").map(|rest| match rest.strip_prefix('+') {
        Some(offset) => offset.parse::<u8>().ok(),
        None => rest.is_empty().then_some(0),
    });
    match (name.parse::<i32>(), Signal::from_str(&full), real_time) {
        (Ok(number @ 1..=64), ..) => Ok(number),
        (_, Ok(signal), _) => Ok(signal as i32),
        (_, _, Some(Some(offset @ 0..=30))) => Ok(libc::SIGRTMIN() + i32::from(offset)),
        _ => Err(format!("unknown stop signal {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (name, number) in [
            ("", libc::SIGTERM),
            ("SIGUSR1", libc::SIGUSR1),
            ("quit", libc::SIGQUIT),
            ("9", 9),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
        ] {
            assert_eq!(signal(name), Ok(number), "{name}");
        }
        for name in ["0", "65", "SIGNONE", "RTMIN+99", "-1"] {
            assert!(signal(name).is_err(), "{name}");
        }
    }

    #[test]
    fn shims_by_handler() {
        let programs = [
            "ls",
            "containerd-shim-runc-v2",
            "containerd-shim-runc-v1",
            "containerd-shim-wasm-v1",
            "containerd-shim",
        ];
        let programs = programs.map(str::to_string);
        let found: Vec<_> = shims(programs.iter()).into_iter().collect();
        let expected = [("runc", "io.containerd.runc.v2"), ("wasm", "io.containerd.wasm.v1")];
        assert_eq!(
            found,
            expected.map(|(handler, name)| (handler.to_string(), name.to_string()))
        );
    }

    #[test]
    fn ids() {
        assert!(is_id(&new_id()));
        assert!(!is_id("../x"));
    }
}
