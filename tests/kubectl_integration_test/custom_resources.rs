//! Custom resources with the real kubectl: from the definition to its end, and over `kill -9`.

use crate::support::krust::Krust;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    selectableFields: [{jsonPath: .spec.image}]
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: "When it runs, as cron says it.", pattern: '^(\S+ ){4}\S+$'}
              image: {type: string, default: busybox}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
          status:
            type: object
            properties: {replicas: {type: integer}}
"#;

const CRON_TAB: &str = "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {name: nightly}\n\
                        spec: {cronSpec: '0 3 * * *', replicas: 2}\n";

#[test]
#[ignore = "needs kubectl"]
fn from_the_definition_to_its_end() {
    let mut krust = Krust::start(&["--runtime", "none"]);
    let kubectl = krust.kubectl("1.32");
    kubectl.ok_with(&["create", "-f", "-"], DEFINITION);
    kubectl.ok(&[
        "wait",
        "crd/crontabs.stable.example.com",
        "--for=condition=Established",
        "--timeout=5s",
    ]);
    kubectl.ok_with(&["create", "-f", "-"], CRON_TAB);
    let table = kubectl.ok(&["get", "ct"]);
    assert!(
        table.starts_with("NAME      SPEC        REPLICAS\nnightly   0 3 * * *   2"),
        "{table}"
    );
    assert!(
        kubectl
            .ok(&["get", "all"])
            .contains("crontab.stable.example.com/nightly")
    );
    let explained = kubectl.ok(&["explain", "crontab.spec.cronSpec"]);
    assert!(explained.contains("When it runs, as cron says it."), "{explained}");
    assert!(kubectl.ok(&["explain", "ct.metadata"]).contains("creationTimestamp"));
    let refused = kubectl.fails_with(&["create", "-f", "-"], &CRON_TAB.replace("cronSpec", "cronSpecc"));
    assert!(refused.contains("unknown field \"spec.cronSpecc\""), "{refused}");
    let refused = kubectl.fails_with(
        &["create", "-f", "-"],
        &CRON_TAB.replace("nightly", "b").replace("replicas: 2", "replicas: 20"),
    );
    assert!(
        refused.contains("spec.replicas: Invalid value: 20: spec.replicas in body should be less than or equal to 10"),
        "{refused}"
    );
    kubectl.ok(&[
        "patch",
        "ct",
        "nightly",
        "--type=merge",
        "-p",
        r#"{"spec":{"image":"alpine"}}"#,
    ]);
    kubectl.ok_with(&["apply", "-f", "-"], &CRON_TAB.replace("0 3", "30 4"));
    kubectl.ok_with(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &CRON_TAB.replace("0 3", "45 5"),
    );
    assert_eq!(
        kubectl.ok(&["get", "ct", "nightly", "-o", "jsonpath={.spec.cronSpec} {.spec.image}"]),
        "45 5 * * * alpine"
    );
    kubectl.ok(&["scale", "ct", "nightly", "--replicas=5"]);
    assert_eq!(
        kubectl.ok(&["get", "ct", "nightly", "-o", "jsonpath={.spec.replicas}"]),
        "5"
    );
    let edit = kubectl
        .command(&["edit", "ct", "nightly"])
        .env("KUBE_EDITOR", "sed -i s/replicas:.5/replicas:\\ 6/")
        .output();
    assert!(edit.expect("kubectl edit").status.success());
    assert_eq!(
        kubectl.ok(&["get", "ct", "nightly", "-o", "jsonpath={.spec.replicas}"]),
        "6"
    );
    assert_eq!(
        kubectl.ok(&["get", "ct", "--field-selector=spec.image=alpine", "-o", "name"]),
        "crontab.stable.example.com/nightly\n"
    );
    // Everything is as it was after the server is gone without a word.
    krust.kill();
    krust.start_again();
    assert_eq!(
        kubectl.ok(&["get", "ct", "nightly", "-o", "jsonpath={.spec.replicas}"]),
        "6"
    );
    assert_eq!(
        kubectl.ok(&["get", "ct", "--field-selector=spec.image=alpine", "-o", "name"]),
        "crontab.stable.example.com/nightly\n"
    );
    assert_eq!(
        kubectl.ok(&["get", "ct", "--field-selector=spec.image=busybox", "-o", "name"]),
        ""
    );
    kubectl.ok(&["delete", "crd", "crontabs.stable.example.com", "--timeout=10s"]);
    // kubectl still knows the resource; the server does not.
    let gone = kubectl.fails_with(&["get", "ct"], "");
    assert!(
        gone.contains("the server could not find the requested resource"),
        "{gone}"
    );
    assert_eq!(krust.stop(), Some(0), "SIGTERM ends krust well");
}
