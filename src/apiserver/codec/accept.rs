//! Content negotiation of answers (upstream: `negotiation/negotiate.go`).

use crate::apiserver::error::ApiError;

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// What is made of the objects before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    /// The version of `meta.k8s.io`: `v1` or `v1beta1`.
    Table(&'static str),
    PartialObject(&'static str),
    PartialList(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub format: Format,
    pub transform: Transform,
    /// `pretty` stood in the media type.
    pub pretty: bool,
}

impl Negotiated {
    pub const JSON: Self = Self {
        format: Format::Json,
        transform: Transform::None,
        pretty: false,
    };
}

/// What an endpoint answers with, which decides the transforms it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    List,
    Watch,
    /// Neither: discovery, version, statuses of connections.
    Plain,
}

const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// Picks the first clause of `Accept` that can be served, by quality and then by order.
pub fn negotiate(accept: Option<&str>, shape: Shape) -> Result<Negotiated, ApiError> {
    let accept = accept.unwrap_or("").trim();
    if accept.is_empty() || accept == "application/json" || accept == "*/*" {
        return Ok(Negotiated::JSON);
    }
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(Clause::parse).collect();
    // Stable: equal qualities keep their order.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let chosen = clauses
        .iter()
        .filter(|clause| clause.quality > 0.0)
        .find_map(|clause| clause.serve(shape));
    chosen.ok_or_else(|| ApiError::not_acceptable(&offered(shape)))
}

fn offered(shape: Shape) -> Vec<&'static str> {
    let mut offered = MEDIA_TYPES.to_vec();
    if shape == Shape::Watch {
        offered.truncate(1);
    }
    offered
}

/// One clause of an Accept header.
struct Clause<'a> {
    media_type: &'a str,
    quality: f32,
    kind: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    pretty: bool,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|m| !m.is_empty())?;
        let mut clause = Self {
            media_type,
            quality: 1.0,
            kind: None,
            group: None,
            version: None,
            pretty: false,
        };
        for parameter in parts {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                "as" => clause.kind = Some(value),
                "g" => clause.group = Some(value),
                "v" => clause.version = Some(value),
                "pretty" => clause.pretty = value == "1",
                _ => {}
            }
        }
        Some(clause)
    }

    fn serve(&self, shape: Shape) -> Option<Negotiated> {
        let format = match self.media_type {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "application/yaml" if shape != Shape::Watch => Format::Yaml,
            _ => return None,
        };
        let transform = self.transform(shape)?;
        Some(Negotiated {
            format,
            transform,
            pretty: self.pretty,
        })
    }

    /// None: the clause asks for a transform that is not offered here.
    fn transform(&self, shape: Shape) -> Option<Transform> {
        let Some(kind) = self.kind.filter(|kind| !kind.is_empty()) else {
            return Some(Transform::None);
        };
        let version = match (self.group, self.version) {
            (Some("meta.k8s.io"), Some("v1")) => "v1",
            (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
            _ => return None,
        };
        match (kind, shape) {
            (_, Shape::Plain) => None,
            ("Table", _) => Some(Transform::Table(version)),
            ("PartialObjectMetadata", Shape::Object | Shape::Watch) => Some(Transform::PartialObject(version)),
            ("PartialObjectMetadataList", Shape::List | Shape::Watch) => Some(Transform::PartialList(version)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(accept: &str, shape: Shape) -> Result<(Format, Transform), u16> {
        negotiate(Some(accept), shape)
            .map(|n| (n.format, n.transform))
            .map_err(|e| e.code().as_u16())
    }

    #[test]
    fn clauses_are_tried_by_quality_then_order() {
        use Format::*;
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(transform(kubectl, Shape::List), Ok((Json, Transform::Table("v1"))));
        assert_eq!(transform(kubectl, Shape::Plain), Ok((Json, Transform::None)));
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(transform(typed, Shape::Object), Ok((Json, Transform::None)));
        assert_eq!(
            transform("application/json;q=0.1,application/yaml", Shape::Object),
            Ok((Yaml, Transform::None))
        );
        assert_eq!(
            transform("text/html,*/*;q=0.8", Shape::Object),
            Ok((Json, Transform::None))
        );
        assert_eq!(
            transform("application/json;stream=watch", Shape::Watch),
            Ok((Json, Transform::None))
        );
    }

    #[test]
    fn what_cannot_be_served_is_406() {
        assert_eq!(transform("text/html", Shape::Object), Err(406));
        assert_eq!(
            transform("application/vnd.kubernetes.protobuf", Shape::Object),
            Err(406)
        );
        let one = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(transform(one, Shape::List), Err(406));
        let many = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(transform(many, Shape::Object), Err(406));
    }
}
