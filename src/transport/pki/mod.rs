//! The cluster's own certificate authority and what it signs, kept in `DATA_DIR/pki` under kubeadm's file names
//! (upstream: `cmd/kubeadm/app/phases/certs`, and the dynamic certificates of `apiserver/pkg/server`).

mod issue;
mod names;
pub mod sign;
mod store;
mod tls;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;

use super::trust::Identity;
pub use issue::FRONT_PROXY_CLIENT;
pub use names::{BadName, ServerNames, in_container};
pub use store::{PemPair, write_private};
pub use tls::ServerTls;

use issue::{Authority, CLUSTER, FRONT_PROXY, Profile};
use tls::Swappable;

/// How often certificates are compared with the clock and with the machine's addresses. Nothing else reports that a
/// day has come, and a suspended machine's timers do not.
const CHECK_INTERVAL: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is not usable: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("cannot issue a certificate for {subject}: {source}")]
    Issue { subject: String, source: rcgen::Error },
    #[error("cannot sign a request: {reason}")]
    Request { reason: String },
    #[error("cannot use the certificate of {subject}: {source}")]
    Tls { subject: String, source: rustls::Error },
}

/// The authority, and the certificates of this machine's servers and clients. They are renewed in place by
/// [`Pki::keep_fresh`]; configurations that were handed out follow.
pub struct Pki {
    directory: PathBuf,
    authority: Authority,
    extra_names: ServerNames,
    api_server: Swappable,
    kubelet: Swappable,
    kubelet_client: Swappable,
    admin: Swappable,
    front_proxy_authority: Authority,
    front_proxy: Swappable,
}

impl Pki {
    /// Uses what is kept in `directory`; what is missing, foreign, about to expire or lacks a name is issued anew.
    /// `extra_names` come on top of the machine's own names and addresses.
    pub fn load_or_create(directory: &Path, extra_names: ServerNames) -> Result<Pki, PkiError> {
        store::create_private_directory(directory)?;
        let authority = Authority::load_or_create(directory, CLUSTER)?;
        let names = ServerNames::of_machine().and(&extra_names);
        let [api_server, kubelet, kubelet_client, admin] = Profile::all(&names).map(|profile| {
            let (pair, _) = authority.load_or_issue(directory, &profile)?;
            Swappable::new(profile.file, pair)
        });
        let front_proxy_authority = Authority::load_or_create(directory, FRONT_PROXY)?;
        let (pair, _) = front_proxy_authority.load_or_issue(directory, &Profile::of_user(FRONT_PROXY_CLIENT))?;
        Ok(Pki {
            front_proxy_authority,
            front_proxy: Swappable::new(FRONT_PROXY_CLIENT, pair)?,
            directory: directory.to_owned(),
            authority,
            extra_names,
            api_server: api_server?,
            kubelet: kubelet?,
            kubelet_client: kubelet_client?,
            admin: admin?,
        })
    }

    /// The authority's certificate, for kubeconfigs.
    pub fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The administrator's client certificate and key, for kubeconfigs.
    pub fn admin(&self) -> Arc<PemPair> {
        self.admin.pair()
    }

    /// A client certificate for another process; valid for a year.
    pub fn client(&self, user: &'static str) -> Result<PemPair, PkiError> {
        self.authority.issue(&Profile::of_user(user))
    }

    /// TLS of the API server: client certificates are asked for, not demanded. Certificates of front proxies are of our
    /// authority for them, or of others, in PEM.
    pub fn api_server_tls(&self, front_proxies: &str) -> Result<ServerTls, PkiError> {
        let mut authorities = vec![self.front_proxy_authority.certificate().clone()];
        for certificate in CertificateDer::pem_slice_iter(front_proxies.as_bytes()) {
            authorities.push(certificate.map_err(|error| PkiError::Tls {
                subject: "front proxies".to_owned(),
                source: rustls::Error::General(error.to_string()),
            })?);
        }
        ServerTls::new("apiserver", &self.authority, &authorities, &self.api_server)
    }

    /// TLS of the kubelet's server.
    pub fn kubelet_tls(&self) -> Result<ServerTls, PkiError> {
        ServerTls::new("kubelet", &self.authority, &[], &self.kubelet)
    }

    /// TLS of the API server as a client of kubelets.
    pub fn kubelet_client_config(&self) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        tls::client_config(&self.authority, &self.kubelet_client)
    }

    /// The certificate of the authority by which the front proxy is known.
    pub fn front_proxy_authority_pem(&self) -> &str {
        self.front_proxy_authority.certificate_pem()
    }

    /// What the API server shows the servers of other API groups.
    pub fn front_proxy_identity(&self) -> Identity {
        Arc::new(self.front_proxy.clone())
    }

    /// Signs the PEM request of somebody else, for these usages and at most for so long.
    pub fn sign(&self, request: &[u8], usages: &[String], lifetime: Duration) -> Result<String, PkiError> {
        let lifetime = time::Duration::try_from(lifetime).unwrap_or(time::Duration::MAX);
        sign::sign(&self.authority, request, usages, lifetime)
    }

    /// Issues anew what is due, and says which; the empty list is the usual answer.
    pub fn renew(&self) -> Result<Vec<&'static str>, PkiError> {
        let names = ServerNames::of_machine().and(&self.extra_names);
        let slots = [&self.api_server, &self.kubelet, &self.kubelet_client, &self.admin];
        let mut renewed = Vec::new();
        for (slot, profile) in slots.into_iter().zip(Profile::all(&names)) {
            let (pair, fresh) = self.authority.load_or_issue(&self.directory, &profile)?;
            if fresh {
                slot.swap(profile.file, pair)?;
                renewed.push(profile.file);
            }
        }
        let profile = Profile::of_user(FRONT_PROXY_CLIENT);
        let (pair, fresh) = self.front_proxy_authority.load_or_issue(&self.directory, &profile)?;
        if fresh {
            self.front_proxy.swap(profile.file, pair)?;
            renewed.push(profile.file);
        }
        Ok(renewed)
    }

    /// Renews certificates before they expire, and when the machine gets an address that they lack, until
    /// `shutdown`. `renewed` is told which.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: CancellationToken, renewed: impl Fn(&[&'static str]) + Send) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            let pki = self.clone();
            match tokio::task::spawn_blocking(move || pki.renew()).await {
                Ok(Ok(names)) if names.is_empty() => {}
                Ok(Ok(names)) => {
                    tracing::info!(certificates = names.join(","), "renewed certificates");
                    renewed(&names);
                }
                Ok(Err(error)) => tracing::error!(%error, "cannot renew certificates, trying again later"),
                Err(error) => tracing::error!(%error, "renewal of certificates broke off, trying again later"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
