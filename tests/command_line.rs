//! The program as its user meets it: start, refusals that say what to do, the kubeconfig, and the end.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::krust::Krust;

/// Runs krust to its end, without settings of the user's.
fn krust(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krust"));
    command
        .args(arguments)
        .env_remove("DOCKER_HOST")
        .env_remove("KUBECONFIG");
    command.envs(environment.iter().copied()).output().expect("krust runs")
}

/// What a start that must fail says.
fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let begin = Instant::now();
    let output = krust(arguments, environment);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "a refusal takes {:?}",
        begin.elapsed()
    );
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn wrong_settings_stop_the_start_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("krust.toml");
    fs::write(&file, "[server]\nlisen = ':1'\n").unwrap();
    let text = refusal(&["server", "--config", file.to_str().unwrap()], &[]);
    assert!(
        text.contains("server.lisen") && text.contains("listen") && text.contains("krust.toml"),
        "{text}"
    );
    let text = refusal(&["server", "--runtime", "podman"], &[]);
    assert!(
        text.contains("runtime.kind") && text.contains("docker, containerd, auto, none"),
        "{text}"
    );
    let text = refusal(&[], &[("KRUST_SERVER__PORT", "1")]);
    assert!(
        text.contains("KRUST_SERVER__PORT") && text.contains("KRUST_SERVER__LISTEN"),
        "{text}"
    );
    let text = refusal(&["server", "--tls-san", "no name"], &[]);
    assert!(text.contains("server.tls_sans") && text.contains("no name"), "{text}");
    let text = refusal(&["server"], &[("RUST_LOG", "krust=loud")]);
    assert!(text.contains("RUST_LOG") && text.contains("krust=loud"), "{text}");
}

#[test]
fn what_is_taken_is_named() {
    let server = Krust::start(&["--runtime", "none"]);
    let taken = server.data_dir().to_str().unwrap();
    let text = refusal(&["server", "--data-dir", taken, "--listen", "127.0.0.1:0"], &[]);
    assert!(
        text.contains(taken) && text.contains(&format!("process {}", server.pid())),
        "{text}"
    );
    let other = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let text = refusal(
        &[
            "server",
            "--data-dir",
            other.path().to_str().unwrap(),
            "--listen",
            &address,
        ],
        &[],
    );
    assert!(text.contains(&address) && text.contains("--listen"), "{text}");
    let text = refusal(&["server", "--data-dir", "/proc/krust"], &[]);
    assert!(text.contains("/proc/krust") && text.contains("--data-dir"), "{text}");
}

#[test]
fn without_an_engine_it_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "server",
        "--data-dir",
        directory.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ];
    let nowhere = [
        ("DOCKER_HOST", "unix:///nowhere/docker.sock"),
        ("KRUST_RUNTIME__CONTAINERD_ADDRESS", "/nowhere/containerd.sock"),
    ];
    let text = refusal(&arguments, &nowhere);
    for part in [
        "/nowhere/docker.sock",
        "/nowhere/containerd.sock",
        "docker.io",
        "--runtime none",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_start_says_what_to_do_next_and_a_stop_is_clean() {
    let mut server = Krust::start(&["--runtime", "none"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.log().contains("kubectl apply -f pod.yaml") {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = server.log();
    assert!(log.contains(&format!("https://127.0.0.1:{}", server.port)), "{log}");
    assert!(
        log.contains(&format!("export KUBECONFIG={}", server.kubeconfig().display())),
        "{log}"
    );
    let authority = fs::read(server.data_dir().join("pki/ca.crt")).unwrap();
    // A watch is open when the server is told to stop.
    let mut watch = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(watch, "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = [0; 15];
    watch.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let begin = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "a stop takes {:?}",
        begin.elapsed()
    );
    server.start_again();
    assert_eq!(
        fs::read(server.data_dir().join("pki/ca.crt")).unwrap(),
        authority,
        "the authority is kept"
    );
}

#[test]
fn nobody_else_gets_in() {
    let server = Krust::start(&["--runtime", "none"]);
    let answer = server.plain_get("/api/v1/namespaces").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for (header, part) in [
        ("Origin: http://evil.example", "web pages"),
        ("X-Forwarded-For: 10.0.0.9", "10.0.0.9"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        write!(
            stream,
            "GET /api HTTP/1.1\r\nHost: localhost\r\n{header}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(part), "{answer}");
    }
}

#[tokio::test]
async fn the_kubeconfig_works_printed_and_merged() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = Krust::start(&["--runtime", "none"]);
    let data_dir = server.data_dir().to_str().unwrap();
    let printed = stdout(&krust(&["kubeconfig", "--data-dir", data_dir], &[]));
    assert_eq!(printed, fs::read_to_string(server.kubeconfig()).unwrap());
    list_namespaces(&printed).await;

    let own = server.data_dir().join("own-config");
    fs::write(
        &own,
        "# mine\napiVersion: v1\nkind: Config\ncurrent-context: work\ncontexts: []\n",
    )
    .unwrap();
    let environment = [("KUBECONFIG", own.to_str().unwrap())];
    let told = stdout(&krust(&["kubeconfig", "--merge", "--data-dir", data_dir], &environment));
    assert!(told.contains("--context krust"), "{told}");
    let merged = fs::read_to_string(&own).unwrap();
    assert!(
        merged.starts_with("# mine\n") && merged.contains("current-context: work"),
        "{merged}"
    );
    list_namespaces(&merged).await;

    let elsewhere = [
        "kubeconfig",
        "--server",
        "https://krust.example:7443",
        "--data-dir",
        data_dir,
    ];
    assert!(stdout(&krust(&elsewhere, &[])).contains("https://krust.example:7443"));
    let text = refusal(&["kubeconfig", "--data-dir", "/nowhere"], &[]);
    assert!(text.contains("/nowhere") && text.contains("krust server"), "{text}");
}

/// Reads the context `krust` as a client library does, and uses it.
async fn list_namespaces(kubeconfig: &str) {
    let config = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions {
        context: Some("krust".to_owned()),
        ..Default::default()
    };
    let config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let api: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client);
    let names: Vec<String> = api
        .list(&Default::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|n| n.metadata.name)
        .collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
}

#[test]
fn files_with_secrets_are_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let server = Krust::start(&["--runtime", "none"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    let directory = fs::read_dir(server.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    // The test's own log lies there, too.
    for path in directory.filter(|path| !path.ends_with("krust.log")) {
        assert_eq!(mode(&path), 0, "{} is open to others", path.display());
    }
}

#[test]
fn archives_that_are_none_are_refused_before_an_engine_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("text"), "no archive").unwrap();
    fs::write(path("script"), "echo no archive\n".repeat(100)).unwrap();
    fs::write(path("zstd"), b"\x28\xb5\x2f\xfd and so on").unwrap();
    let layer = support::images::busybox_archive(&[]);
    let image = support::images::Image::new("app:1", &layer);
    fs::write(path("nameless"), image.nameless_archive()).unwrap();
    fs::write(path("good"), image.docker_archive()).unwrap();
    let load = |arguments: &[&str]| refusal(&[&["image", "load"], arguments].concat(), &[]);
    let absent = path("absent");
    assert!(load(&[&absent]).contains(&format!("cannot load {absent}: No such file")));
    for text in ["text", "script"] {
        assert!(load(&[&path(text)]).contains("it is no tar archive"));
    }
    assert!(load(&[&path("zstd")]).contains("zstd, which is not supported; gzip is"));
    assert!(load(&[&path("nameless")]).contains("--name"));
    assert!(load(&[&path("good"), "--name", "Not A Name"]).contains("couldn't parse image name"));
    assert!(load(&[&path("good"), "--name", "other:1"]).contains("--name is for archives with one image"));
    assert!(load(&[&path("good"), "--runtime", "none"]).contains("runtime.kind"));
    let nowhere = [("DOCKER_HOST", "unix:///nowhere/docker.sock")];
    let text = refusal(&["image", "ls", "--runtime", "docker"], &nowhere);
    assert!(text.contains("/nowhere/docker.sock"), "{text}");
}
