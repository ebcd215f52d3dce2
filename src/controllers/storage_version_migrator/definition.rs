//! What the definition of a custom resource says of a migration of its objects (upstream: `migrationrunner.go`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::GroupResource;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource};
use serde_json::{Value, json};

const CONDITION: &str = "StorageMigrating";

/// Notes that the migration `name` runs.
pub async fn begin(client: &Client, resource: &GroupResource, name: &str) -> kube::Result<()> {
    change(client, resource, |definition| {
        let message = format!("Migration {name} is running");
        let generation = generation(definition);
        json!({"conditions": with(definition, "True", "MigrationRunning", &message, generation)})
    })
    .await
}

/// Notes the end. If the definition is still the one of the beginning, all objects are stored in its version now.
pub async fn finish(client: &Client, resource: &GroupResource, succeeded: bool) -> kube::Result<()> {
    change(client, resource, |definition| ended(definition, succeeded)).await
}

fn ended(definition: &Value, succeeded: bool) -> Value {
    let conditions = definition["status"]["conditions"].as_array();
    let noted = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == CONDITION);
    let generation = generation(definition);
    let same = noted.is_some_and(|condition| condition["observedGeneration"] == generation);
    let (reason, message) = match (succeeded, same) {
        (false, _) => ("MigrationFailed", "The migration has failed"),
        (true, true) => (
            "MigrationSucceeded",
            "The migration has succeeded and the stored versions have been updated",
        ),
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
        ),
    };
    let mut status = json!({"conditions": with(definition, "False", reason, message, generation)});
    let versions = definition["spec"]["versions"].as_array();
    let stored = versions
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true);
    if succeeded
        && same
        && let Some(stored) = stored
    {
        status["storedVersions"] = json!([stored["name"]]);
    }
    status
}

fn generation(definition: &Value) -> Value {
    definition["metadata"]["generation"].clone()
}

/// All conditions of the definition, with ours as it is now.
fn with(definition: &Value, status: &str, reason: &str, message: &str, generation: Value) -> Vec<Value> {
    let known = definition["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut conditions: Vec<Value> = known
        .into_iter()
        .filter(|condition| condition["type"] != CONDITION)
        .collect();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    conditions.push(json!({
        "type": CONDITION, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now, "observedGeneration": generation,
    }));
    conditions
}

/// Changes the status of the definition of a resource, if it has one.
async fn change(client: &Client, resource: &GroupResource, status: impl Fn(&Value) -> Value) -> kube::Result<()> {
    if resource.group.is_empty() {
        return Ok(());
    }
    let kind = ApiResource {
        group: CustomResourceDefinition::group(&()).into_owned(),
        version: CustomResourceDefinition::version(&()).into_owned(),
        api_version: CustomResourceDefinition::api_version(&()).into_owned(),
        kind: CustomResourceDefinition::kind(&()).into_owned(),
        plural: CustomResourceDefinition::plural(&()).into_owned(),
    };
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let name = format!("{}.{}", resource.resource, resource.group);
    loop {
        let Some(definition) = definitions.get_opt(&name).await? else {
            return Ok(());
        };
        let definition = json!(definition);
        let patch = json!({
            "metadata": {"resourceVersion": definition["metadata"]["resourceVersion"]},
            "status": status(&definition),
        });
        let written = definitions
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match written {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            result => return result.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_versions_are_those_of_the_definition_that_was_migrated() {
        let definition = |noted: i64| {
            json!({
                "metadata": {"generation": 3},
                "spec": {"versions": [{"name": "v1", "storage": false}, {"name": "v2", "storage": true}]},
                "status": {
                    "storedVersions": ["v1", "v2"],
                    "conditions": [
                        {"type": "Established", "status": "True"},
                        {"type": "StorageMigrating", "status": "True", "observedGeneration": noted},
                    ],
                },
            })
        };
        let ended = |noted, succeeded| ended(&definition(noted), succeeded);
        assert_eq!(ended(3, true)["storedVersions"], json!(["v2"]));
        assert_eq!(ended(3, true)["conditions"][1]["reason"], "MigrationSucceeded");
        assert_eq!(ended(3, true)["conditions"].as_array().unwrap().len(), 2);
        assert!(ended(2, true)["storedVersions"].is_null());
        assert!(ended(3, false)["storedVersions"].is_null());
        assert_eq!(ended(3, false)["conditions"][1]["message"], "The migration has failed");
    }
}
