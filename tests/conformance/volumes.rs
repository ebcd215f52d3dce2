//! Volumes of pods: ConfigMaps, Secrets, fields of the pod, alone and projected; scratch directories; parts of volumes.

use crate::pods::{pod, with_main, with_spec};
use crate::prints::{Prints, map};
use crate::runner::Test;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    let all = [maps(), downward(), empty_dirs(), sub_paths()];
    all.into_iter().flatten().map(Prints::test).collect()
}

/// How a volume gets at a ConfigMap or Secret.
#[derive(Clone, Copy)]
pub struct Source {
    pub plural: &'static str,
    pub projected: bool,
}

pub const CONFIG_MAP: Source = Source {
    plural: "configmaps",
    projected: false,
};
pub const SECRET: Source = Source {
    plural: "secrets",
    projected: false,
};
pub const PROJECTED_CONFIG_MAP: Source = Source {
    projected: true,
    ..CONFIG_MAP
};
pub const PROJECTED_SECRET: Source = Source {
    projected: true,
    ..SECRET
};

impl Source {
    /// The volume of an object, with further members: `items`, `optional`, `defaultMode`.
    pub fn volume(self, volume: &str, object: &str, more: Value) -> Value {
        let mut source = more;
        let key = if self.plural == "secrets" {
            "secret"
        } else {
            "configMap"
        };
        let name = match (self.projected, key) {
            (false, "secret") => "secretName",
            _ => "name",
        };
        source[name] = json!(object);
        if !self.projected {
            return json!({"name": volume, key: source});
        }
        let mode = source.as_object_mut().unwrap().remove("defaultMode");
        let mut projected = json!({"sources": [{key: source}]});
        if let Some(mode) = mode {
            projected["defaultMode"] = mode;
        }
        json!({"name": volume, "projected": projected})
    }
}

/// The pod with this volume at `/v`.
pub fn with_volume(pod: Value, volume: Value) -> Value {
    let mounts = json!({"volumeMounts": [{"name": volume["name"], "mountPath": "/v"}]});
    with_main(with_spec(pod, json!({"volumes": [volume]})), mounts)
}

/// Prints mode and group of a file, and what is in it.
fn looks_at(path: &str) -> Value {
    pod("looks", &format!("stat -Lc 'mode=%a group=%g' {path}; cat {path}"))
}

const NON_ROOT: u32 = 1000;

fn maps() -> Vec<Prints> {
    let data = [("data-1", "value-1"), ("data-2", "value-2")];
    let mapped = json!({"items": [{"key": "data-2", "path": "path/to/data-2"}]});
    let mapped_mode = json!({"items": [{"key": "data-2", "path": "path/to/data-2", "mode": 0o400}]});
    let default_mode = json!({"defaultMode": 0o400});
    let (plain, deep) = ("/v/data-1", "/v/path/to/data-2");
    let (first, second) = ("value-1", "value-2");
    let mut tests = Vec::new();
    let mut add = |source: Source, name: &'static str, more: &Value, path, user: Option<Value>, printed: [&str; 2]| {
        let pod = with_volume(looks_at(path), source.volume("v", "map", more.clone()));
        let pod = match user {
            Some(context) => with_spec(pod, json!({"securityContext": context})),
            None => pod,
        };
        tests.push(
            Prints::new(name, pod)
                .with(source.plural, map(source.plural, "map", &data))
                .prints(printed),
        );
    };
    let (readable, secret) = ("mode=644 group=0", "mode=400 group=0");
    let none = json!({});
    let non_root = || Some(json!({"runAsUser": NON_ROOT}));
    let names = [
        (
            CONFIG_MAP,
            [
                "[sig-storage] ConfigMap should be consumable from pods in volume",
                "[sig-storage] ConfigMap should be consumable from pods in volume with defaultMode set",
                "[sig-storage] ConfigMap should be consumable from pods in volume with mappings",
                "[sig-storage] ConfigMap should be consumable from pods in volume with mappings and Item mode set",
            ],
        ),
        (
            PROJECTED_CONFIG_MAP,
            [
                "[sig-storage] Projected configMap should be consumable from pods in volume",
                "[sig-storage] Projected configMap should be consumable from pods in volume with defaultMode set",
                "[sig-storage] Projected configMap should be consumable from pods in volume with mappings",
                "[sig-storage] Projected configMap should be consumable from pods in volume with mappings and Item mode set",
            ],
        ),
        (
            SECRET,
            [
                "[sig-storage] Secrets should be consumable from pods in volume",
                "[sig-storage] Secrets should be consumable from pods in volume with defaultMode set",
                "[sig-storage] Secrets should be consumable from pods in volume with mappings",
                "[sig-storage] Secrets should be consumable from pods in volume with mappings and Item Mode set",
            ],
        ),
        (
            PROJECTED_SECRET,
            [
                "[sig-storage] Projected secret should be consumable from pods in volume",
                "[sig-storage] Projected secret should be consumable from pods in volume with defaultMode set",
                "[sig-storage] Projected secret should be consumable from pods in volume with mappings",
                "[sig-storage] Projected secret should be consumable from pods in volume with mappings and Item Mode set",
            ],
        ),
    ];
    for (source, [basic, mode, mapping, mapping_mode]) in names {
        add(source, basic, &none, plain, None, [readable, first]);
        add(source, mode, &default_mode, plain, None, [secret, first]);
        add(source, mapping, &mapped, deep, None, [readable, second]);
        add(source, mapping_mode, &mapped_mode, deep, None, [secret, second]);
    }
    for (source, basic, mapping) in [
        (
            CONFIG_MAP,
            "[sig-storage] ConfigMap should be consumable from pods in volume as non-root",
            "[sig-storage] ConfigMap should be consumable from pods in volume with mappings as non-root",
        ),
        (
            PROJECTED_CONFIG_MAP,
            "[sig-storage] Projected configMap should be consumable from pods in volume as non-root",
            "[sig-storage] Projected configMap should be consumable from pods in volume with mappings as non-root",
        ),
    ] {
        add(source, basic, &none, plain, non_root(), [readable, first]);
        add(source, mapping, &mapped, deep, non_root(), [readable, second]);
    }
    for (source, name) in [
        (
            SECRET,
            "[sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup set",
        ),
        (
            PROJECTED_SECRET,
            "[sig-storage] Projected secret should be consumable from pods in volume as non-root with defaultMode and fsGroup set",
        ),
    ] {
        let user = Some(json!({"runAsUser": NON_ROOT, "fsGroup": 1001}));
        let printed = ["mode=440 group=1001", first];
        add(source, name, &json!({"defaultMode": 0o440}), plain, user, printed);
    }
    for (source, name) in [
        (
            CONFIG_MAP,
            "[sig-storage] ConfigMap should be consumable in multiple volumes in the same pod",
        ),
        (
            PROJECTED_CONFIG_MAP,
            "[sig-storage] Projected configMap should be consumable in multiple volumes in the same pod",
        ),
        (
            SECRET,
            "[sig-storage] Secrets should be consumable in multiple volumes in a pod",
        ),
        (
            PROJECTED_SECRET,
            "[sig-storage] Projected secret should be consumable in multiple volumes in a pod",
        ),
    ] {
        let script = pod("looks", "echo first $(cat /one/data-1); echo second $(cat /two/data-2)");
        tests.push(
            Prints::new(
                name,
                with_both(
                    script,
                    source.volume("one", "map", none.clone()),
                    source.volume("two", "map", none.clone()),
                ),
            )
            .with(source.plural, map(source.plural, "map", &data))
            .prints(["first value-1", "second value-2"]),
        );
    }
    let both = pod("looks", "echo $(cat /one/data-1); echo $(cat /two/secret-1)");
    let (of_map, of_secret) = (
        CONFIG_MAP.volume("one", "map", json!({})),
        SECRET.volume("two", "secret", json!({})),
    );
    tests.push(
        Prints::new(
            "[sig-storage] EmptyDir wrapper volumes should not conflict",
            with_both(both, of_map, of_secret),
        )
        .with("configmaps", map("configmaps", "map", &data))
        .with("secrets", map("secrets", "secret", &[("secret-1", "hidden")]))
        .prints(["value-1", "hidden"]),
    );
    let sources = json!([
        {"secret": {"name": "secret", "items": [{"key": "secret-1", "path": "s/secret"}]}},
        {"configMap": {"name": "map", "items": [{"key": "data-1", "path": "c/data"}]}},
        {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]);
    let all = json!({"name": "v", "projected": {"sources": sources}});
    tests.push(
        Prints::new(
            "[sig-storage] Projected combined should project all components that make up the projection API",
            with_volume(
                pod(
                    "looks",
                    "cd /v; for f in s/secret c/data podname; do echo $f $(cat $f); done",
                ),
                all,
            ),
        )
        .with("configmaps", map("configmaps", "map", &data))
        .with("secrets", map("secrets", "secret", &[("secret-1", "hidden")]))
        .prints(["s/secret hidden", "c/data value-1", "podname looks"]),
    );
    tests
}

/// Two volumes at paths of their names, `/one` and `/two`.
fn with_both(pod: Value, one: Value, two: Value) -> Value {
    let mounts = json!([{"name": "one", "mountPath": "/one"}, {"name": "two", "mountPath": "/two"}]);
    with_main(
        with_spec(pod, json!({"volumes": [one, two]})),
        json!({"volumeMounts": mounts}),
    )
}

/// A volume of files with parts of the pod, alone or projected.
pub fn downward_volume(projected: bool, items: Value, mode: Option<u32>) -> Value {
    let mut source = match projected {
        true => json!({"sources": [{"downwardAPI": {"items": items}}]}),
        false => json!({"items": items}),
    };
    if let Some(mode) = mode {
        source["defaultMode"] = json!(mode);
    }
    let kind = if projected { "projected" } else { "downwardAPI" };
    json!({"name": "v", kind: source})
}

fn downward() -> Vec<Prints> {
    let resource = |resource: &str| {
        json!([{
            "path": "file", "resourceFieldRef": {"containerName": "main", "resource": resource},
        }])
    };
    let pod_name = json!([{"path": "file", "fieldRef": {"fieldPath": "metadata.name"}}]);
    let mut with_mode = pod_name.clone();
    with_mode[0]["mode"] = json!(0o400);
    let sizes = json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let mut tests = Vec::new();
    for (projected, kind) in [(false, "Downward API volume"), (true, "Projected downwardAPI")] {
        for (what, items, mode, resources, printed) in [
            ("provide container's cpu limit", resource("limits.cpu"), None, true, "2"),
            (
                "provide container's cpu request",
                resource("requests.cpu"),
                None,
                true,
                "1",
            ),
            (
                "provide container's memory limit",
                resource("limits.memory"),
                None,
                true,
                "67108864",
            ),
            (
                "provide container's memory request",
                resource("requests.memory"),
                None,
                true,
                "33554432",
            ),
            (
                "provide node allocatable (cpu) as default cpu limit if the limit is not set",
                resource("limits.cpu"),
                None,
                false,
                "$cpu",
            ),
            (
                "provide node allocatable (memory) as default memory limit if the limit is not set",
                resource("limits.memory"),
                None,
                false,
                "$memory",
            ),
            ("provide podname only", pod_name.clone(), None, false, "looks"),
            (
                "set DefaultMode on files",
                pod_name.clone(),
                Some(0o400),
                false,
                "mode=400 group=0",
            ),
            (
                "set mode on item file",
                with_mode.clone(),
                None,
                false,
                "mode=400 group=0",
            ),
        ] {
            let name = format!("[sig-storage] {kind} should {what}");
            let mut looks = with_volume(looks_at("/v/file"), downward_volume(projected, items, mode));
            if resources {
                looks = with_main(looks, json!({"resources": sizes}));
            }
            tests.push(Prints::new(name.leak(), looks).prints([printed]));
        }
    }
    tests
}

fn empty_dirs() -> Vec<Prints> {
    let mut tests = Vec::new();
    for (medium, name) in [("", "default"), ("Memory", "tmpfs")] {
        let volume = json!({"name": "v", "emptyDir": {"medium": medium}});
        // A disk's type differs from machine to machine.
        let kind = "kind=$(stat -f -c %T /v); [ $kind = tmpfs ] || kind=default; echo kind=$kind";
        let kind_printed = format!("kind={name}");
        for mode in ["644", "666", "777"] {
            for (user, uid) in [("root", 0), ("non-root", 1001)] {
                let label = format!("[sig-storage] EmptyDir volumes should support ({user},0{mode},{name})");
                let script = format!(
                    "{kind}; echo content > /v/f; chmod {mode} /v/f; stat -c 'mode=%a owner=%u' /v/f; cat /v/f"
                );
                let writes = with_spec(pod("writes", &script), json!({"securityContext": {"runAsUser": uid}}));
                tests.push(Prints::new(label.leak(), with_volume(writes, volume.clone())).prints([
                    kind_printed.clone(),
                    format!("mode={mode} owner={uid}"),
                    "content".to_owned(),
                ]));
            }
        }
        let label = format!(
            "[sig-storage] EmptyDir volumes volume on {} should have the correct mode",
            if medium.is_empty() { "default medium" } else { "tmpfs" }
        );
        let script = format!("{kind}; stat -c 'mode=%a' /v");
        tests.push(
            Prints::new(label.leak(), with_volume(pod("looks", &script), volume))
                .prints([kind_printed, "mode=777".to_owned()]),
        );
    }
    tests
}

fn sub_paths() -> Vec<Prints> {
    let downward = json!([{"path": "data-1", "fieldRef": {"fieldPath": "metadata.labels['word']"}}]);
    let data = [("data-1", "value-1")];
    let mut tests = Vec::new();
    for (kind, plural, volume, path) in [
        (
            "configmap pod",
            "configmaps",
            CONFIG_MAP.volume("v", "map", json!({})),
            "/there/file",
        ),
        (
            "configmap pod with mountPath of existing file",
            "configmaps",
            CONFIG_MAP.volume("v", "map", json!({})),
            "/etc/passwd",
        ),
        (
            "secret pod",
            "secrets",
            SECRET.volume("v", "map", json!({})),
            "/there/file",
        ),
        (
            "downward pod",
            "configmaps",
            downward_volume(false, downward.clone(), None),
            "/there/file",
        ),
        (
            "projected pod",
            "secrets",
            PROJECTED_SECRET.volume("v", "map", json!({})),
            "/there/file",
        ),
    ] {
        let name = format!("[sig-storage] Subpath Atomic writer volumes should support subpaths with {kind}");
        let mut looks = with_volume(pod("looks", &format!("echo $(cat {path})")), volume);
        looks["metadata"]["labels"] = json!({"word": "value-1"});
        looks["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": path, "subPath": "data-1"}]);
        tests.push(
            Prints::new(name.leak(), looks)
                .with(plural, map(plural, "map", &data))
                .prints(["value-1"]),
        );
    }
    tests
}
