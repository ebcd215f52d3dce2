//! The `/etc/hosts` of a pod's containers (upstream: `kubelet_pods.go` `makeHostsMount`).

use super::Volumes;
use crate::kubelet::container::ConfigError;
use crate::kubelet::{FileSharing, pod, sandbox};
use crate::runtime::Mount;
use k8s_openapi::api::core::v1::{Container, HostAlias, Pod};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PATH: &str = "/etc/hosts";
const FILE: &str = "etc-hosts";

impl Volumes {
    /// The file that all containers of the pod share, brought up to date. None where the container has one of its own,
    /// or where the engine must see to it.
    pub fn hosts(&self, pod: &Pod, container: &Container, pod_ips: &[String]) -> Result<Option<Mount>, ConfigError> {
        let own = container.volume_mounts.iter().flatten().any(|m| m.mount_path == PATH);
        if own || pod_ips.is_empty() {
            return Ok(None);
        }
        let host_network = pod::host_network(pod);
        match &self.files {
            FileSharing::Unavailable(_) => return Ok(None),
            // The file of the engine's host is not krust's.
            FileSharing::OwnFiles(_) if host_network => return Ok(None),
            FileSharing::OwnFiles(_) | FileSharing::SamePaths | FileSharing::Shared => {}
        }
        let path = self.pod_directory(pod::uid(pod)).join(FILE);
        let failed = |error: std::io::Error| ConfigError::Hosts {
            path: path.display().to_string(),
            message: error.to_string(),
        };
        let content = match host_network {
            true => of_the_host(&fs::read_to_string(PATH).map_err(failed)?, aliases(pod)),
            false => managed(pod_ips, &sandbox::hostname(pod), &sandbox::domain(pod), aliases(pod)),
        };
        self.make_pod_directory(pod).map_err(|error| ConfigError::Hosts {
            path: path.display().to_string(),
            message: error.to_string(),
        })?;
        write_in_place(&path, &content).map_err(failed)?;
        Ok(Some(Mount {
            container_path: PATH.to_owned(),
            host_path: path.display().to_string(),
            ..Mount::default()
        }))
    }
}

/// Running containers have the file mounted: it must stay the same one.
fn write_in_place(path: &Path, content: &str) -> std::io::Result<()> {
    if fs::read(path).is_ok_and(|known| known == content.as_bytes()) {
        return Ok(());
    }
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

fn aliases(pod: &Pod) -> &[HostAlias] {
    pod::spec(pod).host_aliases.as_deref().unwrap_or_default()
}

fn of_the_host(file: &str, aliases: &[HostAlias]) -> String {
    let mut text = format!("# Kubernetes-managed hosts file (host network).\n{file}");
    add(&mut text, aliases);
    text
}

fn managed(pod_ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in pod_ips {
        // Writing to a String cannot fail.
        let _ = match domain {
            "" => writeln!(text, "{ip}\t{hostname}"),
            domain => writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}"),
        };
    }
    add(&mut text, aliases);
    text
}

fn add(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        let alias = HostAlias {
            ip: "1.2.3.4".to_owned(),
            hostnames: Some(vec!["foo".to_owned(), "bar".to_owned()]),
        };
        let ips = ["10.0.0.2".to_owned()];
        let text = managed(&ips, "p", "sub.ns.svc.cluster.local", std::slice::from_ref(&alias));
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        let end = "10.0.0.2\tp.sub.ns.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n";
        assert!(text.ends_with(end), "{text}");
        assert!(managed(&ips, "p", "", &[]).ends_with("10.0.0.2\tp\n"));
        let host = of_the_host("127.0.0.1 localhost\n", &[alias]);
        assert!(host.starts_with("# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n# Entries"));
    }

    #[test]
    fn the_file_stays_the_same_one() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        write_in_place(&path, "a").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        write_in_place(&path, "b").unwrap();
        assert_eq!(
            (
                fs::read_to_string(&path).unwrap().as_str(),
                fs::metadata(&path).unwrap().ino()
            ),
            ("b", inode)
        );
    }
}
