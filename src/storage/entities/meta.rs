//! Numbers that the store remembers of itself: so far the compaction floor.

use sea_orm::entity::prelude::*;

/// Name of the row that holds the compaction floor.
pub const FLOOR: &str = "floor";

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "meta")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub name: String,
    pub value: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
