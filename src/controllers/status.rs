//! Statuses that must be written although others write the object meanwhile (upstream: the retries of
//! `updateDaemonSetStatus` and `UpdateStatefulSetStatus`).

use crate::client::informer::Watched;
use kube::api::{Api, PostParams};
use serde::Serialize;

const ATTEMPTS_MAX: usize = 5;

/// Writes the status that `put` gives to `object`; after a conflict it is given to the object as it is by then. Nothing is
/// done about one that is gone, or is another by now; and who loses every time is woken by the others' changes.
pub async fn write<K: Watched + Serialize>(api: &Api<K>, object: &K, put: impl Fn(&mut K)) -> kube::Result<()> {
    let name = object.meta().name.clone().unwrap_or_default();
    let mut object = object.clone();
    for _ in 0..ATTEMPTS_MAX {
        put(&mut object);
        match api.replace_status(&name, &PostParams::default(), &object).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let fresh = api.get_opt(&name).await?;
                match fresh.filter(|fresh| fresh.meta().uid == object.meta().uid) {
                    Some(fresh) => object = fresh,
                    None => return Ok(()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
