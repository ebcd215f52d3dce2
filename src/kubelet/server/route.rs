//! The paths of the kubelet's API, and what a caller needs permission for (upstream: `server.go`, `auth.go`).

use percent_encoding::percent_decode_str;

/// A container named in a path; the uid guards against a namesake of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub pod: String,
    pub uid: Option<String>,
    pub container: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Exec(Target),
    Attach(Target),
    Run(Target),
    /// `container` is empty.
    PortForward(Target),
    ContainerLogs(Target),
    Pods,
    RunningPods,
    /// The server answers.
    Ping,
    /// Pods can be looked after.
    Healthz,
    Metrics,
    /// What containers use, as metrics-server reads it.
    ResourceMetrics,
    CadvisorMetrics,
    /// What the node, its pods and their files use.
    Summary,
    Configuration,
}

impl Route {
    /// None when there is no such path.
    pub fn parse(path: &str) -> Option<Route> {
        let segments = path
            .trim_matches('/')
            .split('/')
            .map(|segment| {
                percent_decode_str(segment)
                    .decode_utf8()
                    .ok()
                    .map(|text| text.into_owned())
            })
            .collect::<Option<Vec<String>>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Some(match segments.as_slice() {
            ["exec", target @ ..] => Route::Exec(container(target)?),
            ["attach", target @ ..] => Route::Attach(container(target)?),
            ["run", target @ ..] => Route::Run(container(target)?),
            ["portForward", namespace, pod] => Route::PortForward(target(namespace, pod, None, "")),
            ["portForward", namespace, pod, uid] => Route::PortForward(target(namespace, pod, Some(uid), "")),
            ["containerLogs", namespace, pod, container] => {
                Route::ContainerLogs(target(namespace, pod, None, container))
            }
            ["pods"] => Route::Pods,
            ["runningpods"] => Route::RunningPods,
            ["healthz", "ping" | "log"] => Route::Ping,
            ["healthz"] | ["healthz", "syncloop"] => Route::Healthz,
            ["metrics"] => Route::Metrics,
            ["metrics", "resource"] => Route::ResourceMetrics,
            ["metrics", "cadvisor"] => Route::CadvisorMetrics,
            ["stats", "summary"] => Route::Summary,
            ["configz"] => Route::Configuration,
            _ => return None,
        })
    }
}

fn container(segments: &[&str]) -> Option<Target> {
    match segments {
        [namespace, pod, container] => Some(target(namespace, pod, None, container)),
        [namespace, pod, uid, container] => Some(target(namespace, pod, Some(uid), container)),
        _ => None,
    }
}

fn target(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> Target {
    Target {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }
}

/// The subresources of `nodes`, any of which allows a request to that path.
pub fn subresources(path: &str) -> &'static [&'static str] {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if below("/stats") {
        &["stats"]
    } else if below("/metrics") {
        &["metrics"]
    } else if below("/logs") {
        &["log"]
    } else if below("/checkpoint") {
        &["checkpoint"]
    } else if below("/pods") || below("/runningpods") {
        &["pods", "proxy"]
    } else if below("/healthz") {
        &["healthz", "proxy"]
    } else if below("/configz") {
        &["configz", "proxy"]
    } else {
        &["proxy"]
    }
}

/// The verb of a request by its method, as authorization knows it.
pub fn verb(method: &http::Method) -> &'static str {
    match *method {
        http::Method::POST => "create",
        http::Method::PUT => "update",
        http::Method::PATCH => "patch",
        http::Method::DELETE => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_targets() {
        let with_uid = target("ns", "p", Some("u-1"), "c");
        assert_eq!(Route::parse("/exec/ns/p/u-1/c"), Some(Route::Exec(with_uid)));
        assert_eq!(
            Route::parse("/attach/ns/p/c"),
            Some(Route::Attach(target("ns", "p", None, "c")))
        );
        assert_eq!(
            Route::parse("/portForward/ns/p"),
            Some(Route::PortForward(target("ns", "p", None, "")))
        );
        assert_eq!(Route::parse("/runningpods/"), Some(Route::RunningPods));
        assert_eq!(Route::parse("/stats/summary"), Some(Route::Summary));
        assert_eq!(Route::parse("/metrics/resource"), Some(Route::ResourceMetrics));
        for unknown in [
            "/",
            "/exec",
            "/exec/ns/p",
            "/exec/a/b/c/d/e",
            "/containerLogs/ns/p",
            "/healthz/x",
            "/%ff",
        ] {
            assert_eq!(Route::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn permission_is_asked_by_subresource() {
        assert_eq!(subresources("/metrics/cadvisor"), ["metrics"]);
        assert_eq!(subresources("/metricsx"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/exec/ns/p/c"), ["proxy"]);
    }
}
