//! Fills Secrets of type `kubernetes.io/service-account-token`, and removes those whose account is gone
//! (upstream: `pkg/controller/serviceaccount/tokens_controller.go`).

mod plan;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use plan::Step;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Signs a token: for namespace, account, the account's uid, and the Secret that keeps it.
pub type Issue = Box<dyn Fn(&str, &str, &str, &str) -> Option<String> + Send + Sync>;

/// What tokens in Secrets are made with.
pub struct Tokens {
    pub issue: Issue,
    /// The certificate of the cluster's authority.
    pub authority: String,
}

struct Context {
    client: Client,
    tokens: Tokens,
}

#[derive(Debug, thiserror::Error)]
#[error("Secret {namespace}/{name}: {source}")]
struct Error {
    namespace: String,
    name: String,
    source: kube::Error,
}

/// Runs until `shutdown`.
pub async fn run(client: Client, tokens: Tokens, shutdown: CancellationToken) {
    let of_tokens = watcher::Config::default().fields(&format!("type={}", plan::TYPE));
    let controller = Controller::new(Api::<Secret>::all(client.clone()), of_tokens);
    let (secrets, known) = (controller.store(), controller.store());
    let accounts = Api::<ServiceAccount>::all(client.clone());
    let work = controller
        .watches(accounts, watcher::Config::default(), move |account| {
            of(&secrets, &account)
        })
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, retry, Arc::new(Context { client, tokens }))
        .for_each(|_| std::future::ready(()));
    super::until_stopped(work, known, shutdown).await;
}

/// The Secrets of an account.
fn of(secrets: &Store<Secret>, account: &ServiceAccount) -> Vec<ObjectRef<Secret>> {
    let (namespace, name) = (account.namespace(), account.name_any());
    let secrets = secrets.state().into_iter();
    secrets
        .filter(|secret| secret.namespace() == namespace && secret.annotations().get(plan::NAME) == Some(&name))
        .map(|secret| ObjectRef::from_obj(&*secret))
        .collect()
}

fn retry(_secret: Arc<Secret>, error: &Error, _context: Arc<Context>) -> Action {
    tracing::warn!(%error, "a token could not be put in place and is retried");
    Action::requeue(Duration::from_secs(1))
}

async fn reconcile(secret: Arc<Secret>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let failed = |source| Error {
        namespace: namespace.clone(),
        name: name.clone(),
        source,
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(context.client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let account_name = secret.annotations().get(plan::NAME).cloned().unwrap_or_default();
    let account = match account_name.as_str() {
        "" => None,
        name => accounts.get_opt(name).await.map_err(failed)?,
    };
    let issue = |uid: &str| (context.tokens.issue)(&namespace, &account_name, uid, &name);
    let done = match plan::next_step(&secret, account.as_ref(), &context.tokens.authority, issue) {
        Step::Nothing => Ok(()),
        Step::Delete => {
            let this = Preconditions {
                uid: secret.metadata.uid.clone(),
                resource_version: secret.metadata.resource_version.clone(),
            };
            let params = DeleteParams {
                preconditions: Some(this),
                ..DeleteParams::default()
            };
            secrets.delete(&name, &params).await.map(|_| ())
        }
        Step::Update(filled) => {
            let replaced = secrets.replace(&name, &PostParams::default(), &filled).await;
            replaced.map(|_| ())
        }
    };
    match done {
        Ok(()) => Ok(Action::await_change()),
        // Changed or gone meanwhile: its next version is on its way.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Action::await_change()),
        Err(source) => Err(failed(source)),
    }
}
