//! Versions of the database's schema. A migration that was released is never changed: add another.

use super::StorageError;
use super::entities::{change, meta, object};
use sea_orm::{DatabaseConnection, DbErr, Schema};
use sea_orm_migration::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager};
use std::collections::HashSet;

pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Log)]
    }
}

/// Brings the schema up to date; refuses one that a newer program made.
pub(super) async fn migrate(connection: &DatabaseConnection) -> Result<(), StorageError> {
    let failed = |error| StorageError::database("reading the database's schema", error);
    let known: HashSet<String> = (Migrator::migrations().iter().map(|m| m.name().to_owned())).collect();
    let applied = Migrator::get_migration_models(connection).await.map_err(failed)?;
    if let Some(unknown) = applied.iter().find(|model| !known.contains(&model.version)) {
        return Err(StorageError::NewerSchema {
            migration: unknown.version.clone(),
        });
    }
    if applied.len() == known.len() {
        return Ok(());
    }
    Migrator::up(connection, None)
        .await
        .map_err(|error| StorageError::database("migrating the database", error))
}

/// The first schema: the log, the current objects, the floor.
struct Log;

impl MigrationName for Log {
    fn name(&self) -> &str {
        "m0001_log"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Log {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema::new(manager.get_database_backend());
        manager
            .create_table(schema.create_table_from_entity(change::Entity))
            .await?;
        manager
            .create_table(schema.create_table_from_entity(object::Entity))
            .await?;
        manager
            .create_table(schema.create_table_from_entity(meta::Entity))
            .await
    }

    // On SQLite too: a server that is killed here must find nothing half made.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
