//! What the levels `baseline` and `restricted` have against a pod (upstream: `pod-security-admission/policy`). Pure.

use crate::registry::json::{at, boolean, integer, items, map, objects, text, texts};
use crate::registry::strategy::Object;
use std::collections::BTreeSet;

/// The minor version of Kubernetes whose rules count.
pub type Minor = u32;

/// What is wrong, and in which parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

/// The part of a pod, or of a template, that is looked at.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub metadata: &'a Object,
    pub spec: &'a Object,
}

type Check = fn(Pod<'_>, Minor) -> Option<Violation>;

/// By upstream's names of them, with the first version that has them. What `restricted` has a stricter rule for is marked
/// with the first version of that.
const BASELINE: [(Minor, Option<Minor>, Check); 12] = [
    (0, None, app_armor),
    (0, Some(22), capabilities),
    (0, None, host_namespaces),
    (0, Some(0), host_path_volumes),
    (0, None, host_ports),
    (34, None, probe_hosts),
    (0, None, privileged),
    (0, Some(35), proc_mount),
    (0, None, se_linux),
    (0, Some(19), seccomp),
    (0, None, sysctls),
    (0, None, host_process),
];
const RESTRICTED: [(Minor, Check); 7] = [
    (8, privilege_escalation),
    (22, all_capabilities),
    (35, any_proc_mount),
    (0, volume_types),
    (0, non_root),
    (23, root_user),
    (19, seccomp_set),
];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SE_LINUX_TYPES: [(Minor, &str); 5] = [
    (0, ""),
    (0, "container_t"),
    (0, "container_init_t"),
    (0, "container_kvm_t"),
    (31, "container_engine_t"),
];
const SYSCTLS: [(Minor, &str); 14] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
    (37, "net.ipv4.tcp_slow_start_after_idle"),
    (37, "net.ipv4.tcp_notsent_lowat"),
];
const VOLUME_TYPES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
/// What stood for the fields of today before version 19.
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// From this version on root in a user namespace of its own is not root.
const USER_NAMESPACES: Minor = 35;

/// All violations of `baseline`, or of `restricted`.
pub fn violations(pod: Pod<'_>, restricted: bool, minor: Minor) -> Vec<Violation> {
    let baseline = BASELINE.iter().filter(|(since, stricter, _)| {
        *since <= minor && !(restricted && stricter.is_some_and(|stricter| stricter <= minor))
    });
    let more = RESTRICTED.iter().filter(|(since, _)| restricted && *since <= minor);
    let checks = baseline.map(|(.., check)| check).chain(more.map(|(_, check)| check));
    checks.filter_map(|check| check(pod, minor)).collect()
}

impl<'a> Pod<'a> {
    fn containers(self) -> impl Iterator<Item = &'a Object> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists
            .into_iter()
            .flat_map(move |list| items(self.spec, &[list]).iter().filter_map(|item| item.as_object()))
    }

    fn is_windows(self) -> bool {
        text(self.spec, &["os", "name"]) == "windows"
    }

    /// Whether the pod has users of its own and the version makes something of it.
    fn has_own_users(self, minor: Minor) -> bool {
        minor >= USER_NAMESPACES && at(self.spec, &["hostUsers"]).and_then(|value| value.as_bool()) == Some(false)
    }

    /// The names of the containers that are so.
    fn those(self, so: impl Fn(&Object) -> bool) -> Vec<&'a str> {
        let containers = self.containers().filter(|container| so(container));
        containers.map(|container| text(container, &["name"])).collect()
    }

    /// Who has a bad value at this place of the security context: `pod`, and the containers.
    fn setters(self, path: &[&str], bad: impl Fn(&Object, &[&str]) -> bool) -> Vec<String> {
        let path: Vec<&str> = ["securityContext"].iter().chain(path).copied().collect();
        let mut setters = Vec::new();
        if bad(self.spec, &path) {
            setters.push("pod".to_owned());
        }
        let containers = self.those(|container| bad(container, &path));
        if !containers.is_empty() {
            setters.push(named("container", &containers));
        }
        setters
    }

    /// The values that containers, and the pod, have at this place of the security context.
    fn values(self, path: &[&str]) -> Vec<&'a str> {
        let path: Vec<&str> = ["securityContext"].iter().chain(path).copied().collect();
        let all = [self.spec].into_iter().chain(self.containers());
        all.filter_map(|object| at(object, &path)?.as_str()).collect()
    }
}

fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("\"{}\"", items.join("\", \""))
}

fn plural(one: &str, count: usize) -> String {
    if count == 1 { one.to_owned() } else { format!("{one}s") }
}

/// `containers "a", "b"`.
fn named<T: AsRef<str>>(what: &str, names: &[T]) -> String {
    format!("{} {}", plural(what, names.len()), quoted(names))
}

fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// In order, each once.
fn set<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    values.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation {
        reason: reason.to_owned(),
        detail,
    })
}

/// One about containers, if there are any.
fn about(reason: &str, containers: &[&str], what: &str) -> Option<Violation> {
    if containers.is_empty() {
        return None;
    }
    violation(reason, format!("{} {what}", named("container", containers)))
}

fn app_armor(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let path = ["appArmorProfile", "type"];
    let is_bad = |value: &str| !matches!(value, "" | "RuntimeDefault" | "Localhost");
    let mut setters = pod.setters(&path, |object, path| is_bad(text(object, path)));
    let mut values: Vec<String> = set(pod.values(&path).into_iter().filter(|value| is_bad(value)))
        .into_iter()
        .map(str::to_owned)
        .collect();
    let annotations = texts(pod.metadata, &["annotations"]).filter(|(key, value)| {
        let is_fine = matches!(*value, "" | "runtime/default") || value.starts_with("localhost/");
        key.starts_with(APP_ARMOR) && !is_fine
    });
    let mut annotations: Vec<String> = annotations.map(|(key, value)| format!("{key}={value:?}")).collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.push(plural("annotation", annotations.len()));
        values.append(&mut annotations);
    }
    if setters.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set AppArmor profile type to {}",
        setters.join(" and "),
        quoted(&values)
    );
    violation(&plural("forbidden AppArmor profile", values.len()), detail)
}

fn added(container: &Object) -> impl Iterator<Item = &str> {
    let added = items(container, &["securityContext", "capabilities", "add"]).iter();
    added.filter_map(|capability| capability.as_str())
}

/// Capabilities that are added and not among those.
fn beyond<'a>(pod: Pod<'a>, allowed: &[&str]) -> Option<String> {
    let more = |container: &Object| added(container).any(|capability| !allowed.contains(&capability));
    let containers = pod.those(more);
    let capabilities = set(pod
        .containers()
        .flat_map(added)
        .filter(|capability| !allowed.contains(capability)));
    (!containers.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            named("container", &containers),
            quoted(&capabilities)
        )
    })
}

fn capabilities(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    violation("non-default capabilities", beyond(pod, &CAPABILITIES)?)
}

fn host_namespaces(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> = shared
        .filter(|field| boolean(pod.spec, &[field]))
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| violation("host namespaces", shared.join(", ")))?
}

fn host_path_volumes(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let volumes = objects(pod.spec, &["volumes"]).map(|(_, volume)| volume);
    let volumes = volumes.filter(|volume| map(volume, &["hostPath"]).is_some());
    let names: Vec<&str> = volumes.map(|volume| text(volume, &["name"])).collect();
    (!names.is_empty()).then(|| violation("hostPath volumes", named("volume", &names)))?
}

fn host_ports(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let ports = |container: &Object| -> Vec<i64> {
        let ports = objects(container, &["ports"]).filter_map(|(_, port)| integer(port, &["hostPort"]));
        ports.filter(|port| *port != 0).collect()
    };
    let containers = pod.those(|container| !ports(container).is_empty());
    if containers.is_empty() {
        return None;
    }
    // Sorted as texts.
    let all: BTreeSet<String> = pod.containers().flat_map(ports).map(|port| port.to_string()).collect();
    let detail = format!(
        "{} {} {} {}",
        named("container", &containers),
        uses(containers.len()),
        plural("hostPort", all.len()),
        all.into_iter().collect::<Vec<_>>().join(", ")
    );
    violation("hostPort", detail)
}

fn probe_hosts(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    fn hosts(container: &Object) -> Vec<&str> {
        let handlers: [&[&str]; 5] = [
            &["livenessProbe"],
            &["readinessProbe"],
            &["startupProbe"],
            &["lifecycle", "postStart"],
            &["lifecycle", "preStop"],
        ];
        let handlers = handlers.into_iter().filter_map(|path| map(container, path));
        let hosts = handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| text(handler, &[kind, "host"])));
        hosts.filter(|host| !host.is_empty()).collect()
    }
    let containers = set(pod.those(|container| !hosts(container).is_empty()));
    let all = set(pod.containers().flat_map(hosts));
    let detail = format!(
        "{} {} {}",
        named("container", &containers),
        uses(containers.len()),
        named("probe or lifecycle host", &all)
    );
    (!containers.is_empty()).then(|| violation("probe or lifecycle host", detail))?
}

fn privileged(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let containers = pod.those(|container| boolean(container, &["securityContext", "privileged"]));
    about(
        "privileged",
        &containers,
        "must not set securityContext.privileged=true",
    )
}

fn proc_mount(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if pod.has_own_users(minor) {
        return None;
    }
    any_proc_mount(pod, minor)
}

fn any_proc_mount(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let is_bad = |value: &str| !matches!(value, "" | "Default");
    let containers = pod.those(|container| is_bad(text(container, &["securityContext", "procMount"])));
    let values = set(pod.values(&["procMount"]).into_iter().filter(|value| is_bad(value)));
    let what = format!("must not set securityContext.procMount to {}", quoted(&values));
    about("procMount", &containers, &what)
}

fn se_linux(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    let known = |kind: &str| SE_LINUX_TYPES.contains(&(0, kind)) || (minor >= 31 && SE_LINUX_TYPES[4].1 == kind);
    let setters = pod.setters(&["seLinuxOptions"], |object, path| {
        let options = map(object, path);
        options.is_some_and(|options| {
            let has = |field: &str| !text(options, &[field]).is_empty();
            !known(text(options, &["type"])) || has("user") || has("role")
        })
    });
    if setters.is_empty() {
        return None;
    }
    let values = |field: &str| pod.values(&["seLinuxOptions", field]);
    let types = set(values("type").into_iter().filter(|kind| !known(kind)));
    let mut bad = Vec::new();
    if !types.is_empty() {
        bad.push(named("type", &types));
    }
    for field in ["user", "role"] {
        if values(field).iter().any(|value| !value.is_empty()) {
            bad.push(format!("{field} may not be set"));
        }
    }
    let detail = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        setters.join(" and "),
        bad.join("; ")
    );
    violation("seLinuxOptions", detail)
}

fn is_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// What the annotations of the pod and of its containers say.
fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    let of_containers = pod.containers().map(|container| text(container, &["name"]));
    let keys = [SECCOMP_OF_POD.to_owned()].into_iter();
    let keys = keys.chain(of_containers.map(|name| format!("{SECCOMP_OF_CONTAINER}{name}")));
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = at(pod.metadata, &["annotations", &key])?.as_str()?;
            let is_fine = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!is_fine).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", bad.len());
    let bad: Vec<String> = bad.into_iter().collect();
    violation("seccompProfile", format!("forbidden {what} {}", bad.join(", ")))
}

fn seccomp(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let path = ["seccompProfile", "type"];
    let is_bad = |object: &Object, path: &[&str]| {
        let profile = map(object, &path[..path.len() - 1]);
        profile.is_some_and(|profile| !is_seccomp(text(profile, &["type"])))
    };
    let setters = pod.setters(&path, is_bad);
    if setters.is_empty() {
        return None;
    }
    let values = set(pod.values(&path).into_iter().filter(|kind| !is_seccomp(kind)));
    let detail = format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters.join(" and "),
        quoted(&values)
    );
    violation("seccompProfile", detail)
}

fn sysctls(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    let known = |name: &str| SYSCTLS.iter().any(|(since, known)| *since <= minor && *known == name);
    let all = objects(pod.spec, &["securityContext", "sysctls"]).map(|(_, sysctl)| text(sysctl, &["name"]));
    let bad: Vec<&str> = all.filter(|name| !known(name)).collect();
    (!bad.is_empty()).then(|| violation("forbidden sysctls", bad.join(", ")))?
}

fn host_process(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let setters = pod.setters(&["windowsOptions", "hostProcess"], boolean);
    let detail = format!(
        "{} must not set securityContext.windowsOptions.hostProcess=true",
        setters.join(" and ")
    );
    (!setters.is_empty()).then(|| violation("hostProcess", detail))?
}

fn privilege_escalation(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    let path = ["securityContext", "allowPrivilegeEscalation"];
    let containers = pod.those(|container| at(container, &path).and_then(|value| value.as_bool()) != Some(false));
    let what = "must set securityContext.allowPrivilegeEscalation=false";
    about("allowPrivilegeEscalation != false", &containers, what)
}

fn all_capabilities(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    let containers = pod.those(|container| {
        let dropped = items(container, &["securityContext", "capabilities", "drop"]);
        !dropped.iter().any(|capability| capability == "ALL")
    });
    let mut details = Vec::new();
    if !containers.is_empty() {
        let containers = named("container", &containers);
        details.push(format!(
            "{containers} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    details.extend(beyond(pod, &["NET_BIND_SERVICE"]));
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; ")))?
}

fn volume_types(pod: Pod<'_>, _: Minor) -> Option<Violation> {
    let bad = objects(pod.spec, &["volumes"]).filter_map(|(_, volume)| {
        let kind = volume.iter().find(|(key, value)| *key != "name" && !value.is_null());
        let kind = kind.map_or("unknown", |(key, _)| key.as_str());
        (!VOLUME_TYPES.contains(&kind)).then(|| (text(volume, &["name"]), kind))
    });
    let (names, types): (Vec<&str>, Vec<&str>) = bad.unzip();
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {}",
        named("volume", &names),
        uses(names.len()),
        named("restricted volume type", &set(types))
    );
    violation("restricted volume types", detail)
}

fn non_root(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if pod.has_own_users(minor) {
        return None;
    }
    let says = |object: &Object, path: &[&str]| at(object, path).and_then(|value| value.as_bool());
    let reason = "runAsNonRoot != true";
    let setters = pod.setters(&["runAsNonRoot"], |object, path| says(object, path) == Some(false));
    if !setters.is_empty() {
        let setters = setters.join(" and ");
        return violation(
            reason,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        );
    }
    let path = ["securityContext", "runAsNonRoot"];
    if says(pod.spec, &path) == Some(true) {
        return None;
    }
    let silent = pod.those(|container| says(container, &path).is_none());
    let detail = format!(
        "pod or {} must set securityContext.runAsNonRoot=true",
        named("container", &silent)
    );
    (!silent.is_empty()).then(|| violation(reason, detail))?
}

fn root_user(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if pod.has_own_users(minor) {
        return None;
    }
    let setters = pod.setters(&["runAsUser"], |object, path| integer(object, path) == Some(0));
    let detail = format!("{} must not set runAsUser=0", setters.join(" and "));
    (!setters.is_empty()).then(|| violation("runAsUser=0", detail))?
}

fn seccomp_set(pod: Pod<'_>, minor: Minor) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    if let Some(bad) = seccomp(pod, minor) {
        return Some(bad);
    }
    let has = |object: &Object| map(object, &["securityContext", "seccompProfile"]).is_some();
    if has(pod.spec) {
        return None;
    }
    let silent = pod.those(|container| !has(container));
    let what = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    let detail = format!("pod or {} {what}", named("container", &silent));
    (!silent.is_empty()).then(|| violation("seccompProfile", detail))?
}

#[cfg(test)]
mod tests;
