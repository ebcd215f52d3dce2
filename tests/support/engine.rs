//! Looks at what a krust has on a Docker engine, through the docker command line: from outside, as a user would.

use super::dockerd::{Dockerd, engine_program};
use super::krust::Krust;
use std::time::{Duration, Instant};

impl Dockerd {
    /// stdout of a docker command that must succeed.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = engine_program("docker")
            .arg("--host")
            .arg(&self.endpoint)
            .args(arguments)
            .output();
        let output = output.expect("the docker command runs");
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn list(&self, krust: &Krust, filters: &[&str]) -> Vec<String> {
        let label = format!("label=krust.dev/cluster={}", krust.cluster_id());
        let mut arguments = vec!["ps", "--all", "--quiet", "--no-trunc", "--filter", &label];
        for filter in filters {
            arguments.extend(["--filter", filter]);
        }
        self.docker(&arguments).lines().map(str::to_owned).collect()
    }

    /// Ids of all containers of this krust, sandboxes and dead ones included.
    pub fn containers_of(&self, krust: &Krust) -> Vec<String> {
        self.list(krust, &[])
    }

    /// The kubelet tidies up right after a pod is gone from the API: waits for that.
    pub fn wait_until_empty(&self, krust: &Krust) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.containers_of(krust).is_empty() {
            assert!(
                Instant::now() < deadline,
                "krust left containers: {:?}",
                self.containers_of(krust)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `docker inspect --format` of each application container of this krust.
    pub fn inspect_containers(&self, krust: &Krust, format: &str) -> Vec<String> {
        let ids = self.list(krust, &["label=io.kubernetes.docker.type=container"]);
        ids.iter()
            .map(|id| self.docker(&["inspect", "--format", format, id]).trim().to_owned())
            .collect()
    }

    /// SIGKILL to the running containers of this name in this krust's pods.
    pub fn kill_container(&self, krust: &Krust, name: &str) {
        let name = format!("label=io.kubernetes.container.name={name}");
        let ids = self.list(krust, &[&name, "status=running"]);
        assert!(!ids.is_empty(), "no container to kill");
        for id in ids {
            self.docker(&["kill", &id]);
        }
    }
}
