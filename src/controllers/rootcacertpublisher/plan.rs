//! What a namespace lacks of the cluster's certificate. Pure.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use std::collections::BTreeMap;

pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIBED: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    Create(ConfigMap),
    Update(ConfigMap),
}

pub fn step(existing: Option<&ConfigMap>, certificate: &str) -> Step {
    let data = BTreeMap::from([(KEY.to_owned(), certificate.to_owned())]);
    let mut map = existing.cloned().unwrap_or_default();
    let described = map.annotations().get(DESCRIBED).is_some_and(|text| !text.is_empty());
    if existing.is_some() && described && map.data.as_ref() == Some(&data) {
        return Step::Nothing;
    }
    map.data = Some(data);
    map.annotations_mut()
        .insert(DESCRIBED.to_owned(), DESCRIPTION.to_owned());
    if existing.is_some() {
        return Step::Update(map);
    }
    map.metadata.name = Some(NAME.to_owned());
    Step::Create(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_and_put_right() {
        let Step::Create(made) = step(None, "CA") else {
            panic!("not created")
        };
        assert_eq!(made.name_any(), NAME);
        assert_eq!(step(Some(&made), "CA"), Step::Nothing);
        for spoil in [
            |map: &mut ConfigMap| map.data = None,
            |map: &mut ConfigMap| map.annotations_mut().clear(),
            |map: &mut ConfigMap| {
                map.data.as_mut().unwrap().insert("more".into(), "x".into());
            },
        ] {
            let mut spoilt = made.clone();
            spoilt.metadata.resource_version = Some("7".into());
            spoil(&mut spoilt);
            let Step::Update(mended) = step(Some(&spoilt), "CA") else {
                panic!("not mended")
            };
            assert_eq!(
                (mended.data.as_ref(), mended.annotations()),
                (made.data.as_ref(), made.annotations())
            );
            assert_eq!(mended.metadata.resource_version.as_deref(), Some("7"));
        }
        assert!(matches!(step(Some(&made), "another"), Step::Update(_)));
    }
}
