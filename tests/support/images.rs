//! The images that tests run: made here, from busybox and from programs of our own, and given to an engine as they are.
#![allow(dead_code)]

use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

/// The image that every engine here has: busybox with its applets, and a shell as its command.
pub const BUSYBOX: &str = "busybox:test";

/// An image of one layer.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// `repository:tag`
    pub name: &'a str,
    /// A tar archive.
    pub layer: &'a [u8],
    pub entrypoint: &'a [&'a str],
    pub command: &'a [&'a str],
    /// Empty: root.
    pub user: &'a str,
}

impl<'a> Image<'a> {
    pub fn new(name: &'a str, layer: &'a [u8]) -> Self {
        Self {
            name,
            layer,
            entrypoint: &[],
            command: &["sh"],
            user: "",
        }
    }

    /// What it says of itself, as instructions of a Dockerfile.
    pub fn instructions(&self) -> Vec<String> {
        let list = |words: &[&str]| serde_json::to_string(words).unwrap();
        let mut instructions = vec![format!("CMD {}", list(self.command))];
        if !self.entrypoint.is_empty() {
            instructions.push(format!("ENTRYPOINT {}", list(self.entrypoint)));
        }
        if !self.user.is_empty() {
            instructions.push(format!("USER {}", self.user));
        }
        instructions
    }

    /// Its configuration, and its manifest.
    pub fn documents(&self) -> (Vec<u8>, Vec<u8>) {
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let mut settings = serde_json::json!({"Cmd": self.command});
        if !self.entrypoint.is_empty() {
            settings["Entrypoint"] = serde_json::json!(self.entrypoint);
        }
        if !self.user.is_empty() {
            settings["User"] = self.user.into();
        }
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [digest(self.layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", self.layer)],
        });
        (config, manifest.to_string().into_bytes())
    }

    /// An OCI image layout, named as `ctr images import` wants it.
    pub fn oci_archive(&self) -> Vec<u8> {
        self.layout(Some(&format!("docker.io/library/{}", self.name)))
    }

    /// The same without a name.
    pub fn nameless_archive(&self) -> Vec<u8> {
        self.layout(None)
    }

    fn layout(&self, name: Option<&str>) -> Vec<u8> {
        let (config, manifest) = self.documents();
        let mut entry = descriptor("manifest.v1+json", &manifest);
        if let Some(name) = name {
            entry["annotations"] = serde_json::json!({"io.containerd.image.name": name});
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &Path, content: &[u8]| add_file(&mut archive, path, content, 0o644);
        add(Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in [self.layer, &config, &manifest] {
            add(&Path::new("blobs").join(digest(blob).replace(':', "/")), blob);
        }
        add(Path::new("index.json"), index.to_string().as_bytes());
        archive.into_inner().unwrap()
    }

    /// What `docker save` writes.
    pub fn docker_archive(&self) -> Vec<u8> {
        let (config, _) = self.documents();
        let path = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let list = serde_json::json!([{"Config": path, "RepoTags": [self.name], "Layers": ["one/layer.tar"]}]);
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, content: &[u8]| add_file(&mut archive, Path::new(path), content, 0o644);
        add(&path, &config);
        add("one/layer.tar", self.layer);
        add("manifest.json", list.to_string().as_bytes());
        archive.into_inner().unwrap()
    }
}

fn descriptor(kind: &str, content: &[u8]) -> serde_json::Value {
    let media_type = format!("application/vnd.oci.image.{kind}");
    serde_json::json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

pub fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn add_file(archive: &mut tar::Builder<Vec<u8>>, path: &Path, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

/// A root file system with the static busybox and its applets, and further programs by their path.
pub fn busybox_archive(programs: &[(&str, &[u8])]) -> Vec<u8> {
    let listed = Command::new("dpkg")
        .args(["-L", "busybox-static"])
        .output()
        .expect("dpkg");
    let busybox = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .find(|path| path.ends_with("/busybox"))
        .map(str::to_string)
        .expect("the package busybox-static is not installed");
    let applets = Command::new(&busybox)
        .arg("--list")
        .output()
        .expect("busybox --list")
        .stdout;
    let mut archive = tar::Builder::new(Vec::new());
    let program = std::fs::read(&busybox).unwrap();
    add_file(&mut archive, Path::new("bin/busybox"), &program, 0o755);
    for applet in String::from_utf8_lossy(&applets)
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive
            .append_link(&mut link, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    for (path, mode) in [("tmp/", 0o1777), ("root/", 0o700)] {
        let mut directory = tar::Header::new_ustar();
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_mode(mode);
        directory.set_size(0);
        archive.append_data(&mut directory, path, std::io::empty()).unwrap();
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    add_file(&mut archive, Path::new("etc/passwd"), users.as_bytes(), 0o644);
    let groups = "root:x:0:\nnogroup:x:65534:\n";
    add_file(&mut archive, Path::new("etc/group"), groups.as_bytes(), 0o644);
    for (path, content) in programs {
        add_file(&mut archive, Path::new(path), content, 0o755);
    }
    archive.into_inner().unwrap()
}
