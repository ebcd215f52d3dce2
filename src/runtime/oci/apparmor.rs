//! The AppArmor profile of containers that name none, or the runtime's (upstream: containerd's `contrib/apparmor`).

/// Profiles that engines load for their containers.
pub const DEFAULTS: [&str; 2] = ["cri-containerd.apparmor.d", "docker-default"];
/// Not there where AppArmor is off.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The default profile that the kernel has.
pub fn default_profile() -> Option<&'static str> {
    find(&std::fs::read_to_string(LOADED).unwrap_or_default())
}

fn find(loaded: &str) -> Option<&'static str> {
    let known = |name: &&str| loaded.lines().any(|line| line.starts_with(&format!("{name} (")));
    DEFAULTS.into_iter().find(|name| known(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_loaded() {
        for (loaded, expected) in [
            ("", None),
            ("docker-default (enforce)\n", Some("docker-default")),
            (
                "docker-default (enforce)\ncri-containerd.apparmor.d (enforce)\n",
                Some("cri-containerd.apparmor.d"),
            ),
            ("docker-default-of-mine (enforce)\n", None),
        ] {
            assert_eq!(find(loaded), expected, "{loaded}");
        }
    }
}
