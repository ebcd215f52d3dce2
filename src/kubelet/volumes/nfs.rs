//! NFS volumes, by the host's own `mount` (upstream: `pkg/volume/nfs`, `mount-utils`).

use super::{SetUpError, directory, io};
use k8s_openapi::api::core::v1::NFSVolumeSource;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Mounts the export, once. Without a `mount.nfs` the error says that a helper is missing.
pub async fn mount(path: &Path, source: &NFSVolumeSource, options: &[String]) -> Result<(), SetUpError> {
    std::fs::create_dir_all(path).map_err(io("create", path))?;
    if directory::is_mount_point(path) {
        return Ok(());
    }
    let target = path.display().to_string();
    let arguments = arguments(source, options, &target);
    let output = Command::new("mount")
        .args(&arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(io("run", Path::new("mount")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(SetUpError::Mount {
        status: output.status.to_string().replace("exit status: ", "exit status "),
        arguments: arguments.join(" "),
        output: String::from_utf8_lossy(&text).trim_end().to_owned(),
    })
}

fn arguments(source: &NFSVolumeSource, options: &[String], target: &str) -> Vec<String> {
    // An address of IPv6 has colons of its own.
    let server = match source.server.contains(':') && !source.server.starts_with('[') {
        true => format!("[{}]", source.server),
        false => source.server.clone(),
    };
    let mut options = options.to_vec();
    if source.read_only == Some(true) {
        options.push("ro".to_owned());
    }
    let mut arguments = vec!["-t".to_owned(), "nfs".to_owned()];
    if !options.is_empty() {
        arguments.extend(["-o".to_owned(), options.join(",")]);
    }
    arguments.extend([format!("{server}:{}", source.path), target.to_owned()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_is_asked() {
        let source = |server: &str, read_only| NFSVolumeSource {
            server: server.to_owned(),
            path: "/export".to_owned(),
            read_only: Some(read_only),
        };
        assert_eq!(
            arguments(&source("files", false), &[], "/t").join(" "),
            "-t nfs files:/export /t"
        );
        assert_eq!(
            arguments(&source("fd00::1", true), &["vers=4".to_owned()], "/t").join(" "),
            "-t nfs -o vers=4,ro [fd00::1]:/export /t"
        );
    }
}
