//! Pods on real engines: how long a pod takes next to the same sandbox and container made by the same calls one after
//! another without krust, many at once, how long a deleted one takes to go, and what pods cost that do nothing.
//!
//! The engine's own rounds and krust's take turns, so that both see the same machine.

use crate::Options;
use crate::connection::{Connection, Error};
use crate::engine::{Engine, on_each};
use crate::krust::Server;
use crate::stats::{Latencies, show};
use crate::support::images::BUSYBOX;
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use krust::runtime::{ContainerConfig, Mount, PodIdentity, Runtime, RuntimeError, SandboxConfig};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
const AT_ONCE: usize = 30;
const AT_ONCE_ROUNDS: usize = 3;
/// As many as a node takes by default.
const IDLE: usize = 110;
/// Connections by which many pods are asked for.
const CONNECTIONS: usize = 4;
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Statuses and events of the start are written by then.
const SETTLE: Duration = Duration::from_secs(20);
/// Ends on SIGTERM at once, as a well-made server does.
const SCRIPT: &str = "trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done";
const PODS: &str = "/api/v1/namespaces/default/pods";

pub async fn run(options: &Options) -> Result<(), Error> {
    on_each(&options.engines, "pods", async |engine, server| {
        measure(engine, server, options).await
    })
    .await
}

async fn measure(engine: &Engine, server: &Server, options: &Options) -> Result<(), Error> {
    let bare = &Bare::new(engine.connect("bench").await?)?;
    let mut pods = Pods::new(server).await?;
    pods.wait_for_account().await?;
    // What only the first one does.
    bare.together(1).await?;
    pods.create(&["first".to_owned()]).await?;
    pods.delete(&["first".to_owned()]).await?;
    one_by_one(&mut pods, bare).await?;
    at_once(&mut pods, bare).await?;
    idle(&mut pods, options).await
}

async fn one_by_one(pods: &mut Pods<'_>, bare: &Bare) -> Result<(), Error> {
    let (mut own, mut starts, mut ends) = (Latencies::default(), Latencies::default(), Latencies::default());
    for round in 0..ROUNDS {
        own.add(bare.together(1).await?);
        let name = [format!("one-{round}")];
        starts.add(pods.create(&name).await?);
        ends.add(pods.delete(&name).await?);
    }
    let own = own.print_times("engine: a sandbox and a container");
    let started = starts.print_times("pod created to Running");
    ends.print_times("pod deleted to gone");
    ratio("a pod's start", started, own);
    Ok(())
}

async fn at_once(pods: &mut Pods<'_>, bare: &Bare) -> Result<(), Error> {
    let (mut own, mut starts, mut ends) = (Latencies::default(), Latencies::default(), Latencies::default());
    let mut cpu = Duration::ZERO;
    for round in 0..AT_ONCE_ROUNDS {
        own.add(bare.together(AT_ONCE).await?);
        let names: Vec<String> = (0..AT_ONCE).map(|number| format!("many-{round}-{number}")).collect();
        let before = pods.server.cpu()?;
        starts.add(pods.create(&names).await?);
        cpu += pods.server.cpu()? - before;
        ends.add(pods.delete(&names).await?);
    }
    let own = own.print_times(&format!("engine: {AT_ONCE} of both at once"));
    let started = starts.print_times(&format!("{AT_ONCE} pods created to Running"));
    ends.print_times(&format!("{AT_ONCE} pods deleted to gone"));
    let each = cpu / u32::try_from(AT_ONCE * AT_ONCE_ROUNDS)?;
    println!("{:<36} {:>13}", "krust's processor time for each", show(each));
    ratio(&format!("the start of {AT_ONCE} pods"), started, own);
    Ok(())
}

async fn idle(pods: &mut Pods<'_>, options: &Options) -> Result<(), Error> {
    let names: Vec<String> = (0..IDLE).map(|number| format!("idle-{number}")).collect();
    let started = pods.create(&names).await?;
    println!(
        "{:<36} {:>13}",
        format!("{IDLE} pods created to Running"),
        show(started)
    );
    tokio::time::sleep(SETTLE).await;
    pods.server.report_memory(&format!("with {IDLE} idle pods"));
    let (before, counted, began) = (pods.server.cpu()?, pods.server.counted().await?, Instant::now());
    tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
    let spent = pods.server.cpu()? - before;
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!("{:<36} {share:>8.2} % of a core", format!("{IDLE} idle pods"));
    let now = pods.server.counted().await?;
    let made = now.requests_since(&counted);
    let made: Vec<String> = made.iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("{:<36} {}", "requests meanwhile", made.join(", "));
    let gone = pods.delete(&names).await?;
    println!("{:<36} {:>13}", format!("{IDLE} pods deleted to gone"), show(gone));
    Ok(())
}

fn ratio(what: &str, ours: Duration, engine: Duration) {
    let times = ours.as_secs_f64() / engine.as_secs_f64();
    println!("{what} takes {times:.2} times what the engine takes");
}

/// The engine without krust: the calls of the kubelet and no more, of the same things.
struct Bare {
    runtime: Arc<dyn Runtime>,
    files: tempfile::TempDir,
    made: std::sync::atomic::AtomicU32,
}

impl Bare {
    fn new(runtime: Arc<dyn Runtime>) -> Result<Self, Error> {
        let files = tempfile::tempdir()?;
        std::fs::write(files.path().join("hosts"), "127.0.0.1 localhost\n")?;
        std::fs::create_dir(files.path().join("token"))?;
        Ok(Self {
            runtime,
            files,
            made: Default::default(),
        })
    }

    /// Makes so many at once, and removes them; how long the making took.
    async fn together(&self, count: usize) -> Result<Duration, Error> {
        let before = Instant::now();
        let made = try_join_all((0..count).map(|_| self.one())).await?;
        let took = before.elapsed();
        try_join_all(made.iter().map(|id| self.runtime.remove_pod_sandbox(id))).await?;
        Ok(took)
    }

    async fn one(&self) -> Result<String, RuntimeError> {
        let number = self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("bare-{number}");
        let sandbox = SandboxConfig {
            pod: PodIdentity {
                name: name.clone(),
                namespace: "default".to_owned(),
                uid: name.clone(),
                attempt: 0,
            },
            hostname: name,
            ..Default::default()
        };
        let mount = |host: &Path, container: &str| Mount {
            host_path: host.display().to_string(),
            container_path: container.to_owned(),
            ..Default::default()
        };
        let container = ContainerConfig {
            name: "c".to_owned(),
            image: BUSYBOX.to_owned(),
            command: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
            mounts: vec![
                mount(&self.files.path().join("hosts"), "/etc/hosts"),
                mount(
                    &self.files.path().join("token"),
                    "/var/run/secrets/kubernetes.io/serviceaccount",
                ),
            ],
            termination_message_path: "/dev/termination-log".to_owned(),
            ..Default::default()
        };
        let id = self.runtime.run_pod_sandbox(&sandbox).await?;
        let created = self.runtime.create_container(&id, &container, &sandbox).await?;
        self.runtime.start_container(&created).await?;
        Ok(id)
    }
}

/// Pods by the API, as any client makes them.
struct Pods<'a> {
    server: &'a Server,
    connections: Vec<Connection>,
    watch: Watch,
}

impl<'a> Pods<'a> {
    async fn new(server: &'a Server) -> Result<Self, Error> {
        let target = server.target()?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(target.connect().await?);
        }
        let path = format!("{PODS}?watch=true");
        let (connection, body) = target.connect().await?.stream(&path).await?;
        let watch = Watch {
            _connection: connection,
            body,
            buffer: Vec::new(),
        };
        Ok(Self {
            server,
            connections,
            watch,
        })
    }

    /// Until then pods are refused.
    async fn wait_for_account(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        while self.connections[0].get_json(path).await.is_err() {
            if began.elapsed() > WAIT_MAX {
                return Err("no service account".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Until the last one is Running.
    async fn create(&mut self, names: &[String]) -> Result<Duration, Error> {
        let before = Instant::now();
        self.each(names, Method::POST, |name| {
            let container = json!({"name": "c", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", SCRIPT]});
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"containers": [container]}});
            (PODS.to_owned(), pod.to_string().into())
        })
        .await?;
        self.watch
            .until(names, |event| event["object"]["status"]["phase"] == "Running")
            .await?;
        Ok(before.elapsed())
    }

    /// Until the last one is gone.
    async fn delete(&mut self, names: &[String]) -> Result<Duration, Error> {
        let before = Instant::now();
        self.each(names, Method::DELETE, |name| (format!("{PODS}/{name}"), Bytes::new()))
            .await?;
        self.watch.until(names, |event| event["type"] == "DELETED").await?;
        Ok(before.elapsed())
    }

    async fn each(
        &mut self,
        names: &[String],
        method: Method,
        request: impl Fn(&str) -> (String, Bytes),
    ) -> Result<(), Error> {
        let share = names.len().div_ceil(CONNECTIONS);
        let (request, method) = (&request, &method);
        let calls = self.connections.iter_mut().zip(names.chunks(share));
        try_join_all(calls.map(|(connection, names)| async move {
            for name in names {
                let (path, body) = request(name);
                connection.call(method.clone(), &path, body).await?;
            }
            Ok::<_, Error>(())
        }))
        .await?;
        Ok(())
    }
}

/// All pods' changes.
struct Watch {
    _connection: Connection,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    /// Reads on until each of these has had an event that is wanted.
    async fn until(&mut self, names: &[String], wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let mut missing: HashSet<&str> = names.iter().map(String::as_str).collect();
        while !missing.is_empty() {
            let event = tokio::time::timeout(WAIT_MAX, self.next())
                .await
                .map_err(|_| format!("nothing happens to {:?}", missing))??;
            if wanted(&event) {
                missing.remove(event["object"]["metadata"]["name"].as_str().unwrap_or_default());
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Value, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let frame = self.body.frame().await.ok_or("the watch ended")??;
            self.buffer
                .extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    }
}
