//! `krust kubeconfig`: the administrator's kubeconfig of the server on this machine, printed or merged into the
//! user's own (upstream: `kubectl config`, `kind export kubeconfig`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::merge::merge;
use super::server::ServerArguments;
use crate::app::{ADMIN_KUBECONFIG, CONTEXT};
use crate::transport::pki::write_private;

/// A server that was started a moment ago, in a container say, has its certificates in well under this time.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct KubeconfigArguments {
    /// Add cluster, user and context krust to $KUBECONFIG or ~/.kube/config, and leave the rest of it as it is.
    #[arg(long)]
    merge: bool,
    /// By which URL clients reach the server [default: https://127.0.0.1 and the server's port].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The server's data directory [default: /var/lib/krust, or ~/.local/share/krust].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The server's configuration files, if they name the data directory.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
}

pub(super) fn run(arguments: &KubeconfigArguments) -> anyhow::Result<()> {
    let server = ServerArguments {
        config: arguments.config.clone(),
        data_dir: arguments.data_dir.clone(),
        ..Default::default()
    };
    let path = server.settings()?.data_dir().join(ADMIN_KUBECONFIG);
    let mut text = read_when_there(&path)?;
    if let Some(url) = &arguments.server {
        text = with_server(&text, url)?;
    }
    if !arguments.merge {
        return super::print(&text);
    }
    let target = target()?;
    merge_into(&target, &text)?;
    super::print(&format!(
        "Added the context {CONTEXT} to {}.\n  kubectl --context {CONTEXT} get nodes\n  kubectl config use-context {CONTEXT}\n",
        target.display()
    ))
}

fn read_when_there(path: &Path) -> anyhow::Result<String> {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return Ok(text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let starting = path.parent().is_some_and(Path::exists) && Instant::now() < deadline;
                if !starting {
                    bail!(
                        "there is no {}: start a server with krust server, or name its data directory with --data-dir",
                        path.display()
                    );
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!(
                    "may not read {}: run this as the user that runs the server (sudo krust kubeconfig)",
                    path.display()
                )
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// The same kubeconfig with another URL.
fn with_server(text: &str, url: &str) -> anyhow::Result<String> {
    let parsed: http::Uri = url.parse().with_context(|| format!("--server {url:?} is no URL"))?;
    if parsed.scheme_str() != Some("https") || parsed.authority().is_none() {
        bail!("--server {url:?} must be https://HOST:PORT");
    }
    let line = text.lines().find(|line| line.trim_start().starts_with("server: "));
    let line = line.context("the server's kubeconfig names no server")?;
    let indent = &line[..line.len() - line.trim_start().len()];
    Ok(text.replacen(line, &format!("{indent}server: {}", serde_json::json!(url)), 1))
}

/// The file that kubectl would write to: of `$KUBECONFIG`'s the one that has the context, else the first that
/// exists, else the last; without it `~/.kube/config`.
fn target() -> anyhow::Result<PathBuf> {
    let list = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
    let files: Vec<PathBuf> = match &list {
        Some(list) => std::env::split_paths(list)
            .filter(|path| !path.as_os_str().is_empty())
            .collect(),
        None => {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            vec![Path::new(&home.context("neither KUBECONFIG nor HOME is set")?).join(".kube/config")]
        }
    };
    let has_context =
        |path: &&PathBuf| fs::read_to_string(path).is_ok_and(|text| super::merge::has_context(&text, CONTEXT));
    let found = files
        .iter()
        .find(has_context)
        .or_else(|| files.iter().find(|path| path.exists()));
    found.or(files.last()).cloned().context("KUBECONFIG names no file")
}

fn merge_into(target: &Path, addition: &str) -> anyhow::Result<()> {
    // A link stays a link: what it points to is replaced.
    let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    let directory = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let _lock = Lock::take(&target)?;
    let existing = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", target.display())),
    };
    let merged = merge(&existing, addition).with_context(|| format!("cannot add to {}", target.display()))?;
    write_private(&target, merged.as_bytes()).with_context(|| format!("cannot write {}", target.display()))
}

/// kubectl's own lock on a kubeconfig: a file beside it.
struct Lock(PathBuf);

impl Lock {
    fn take(target: &Path) -> anyhow::Result<Lock> {
        let mut name = target.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        match fs::File::create_new(&path) {
            Ok(_) => Ok(Lock(path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!(
                    "{} is being changed by another program; if not, remove {}",
                    target.display(),
                    path.display()
                )
            }
            Err(error) => Err(error).with_context(|| format!("cannot make {}", path.display())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("krust: cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "clusters:\n- name: krust\n  cluster:\n    server: \"https://127.0.0.1:6443\"\ncontexts:\n- name: krust\n  context: {cluster: krust, user: krust}\ncurrent-context: krust\nusers:\n- name: krust\n  user: {}\n";

    #[test]
    fn another_url_is_put_in_place() {
        let text = with_server(OURS, "https://krust.example:443").unwrap();
        assert_eq!(
            text,
            OURS.replace("https://127.0.0.1:6443", "https://krust.example:443")
        );
        for bad in ["krust.example", "http://krust.example", "https://", ""] {
            assert!(with_server(OURS, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn merging_makes_a_private_file_and_keeps_links() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("deep/config");
        merge_into(&file, OURS).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let link = directory.path().join("link");
        symlink(&file, &link).unwrap();
        merge_into(&link, &OURS.replace("6443", "7443")).unwrap();
        assert!(link.is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("7443"));
        assert_eq!(
            fs::read_dir(directory.path().join("deep")).unwrap().count(),
            1,
            "neither lock nor temporary file is left"
        );
    }

    #[test]
    fn a_lock_of_another_program_is_respected() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        fs::write(directory.path().join("config.lock"), "").unwrap();
        let error = format!("{:#}", merge_into(&file, OURS).unwrap_err());
        assert!(error.contains("config.lock"), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn a_missing_server_is_explained() {
        let error = read_when_there(Path::new("/nowhere/admin.kubeconfig"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--data-dir") && error.contains("/nowhere"), "{error}");
    }
}
