//! `krust image load` and `krust image ls` on real engines, images of other namespaces of containerd, and removal.

use crate::images::{Image as Made, busybox_archive, digest};
use crate::subject::{Subject, on_containerd, on_docker, run};
use crate::{containerd, dockerd};
use krust::runtime::*;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

fn krust(arguments: &[&str], settings: &[(&str, &str)], input: Option<&[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krust"));
    command.args(arguments).envs(settings.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("krust runs");
    let mut stdin = child.stdin.take().unwrap();
    if let Some(input) = input {
        stdin.write_all(input).unwrap();
    }
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Archives of all kinds; what they hold runs.
async fn loads(subject: &Subject, settings: &[(&str, &str)]) {
    let directory = tempfile::tempdir().unwrap();
    let layer = busybox_archive(&[("who", b"loaded")]);
    let path = directory.path().join("archive").display().to_string();
    let load = |archive: &[u8], more: &[&str]| {
        std::fs::write(&path, archive).unwrap();
        said(&krust(
            &[&["image", "load", path.as_str()], more].concat(),
            settings,
            None,
        ))
    };
    let named = |name: &'static str| Made::new(name, &layer);
    assert_eq!(
        load(&named("from-docker:1").docker_archive(), &[]),
        "Loaded image: docker.io/library/from-docker:1\n"
    );
    assert_eq!(
        load(&zipped(&named("from-oci:1").oci_archive()), &[]),
        "Loaded image: docker.io/library/from-oci:1\n"
    );
    let text = load(&named("x").nameless_archive(), &["--name", "ghcr.io/team/given:2"]);
    assert_eq!(text, "Loaded image: ghcr.io/team/given:2\n");
    let archive = zipped(&named("from-stdin:1").docker_archive());
    let text = said(&krust(&["image", "load", "-"], settings, Some(&archive)));
    assert_eq!(text, "Loaded image: docker.io/library/from-stdin:1\n");

    let table = said(&krust(&["image", "ls"], settings, None));
    assert!(table.starts_with("REPOSITORY"), "{table}");
    let list = said(&krust(&["image", "ls", "-o", "json"], settings, None));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    for image in ["from-docker:1", "from-oci:1", "ghcr.io/team/given:2", "from-stdin:1"] {
        let (repository, tag) = image.rsplit_once(':').unwrap();
        let line = table.lines().find(|line| line.contains(repository)).expect("a line");
        assert!(line.split_whitespace().nth(1) == Some(tag), "{line}");
        let found = subject.runtime.image_status(image).await.unwrap().expect("the image");
        let listed = list["images"]
            .as_array()
            .unwrap()
            .iter()
            .find(|listed| listed["id"] == found.id.as_str());
        assert!(listed.expect("an entry")["size"].as_u64().unwrap() > 1 << 19);
        let config = subject.pod("loaded");
        let sandbox = subject.sandbox(&config).await;
        let container = ContainerConfig {
            image: image.to_string(),
            ..subject.script("app", "cat /who")
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        assert_eq!(subject.exited(&id).await.exit_code, 0);
        assert_eq!(subject.log(&id, LogOptions::default()).await[0].text, "loaded");
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }

    // All four are names of one image.
    let id = subject.runtime.image_status("from-docker:1").await.unwrap().unwrap().id;
    subject.runtime.remove_image(&id).await.unwrap();
    subject.runtime.remove_image(&id).await.unwrap();
    for image in ["from-docker:1", "ghcr.io/team/given:2"] {
        assert!(subject.runtime.image_status(image).await.unwrap().is_none(), "{image}");
    }
    let disk = subject.runtime.image_directory().await.unwrap();
    assert!(disk.is_dir(), "{disk:?}");

    // Half an archive.
    let archive = named("half:1").docker_archive();
    std::fs::write(&path, &archive[..archive.len() / 2]).unwrap();
    let output = krust(&["image", "load", &path], settings, None);
    assert!(!output.status.success());
    assert!(subject.runtime.image_status("half:1").await.unwrap().is_none());
}

#[test]
fn archives_are_loaded_into_docker() {
    run(async {
        let subject = on_docker().await;
        let settings = [
            ("DOCKER_HOST", dockerd::shared().endpoint.as_str()),
            ("KRUST_RUNTIME__KIND", "docker"),
        ];
        loads(&subject, &settings).await;
        subject.clean().await;
    });
}

#[test]
fn archives_are_loaded_into_containerd() {
    run(async {
        let subject = on_containerd().await;
        let address = containerd::shared().address.as_str();
        let settings = [
            ("KRUST_RUNTIME__CONTAINERD_ADDRESS", address),
            ("KRUST_RUNTIME__KIND", "containerd"),
        ];
        loads(&subject, &settings).await;
        subject.clean().await;
    });
}

#[test]
fn images_of_other_namespaces_run_without_a_copy_of_their_content() {
    run(async {
        let subject = on_containerd().await;
        let engine = containerd::shared();
        // As nerdctl has them.
        let layer = busybox_archive(&[("who", b"elsewhere")]);
        let archive = engine.directory().join("elsewhere.tar");
        std::fs::write(&archive, Made::new("elsewhere:1", &layer).oci_archive()).unwrap();
        let ctr = |namespace: &str, arguments: &[&str]| {
            let mut command = Command::new("ctr");
            command
                .args(["--address", &engine.address, "--namespace", namespace])
                .args(arguments);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        ctr("default", &["images", "import", archive.to_str().unwrap()]);
        // The file with the layer; others of this engine come and go.
        let file = || {
            let name = digest(&layer).replace(':', "/");
            let blobs = engine.directory().join("root/io.containerd.content.v1.content/blobs");
            let metadata = std::fs::metadata(blobs.join(name)).unwrap();
            (metadata.ino(), metadata.modified().unwrap())
        };
        let before = file();
        let found = subject
            .runtime
            .image_status("elsewhere:1")
            .await
            .unwrap()
            .expect("the image");
        assert!(found.pinned, "it is not krust's to remove");
        assert!(
            !ctr("k8s.io", &["images", "list", "--quiet"]).contains("elsewhere"),
            "nobody has used it"
        );
        let config = subject.pod("elsewhere");
        let sandbox = subject.sandbox(&config).await;
        let container = ContainerConfig {
            image: "elsewhere:1".to_string(),
            ..subject.script("app", "cat /who")
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        assert_eq!(subject.exited(&id).await.exit_code, 0);
        assert_eq!(subject.log(&id, LogOptions::default()).await[0].text, "elsewhere");
        assert_eq!(file(), before, "content was copied");
        // It is krust's own now, and stays when the other one goes.
        ctr(
            "default",
            &["images", "remove", "--sync", "docker.io/library/elsewhere:1"],
        );
        let kept = subject
            .runtime
            .image_status("elsewhere:1")
            .await
            .unwrap()
            .expect("the image");
        assert!(!kept.pinned);
        let again = subject
            .start_in(
                &sandbox,
                &config,
                &ContainerConfig {
                    attempt: 1,
                    ..container
                },
            )
            .await;
        assert_eq!(subject.exited(&again).await.exit_code, 0);
        subject.clean().await;
        subject.runtime.remove_image(&kept.id).await.unwrap();
        assert!(subject.runtime.image_status("elsewhere:1").await.unwrap().is_none());
    });
}
