//! Options of create, update and patch (upstream: `CreateOptions`, `UpdateOptions`, `PatchOptions`).

use super::{Query, check, dry_run};
use crate::apiserver::error::ApiError;
use crate::registry::field::FieldError;

const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Only of apply patches.
    pub force: Option<bool>,
}

impl WriteOptions {
    pub fn create(query: &Query) -> Result<Self, ApiError> {
        let (options, errors) = Self::parse(query);
        check("CreateOptions", errors).map(|()| options)
    }

    pub fn update(query: &Query) -> Result<Self, ApiError> {
        let (options, errors) = Self::parse(query);
        check("UpdateOptions", errors).map(|()| options)
    }

    /// `apply`: the patch is an apply patch, which needs a field manager and may use force.
    pub fn patch(query: &Query, apply: bool) -> Result<Self, ApiError> {
        let (mut options, mut errors) = Self::parse(query);
        options.force = query.optional_flag("force");
        if apply && options.field_manager.is_empty() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        if !apply && options.force.is_some() {
            errors.push(FieldError::forbidden(
                "force",
                "may not be specified for non-apply patch",
            ));
        }
        check("PatchOptions", errors).map(|()| options)
    }

    fn parse(query: &Query) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let dry_run_values: Vec<String> = query
            .all("dryRun")
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .collect();
        let dry_run = dry_run(&dry_run_values, &mut errors);
        let field_manager = query.get("fieldManager").unwrap_or_default().to_owned();
        if field_manager.len() > FIELD_MANAGER_BYTES_MAX {
            errors.push(FieldError::too_long("fieldManager", FIELD_MANAGER_BYTES_MAX));
        }
        for (at, character) in field_manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
            errors.push(FieldError::invalid("fieldManager", field_manager.as_str(), &why));
        }
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, &supported));
                FieldValidation::Warn
            }
        };
        (
            Self {
                dry_run,
                field_manager,
                field_validation,
                force: None,
            },
            errors,
        )
    }
}

/// Go's `unicode.IsPrint`, as far as it matters: of spaces only the ordinary one is printed.
fn is_printable(character: char) -> bool {
    character == ' ' || !(character.is_control() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let good = WriteOptions::create(&Query::parse("dryRun=All&fieldValidation=Strict&fieldManager=me")).unwrap();
        assert!(good.dry_run);
        assert_eq!(good.field_validation, FieldValidation::Strict);
        let long = format!("fieldManager={}", "x".repeat(129));
        for bad in ["dryRun=Some", "fieldValidation=Maybe", "fieldManager=a%0Ab", &long] {
            assert_eq!(
                WriteOptions::update(&Query::parse(bad)).unwrap_err().code(),
                422,
                "{bad}"
            );
        }
        assert_eq!(
            WriteOptions::patch(&Query::parse("force=true"), false)
                .unwrap_err()
                .code(),
            422
        );
        assert_eq!(WriteOptions::patch(&Query::parse(""), true).unwrap_err().code(), 422);
    }
}
