//! Reads the layers and puts them together. Every layer is checked by itself, so that an error can say where the
//! wrong key stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Environment, File, FileFormat};
use serde_json::Value;

use super::Settings;

const PREFIX: &str = "KRUST_";
/// Between the words of a path: `KRUST_SERVER__DATA_DIR` is `server.data_dir`.
const SEPARATOR: &str = "__";

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Syntax { path: PathBuf, source: ConfigError },
    #[error("unknown setting {key:?} in {place}; {allowed}")]
    Unknown {
        key: String,
        place: String,
        allowed: String,
    },
    #[error("setting {key:?}: {reason}")]
    Value { key: String, reason: String },
    #[error("cannot put the settings together: {0}")]
    Merge(#[source] ConfigError),
}

/// Where settings come from, besides the defaults; later ones win.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub files: Vec<PathBuf>,
    /// The process's environment, or what a test puts in its place.
    pub environment: BTreeMap<String, String>,
    /// From flags: dotted key and text.
    pub overrides: Vec<(&'static str, String)>,
}

impl Sources {
    /// The variables of this process that can be settings.
    pub fn from_process(files: Vec<PathBuf>, overrides: Vec<(&'static str, String)>) -> Sources {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        let environment = std::env::vars_os().filter_map(text).collect();
        Sources {
            files,
            environment,
            overrides,
        }
    }
}

/// Puts the layers together.
pub fn load(sources: &Sources) -> Result<Settings, SettingsError> {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let mut builder = Config::builder();
    for path in &sources.files {
        builder = builder.add_source(read_file(path, &defaults)?);
    }
    builder = builder.add_source(read_environment(&sources.environment, &defaults)?);
    for (key, value) in &sources.overrides {
        builder = builder
            .set_override(*key, value.as_str())
            .map_err(SettingsError::Merge)?;
    }
    let merged = builder.build().map_err(SettingsError::Merge)?;
    merged.try_deserialize().map_err(bad_value)
}

fn read_file(path: &Path, defaults: &Value) -> Result<Config, SettingsError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| SettingsError::File {
        path: path.to_owned(),
        source,
    })?;
    let syntax = |source| SettingsError::Syntax {
        path: path.to_owned(),
        source,
    };
    let layer = Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .build()
        .map_err(syntax)?;
    let tree: Value = layer.clone().try_deserialize().map_err(syntax)?;
    check_keys(&tree, defaults, "", &path.display().to_string())?;
    Ok(layer)
}

/// Refuses keys that the defaults do not have.
fn check_keys(tree: &Value, defaults: &Value, parent: &str, place: &str) -> Result<(), SettingsError> {
    let (Some(tree), Some(known)) = (tree.as_object(), defaults.as_object()) else {
        return Ok(());
    };
    for (name, value) in tree {
        let key = if parent.is_empty() {
            name.clone()
        } else {
            format!("{parent}.{name}")
        };
        let Some(default) = known.get(name) else {
            return Err(SettingsError::Unknown {
                key,
                place: place.to_owned(),
                allowed: allowed(parent, known),
            });
        };
        if default.is_object() && !value.is_object() {
            let names: Vec<&str> = default
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            let reason = format!(
                "{value} is not allowed in {place}: it is a section with {}",
                names.join(", ")
            );
            return Err(SettingsError::Value { key, reason });
        }
        check_keys(value, default, &key, place)?;
    }
    Ok(())
}

fn allowed(parent: &str, known: &serde_json::Map<String, Value>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let subject = if parent.is_empty() {
        "there are the sections".to_owned()
    } else {
        format!("[{parent}] has")
    };
    format!("{subject} {}", names.join(", "))
}

fn read_environment(variables: &BTreeMap<String, String>, defaults: &Value) -> Result<Environment, SettingsError> {
    let mut taken = config::Map::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if is_service_link(rest) || value.is_empty() {
            continue;
        }
        let key = rest.to_lowercase().replace(SEPARATOR, ".");
        match defaults.pointer(&format!("/{}", key.replace('.', "/"))) {
            Some(default) if !default.is_object() => {}
            _ => {
                let place = "the environment".to_owned();
                return Err(SettingsError::Unknown {
                    key: name.clone(),
                    place,
                    allowed: allowed_variables(defaults),
                });
            }
        }
        taken.insert(name.clone(), value.clone());
    }
    let environment = Environment::with_prefix(PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .separator(SEPARATOR);
    let lists = environment
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("server.tls_sans")
        .with_list_parse_key("server.request_header.allowed_names")
        .with_list_parse_key("server.request_header.username_headers")
        .with_list_parse_key("server.request_header.uid_headers")
        .with_list_parse_key("server.request_header.group_headers")
        .with_list_parse_key("server.request_header.extra_headers_prefix")
        .with_list_parse_key("node.allowed_unsafe_sysctls")
        .with_list_parse_key("runtime.containerd_image_namespaces")
        .with_list_parse_key("server.enable_admission_plugins")
        .with_list_parse_key("controllers.enabled");
    Ok(lists.source(Some(taken)))
}

/// A Service called `krust` puts variables into the pods of its namespace, this program's own among them.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT")
}

fn allowed_variables(defaults: &Value) -> String {
    let sections = defaults.as_object().into_iter().flatten();
    let names: Vec<String> = sections
        .flat_map(|(section, keys)| {
            let keys = keys.as_object().into_iter().flatten();
            keys.map(move |(key, _)| format!("{PREFIX}{section}{SEPARATOR}{key}").to_uppercase())
        })
        .collect();
    format!("there are {}", names.join(", "))
}

/// Brings the library's errors into one form: key, what is wrong, what is allowed.
fn bad_value(error: ConfigError) -> SettingsError {
    match error {
        ConfigError::At {
            error, key: Some(key), ..
        } => SettingsError::Value {
            key,
            reason: error.to_string(),
        },
        ConfigError::Type {
            key: Some(key),
            unexpected,
            expected,
            ..
        } => SettingsError::Value {
            key,
            reason: format!("{unexpected} is not allowed: it must be {expected}"),
        },
        other => SettingsError::Merge(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, RuntimeKind};

    fn sources(
        toml: &str,
        environment: &[(&str, &str)],
        overrides: &[(&'static str, &str)],
    ) -> (tempfile::TempDir, Sources) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("krust.toml");
        std::fs::write(&path, toml).unwrap();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let overrides = overrides
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect();
        let sources = Sources {
            files: vec![path],
            environment: environment.iter().map(pair).collect(),
            overrides,
        };
        (directory, sources)
    }

    fn error(toml: &str, environment: &[(&str, &str)]) -> String {
        load(&sources(toml, environment, &[]).1).unwrap_err().to_string()
    }

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(load(&Sources::default()).unwrap(), Settings::default());
    }

    #[test]
    fn the_commented_example_is_the_defaults_with_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
        let sources = Sources {
            files: vec![path.clone()],
            ..Sources::default()
        };
        assert_eq!(load(&sources).unwrap(), Settings::default());
        let shown: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let shown = serde_json::to_value(shown).unwrap();
        let wanted = serde_json::to_value(Settings::default()).unwrap();
        for (section, keys) in wanted.as_object().unwrap() {
            for key in keys.as_object().unwrap().keys() {
                assert!(
                    shown[section].get(key).is_some(),
                    "config/default.toml lacks {section}.{key}"
                );
            }
        }
    }

    #[test]
    fn the_other_examples_load() {
        for (name, kind) in [("docker", RuntimeKind::Docker), ("containerd", RuntimeKind::Containerd)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/{name}.toml"));
            let settings = load(&Sources {
                files: vec![path],
                ..Sources::default()
            })
            .unwrap();
            assert_eq!(settings.runtime.kind, kind);
        }
    }

    #[test]
    fn files_yield_to_the_environment_and_that_to_flags() {
        let toml = "[server]\nlisten = '127.0.0.1:1'\n[node]\npods_max = 5\nname = 'a'\n[log]\nformat = 'json'";
        let environment = [
            ("KRUST_SERVER__LISTEN", "127.0.0.1:2"),
            ("KRUST_NODE__PODS_MAX", "6"),
            ("KRUST_SERVER__TLS_SANS", "a.example,10.0.0.1"),
            ("KRUST_NODE__IP", ""),
            ("KRUST_RUNTIME__CONTAINERD_IMAGE_NAMESPACES", "default,moby"),
            ("UNRELATED", "x"),
        ];
        let settings = load(&sources(toml, &environment, &[("server.listen", "127.0.0.1:3")]).1).unwrap();
        assert_eq!(settings.server.listen.to_string(), "127.0.0.1:3");
        assert_eq!((settings.node.pods_max, settings.node.name.as_str()), (6, "a"));
        assert_eq!(settings.log.format, LogFormat::Json);
        assert_eq!(settings.server.tls_sans, ["a.example", "10.0.0.1"]);
        assert_eq!(settings.runtime.containerd_image_namespaces, ["default", "moby"]);
    }

    #[test]
    fn later_files_win() {
        let (_first, one) = sources("[node]\nname = 'one'\npods_max = 1", &[], &[]);
        let (_second, two) = sources("[node]\nname = 'two'", &[], &[]);
        let files = [one.files, two.files].concat();
        let settings = load(&Sources {
            files,
            ..Sources::default()
        })
        .unwrap();
        assert_eq!((settings.node.name.as_str(), settings.node.pods_max), ("two", 1));
    }

    #[test]
    fn an_unknown_key_is_named_with_what_there_is() {
        let text = error("[server]\nlisen = 'x'", &[]);
        assert!(
            text.contains("\"server.lisen\"") && text.contains("krust.toml") && text.contains("listen"),
            "{text}"
        );
        let text = error("[sever]\n", &[]);
        assert!(text.contains("\"sever\"") && text.contains("runtime"), "{text}");
        let text = error("", &[("KRUST_SERVER__LISEN", "x")]);
        assert!(
            text.contains("KRUST_SERVER__LISEN") && text.contains("KRUST_SERVER__LISTEN"),
            "{text}"
        );
        for name in ["KRUST_LISTEN", "KRUST_SERVER", "KRUST_SERVER__LISTEN__PORT"] {
            assert!(error("", &[(name, "x")]).contains(name));
        }
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        let text = error("[runtime]\nkind = 'podman'", &[]);
        assert!(
            text.contains("runtime.kind") && text.contains("docker, containerd, auto, none"),
            "{text}"
        );
        let text = error("", &[("KRUST_RUNTIME__KIND", "5")]);
        assert!(
            text.contains("runtime.kind") && text.contains("docker, containerd, auto, none"),
            "{text}"
        );
        let text = error("[server]\nlisten = 'localhost'", &[]);
        assert!(
            text.contains("server.listen") && text.contains("127.0.0.1:6443"),
            "{text}"
        );
        let text = error("[node]\npods_max = 'many'", &[]);
        assert!(text.contains("node.pods_max") && text.contains("integer"), "{text}");
        let text = error("[node]\npods_max = -1", &[]);
        assert!(text.contains("node.pods_max"), "{text}");
        let text = error("server = 5", &[]);
        assert!(text.contains("server") && text.contains("listen"), "{text}");
        assert!(error("[server", &[]).contains("krust.toml"));
        let missing = Sources {
            files: vec![PathBuf::from("/no/such.toml")],
            ..Sources::default()
        };
        assert!(load(&missing).unwrap_err().to_string().contains("/no/such.toml"));
    }

    #[test]
    fn service_links_are_no_settings() {
        let links = [
            ("KRUST_PORT", "tcp://10.96.0.7:6443"),
            ("KRUST_SERVICE_HOST", "10.96.0.7"),
            ("KRUST_PORT_6443_TCP", "x"),
        ];
        assert_eq!(load(&sources("", &links, &[]).1).unwrap(), Settings::default());
    }
}
