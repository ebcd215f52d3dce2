//! The PKI on disk: kept, renewed, and refused when it is not usable.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn names(extra: &[&str]) -> ServerNames {
    ServerNames::parse(extra).unwrap()
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap()
}

#[test]
fn files_are_private_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let pki = directory.path().join("pki");
    let first = Pki::load_or_create(&pki, names(&[])).unwrap();
    let kept = [
        "ca",
        "apiserver",
        "kubelet",
        "apiserver-kubelet-client",
        "admin",
        "front-proxy-ca",
        "front-proxy-client",
    ];
    for file in kept
        .iter()
        .flat_map(|name| [format!("{name}.crt"), format!("{name}.key")])
    {
        let mode = fs::metadata(pki.join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(&pki).unwrap().count(), 14, "no temporary file is left");
    let second = Pki::load_or_create(&pki, names(&[])).unwrap();
    assert_eq!(first.authority_pem(), second.authority_pem());
    assert_eq!(first.admin(), second.admin());
}

#[test]
fn a_missing_name_renews_the_server_certificates_only() {
    let directory = tempfile::tempdir().unwrap();
    Pki::load_or_create(directory.path(), names(&[])).unwrap();
    let (server, admin) = (
        read(directory.path(), "apiserver.crt"),
        read(directory.path(), "admin.crt"),
    );
    Pki::load_or_create(directory.path(), names(&["krust.example"])).unwrap();
    assert_ne!(read(directory.path(), "apiserver.crt"), server);
    assert_eq!(read(directory.path(), "admin.crt"), admin);
    // Names may be left over: addresses come and go, and every renewal costs clients a new handshake.
    let server = read(directory.path(), "apiserver.crt");
    Pki::load_or_create(directory.path(), names(&[])).unwrap();
    assert_eq!(read(directory.path(), "apiserver.crt"), server);
}

#[test]
fn torn_and_foreign_pairs_are_issued_anew() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Pki::load_or_create(ours.path(), names(&[])).unwrap();
    Pki::load_or_create(other.path(), names(&[])).unwrap();
    // The key of another certificate: what a crash between the two writes leaves.
    fs::copy(ours.path().join("kubelet.key"), ours.path().join("admin.key")).unwrap();
    // A certificate of another authority.
    for file in ["kubelet.crt", "kubelet.key"] {
        fs::copy(other.path().join(file), ours.path().join(file)).unwrap();
    }
    let pki = Pki::load_or_create(ours.path(), names(&[])).unwrap();
    assert!(tls::certified_key("admin", &pki.admin()).is_ok());
    assert_ne!(read(ours.path(), "kubelet.crt"), read(other.path(), "kubelet.crt"));
}

#[test]
fn a_renewal_reaches_configurations_that_were_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), names(&[])).unwrap();
    assert!(pki.renew().unwrap().is_empty());
    let before = pki.admin();
    fs::remove_file(directory.path().join("admin.crt")).unwrap();
    assert_eq!(pki.renew().unwrap(), ["admin"]);
    assert_ne!(pki.admin(), before);
}

#[test]
fn half_an_authority_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    Pki::load_or_create(directory.path(), names(&[])).unwrap();
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = Pki::load_or_create(directory.path(), names(&[]))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("ca.key") && error.contains("missing"), "{error}");
    fs::write(directory.path().join("ca.key"), "rubbish").unwrap();
    let error = Pki::load_or_create(directory.path(), names(&[])).err().unwrap();
    assert!(matches!(error, PkiError::Unusable { .. }), "{error}");
}

#[test]
fn only_our_authority_makes_a_peer() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = Pki::load_or_create(ours.path(), names(&[])).unwrap();
    let stranger = Pki::load_or_create(other.path(), names(&[])).unwrap();
    let tls = pki.api_server_tls("").unwrap();
    let chain = |pki: &Pki| tls::certified_key("admin", &pki.admin()).unwrap().cert;
    let crate::transport::Peer::Certificate(peer) = tls.peer(Some(&chain(&pki))) else {
        panic!("not recognised")
    };
    assert_eq!(
        (peer.common_name.as_str(), peer.organizations.as_slice()),
        ("kubernetes-admin", &["system:masters".to_owned()][..])
    );
    assert_eq!(peer.sha256_hex.len(), 64);
    assert_eq!(
        tls.peer(Some(&chain(&stranger))),
        crate::transport::Peer::UntrustedCertificate
    );
    assert_eq!(tls.peer(None), crate::transport::Peer::Anonymous);
    // A server's certificate is not a client's.
    let server = PemPair {
        certificate: read(ours.path(), "apiserver.crt"),
        key: read(ours.path(), "apiserver.key"),
    };
    let server = tls::certified_key("apiserver", &server).unwrap().cert;
    assert_eq!(tls.peer(Some(&server)), crate::transport::Peer::UntrustedCertificate);
    // What an authority of front proxies signed is a proxy's, and nothing to servers without proxies.
    let proxy = |pki: &Pki| tls::certified_key("front-proxy", &pki.front_proxy.pair()).unwrap().cert;
    let is_proxy =
        |peer| matches!(peer, crate::transport::Peer::FrontProxy(proxy) if proxy.common_name == FRONT_PROXY_CLIENT);
    assert!(is_proxy(tls.peer(Some(&proxy(&pki)))));
    assert_eq!(
        tls.peer(Some(&proxy(&stranger))),
        crate::transport::Peer::UntrustedCertificate
    );
    let both = pki.api_server_tls(stranger.front_proxy_authority_pem()).unwrap();
    assert!(is_proxy(both.peer(Some(&proxy(&pki)))) && is_proxy(both.peer(Some(&proxy(&stranger)))));
    let kubelet = pki.kubelet_tls().unwrap();
    assert_eq!(
        kubelet.peer(Some(&proxy(&pki))),
        crate::transport::Peer::UntrustedCertificate
    );
    assert!(pki.api_server_tls("-----BEGIN CERTIFICATE-----\nrubbish\n").is_err());
}
