//! Manifests: apply (by the client and by the server), prune, diff, edit, replace, delete.

use super::change::DEPLOYMENT;
use super::create::deleted;
use super::{Session, each};
use std::io::Write;

fn settings(colour: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, labels: {{set: x}}}}\ndata: {{colour: {colour}}}\n"
    )
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn apply_by_the_client() {
    each(|s| {
        s.prints_with(DEPLOYMENT, "apply -f -", "deployment.apps/web created");
        s.prints_with(DEPLOYMENT, "apply -f -", "deployment.apps/web unchanged");
        // What others wrote stays, what is gone from the manifest goes, list items are found by their keys.
        s.out("scale deployment web --replicas=9");
        s.out("label deployment web by=others");
        let without_replicas = DEPLOYMENT.replace("  replicas: 2\n", "").replace("web:1", "web:2");
        s.prints_with(&without_replicas, "apply -f -", "deployment.apps/web configured");
        assert_eq!(s.at("deployment/web", ".metadata.labels.by"), "others");
        assert_eq!(
            s.at("deployment/web", ".spec.template.spec.containers[*].image"),
            "registry.example/web:2 registry.example/side:1"
        );
        assert_eq!(
            s.at("deployment/web", ".spec.replicas"),
            "1",
            "no longer ours, so the default"
        );
        let one = without_replicas.replace("      - {name: side, image: 'registry.example/side:1'}\n", "");
        s.prints_with(
            &one,
            "apply -f - --dry-run=server",
            "deployment.apps/web configured (server dry run)",
        );
        assert_eq!(
            s.at("deployment/web", ".spec.template.spec.containers[*].name"),
            "main side"
        );
        s.prints_with(&one, "apply -f -", "deployment.apps/web configured");
        assert_eq!(s.at("deployment/web", ".spec.template.spec.containers[*].name"), "main");
        let last = s.out("apply view-last-applied deployment/web");
        assert!(
            last.contains("image: registry.example/web:2") && !last.contains("side"),
            "{last}"
        );
        s.prints_with(&one, "apply set-last-applied -f -", "deployment.apps/web configured");
        s.prints_with(&one, "delete -f -", &format!("deployment.apps \"web\" {}", deleted(s)));
    });
}

/// Who owns fields of the deployment, besides its controller.
fn managers(s: &Session) -> Vec<String> {
    let managers = s.out("get deployment web --show-managed-fields -o 'jsonpath={.metadata.managedFields[*].manager}'");
    let mut managers: Vec<String> = managers.split(' ').map(str::to_owned).collect();
    managers.retain(|manager| manager != "kube-controller-manager");
    managers.sort_unstable();
    managers
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn apply_by_the_server() {
    each(|s| {
        s.prints_with(
            DEPLOYMENT,
            "apply --server-side -f -",
            "deployment.apps/web serverside-applied",
        );
        assert_eq!(
            s.at(
                "deployment/web",
                r".metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration"
            ),
            "",
            "no annotation is needed"
        );
        assert_eq!(managers(s), ["kubectl"]);
        assert!(
            !s.out("get deployment web -o yaml").contains("managedFields"),
            "hidden unless asked for"
        );
        // Another's field is not taken without force, and told by its name.
        s.out(r#"patch deployment web --field-manager=other -p '{"spec":{"replicas":5}}'"#);
        let refused = s.run("apply --server-side -f -", DEPLOYMENT);
        let begin = r#"error: Apply failed with 1 conflict: conflict with "other" using apps/v1"#;
        assert!(
            refused.stderr.starts_with(begin) && refused.stderr.contains(": .spec.replicas"),
            "{refused:?}"
        );
        assert_eq!(s.at("deployment/web", ".spec.replicas"), "5");
        s.prints_with(
            DEPLOYMENT,
            "apply --server-side --force-conflicts -f -",
            "deployment.apps/web serverside-applied",
        );
        assert_eq!(s.at("deployment/web", ".spec.replicas"), "2");
        // What one manager no longer lists goes; what another listed stays.
        let mine = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {mine: '1', also: '2'}\n";
        let yours = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {yours: '3'}\n";
        s.prints_with(
            mine,
            "apply --server-side --field-manager=me -f -",
            "configmap/shared serverside-applied",
        );
        s.prints_with(
            yours,
            "apply --server-side --field-manager=you -f -",
            "configmap/shared serverside-applied",
        );
        s.out_with(
            &mine.replace(", also: '2'", ""),
            "apply --server-side --field-manager=me -f -",
        );
        assert_eq!(s.at("cm/shared", ".data"), r#"{"mine":"1","yours":"3"}"#);
        let dry = "configmap/shared serverside-applied (server dry run)";
        s.prints_with(
            &mine.replace("'1'", "'9'"),
            "apply --server-side --field-manager=me --dry-run=server -f -",
            dry,
        );
        assert_eq!(s.at("cm/shared", ".data.mine"), "1");
    });
}

/// What was applied by the client goes on to be applied by the server, and fields that leave the manifest leave the
/// object.
#[test]
#[ignore = "needs the kubectl binaries"]
fn from_the_client_to_the_server() {
    each(|s| {
        s.prints_with(DEPLOYMENT, "apply -f -", "deployment.apps/web created");
        let one = DEPLOYMENT.replace("      - {name: side, image: 'registry.example/side:1'}\n", "");
        s.prints_with(
            &one,
            "apply --server-side -f -",
            "deployment.apps/web serverside-applied",
        );
        assert_eq!(s.at("deployment/web", ".spec.template.spec.containers[*].name"), "main");
        // The client's ownership became the server's, and the old annotation is kept in a name of its own.
        assert_eq!(managers(s), ["kubectl", "kubectl-last-applied"]);
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn diff() {
    each(|s| {
        s.prints_with(&settings("red"), "apply -f -", "configmap/settings created");
        for flags in ["", "--server-side"] {
            let same = s.run(&format!("diff {flags} -f -"), &settings("red"));
            if flags.is_empty() {
                assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""), "{same:?}");
            }
            let other = s.run(
                &format!("diff {flags} --force-conflicts={} -f -", !flags.is_empty()),
                &settings("blue"),
            );
            assert_eq!(other.code, Some(1), "{other:?}");
            assert!(
                other.stdout.contains("\n-  colour: red\n+  colour: blue\n"),
                "{other:?}"
            );
        }
        let new = s.run("diff -f -", &settings("red").replace("name: settings", "name: new"));
        assert!(new.code == Some(1) && new.stdout.contains("+  name: new"), "{new:?}");
        s.fails(
            "get cm new",
            r#"Error from server (NotFound): configmaps "new" not found"#,
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn prune() {
    each(|s| {
        let (red, other) = (
            settings("red"),
            settings("red").replace("name: settings", "name: other"),
        );
        let both = format!("{red}---\n{other}");
        s.prints_with(
            &both,
            "apply -f - --prune -l set=x --prune-allowlist=core/v1/ConfigMap",
            "configmap/settings created\nconfigmap/other created",
        );
        s.prints_with(
            &red,
            "apply -f - --prune -l set=x --prune-allowlist=core/v1/ConfigMap",
            "configmap/settings unchanged\nconfigmap/other pruned",
        );
        s.prints("get configmap -l set=x -o name", "configmap/settings");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn replace_and_delete() {
    each(|s| {
        s.prints_with(&settings("red"), "create -f -", "configmap/settings created");
        s.fails_with(
            &settings("red"),
            "create -f -",
            r#"Error from server (AlreadyExists): error when creating "STDIN": configmaps "settings" already exists"#,
        );
        s.prints_with(&settings("blue"), "replace -f -", "configmap/settings replaced");
        assert_eq!(s.at("cm/settings", ".data.colour"), "blue");
        let uid = s.at("cm/settings", ".metadata.uid");
        let (gone, there) = (
            format!("configmap \"settings\" {}", deleted(s)),
            "configmap/settings replaced",
        );
        s.prints_with(&settings("red"), "replace --force -f -", &format!("{gone}\n{there}"));
        assert_ne!(s.at("cm/settings", ".metadata.uid"), uid, "a new object");
        s.prints(
            "delete cm settings --dry-run=server",
            &format!("{gone} (server dry run)"),
        );
        s.prints("delete cm -l set=x", &gone);
        s.fails(
            "delete cm settings",
            r#"Error from server (NotFound): configmaps "settings" not found"#,
        );
        s.prints("delete cm settings --ignore-not-found", "");
        s.prints("create cm a", "configmap/a created");
        s.prints("create cm b", "configmap/b created");
        let all = s.out("delete cm --all");
        for name in ["a", "b"] {
            let line = format!("configmap \"{name}\" {}", deleted(s));
            assert!(all.lines().any(|l| l == line), "{all}");
        }
        s.prints("run p --image=x", "pod/p created");
        let ran = s.run("delete pod p --grace-period=0 --force", "");
        let words = if s.minor >= 34 {
            format!("pod \"p\" force {}", deleted(s))
        } else {
            "pod \"p\" force deleted".to_owned()
        };
        assert_eq!(ran.stdout.trim_end(), words);
        assert!(
            ran.stderr.starts_with("Warning: Immediate deletion does not wait"),
            "{ran:?}"
        );
    });
}

/// An editor that replaces one word.
fn editor(from: &str, to: &str) -> tempfile::TempPath {
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "#!/bin/sh\nexec sed -i 's/{from}/{to}/' \"$1\"").expect("the editor");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
    file.into_temp_path()
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn edit() {
    each(|s| {
        s.prints_with(&settings("red"), "apply -f -", "configmap/settings created");
        let edit = |arguments: &[&str], from: &str, to: &str| {
            let editor = editor(from, to);
            let mut all = vec!["-n", s.namespace.as_str()];
            all.extend_from_slice(arguments);
            let output = s
                .kubectl
                .command(&all)
                .env("KUBE_EDITOR", &editor)
                .output()
                .expect("kubectl runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
        };
        assert_eq!(
            edit(&["edit", "cm", "settings"], "colour: red", "colour: green"),
            "configmap/settings edited"
        );
        assert_eq!(s.at("cm/settings", ".data.colour"), "green");
        assert_eq!(edit(&["edit", "cm", "settings"], "nothing", "like-this"), "");
        assert_eq!(
            edit(
                &["apply", "edit-last-applied", "cm/settings"],
                "colour: red",
                "colour: grey"
            ),
            "configmap/settings edited"
        );
        let last = s.out("apply view-last-applied cm/settings");
        assert!(last.contains("colour: grey"), "{last}");
    });
}
