//! Image archives of every form.

use super::*;
use std::io::Write;

fn archive(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    for (path, target) in links {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, path, target).unwrap();
    }
    archive.into_inner().unwrap()
}

fn blob(bytes: &[u8]) -> String {
    digest_of(bytes).replace(':', "/")
}

#[test]
fn dockers_own() {
    let config = br#"{"os":"linux"}"#;
    let list =
        br#"[{"Config":"abc.json","RepoTags":["app:1","ghcr.io/x/app:2"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let files: [(&str, &[u8]); 3] = [("abc.json", config), ("./one/layer.tar", b"layer"), (DOCKER_LIST, list)];
    let bytes = archive(&files, &[("two/layer.tar", "../one/layer.tar")]);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&bytes).unwrap();
    for bytes in [bytes.clone(), zipped.finish().unwrap()] {
        let mut found = Archive::from_stream(bytes.as_slice()).unwrap();
        found.name(None).unwrap();
        assert!(found.is_dockers());
        let image = &found.images[0];
        assert_eq!(image.names, ["docker.io/library/app:1", "ghcr.io/x/app:2"]);
        let manifest: Value = serde_json::from_slice(&image.root.bytes).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], digest_of(b"layer"));
        assert_eq!(manifest["layers"][1], manifest["layers"][0]);
        assert_eq!(manifest["config"]["digest"], digest_of(config));
        assert_eq!(found.read_blob(&digest_of(b"layer"), 1, 3).unwrap(), "aye");
        assert_eq!(found.read_blob(&digest_of(b"layer"), 5, 3).unwrap(), "");
        assert_eq!(found.document(&image.root.digest).unwrap().bytes, image.root.bytes);
    }
}

#[test]
fn layouts() {
    let manifest = json!({"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:l"}]});
    let manifest = manifest.to_string().into_bytes();
    let entry = |annotations: Value| json!({"mediaType": MANIFEST, "digest": digest_of(&manifest), "size": manifest.len(), "annotations": annotations});
    let read = |entries: Vec<Value>| {
        let index = json!({"schemaVersion": 2, "manifests": entries})
            .to_string()
            .into_bytes();
        let path = format!("blobs/{}", blob(&manifest));
        Archive::from_stream(archive(&[("index.json", &index), (&path, &manifest)], &[]).as_slice())
    };
    let found = read(vec![
        entry(json!({"io.containerd.image.name": "docker.io/library/app:1"})),
        entry(json!({"org.opencontainers.image.ref.name": "app:2"})),
    ]);
    let found = found.unwrap();
    assert_eq!(found.images.len(), 1, "two names of one image");
    assert_eq!(
        found.images[0].names,
        ["docker.io/library/app:1", "docker.io/library/app:2"]
    );
    let list: Value = serde_json::from_slice(&found.docker_list(|_| None).unwrap()).unwrap();
    assert_eq!(list[0]["Layers"][0], "blobs/sha256/l");
    assert_eq!(list[0]["RepoTags"][1], "docker.io/library/app:2");
    let mut unnamed = read(vec![entry(json!({"org.opencontainers.image.ref.name": "latest"}))]).unwrap();
    assert!(matches!(unnamed.name(None), Err(ArchiveError::NoName)));
    unnamed.name(Some(&Reference::parse("x").unwrap())).unwrap();
    assert_eq!(unnamed.images[0].names, ["docker.io/library/x:latest"]);
    assert!(matches!(
        unnamed.name(Some(&Reference::parse("y").unwrap())),
        Err(ArchiveError::Named(_))
    ));
}

#[test]
fn what_is_wrong_is_said() {
    let error = |bytes: &[u8]| Archive::from_stream(bytes).unwrap_err().to_string();
    let index = json!({"manifests": [{"digest": "sha256:none"}]}).to_string();
    let layout = archive(&[("index.json", index.as_bytes())], &[]);
    assert_eq!(error(&layout), "the archive is incomplete: sha256:none is missing");
    assert!(error(&archive(&[("etc/passwd", b"")], &[])).contains("no image archive"));
    let text = b"root:x:0:0\n".repeat(100);
    assert_eq!(error(&text), "this is no image archive: it is no tar archive");
    assert!(error(b"\x28\xb5\x2f\xfd....").contains("zstd"));
    let list = archive(&[(DOCKER_LIST, b"{")], &[]);
    assert!(error(&list).contains("manifest.json"));
    let loops = archive(&[(DOCKER_LIST, br#"[{"Config":"a"}]"#)], &[("a", "b"), ("b", "a")]);
    assert!(error(&loops).contains("is missing"));
}
