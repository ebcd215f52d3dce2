//! The log: one row per revision, and the only table that holds values (upstream: etcd's key-value revisions).

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "changes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    #[sea_orm(column_type = "Text")]
    pub resource: String,
    #[sea_orm(column_type = "Text")]
    pub namespace: String,
    #[sea_orm(column_type = "Text")]
    pub name: String,
    pub kind: Kind,
    /// Revision of the version that this one replaces; 0 for a creation.
    pub prev_revision: i64,
    /// The object as JSON, its resourceVersion included.
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum Kind {
    #[sea_orm(num_value = 0)]
    Create,
    #[sea_orm(num_value = 1)]
    Put,
    #[sea_orm(num_value = 2)]
    Delete,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
