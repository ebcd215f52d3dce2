//! Signing requests are approved where the requester may have what it asks for, signed by the cluster's authority for
//! Kubernetes' own signers, and go when they are old (upstream: `pkg/controller/certificates`: csrapproving, csrsigning
//! and csrcleaner).

mod plan;

use super::Context;
use crate::client::informer::Informer;
use crate::client::work_queue::{Next, WorkQueue};
use crate::transport::pki::{Pki, PkiError, sign};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use plan::{Question, Step};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "certificate-controller";
const GROUP: &str = "certificates.k8s.io";
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{operation} signing request {name}: {source}")]
    Api {
        operation: &'static str,
        name: String,
        source: kube::Error,
    },
    #[error("signing request {name}: {source}")]
    Sign { name: String, source: PkiError },
}

/// Runs until shutdown.
pub async fn run(ctx: &Context) {
    let requests = ctx.informers.of::<CertificateSigningRequest>();
    let queue: WorkQueue<String> = WorkQueue::new("certificates");
    let own = queue.clone();
    requests.on_change(move |change| {
        if let Some(request) = &change.new {
            own.add(request.name_any());
        }
    });
    let office = Office {
        client: ctx.client(NAME),
        requests,
        pki: ctx.pki.clone(),
    };
    let office = &office;
    queue.run(WORKERS, &ctx.shutdown, |name| office.look(name)).await;
}

struct Office {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
    pki: Arc<Pki>,
}

impl Office {
    async fn look(&self, name: String) -> Result<Next, Error> {
        let Some(request) = self.requests.get("", &name) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        let asked = sign::read(&request.spec.request.0);
        let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
        let expiry = certificate.and_then(|bytes| sign::expiry(&bytes.0));
        let expiry = expiry.and_then(|seconds| Timestamp::from_second(seconds).ok());
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let done = match plan::step(&request, &asked, expiry, now) {
            Step::Wait(None) => return Ok(Next::Done),
            Step::Wait(Some(until)) => return Ok(after(until, now)),
            Step::Ask(questions) => {
                let answer = self.ask(&request, &questions).await;
                let answer = answer.map_err(|source| failed("reviewing", &name, source))?;
                let Some(message) = answer else {
                    // Somebody else may approve it, or the right may be given later.
                    return Ok(Next::Retry);
                };
                let approved = with(&request, condition("Approved", "AutoApproved", message, None));
                api.replace_subresource("approval", &name, &PostParams::default(), &approved)
                    .await
                    .map(drop)
            }
            Step::Sign(lifetime) => {
                let signed = self.sign(&request, lifetime).await;
                let certificate = signed.map_err(|source| Error::Sign {
                    name: name.clone(),
                    source,
                })?;
                let mut issued = CertificateSigningRequest::clone(&request);
                issued.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
                api.replace_status(&name, &PostParams::default(), &issued)
                    .await
                    .map(drop)
            }
            Step::Fail(why) => {
                let refused = with(
                    &request,
                    condition("Failed", "SignerValidationFailure", &why, Some(now)),
                );
                api.replace_status(&name, &PostParams::default(), &refused)
                    .await
                    .map(drop)
            }
            Step::Delete => {
                let only_this = Preconditions {
                    uid: request.metadata.uid.clone(),
                    resource_version: request.metadata.resource_version.clone(),
                };
                let parameters = DeleteParams::default().preconditions(only_this);
                api.delete(&name, &parameters).await.map(drop)
            }
        };
        match done {
            Ok(()) => Ok(Next::Done),
            // Its next version is on its way, and comes here.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Next::Done),
            Err(source) => Err(failed("deciding", &name, source)),
        }
    }

    /// The message of the first question that is answered with yes.
    async fn ask(
        &self,
        request: &CertificateSigningRequest,
        questions: &[Question],
    ) -> kube::Result<Option<&'static str>> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        for question in questions {
            let spec = &request.spec;
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: spec.username.clone(),
                    uid: spec.uid.clone(),
                    groups: spec.groups.clone(),
                    extra: spec.extra.clone(),
                    resource_attributes: Some(ResourceAttributes {
                        group: Some(GROUP.to_owned()),
                        resource: Some("certificatesigningrequests".to_owned()),
                        subresource: Some(question.subresource.to_owned()),
                        verb: Some("create".to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            let answer = reviews.create(&PostParams::default(), &review).await?;
            if answer.status.is_some_and(|status| status.allowed) {
                return Ok(Some(question.message));
            }
        }
        Ok(None)
    }

    async fn sign(&self, request: &CertificateSigningRequest, lifetime: Duration) -> Result<String, PkiError> {
        let (pki, der) = (self.pki.clone(), request.spec.request.0.clone());
        let usages = request.spec.usages.clone().unwrap_or_default();
        // An RSA key takes milliseconds.
        let signed = tokio::task::spawn_blocking(move || pki.sign(&der, &usages, lifetime));
        signed.await.unwrap_or_else(|error| {
            Err(PkiError::Request {
                reason: error.to_string(),
            })
        })
    }
}

fn after(until: Timestamp, now: Timestamp) -> Next {
    Next::After(until.duration_since(now).unsigned_abs() + Duration::from_millis(5))
}

fn failed(operation: &'static str, name: &str, source: kube::Error) -> Error {
    Error::Api {
        operation,
        name: name.to_owned(),
        source,
    }
}

fn condition(kind: &str, reason: &str, message: &str, at: Option<Timestamp>) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: at.map(Time),
        last_transition_time: None,
    }
}

fn with(
    request: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> CertificateSigningRequest {
    let mut request = request.clone();
    let conditions = &mut request.status.get_or_insert_default().conditions;
    conditions.get_or_insert_default().push(condition);
    request
}
