//! The proxies that may sign users in, as the settings have them (upstream: `server/options/authentication.go`).

use poem::http::HeaderName;

use super::AppError;
use crate::apiserver::authentication::request_header::RequestHeaders;
use crate::config::RequestHeaderSettings;
use crate::transport::pki::FRONT_PROXY_CLIENT;

/// Which proxies are believed, here and by the servers of other API groups.
#[derive(Clone)]
pub(super) struct FrontProxies {
    pub headers: RequestHeaders,
    /// Their names as the settings write them, for those who are told.
    pub written: RequestHeaderSettings,
    /// Their authorities in PEM, besides our own.
    pub authorities: String,
}

impl FrontProxies {
    pub fn read(settings: &RequestHeaderSettings) -> Result<Self, AppError> {
        let mut written = settings.clone();
        // Krust itself is the proxy in front of the servers of other API groups.
        let ours = FRONT_PROXY_CLIENT.to_owned();
        if !written.allowed_names.is_empty() && !written.allowed_names.contains(&ours) {
            written.allowed_names.push(ours);
        }
        let authorities = match settings.client_ca_file.as_path() {
            path if path.as_os_str().is_empty() => String::new(),
            path => std::fs::read_to_string(path).map_err(|error| AppError::Setting {
                key: "server.request_header.client_ca_file",
                reason: format!("cannot read {}: {error}", path.display()),
            })?,
        };
        let headers = RequestHeaders {
            allowed_names: written.allowed_names.clone(),
            username_headers: names("server.request_header.username_headers", &written.username_headers)?,
            uid_headers: names("server.request_header.uid_headers", &written.uid_headers)?,
            group_headers: names("server.request_header.group_headers", &written.group_headers)?,
            extra_prefixes: written
                .extra_headers_prefix
                .iter()
                .map(|prefix| prefix.to_ascii_lowercase())
                .collect(),
        };
        Ok(Self {
            headers,
            written,
            authorities,
        })
    }
}

fn names(key: &'static str, names: &[String]) -> Result<Vec<HeaderName>, AppError> {
    let parse = |name: &String| {
        name.parse().map_err(|_| AppError::Setting {
            key,
            reason: format!("{name:?} is not allowed: it must be the name of a header"),
        })
    };
    names.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_name_is_always_one_of_the_names() {
        let read = |names: &[&str]| {
            let settings = RequestHeaderSettings {
                allowed_names: names.iter().map(|name| (*name).to_owned()).collect(),
                ..RequestHeaderSettings::default()
            };
            FrontProxies::read(&settings).unwrap().headers.allowed_names
        };
        assert_eq!(read(&["gate"]), ["gate", FRONT_PROXY_CLIENT]);
        assert_eq!(read(&[FRONT_PROXY_CLIENT]), [FRONT_PROXY_CLIENT]);
        assert!(read(&[]).is_empty(), "all are allowed");
        let default = FrontProxies::read(&RequestHeaderSettings::default()).unwrap();
        assert_eq!(default.headers, RequestHeaders::default());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let settings = RequestHeaderSettings {
            uid_headers: vec!["a b".to_owned()],
            ..RequestHeaderSettings::default()
        };
        assert!(FrontProxies::read(&settings).is_err());
    }
}
