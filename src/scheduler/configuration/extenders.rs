//! Extenders, as the file says them (upstream: `kube-scheduler/config/v1`, Extender, and `validateExtenders`).

use crate::scheduler::extenders::Extender;
use crate::scheduler::extenders::network::Call;
use crate::scheduler::plugins::is_extended;
use crate::transport::dial::Address;
use crate::transport::webhook::{Endpoint, Security};
use crate::transport::{trust, unverified};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::uri::Scheme;
use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ExtenderFile {
    url_prefix: String,
    filter_verb: String,
    preempt_verb: String,
    prioritize_verb: String,
    weight: i64,
    bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    enable_https: bool,
    tls_config: Option<TlsFile>,
    http_timeout: Option<String>,
    node_cache_capable: bool,
    managed_resources: Vec<ManagedResource>,
    ignorable: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ManagedResource {
    name: String,
    #[serde(default)]
    ignored_by_scheduler: bool,
}

/// Files by their names; data in base64, which comes first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct TlsFile {
    insecure: bool,
    server_name: String,
    cert_file: String,
    key_file: String,
    #[serde(rename = "caFile")]
    authority_file: String,
    cert_data: String,
    key_data: String,
    #[serde(rename = "caData")]
    authority_data: String,
}

/// The extenders, and the resources that they alone look after.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub extenders: Vec<Arc<Extender>>,
    pub ignored_resources: Vec<String>,
}

/// Those that can be done without come last, as they are asked.
pub fn build(files: &[ExtenderFile]) -> Result<Said, String> {
    check(files)?;
    let (mut said, mut ignorable) = (Said::default(), Vec::new());
    for (at, file) in files.iter().enumerate() {
        let extender = extender(file).map_err(|reason| format!("extenders[{at}].{reason}"))?;
        let list = if file.ignorable {
            &mut ignorable
        } else {
            &mut said.extenders
        };
        list.push(Arc::new(extender));
        let ignored = file
            .managed_resources
            .iter()
            .filter(|managed| managed.ignored_by_scheduler);
        said.ignored_resources
            .extend(ignored.map(|managed| managed.name.clone()));
    }
    said.extenders.append(&mut ignorable);
    Ok(said)
}

fn check(files: &[ExtenderFile]) -> Result<(), String> {
    let mut managed = HashSet::new();
    for (at, file) in files.iter().enumerate() {
        if !file.prioritize_verb.is_empty() && file.weight <= 0 {
            let weight = file.weight;
            return Err(format!(
                "extenders[{at}].weight: Invalid value: {weight}: must have a positive weight applied to it"
            ));
        }
        for (n, resource) in file.managed_resources.iter().enumerate() {
            let name = &resource.name;
            let wrong =
                |why: &str| format!("extenders[{at}].managedResources[{n}].name: Invalid value: {name:?}: {why}");
            if !is_extended(name) {
                return Err(wrong("is an invalid extended resource name"));
            }
            if !managed.insert(name) {
                return Err(wrong("duplicate extender managed resource name"));
            }
        }
    }
    match files.iter().filter(|file| !file.bind_verb.is_empty()).count() {
        0 | 1 => Ok(()),
        binders => Err(format!(
            "extenders: Invalid value: \"found {binders} extenders implementing bind\": only one extender can implement bind"
        )),
    }
}

fn extender(file: &ExtenderFile) -> Result<Extender, String> {
    let timeout = match file.http_timeout.as_deref() {
        None => TIMEOUT_DEFAULT,
        Some(text) => match text.parse::<SignedDuration>() {
            Ok(timeout) if timeout.is_zero() => TIMEOUT_DEFAULT,
            // Upstream's client has no limit then.
            Ok(timeout) => Duration::try_from(timeout).unwrap_or(Duration::MAX),
            Err(error) => return Err(format!("httpTimeout: {error}")),
        },
    };
    let security = security(file)?;
    let call = |verb: &String| {
        if verb.is_empty() {
            return Ok(None);
        }
        let url = format!("{}/{verb}", file.url_prefix.trim_end_matches('/'));
        let endpoint = endpoint(file, &url, &security).map_err(|why| format!("urlPrefix: {why}"))?;
        Ok::<_, String>(Some(Call {
            verb: verb.clone(),
            url,
            endpoint,
            timeout,
        }))
    };
    Ok(Extender {
        url: file.url_prefix.clone(),
        filter: call(&file.filter_verb)?,
        prioritize: call(&file.prioritize_verb)?,
        preempt: call(&file.preempt_verb)?,
        bind: call(&file.bind_verb)?,
        weight: file.weight,
        node_cache_capable: file.node_cache_capable,
        managed_resources: file
            .managed_resources
            .iter()
            .map(|managed| managed.name.clone())
            .collect(),
        ignorable: file.ignorable,
    })
}

fn endpoint(file: &ExtenderFile, url: &str, security: &Security) -> Result<Endpoint, String> {
    let uri: Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
    let (security, port) = if uri.scheme() == Some(&Scheme::HTTPS) {
        (security.clone(), 443)
    } else if uri.scheme() == Some(&Scheme::HTTP) {
        (Security::Plain, 80)
    } else {
        let scheme = uri.scheme_str().unwrap_or_default();
        return Err(format!("Post {url:?}: unsupported protocol scheme {scheme:?}"));
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = file.tls_config.as_ref().map(|tls| tls.server_name.clone());
    Ok(Endpoint {
        name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone()),
        address: Address {
            host,
            port: uri.port_u16().unwrap_or(port),
        },
        host: uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        security,
        agent: "kube-scheduler",
    })
}

/// With TLS switched on and nobody named to vouch for the extender, whoever answers is believed, as upstream does it.
fn security(file: &ExtenderFile) -> Result<Security, String> {
    let said = file.tls_config.clone().unwrap_or_default();
    let bytes = |data: &str, path: &str, field: &str| {
        let wrong = |why: String| format!("tlsConfig.{field}: {why}");
        match (data, path) {
            ("", "") => Ok(Vec::new()),
            ("", path) => std::fs::read(path).map_err(|error| wrong(format!("open {path}: {error}"))),
            (data, _) => STANDARD.decode(data).map_err(|error| wrong(error.to_string())),
        }
    };
    let authorities = bytes(&said.authority_data, &said.authority_file, "caFile")?;
    let insecure = said.insecure || (file.enable_https && authorities.is_empty());
    if insecure && !authorities.is_empty() {
        return Err("tlsConfig: specifying a root certificates file with the insecure flag is not allowed".into());
    }
    let certificate = bytes(&said.cert_data, &said.cert_file, "certFile")?;
    let key = bytes(&said.key_data, &said.key_file, "keyFile")?;
    let wrong = |error: trust::TrustError| format!("tlsConfig: {error}");
    let identity = if certificate.is_empty() || key.is_empty() {
        None
    } else {
        Some(trust::identity(&certificate, &key).map_err(wrong)?)
    };
    let config = if insecure {
        unverified::config(identity)
    } else {
        trust::config(&authorities, identity).map_err(wrong)?
    };
    Ok(Security::Tls(Arc::new(config)))
}
