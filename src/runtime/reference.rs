//! Image references: parsing and normal forms (upstream: `distribution/reference`).

use super::{Result, RuntimeError};
use regex::Regex;
use std::fmt;
use std::sync::LazyLock;

/// The registry of names without one.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The longest name, domain included, as upstream's `NameTotalLengthMax`.
const NAME_BYTES_MAX: usize = 255;

/// `domain/path[:tag][@digest]`, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let domain = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?";
    let component = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
    let tag = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}";
    let digest = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!(
        r"^(?:({domain})/)?({component}(?:/{component})*)(?::({tag}))?(?:@({digest}))?$"
    ))
    .expect("a constant expression")
});

impl Reference {
    /// Reads a reference as people write it: `nginx` is `docker.io/library/nginx`, without a tag.
    pub fn parse(text: &str) -> Result<Reference> {
        let invalid = || RuntimeError::InvalidImageName(text.to_string());
        let found = REFERENCE.captures(text).ok_or_else(invalid)?;
        let group = |index| found.get(index).map(|m| m.as_str());
        let (mut domain, mut path) = (group(1), group(2).ok_or_else(invalid)?.to_string());
        // `library/nginx`: only what looks like a host is one.
        if let Some(first) = domain
            && !first.contains(['.', ':'])
            && first != "localhost"
            && first.to_ascii_lowercase() == first
        {
            path = format!("{first}/{path}");
            domain = None;
            // As a path component it may hold less than as a host.
            if first.starts_with('[') || !REFERENCE.is_match(&path) {
                return Err(invalid());
            }
        }
        let domain = match domain {
            None | Some("index.docker.io") => DEFAULT_DOMAIN,
            Some(domain) => domain,
        };
        if domain == DEFAULT_DOMAIN && !path.contains('/') {
            path = format!("library/{path}");
        }
        if domain.len() + 1 + path.len() > NAME_BYTES_MAX {
            return Err(invalid());
        }
        Ok(Reference {
            domain: domain.to_string(),
            path,
            tag: group(3).map(str::to_string),
            digest: group(4).map(str::to_string),
        })
    }

    /// `domain/path`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, `latest` where neither a tag nor a digest is given.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }
}

/// In full, with `latest` where neither a tag nor a digest is given.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = self.tag_or_latest() {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether `text` is an image's id (`sha256:` and 64 digits) rather than a reference.
pub fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_string()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_string()),
            ("bitnami/redis", "docker.io/bitnami/redis:latest".to_string()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_string()),
            ("localhost/a", "localhost/a:latest".to_string()),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1".to_string()),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10".to_string()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_string()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("ghcr.io/a/b:v1@{digest}"), format!("ghcr.io/a/b:v1@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_reference() {
        let long = "a".repeat(256);
        for text in [
            "",
            "Nginx",
            "a b",
            "nginx:",
            "nginx:-x",
            "/nginx",
            "a//b",
            "a/../b",
            "nginx@sha256:abc",
            "nginx?x=1",
            "UPPER/lower/Mixed",
            "a/b\n",
            &long,
        ] {
            assert!(
                matches!(Reference::parse(text), Err(RuntimeError::InvalidImageName(name)) if name == text),
                "{text:?}"
            );
        }
    }

    #[test]
    fn ids() {
        assert!(is_image_id(&format!("sha256:{}", "0".repeat(64))));
        assert!(!is_image_id("sha256:0"));
        assert!(!is_image_id("nginx"));
    }
}
